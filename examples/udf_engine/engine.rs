//! An engine for one phase: a pool under certain budgets, with the whole catalogue defined in it.

use std::time::Instant;

use wasm_pool::{AcquireError, Artifacts, CallError, Function, Group, Limits, Pool};

use crate::args::Args;
use crate::checks::Checks;
use crate::functions::{Udf, Value};
use crate::queries::{KNOWN_DISTANCES, QUERIES, known_answers, position};
use crate::row;
use crate::screen::{Screen, grouped};
use crate::table::{self, Airport};
use crate::workload::{Handles, patiently};

pub struct Engine {
    pub pool: Pool,
    pub handles: Handles,
}

impl Engine {
    /// Defines everything and compiles nothing. The error is a message for the user.
    pub fn open(
        phase: &str,
        limits: Limits,
        args: &Args,
        groups: &[Group],
        artifacts: Option<&Artifacts>,
    ) -> Result<Self, String> {
        let mut builder = Pool::builder()
            .name(phase)
            .limits(limits)
            .max_instances_per_entry(args.instances_per_entry)
            .policy(args.policy);
        if let Some(artifacts) = artifacts {
            builder = builder.artifacts(artifacts);
        }
        let pool = builder
            .build()
            .map_err(|error| format!("the budgets of the {phase} phase: {error}"))?;
        let functions = QUERIES
            .iter()
            .map(|query| query.udf.define(&pool))
            .collect::<Result<Vec<Function>, _>>()
            .map_err(|error| format!("the {phase} phase: {error}"))?;
        let handles = Handles::new(&functions, groups);
        Ok(Self { pool, handles })
    }

    /// One call, for the first group.
    pub fn call(&self, udf: &Udf, args: &[Value]) -> Result<Value, CallError> {
        let query = QUERIES.iter().position(|q| q.udf.name == udf.name);
        let query = query.expect("every function has its query");
        let mut lease = self.handles.get(0, query).acquire_with(patiently())?;
        udf.call(&mut lease, args)
    }

    /// The first call of each function, which compiles it, and answers known from elsewhere.
    pub fn first_calls(&self, screen: &mut Screen, checks: &mut Checks) {
        let mut rows = vec![row![
            "function",
            "wasm bytes",
            "code bytes",
            "first call",
            "next",
            "known answers"
        ]];
        let known = known_answers();
        for query in &QUERIES {
            let udf = &query.udf;
            screen.working_on(&format!(
                "compiling {}, {} bytes",
                udf.name,
                grouped(udf.wasm.len() as u64)
            ));
            let (mut times, wrong_before) = (Vec::new(), checks.failed);
            for known in known.iter().filter(|known| known.udf.name == udf.name) {
                // Twice, so that each function has a warm call to show.
                for _ in 0..2 {
                    let began = Instant::now();
                    let answer = self.call(udf, &known.args);
                    times.push(began.elapsed());
                    let args: Vec<_> = known.args.iter().map(Value::to_string).collect();
                    let what = format!("{}({})", udf.name, args.join(", "));
                    checks.answer(&what, answer, &known.answer);
                }
            }
            let stats = self.pool.stats();
            let code = stats.function(udf.name).map_or(0, |f| f.code_bytes);
            let (cold, warm) = (times.first(), times.get(1));
            let milliseconds = cold.map_or(0.0, |t| t.as_secs_f64() * 1e3);
            let microseconds = warm.map_or(0.0, |t| t.as_secs_f64() * 1e6);
            rows.push(row![
                udf.name,
                grouped(udf.wasm.len() as u64),
                grouped(code),
                format!("{milliseconds:.1} ms"),
                format!("{microseconds:.1} µs"),
                if checks.failed == wrong_before {
                    "right"
                } else {
                    "WRONG"
                },
            ]);
        }
        screen.table("lrrrrl", &rows);
    }

    /// Distances that can be looked up elsewhere, as far as the table has the airports.
    pub fn known_distances(&self, airports: &[Airport], screen: &mut Screen, checks: &mut Checks) {
        let mut rows = vec![row!["from", "to", "km", "published"]];
        for (from, to, published) in KNOWN_DISTANCES {
            let (Some(a), Some(b)) = (table::find(airports, from), table::find(airports, to))
            else {
                continue;
            };
            let (a, b) = (position(a), position(b));
            let args = [a.0, a.1, b.0, b.1].map(Value::Double);
            let kilometres = match self.call(&QUERIES[0].udf, &args) {
                Ok(Value::Double(kilometres)) => kilometres,
                _ => f64::NAN,
            };
            let near = (kilometres - published).abs() <= published * 0.005;
            checks.check(near, || {
                format!("{from} to {to} is {kilometres} km, and published as {published}")
            });
            rows.push(row![from, to, format!("{kilometres:.1}"), published]);
        }
        if rows.len() > 1 {
            screen.line("\nKnown distances (published ones are on the ellipsoid: ± 0.5 %)");
            screen.table("llrr", &rows);
        }
    }
}

/// Whether a call failed for want of room, as opposed to anything else: the pool refused it, or the
/// guest gave up when its memory could not grow.
pub fn is_refusal(error: &CallError, pool: &Pool, udf: &Udf) -> bool {
    match error {
        CallError::Acquire(AcquireError::BudgetExceeded(_) | AcquireError::Timeout { .. }) => true,
        CallError::Trap { .. } | CallError::Memory { .. } => {
            let stats = pool.stats();
            stats
                .function(udf.name)
                .is_some_and(|f| f.growth_refusals > 0)
        }
        _ => false,
    }
}
