//! What the user sees: text on standard output, progress on standard error.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Where the text goes. A reader that goes away (`| head`) does not end the run: its checks and
/// its exit status still count.
pub struct Screen {
    quiet: bool,
    terminal: bool,
    /// When the progress line was last drawn; `None` when there is none on the screen.
    drawn: Option<Instant>,
    /// The last quarter that was reported, where there is no terminal.
    quarter: Option<usize>,
}

impl Screen {
    pub fn new(quiet: bool) -> Self {
        Self {
            quiet,
            terminal: io::stderr().is_terminal(),
            drawn: None,
            quarter: None,
        }
    }

    /// The headline of a phase.
    pub fn heading(&mut self, text: &str) {
        self.line("");
        self.line(text);
        self.line(&"=".repeat(text.chars().count()));
    }

    /// A line that `--quiet` suppresses.
    pub fn line(&mut self, text: &str) {
        if !self.quiet {
            self.always(text);
        }
    }

    /// A line.
    pub fn always(&mut self, text: &str) {
        self.clear_progress();
        let _ = writeln!(io::stdout(), "{text}");
    }

    /// Aligned columns, indented; `align` has an `l` or `r` for each.
    pub fn table(&mut self, align: &str, rows: &[Vec<String>]) {
        for line in aligned(align, rows) {
            self.line(&line);
        }
    }

    /// As [`Self::table`], also with `--quiet`.
    pub fn always_table(&mut self, align: &str, rows: &[Vec<String>]) {
        for line in aligned(align, rows) {
            self.always(&line);
        }
    }

    /// Something that takes a while begins: shown until anything else is.
    pub fn working_on(&mut self, what: &str) {
        if self.quiet {
            return;
        }
        let mut stderr = io::stderr();
        let _ = if self.terminal {
            self.drawn = Some(Instant::now());
            write!(stderr, "\r\x1b[2K  {what} ...")
        } else {
            writeln!(stderr, "  {what} ...")
        };
        let _ = stderr.flush();
    }

    /// So much of it is done. One line that changes, on a terminal; elsewhere a line per quarter.
    pub fn progress(&mut self, done: usize, of: usize, detail: impl FnOnce() -> String) {
        if self.quiet || of == 0 {
            return;
        }
        let mut stderr = io::stderr();
        if !self.terminal {
            let quarter = done * 4 / of;
            if self.quarter.is_none_or(|last| last != quarter) {
                self.quarter = Some(quarter);
                let _ = writeln!(stderr, "  {:3} %  {}", quarter * 25, detail());
            }
            return;
        }
        const REDRAW: Duration = Duration::from_millis(100);
        if done < of && self.drawn.is_some_and(|drawn| drawn.elapsed() < REDRAW) {
            return;
        }
        self.drawn = Some(Instant::now());
        let percent = done * 100 / of;
        let bar = bar(done, of, 20);
        let _ = write!(stderr, "\r\x1b[2K  {bar:<20} {percent:3} %  {}", detail());
        let _ = stderr.flush();
    }

    /// Takes the progress line off the screen.
    pub fn clear_progress(&mut self) {
        self.quarter = None;
        if self.drawn.take().is_some() {
            let _ = write!(io::stderr(), "\r\x1b[2K");
            let _ = io::stderr().flush();
        }
    }
}

fn aligned(align: &str, rows: &[Vec<String>]) -> Vec<String> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = align
        .chars()
        .enumerate()
        .map(|(n, a)| (a, width(n)))
        .collect();
    rows.iter()
        .map(|row| {
            let cells = row
                .iter()
                .zip(&widths)
                .map(|(cell, (align, width))| match align {
                    'r' => format!("{cell:>width$}"),
                    _ => format!("{cell:<width$}"),
                });
            let line = cells.collect::<Vec<_>>().join("  ");
            format!("  {}", line.trim_end())
        })
        .collect()
}

/// A horizontal bar, `width` characters long when `value` is `most`.
pub fn bar(value: usize, most: usize, width: usize) -> String {
    let eighths = value * width * 8 / most.max(1);
    let mut bar = "█".repeat(eighths / 8);
    bar.push_str(["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8]);
    bar
}

/// A number with its thousands apart.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes, for the eye.
pub fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Makes a row of a table.
#[macro_export]
macro_rules! row {
    ($($cell:expr),* $(,)?) => { vec![$($cell.to_string()),*] };
}
