//! What makes the run good or bad.

use std::fmt::Display;

use wasm_pool::Stats;

use crate::functions::Value;
use crate::queries::{Context, QUERIES};
use crate::table::Airport;
use crate::workload::{Column, Outcome};

/// Complaints of one kind that are worth reading.
const ENOUGH: usize = 5;

/// Everything that was checked.
#[derive(Default)]
pub struct Checks {
    pub passed: u64,
    pub failed: u64,
    /// What went wrong, in words; not more than can be read.
    pub complaints: Vec<String>,
}

impl Checks {
    /// Notes one check; `complaint` is for when it failed.
    pub fn check(&mut self, passed: bool, complaint: impl FnOnce() -> String) {
        if passed {
            self.passed += 1;
            return;
        }
        self.failed += 1;
        if self.complaints.len() < ENOUGH {
            self.complaints.push(complaint());
        }
    }

    /// One answer of a function.
    pub fn answer(&mut self, what: &str, answer: Result<Value, impl Display>, expected: &Value) {
        match answer {
            Ok(answer) => self.check(answer.agrees_with(expected), || {
                format!("{what} is {answer}, and should be {expected}")
            }),
            Err(error) => self.check(false, || format!("{what}: {error}")),
        }
    }

    /// Every answer of a phase; rows that a budget refused have none. Also what was seen while it
    /// ran.
    pub fn outcome(&mut self, phase: &str, outcome: &Outcome, expected: &[Column]) {
        for (query, column) in outcome.columns.iter().flat_map(|c| c.iter().enumerate()) {
            for (row, answer) in column.iter().enumerate() {
                if let (Some(answer), Some(expected)) = (answer, &expected[query][row]) {
                    self.check(answer.agrees_with(expected), || {
                        let name = QUERIES[query].udf.name;
                        format!("{phase}, {name}, row {row}: {answer} instead of {expected}")
                    });
                }
            }
        }
        for error in &outcome.failed {
            self.check(false, || format!("{phase}: {error}"));
        }
        for excess in &outcome.excesses {
            self.check(false, || format!("{phase}: {excess}"));
        }
    }

    /// No budget was ever exceeded.
    pub fn peaks(&mut self, phase: &str, stats: &Stats) {
        for (budget, seen) in stats.budgets() {
            self.check(seen.allows(seen.peak), || {
                let (peak, limit) = (seen.peak, seen.limit.unwrap_or_default());
                format!("{phase}: the peak of {budget}, {peak}, exceeded its limit of {limit}")
            });
        }
    }
}

/// The columns in plain Rust.
pub fn expected_columns(context: &Context, airports: &[Airport]) -> Vec<Column> {
    let column = |query: &crate::queries::Query| {
        let expected = |airport| Some((query.expected)(context, airport));
        airports.iter().map(expected).collect()
    };
    QUERIES.iter().map(column).collect()
}
