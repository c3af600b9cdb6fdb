//! The table of warm calls, as Markdown whose columns are aligned: it reads well in a terminal too.

use crate::measure::Summary;
use crate::rounds::{MODES, Measured};

/// Columns padded to equal width; the first to the left, the rest to the right.
pub fn markdown(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |n: usize| {
        let cells = lines.iter().filter_map(|line| line.get(n));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (n, line) in lines.iter().enumerate() {
        for (column, (cell, &width)) in line.iter().zip(&widths).enumerate() {
            text += &if column == 0 {
                format!("| {cell:width$} |")
            } else {
                format!(" {cell:>width$} |")
            };
        }
        text.push('\n');
        if n == 0 {
            let rule = |(column, &width): (usize, &usize)| {
                let end = if column == 0 { '-' } else { ':' };
                format!("{}{end}|", "-".repeat(width + 1))
            };
            text += &format!(
                "|{}\n",
                widths.iter().enumerate().map(rule).collect::<String>()
            );
        }
    }
    text
}

/// One line a row: for each mode the nanoseconds, the ratio to the first row, and the noise.
pub fn of(measured: &Measured) -> String {
    let mut head = vec!["acquire + call + release".to_owned()];
    for mode in MODES {
        head.extend([format!("{}: ns", mode.name), "× bare".into(), "IQR".into()]);
    }
    let (_, bare) = &measured.rows[0];
    let line = |(name, modes): &(&str, [Option<Summary>; MODES.len()])| {
        let mut line = vec![(*name).to_owned()];
        for (summary, bare) in modes.iter().zip(bare) {
            line.extend(match (summary, bare) {
                (Some(summary), Some(bare)) => cells(*summary, *bare),
                _ => ["—".into(), "—".into(), "".into()],
            });
        }
        line
    };
    let lines: Vec<_> = std::iter::once(head)
        .chain(measured.rows.iter().map(line))
        .collect();
    markdown(&lines)
}

fn cells(summary: Summary, bare: Summary) -> [String; 3] {
    let ratio = summary.median / bare.median;
    [
        number(summary.median),
        number(ratio),
        format!("{:.0} %", summary.noise()),
    ]
}

/// With about three digits.
fn number(value: f64) -> String {
    let digits = match value {
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$}")
}
