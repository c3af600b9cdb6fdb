//! Runs a scenario under many schedules.

use std::env;
use std::panic::catch_unwind;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::panicking;
use std::time::Instant;

use shuttle::scheduler::{DfsScheduler, PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
use shuttle::{Config, MaxSteps, Runner};

use crate::store_buffers::{self, Mutation};

/// Schedules of each scenario, unless told otherwise.
const SCHEDULES: usize = 10_000;
/// Steps that no execution of a scenario comes near to: more is a livelock.
const STEPS: usize = 50_000;
/// How often the priorities of threads change in one execution, and one more: the bugs that the
/// model has found need threads to be stopped in two or three wrong places.
const DEPTH: usize = 4;

/// Half of the schedules choose a thread at random at every step, half keep to priorities that
/// change now and then.
pub fn explore(scenario: fn()) {
    crate::world::prepare();
    if let Ok(schedule) = env::var("WASM_POOL_REPLAY") {
        let schedule: String = schedule.split_whitespace().collect();
        let replay = ReplayScheduler::new_from_encoded(&schedule);
        run(replay, scenario, true, Mutation::None);
        return;
    }
    let schedules = setting("WASM_POOL_SCHEDULES", SCHEDULES);
    explore_mutated(scenario, Mutation::None, schedules);
}

/// With something left out of the protocol of fences, the scenario fails within so many schedules. Without heavy
/// fences there is nothing to leave out.
pub fn assert_fails(scenario: fn(), mutation: Mutation, schedules: usize) {
    crate::world::prepare();
    if crate::sync::has_heavy_fences() {
        let held = catch_unwind(|| explore_mutated(scenario, mutation, schedules));
        assert!(held.is_err(), "nobody noticed what was left out");
    }
}

fn explore_mutated(scenario: fn(), mutation: Mutation, schedules: usize) {
    let schedules = schedules.div_ceil(2);
    let seed = setting("WASM_POOL_SEED", 0x5EED);
    let random = RandomScheduler::new_from_seed(seed, schedules);
    run(random, scenario, true, mutation);
    let by_priority = PctScheduler::new_from_seed(seed, DEPTH, schedules);
    run(by_priority, scenario, true, mutation);
}

/// Every schedule that there is, for scenarios that are small enough for that.
pub fn exhaust(scenario: fn()) {
    crate::world::prepare();
    run(
        DfsScheduler::new(None, false),
        scenario,
        false,
        Mutation::None,
    );
}

fn setting<N: FromStr>(name: &str, default: N) -> N {
    match env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text}")),
        Err(_) => default,
    }
}

fn run(
    scheduler: impl Scheduler + 'static,
    scenario: fn(),
    delay_stores: bool,
    mutation: Mutation,
) {
    let mut config = Config::new();
    // Guest code and wasmtime run on it.
    config.stack_size = 512 << 10;
    config.max_steps = MaxSteps::FailAfter(STEPS);
    config.silence_warnings = true;
    config
        .ungraceful_shutdown_config
        .immediately_return_on_panic = true;
    let progress = Progress {
        began: Instant::now(),
        schedules: Arc::default(),
    };
    let schedules = progress.schedules.clone();
    Runner::new(scheduler, config).run(move || {
        schedules.fetch_add(1, Ordering::Relaxed);
        store_buffers::begin(delay_stores, mutation);
        scenario();
    });
}

/// Says how many schedules there were, also when the last one fails.
struct Progress {
    began: Instant,
    schedules: Arc<AtomicUsize>,
}

impl Drop for Progress {
    fn drop(&mut self) {
        let verb = if panicking() {
            "failed after"
        } else {
            "held for"
        };
        let schedules = self.schedules.load(Ordering::Relaxed);
        println!("{verb} {schedules} schedules, {:?}", self.began.elapsed());
    }
}
