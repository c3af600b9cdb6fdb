//! The closing tables, and the verdict.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use wasm_pool::Stats;

use crate::rogues::Ending;
use crate::row;
use crate::screen::{Screen, bar, grouped};
use crate::tenants::{KINDS, ROWS, Tally, Visitor, get};

pub struct Report<'a> {
    pub tally: &'a Tally,
    pub rogues: &'a [Ending],
    /// After the end: the peaks of the whole run, and what is still charged.
    pub stats: &'a Stats,
    pub drained: bool,
}

/// Characters of a full bar.
const WIDTH: usize = 24;
/// Complaints that are worth reading.
const ENOUGH: usize = 5;

impl Report<'_> {
    pub fn show(&self, screen: &mut Screen) {
        self.visits(screen);
        self.endings(screen);
        self.budgets(screen);
    }

    fn visits(&self, screen: &mut Screen) {
        screen.always(&format!("\nVisits: a lease each, for {ROWS} calls"));
        let mut rows = vec![row![
            "tenants",
            "at once",
            "waited",
            "gave up",
            "refused",
            "cut short",
            "longest wait"
        ]];
        for kind in KINDS {
            let visits = self.tally.of(kind);
            let count = |count| grouped(get(count));
            rows.push(row![
                format!("{kind:?}").to_lowercase(),
                count(&visits.at_once),
                count(&visits.waited),
                count(&visits.gave_up),
                count(&visits.refused),
                count(&visits.cut_short),
                milliseconds(&visits.longest_wait),
            ]);
        }
        screen.always_table("lrrrrrr", &rows);
        screen.always(&format!(
            "  {} tenants were served, {} answers right. The executor's longest stall: {}.",
            grouped(get(&self.tally.tenants_served)),
            grouped(get(&self.tally.right)),
            milliseconds(&self.tally.longest_stall),
        ));
        let refusal = self.tally.first_refusal.lock().expect("all is over");
        if let Some(refusal) = &*refusal {
            screen.always(&format!("  The first refusal:\n    {refusal}."));
        }
    }

    fn endings(&self, screen: &mut Screen) {
        screen.always("\nGuests that never return, and were stopped");
        let mut rows = vec![row!["how", "after", "", "its caller saw"]];
        for rogue in self.rogues {
            let verdict = if rogue.well { "well" } else { "WRONG" };
            let after = format!("{} ms", rogue.took.as_millis());
            rows.push(row![rogue.how, after, verdict, rogue.words]);
        }
        screen.always_table("lrll", &rows);
    }

    fn budgets(&self, screen: &mut Screen) {
        screen.always("\nBudgets");
        let mut rows = vec![row![
            "budget",
            "limit",
            "peak",
            "at the end",
            "",
            "peak / limit"
        ]];
        for (budget, seen) in self.stats.budgets() {
            let (limit, drawn) = match seen.limit {
                None => ("none".into(), String::new()),
                Some(limit) => {
                    let filled = bar(seen.peak as usize, limit as usize, WIDTH);
                    let percent = seen.peak * 100 / limit;
                    (grouped(limit), format!("│{filled:<WIDTH$}│ {percent:3} %"))
                }
            };
            let (peak, left) = (grouped(seen.peak), grouped(seen.charged));
            rows.push(row![budget, limit, peak, left, budget.unit(), drawn]);
        }
        screen.always_table("lrrrll", &rows);
        let Stats {
            compilations,
            loads,
            misses,
            hits,
            evictions,
            ..
        } = *self.stats;
        let [compilations, loads, misses, hits, evictions] =
            [compilations, loads, misses, hits, evictions].map(grouped);
        screen.always(&format!(
            "  {compilations} compilations, {loads} loads; {hits} leases found an idle instance, \
             {misses} set out to make one; {evictions} evictions"
        ));
    }

    /// Whether all was well; says what was not.
    pub fn verdict(&self, screen: &mut Screen) -> bool {
        let mut wrong = self.tally.complaints.lock().expect("all is over").clone();
        let mut check = |well: bool, complaint: &str| {
            if !well {
                wrong.push(complaint.into());
            }
        };
        for (budget, seen) in self.stats.budgets() {
            let (peak, limit, left) = (seen.peak, seen.limit, seen.charged);
            check(
                seen.allows(peak),
                &format!("{budget}: {peak} is more than {limit:?}"),
            );
            check(left == 0, &format!("{budget}: {left} are still charged"));
        }
        check(self.drained, "some lease did not end");
        for rogue in self.rogues {
            let Ending {
                how, words, took, ..
            } = rogue;
            check(
                rogue.well,
                &format!("a rogue, {how}, after {took:?}: {words}"),
            );
        }
        let patient = self.tally.of(Visitor::Patient);
        let left_out = get(&patient.gave_up) + get(&patient.refused);
        check(left_out == 0, "a patient tenant was not served");
        check(get(&self.tally.right) > 0, "nobody was served");

        screen.always("");
        for complaint in wrong.iter().take(ENOUGH) {
            screen.always(&format!("WRONG: {complaint}"));
        }
        screen.always(&match wrong.len() {
            0 => {
                "All is well: every answer was right, no peak exceeded its limit, the rogues were \
                  stopped, and nothing is left."
                    .into()
            }
            count => format!("{count} checks failed."),
        });
        wrong.is_empty()
    }
}

fn milliseconds(nanos: &AtomicU64) -> String {
    let time = Duration::from_nanos(get(nanos));
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}
