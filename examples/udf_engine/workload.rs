//! The work: every group asks every query of every row, in batches that several threads serve from
//! one pool.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use wasm_pool::{AcquireOptions, Budget, CallError, Group, InGroup, Pool, Stats};

use crate::engine::is_refusal;
use crate::functions::Value;
use crate::queries::{Context, QUERIES};
use crate::screen::{Screen, grouped, mib};
use crate::table::Airport;

/// Rows that one lease serves.
const BATCH: usize = 64;
/// How long a batch waits for an instance, for another's compilation or for room.
const PATIENCE: Duration = Duration::from_secs(30);

/// So long, also for room in the budgets.
pub fn patiently() -> AcquireOptions {
    AcquireOptions::new().timeout(PATIENCE).wait_for_room(true)
}
/// How often the budgets are looked at from outside.
const LOOK: Duration = Duration::from_millis(20);

/// What is to be computed, and in which order.
pub struct Workload<'a> {
    context: &'a Context,
    airports: &'a [Airport],
    groups: &'a [Group],
    threads: usize,
    tasks: Vec<Task>,
}

/// One query on some rows, for one group.
struct Task {
    group: usize,
    query: usize,
    rows: Range<usize>,
}

/// A column as far as it was computed.
pub type Column = Vec<Option<Value>>;

/// What came of it.
pub struct Outcome {
    /// By group, then by query.
    pub columns: Vec<Vec<Column>>,
    /// Batches for which a budget had no room: the query, and the error.
    pub refused: Vec<(usize, CallError)>,
    /// Batches that failed in another way, which none should.
    pub failed: Vec<CallError>,
    /// Charges seen above their limit, which none should be.
    pub excesses: Vec<String>,
    pub took: Duration,
}

impl<'a> Workload<'a> {
    /// In each round, every group asks all queries of its share of the rows, each group beginning
    /// with another query: at any time different groups need different functions.
    pub fn new(
        context: &'a Context,
        airports: &'a [Airport],
        groups: &'a [Group],
        threads: usize,
        rounds: usize,
    ) -> Self {
        let mut tasks = Vec::new();
        for round in 0..rounds {
            let begin = airports.len() * round / rounds;
            let end = airports.len() * (round + 1) / rounds;
            for step in 0..QUERIES.len() {
                for group in 0..groups.len() {
                    let query = (step + group * 2) % QUERIES.len();
                    for first in (begin..end).step_by(BATCH) {
                        let rows = first..end.min(first + BATCH);
                        tasks.push(Task { group, query, rows });
                    }
                }
            }
        }
        Self {
            context,
            airports,
            groups,
            threads,
            tasks,
        }
    }

    /// Calls that it makes.
    pub fn calls(&self) -> usize {
        self.airports.len() * self.groups.len() * QUERIES.len()
    }

    /// Does it all.
    pub fn run(&self, pool: &Pool, handles: &Handles, screen: &mut Screen) -> Outcome {
        let began = Instant::now();
        let next = AtomicUsize::new(0);
        let (sender, answers) = mpsc::channel();
        let mut outcome = Outcome {
            columns: vec![vec![vec![None; self.airports.len()]; QUERIES.len()]; self.groups.len()],
            refused: Vec::new(),
            failed: Vec::new(),
            excesses: Vec::new(),
            took: Duration::ZERO,
        };
        thread::scope(|scope| {
            for _ in 0..self.threads {
                let (next, sender) = (&next, sender.clone());
                scope.spawn(move || {
                    while let Some(task) = self.tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
                        // The receiver outlives the threads.
                        let _ = sender.send((task, self.serve(task, handles)));
                    }
                });
            }
            drop(sender);
            let (mut done, mut looked) = (0, Instant::now());
            loop {
                match answers.recv_timeout(LOOK) {
                    Ok((task, answer)) => {
                        done += 1;
                        outcome.take(task, answer, pool);
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => break,
                }
                if looked.elapsed() >= LOOK {
                    looked = Instant::now();
                    let stats = pool.stats();
                    outcome.look_at(&stats);
                    screen.progress(done, self.tasks.len(), || describe(&stats));
                }
            }
        });
        outcome.took = began.elapsed();
        screen.clear_progress();
        outcome
    }

    /// One lease for the whole batch.
    fn serve(&self, task: &Task, handles: &Handles) -> Result<Vec<Value>, CallError> {
        let query = &QUERIES[task.query];
        let mut lease = handles.0[task.group][task.query].acquire_with(patiently())?;
        let mut answers = Vec::with_capacity(task.rows.len());
        for airport in &self.airports[task.rows.clone()] {
            let args = (query.args)(self.context, airport);
            match query.udf.call(&mut lease, &args) {
                Ok(answer) => answers.push(answer),
                Err(error) => {
                    lease.discard();
                    return Err(error);
                }
            }
        }
        Ok(answers)
    }
}

/// The functions of all queries in all groups, resolved once, defined in one pool.
pub struct Handles(Vec<Vec<InGroup>>);

impl Handles {
    /// `functions` are those of the queries, in their order.
    pub fn new(functions: &[wasm_pool::Function], groups: &[Group]) -> Self {
        let of_group = |group| functions.iter().map(|f| f.in_group(group)).collect();
        Self(groups.iter().map(of_group).collect())
    }

    /// One function in one group.
    pub fn get(&self, group: usize, query: usize) -> &InGroup {
        &self.0[group][query]
    }
}

impl Outcome {
    fn take(&mut self, task: &Task, answer: Result<Vec<Value>, CallError>, pool: &Pool) {
        match answer {
            Ok(values) => {
                let column = &mut self.columns[task.group][task.query];
                for (row, value) in task.rows.clone().zip(values) {
                    column[row] = Some(value);
                }
            }
            Err(error) if is_refusal(&error, pool, &QUERIES[task.query].udf) => {
                self.refused.push((task.query, error));
            }
            Err(error) => self.failed.push(error),
        }
    }

    /// The budgets hold at every instant, so they must hold at this one.
    fn look_at(&mut self, stats: &Stats) {
        for (budget, seen) in stats.budgets() {
            if !seen.allows(seen.charged) {
                let (charged, limit) = (seen.charged, seen.limit.unwrap_or_default());
                self.excesses
                    .push(format!("{budget}: {charged} charged of {limit}"));
            }
        }
    }
}

fn describe(stats: &Stats) -> String {
    let charged = |budget| mib(stats.budget(budget).charged);
    let evictions = stats.functions.iter().map(|f| f.evictions).sum();
    let compiling = match stats.compiling {
        0 => String::new(),
        n => format!(", compiling {n}"),
    };
    format!(
        "memory {}, code {}; {} evictions, {} compilations{compiling}",
        charged(Budget::Memory),
        charged(Budget::Code),
        grouped(evictions),
        stats.compilations,
    )
}
