//! Draws what the quiet tenant saw, over time: how many of its calls were warm, and how long they took.

use std::fmt::Write;
use std::time::Duration;

use crate::tenants::{Call, Seen};

/// What one point stands for.
const BUCKET: Duration = Duration::from_millis(100);
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 150.0;
const LEFT: f64 = 70.0;
/// Of the runs, in order.
const COLOURS: [&str; 2] = ["#c0392b", "#2471a3"];

/// A value for each bucket that has calls; and its place.
fn points(seen: &Seen, value: impl Fn(&[&Call]) -> f64) -> Vec<(usize, f64)> {
    let place = |call: &Call| (call.at.as_millis() / BUCKET.as_millis()) as usize;
    let last = seen.calls.last().map_or(0, place);
    let buckets = (0..=last).map(|at| {
        let calls: Vec<_> = seen.calls.iter().filter(|call| place(call) == at).collect();
        (at, calls)
    });
    let with_calls = buckets.filter(|(_, calls)| !calls.is_empty());
    with_calls.map(|(at, calls)| (at, value(&calls))).collect()
}

/// One panel: a frame, what its ends stand for, and a line for each run.
fn panel(svg: &mut String, top: f64, title: &str, ends: [&str; 2], lines: &[Vec<(usize, f64)>]) {
    let bottom = top + HEIGHT;
    let longest = lines.iter().flatten().map(|(at, _)| *at).max();
    let step = WIDTH / longest.unwrap_or(1).max(1) as f64;
    let _ = write!(
        svg,
        r##"<text x="{LEFT}" y="{title_y}" font-weight="bold">{title}</text>
<rect x="{LEFT}" y="{top}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#999"/>
<text x="{x}" y="{high_y}" text-anchor="end">{high}</text>
<text x="{x}" y="{bottom}" text-anchor="end">{low}</text>
"##,
        title_y = top - 8.0,
        x = LEFT - 6.0,
        high_y = top + 12.0,
        high = ends[1],
        low = ends[0],
    );
    for (line, colour) in lines.iter().zip(COLOURS) {
        let mut path = String::new();
        for (at, height) in line {
            let (x, y) = (
                LEFT + *at as f64 * step,
                bottom - height.clamp(0.0, 1.0) * HEIGHT,
            );
            let _ = write!(path, "{x:.1},{y:.1} ");
        }
        let _ = writeln!(
            svg,
            r#"<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>"#
        );
    }
}

pub fn draw(seen: &[Seen]) -> String {
    let warm =
        |calls: &[&Call]| calls.iter().filter(|call| call.warm).count() as f64 / calls.len() as f64;
    // From 1 µs at the bottom to 1 s at the top.
    let slowest = |calls: &[&Call]| {
        let slowest = calls.iter().map(|call| call.took).max().unwrap_or_default();
        (slowest.as_secs_f64() * 1e6).max(1.0).log10() / 6.0
    };
    let lines = |value: &dyn Fn(&[&Call]) -> f64| -> Vec<_> {
        seen.iter().map(|one| points(one, value)).collect()
    };
    let mut svg = r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 740 460" font-family="sans-serif" font-size="12">
<rect width="740" height="460" fill="white"/>
"#
    .to_owned();
    panel(
        &mut svg,
        60.0,
        "the quiet tenant's calls that were warm",
        ["0 %", "100 %"],
        &lines(&warm),
    );
    panel(
        &mut svg,
        270.0,
        "the slowest of each tenth of a second (logarithmic)",
        ["1 µs", "1 s"],
        &lines(&slowest),
    );
    for (n, (one, colour)) in seen.iter().zip(COLOURS).enumerate() {
        let x = LEFT + n as f64 * 200.0;
        let _ = writeln!(
            svg,
            r#"<text x="{x}" y="24" fill="{colour}">{}</text>"#,
            one.name
        );
    }
    svg.push_str("</svg>\n");
    svg
}
