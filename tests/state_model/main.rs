//! The pure core against a naive model, over random sequences of operations.
//!
//! `fake.rs` plays the shell's slots, races included; `model.rs` keeps who holds what in plain
//! lists; `room.rs` works out the slow way what making room may cost; `world.rs`, `lease.rs` and
//! `acquire.rs` do every operation to both sides; `check.rs` compares them after every step;
//! `finish.rs` ends each run and sees that nothing is left. `found.rs` keeps what was found.
//! `pool.rs` is the core with the same fake shell, asked directly: `policy_choices.rs`, who goes when room is
//! needed; `reserved.rs`, who stays. `shares.rs` is the model's side of what groups have reserved, `quarantine.rs` of
//! who is refused for what its guests do, `spares.rs` of what is made before anybody asks.
//!
//! A binary of its own, which includes the core by path, and links no wasmtime.
//!
//! `PROPTEST_CASES` sets the number of cases.

extern crate alloc;

#[allow(dead_code, unused_imports)]
#[path = "../../src/state/mod.rs"]
mod state;

mod acquire;
mod answered;
mod billed;
mod check;
mod counted;
mod fair;
mod fake;
mod finish;
mod found;
mod group_waits;
mod lease;
mod limited;
mod limited_code;
mod model;
mod noisy_neighbour;
mod pins;
mod policy_choices;
mod pool;
mod quarantine;
mod reserved;
mod room;
mod set_aside;
mod shares;
mod spares;
mod turns;
mod world;

use std::cell::RefCell;
use std::fmt;

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

use world::{Op, Seen, Setup, World};

const CASES: u32 = 10_000;

/// Each of these must occur in a few hundred cases, or the operations have become too tame.
const INTERESTING: &[&str] = &[
    "a lease's end repaid",
    "blocked",
    "born",
    "closed",
    "collected as its lease ended",
    "collecting",
    "collecting a part",
    "code dropped",
    "code eviction",
    "code larger than estimated",
    "code ready",
    "entered a forgotten entry",
    "entered a removed function",
    "entry forgotten",
    "evicted beside what is reserved",
    "expelled by a quarantine",
    "evicting",
    "expired",
    "failed",
    "follow",
    "granted",
    "growth abandoned",
    "growth granted",
    "growth refused",
    "handed over",
    "heir got its victim's",
    "idle",
    "idle eviction",
    "idle found by try_seat",
    "idle found without the lock",
    "instantiation failed",
    "leaked",
    "leased again before its release was heard of",
    "lease ended as it was awaited",
    "lease ended as room was awaited",
    "left the queue for a seat",
    "lifetime",
    "loaded",
    "lowered limits repaid",
    "stays though idle for too long",
    "waits for what is pinned",
    "module evicted with its instances",
    "module failed",
    "module of no function compiled",
    "module leaves",
    "module under two names",
    "more seats",
    "seats served when there may be more",
    "surplus given up",
    "idle for longer than its function may be",
    "idle for longer than others may be",
    "not_retained",
    "overdraft",
    "prepared",
    "prepared a removed function",
    "prepared, and dropped at once",
    "prepared, and stale",
    "quarantined",
    "queued to compile",
    "refused",
    "refused beside what is reserved",
    "refused in quarantine",
    "refused while cooling down",
    "release came before the flag",
    "release came between flag and exchange",
    "release reported",
    "released where it must be reported",
    "released without the lock",
    "relieved",
    "remove",
    "removed",
    "replaced",
    "reported, and leased again",
    "reservation lapsed",
    "reservation refused",
    "reserved",
    "reserved again",
    "room",
    "room after waiting",
    "seat served from the queue",
    "seat taken over from a spare",
    "several victims",
    "awaits frees",
    "spare begun",
    "spare given up",
    "spare parked",
    "spares trimmed",
    "spent",
    "stale",
    "stale spare",
    "stale instance found without the lock",
    "superseded",
    "taken back",
    "told that it is late",
    "turn to compile passed on",
    "waits for a module to leave",
    "waits for room",
];

fn op() -> impl Strategy<Value = Op> {
    let one = any::<u8>;
    let two = || (any::<u8>(), any::<u8>());
    prop_oneof![
        3 => two().prop_map(|(a, b)| Op::Define(a, b)),
        2 => two().prop_map(|(a, b)| Op::Replace(a, b)),
        1 => two().prop_map(|(a, b)| Op::Supersede(a, b)),
        2 => one().prop_map(Op::Relieve),
        1 => one().prop_map(Op::Remove),
        10 => two().prop_map(|(a, b)| Op::Enter(a, b)),
        14 => two().prop_map(|(a, b)| Op::Warm(a, b)),
        1 => one().prop_map(Op::Stray),
        10 => two().prop_map(|(a, b)| Op::Fast(a, b)),
        1 => one().prop_map(Op::LeaveSeat),
        2 => one().prop_map(Op::Prepare),
        1 => Just(Op::Work),
        3 => one().prop_map(Op::Leak),
        40 => two().prop_map(|(a, b)| Op::Step(a, b)),
        1 => one().prop_map(Op::GiveUp),
        10 => one().prop_map(Op::Free),
        9 => two().prop_map(|(a, b)| Op::ReleaseFast(a, b)),
        4 => one().prop_map(Op::ReleaseSlow),
        7 => two().prop_map(|(a, b)| Op::Race(a, b)),
        2 => one().prop_map(Op::Report),
        2 => one().prop_map(Op::Trap),
        8 => two().prop_map(|(a, b)| Op::Grow(a, b)),
        1 => two().prop_map(|(a, b)| Op::Shrink(a, b)),
        5 => one().prop_map(Op::Pass),
        4 => one().prop_map(Op::Sweep),
        1 => one().prop_map(Op::Limits),
        1 => one().prop_map(Op::Retain),
        2 => two().prop_map(|(a, b)| Op::Keep(a, b)),
        1 => one().prop_map(Op::LetGo),
        12 => Just(Op::Spare),
        3 => two().prop_map(|(a, b)| Op::Share(a, b)),
        1 => one().prop_map(Op::Lift),
    ]
}

#[derive(Clone)]
struct Run {
    setup: Setup,
    ops: Vec<Op>,
}

/// One operation in a line, since a shrunk run is read as a story.
impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}", self.setup)?;
        for op in &self.ops {
            writeln!(f, "  {op:?}")?;
        }
        Ok(())
    }
}

/// Two functions to begin with, so that most runs do something; one in four is closed midway.
fn run() -> impl Strategy<Value = Run> {
    let closes = prop::option::weighted(0.25, 30usize..100);
    // Short ones only so that shrinking may make them.
    let steps = prop::collection::vec(op(), 1..140);
    let all = (setup(), any::<[u8; 2]>(), steps, closes);
    all.prop_map(|(setup, keys, mut steps, closes)| {
        if let Some(at) = closes {
            steps.insert(at.min(steps.len()), Op::Close);
        }
        let first = (0u8..).zip(keys).map(|(name, key)| Op::Define(name, key));
        Run {
            setup,
            ops: first.chain(steps).collect(),
        }
    })
}

fn setup() -> impl Strategy<Value = Setup> {
    (0..3u8, 1..=3usize, 1..=2usize, any::<u8>(), any::<bool>()).prop_map(
        |(policy, seats, max_compilations, limits, serve)| Setup {
            policy,
            seats,
            max_compilations,
            limits,
            serve,
        },
    )
}

fn play(run: &Run) -> Seen {
    let mut world = World::new(&run.setup);
    for op in &run.ops {
        world.apply(*op);
        world.check();
    }
    world.finish(run.setup.serve);
    world.seen
}

fn config() -> ProptestConfig {
    let mut config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = CASES;
    }
    config
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_core_does_what_the_model_says(run in run()) {
        play(&run);
    }
}

/// The same few thousand runs every time: do the operations reach what they are meant to test?
#[test]
fn the_operations_reach_everything() {
    let config = ProptestConfig {
        cases: 3000,
        ..config()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let all = RefCell::new(Seen::default());
    let outcome = runner.run(&run(), |run| {
        for (what, times) in play(&run).0 {
            *all.borrow_mut().0.entry(what).or_default() += times;
        }
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    let all = all.into_inner();
    println!("{:#?}", all.0);
    let missed: Vec<_> = (INTERESTING.iter())
        .filter(|what| !all.0.contains_key(*what))
        .collect();
    assert!(missed.is_empty(), "never seen: {missed:?}");
}
