//! The phases: roomy budgets, tight ones, one that cannot be met.

use wasm_pool::{Artifacts, Budget, Group, Stats};

use crate::args::Args;
use crate::checks::{Checks, expected_columns};
use crate::engine::{Engine, is_refusal};
use crate::queries::{Context, QUERIES, column, known_answers};
use crate::results::Results;
use crate::row;
use crate::screen::{Screen, grouped, mib};
use crate::table::Airport;
use crate::workload::{Column, Outcome, Workload};

/// All that the phases share.
pub struct Run<'a> {
    pub args: &'a Args,
    pub groups: &'a [Group],
    /// The whole table.
    pub airports: &'a [Airport],
    /// Where compiled code is kept, if it is.
    pub artifacts: Option<&'a Artifacts>,
    pub workload: Workload<'a>,
    pub context: &'a Context,
    /// The rows that the queries read.
    pub rows: &'a [Airport],
}

/// What is compared between phases.
struct Summary {
    outcome: Outcome,
    stats: Stats,
}

impl Run<'_> {
    /// All phases; closing stats of the roomy and of the tight engine.
    pub fn all(
        &self,
        roomy: &Engine,
        tight: &Engine,
        screen: &mut Screen,
        checks: &mut Checks,
    ) -> Result<[(&'static str, Stats); 3], String> {
        let expected = expected_columns(self.context, self.rows);
        screen.heading("1. Roomy budgets");
        let first = self.roomy(roomy, &expected, screen, checks);
        screen.heading("2. Rogue guests");
        let rogues = crate::rogues::show(self.artifacts, screen, checks)?;
        screen.heading("3. Tight budgets");
        self.tight(tight, &first, &expected, screen, checks);
        screen.heading("4. A budget that cannot be met");
        self.impossible(tight, screen, checks);
        let last = tight.pool.stats();
        checks.peaks("tight", &last);
        Ok([
            ("Roomy budgets", first.stats),
            ("Rogue guests", rogues),
            ("Tight budgets, and the refusal", last),
        ])
    }

    fn roomy(
        &self,
        engine: &Engine,
        expected: &[Column],
        screen: &mut Screen,
        checks: &mut Checks,
    ) -> Summary {
        screen
            .line("The first call of a function compiles it; the pool keeps code and instances.\n");
        engine.first_calls(screen, checks);
        engine.known_distances(self.airports, screen, checks);
        screen.line("\nEvery group now asks:");
        for query in &QUERIES {
            screen.line(&format!("  SELECT {} FROM airports", query.sql));
        }
        let summary = self.work("roomy", engine, expected, screen, checks);
        checks.peaks("roomy", &summary.stats);
        let columns = &summary.outcome.columns[0];
        let results = Results {
            context: self.context,
            airports: self.rows,
            columns,
        };
        results.show(screen);
        summary
    }

    /// Runs the workload in an engine and checks every answer.
    fn work(
        &self,
        phase: &str,
        engine: &Engine,
        expected: &[Column],
        screen: &mut Screen,
        checks: &mut Checks,
    ) -> Summary {
        let outcome = self.workload.run(&engine.pool, &engine.handles, screen);
        checks.outcome(phase, &outcome, expected);
        let calls = self.workload.calls();
        let seconds = outcome.took.as_secs_f64();
        let (groups, threads) = (self.groups.len(), self.args.threads);
        screen.line(&format!(
            "\n{} calls for {groups} groups on {threads} threads in {seconds:.2} s, each answer \
             compared with plain Rust's.",
            grouped(calls as u64),
        ));
        let stats = engine.pool.stats();
        Summary { outcome, stats }
    }

    fn tight(
        &self,
        engine: &Engine,
        roomy: &Summary,
        expected: &[Column],
        screen: &mut Screen,
        checks: &mut Checks,
    ) {
        let used = |budget| roomy.stats.budget(budget);
        screen.line(&format!(
            "The same work, which took {} of memory and {} of code, in {} and {}.",
            mib(used(Budget::Memory).charged),
            mib(used(Budget::Code).charged),
            mib(self.args.memory),
            mib(self.args.code),
        ));
        let tight = self.work("tight", engine, expected, screen, checks);
        let mut rows = vec![row!["", "roomy", "tight"]];
        let mut compare = |what: &str, of: &dyn Fn(&Summary) -> String| {
            rows.push(row![what, of(roomy), of(&tight)]);
        };
        compare("seconds (roomy had compiled before)", &|s| {
            format!("{:.2}", s.outcome.took.as_secs_f64())
        });
        compare("leases of an idle instance", &|s| grouped(s.stats.hits));
        compare("instances made", &|s| grouped(s.stats.misses));
        compare("instances evicted", &|s| {
            grouped(s.stats.functions.iter().map(|f| f.evictions).sum())
        });
        compare("compilations", &|s| grouped(s.stats.compilations));
        compare("modules whose code dropped out", &|s| {
            grouped(s.stats.code_dropped)
        });
        compare("most memory charged", &|s| {
            mib(s.stats.budget(Budget::Memory).peak)
        });
        compare("most code charged", &|s| {
            mib(s.stats.budget(Budget::Code).peak)
        });
        compare("batches refused", &|s| {
            grouped(s.outcome.refused.len() as u64)
        });
        screen.table("lrr", &rows);
        refusals(screen, &tight.outcome);
    }

    /// Takes away the room for the largest module, and gives it back.
    fn impossible(&self, engine: &Engine, screen: &mut Screen, checks: &mut Checks) {
        let stats = engine.pool.stats();
        let udf = &QUERIES[column::MATCHES].udf;
        let needed = stats.function(udf.name).map_or(0, |f| f.code_bytes);
        let before = self.args.tight_limits();
        let lowered = match needed {
            0 => self.args.code.min(1 << 20),
            bytes => self.args.code.min(bytes / 2),
        };
        let change = |limits, checks: &mut Checks| {
            let changed = engine.pool.set_limits(limits);
            checks.check(changed.is_ok(), || format!("set_limits: {changed:?}"));
        };
        let ask = |name: &str, checks: &mut Checks| {
            let known = known_answers();
            let known = known.iter().find(|known| known.udf.name == name)?;
            match engine.call(&known.udf, &known.args) {
                Err(error) if is_refusal(&error, &engine.pool, &known.udf) => {
                    Some(wasm_pool::Report(&error).to_string())
                }
                answer => {
                    checks.answer(name, answer, &known.answer);
                    None
                }
            }
        };

        screen.line(&format!(
            "set_limits lowers the code budget to {} bytes; {} is asked for:\n",
            grouped(lowered),
            udf.name
        ));
        change(before.code(lowered), checks);
        let refused = ask(udf.name, checks);
        checks.check(refused.is_some(), || {
            format!("{} was not refused", udf.name)
        });
        screen.line(&format!("  {}", refused.unwrap_or_default()));
        let small = QUERIES[column::SOUND].udf.name;
        screen.line(&format!("\n{small} still works:"));
        let refused = ask(small, checks);
        screen.line(&format!("  {}", refused.as_deref().unwrap_or("right")));

        change(before, checks);
        screen.line("\nWith the budget as it was before, everything works again:");
        for query in &QUERIES {
            let refused = ask(query.udf.name, checks);
            let answer = refused.as_deref().unwrap_or("right");
            screen.table("ll", &[row![format!("{:<18}", query.udf.name), answer]]);
        }
        let nonsense = engine.pool.set_limits(before.memory(1000));
        checks.check(nonsense.is_err(), || {
            "1000 bytes of memory were accepted".into()
        });
        if let Err(error) = nonsense {
            screen.line("\nLimits that make no sense are refused as such, and change nothing:");
            screen.line(&format!("  {error}"));
        }
    }
}

/// Which queries did not fit, and why: the first refusal of each.
fn refusals(screen: &mut Screen, outcome: &Outcome) {
    for (n, query) in QUERIES.iter().enumerate() {
        let mut refused = outcome.refused.iter().filter(|(query, _)| *query == n);
        if let Some((_, error)) = refused.next() {
            let batches = 1 + refused.count();
            screen.always(&format!(
                "\n{batches} batches of {} were refused. The first:\n  {error}",
                query.udf.name
            ));
        }
    }
}
