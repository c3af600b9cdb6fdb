//! The closing tables, and the verdict.

use std::time::Duration;

use wasm_pool::{Budget, Stats};

use crate::memory::Memory;
use crate::row;
use crate::screen::{Screen, grouped, mib};
use crate::tenants::{Caller, Latencies, Uploader};
use crate::uploads::{Outcome, Uploads};

pub struct Report<'a> {
    pub uploads: &'a Uploads,
    pub caller: &'a Caller,
    pub uploader: &'a Uploader,
    /// Before the first upload, and after the last.
    pub memory: [Memory; 2],
    /// The longest compilation, ended or not.
    pub longest: Duration,
    pub stats: &'a Stats,
    pub drained: bool,
}

/// Complaints and refusals that are worth reading.
const ENOUGH: usize = 6;
/// Bytes that this process may grow by, whatever strangers upload.
const GROWTH: u64 = 8 << 20;

impl Report<'_> {
    pub fn show(&self, screen: &mut Screen) {
        self.uploads(screen);
        self.tenants(screen);
        self.host(screen);
    }

    fn uploads(&self, screen: &mut Screen) {
        const SHOWN: [Outcome; 6] = [
            Outcome::Compiled,
            Outcome::Refused,
            Outcome::Invalid,
            Outcome::TooExpensive,
            Outcome::TooSlow,
            Outcome::Other,
        ];
        screen.always("\nWhat strangers got");
        let mut rows = vec![row![
            "kind",
            "up to",
            "compiled",
            "refused",
            "invalid",
            "too expensive",
            "too slow",
            "other",
            "longest"
        ]];
        let tallies = self.uploads.tallies.lock().expect("all is over");
        for (kind, tally) in &*tallies {
            let mut cells = row![format!("{kind:?}"), grouped(tally.largest as u64)];
            cells.extend(
                SHOWN
                    .iter()
                    .map(|outcome| match tally.outcomes.get(outcome) {
                        Some(count) => count.to_string(),
                        None => String::new(),
                    }),
            );
            cells.push(time(tally.longest));
            rows.push(cells);
        }
        screen.always_table("lrrrrrrrr", &rows);
        screen.always("  In words, for example:");
        let words = tallies.values().filter_map(|tally| tally.words.as_ref());
        for words in words.take(ENOUGH) {
            screen.always(&format!("    {}", brief(words)));
        }
    }

    fn tenants(&self, screen: &mut Screen) {
        screen.always("\nWhat the others noticed");
        let mut rows = vec![row!["tenant", "times", "median", "p99", "longest", "wrong"]];
        let mut add = |who: &str, times: &Latencies, wrong: usize| {
            rows.push(row![
                who,
                grouped(times.count() as u64),
                time(times.permille(500)),
                time(times.permille(990)),
                time(times.longest()),
                wrong
            ]);
        };
        add(
            "calls all the time",
            &self.caller.calls,
            self.caller.wrong.len(),
        );
        let uploader = self.uploader;
        add(
            "uploads, to the first answer",
            &uploader.answers,
            uploader.wrong.len(),
        );
        screen.always_table("lrrrrr", &rows);
    }

    fn host(&self, screen: &mut Screen) {
        let [before, after] = self.memory;
        let compile = self.stats.budget(Budget::Compile);
        let kills = self.stats.compiler_kills;
        screen.always(&format!(
            "\nThis process: {} before, {} after, {} at most. Compilations held {} of {} at most.",
            mib(before.now),
            mib(after.now),
            mib(after.peak),
            mib(compile.peak),
            mib(compile.limit.unwrap_or(0)),
        ));
        screen.always(&format!(
            "{} compilations; ended for memory {}, for time {}, the longest after {}; {} processes crashed.",
            grouped(self.stats.compilations),
            grouped(kills.cap),
            grouped(kills.time),
            time(self.longest),
            grouped(self.stats.compiler_crashes),
        ));
    }

    /// Whether all was well; says what was not.
    pub fn verdict(&self, screen: &mut Screen) -> bool {
        let mut wrong = self.caller.wrong.clone();
        wrong.extend(self.uploader.wrong.iter().cloned());
        let mut check = |well: bool, complaint: String| {
            if !well {
                wrong.push(complaint);
            }
        };
        for (budget, seen) in self.stats.budgets() {
            let (peak, limit, left) = (seen.peak, seen.limit, seen.charged);
            check(
                seen.allows(peak),
                format!("{budget}: {peak} is more than {limit:?}"),
            );
            check(left == 0, format!("{budget}: {left} are still charged"));
        }
        let [before, after] = self.memory;
        let growth = after.now.saturating_sub(before.now);
        check(
            growth <= GROWTH,
            format!("this process has grown by {}", mib(growth)),
        );
        check(self.drained, "some lease did not end".into());
        check(self.caller.calls.count() > 0, "nobody has called".into());
        check(
            self.uploader.answers.count() > 0,
            "no good module was uploaded".into(),
        );

        screen.always("");
        for complaint in wrong.iter().take(ENOUGH) {
            screen.always(&format!("WRONG: {complaint}"));
        }
        screen.always(&match wrong.len() {
            0 => {
                "All is well: every answer was right, no budget was exceeded, and nothing is left."
                    .into()
            }
            count => format!("{count} checks failed."),
        });
        wrong.is_empty()
    }
}

fn time(time: Duration) -> String {
    let micros = time.as_micros();
    match micros {
        0..10_000 => format!("{micros} µs"),
        _ => format!("{} ms", micros / 1000),
    }
}

/// Messages may be long; a line is enough.
fn brief(words: &str) -> String {
    const LINE: usize = 140;
    match words.char_indices().nth(LINE) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words.into(),
    }
}
