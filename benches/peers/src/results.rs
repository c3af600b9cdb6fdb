//! Writes RESULTS.md.

use std::fs;

use crate::machine;
use crate::measure::Summary;
use crate::rounds::{Measured, Plan};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/RESULTS.md");

const PEERS: [&str; 17] = [
    "wasm-pool",
    "crossbeam-queue",
    "crossbeam-utils",
    "parking_lot",
    "quick_cache",
    "moka",
    "object-pool",
    "opool",
    "lockfree-object-pool",
    "deadpool",
    "pollster",
    "r2d2",
    "extism",
    "arrow-udf-runtime",
    "wasmer",
    "wasmer-cache",
    "gear-wasmtime-cache",
];

/// What the tables cannot say of themselves.
const NOTES: &str = include_str!("notes.md");

/// Everything that a run has found.
pub struct Results<'a> {
    pub measured: &'a Measured,
    pub plan: Plan,
    /// Load average before and after.
    pub load: [String; 2],
    pub warm: String,
    pub budget: String,
    /// The table, and how many rounds it took.
    pub cold: (String, String),
    /// Likewise.
    pub artifacts: (String, String),
}

/// What the hardware does, without which figures of two threads mean little.
pub fn noise(measured: &Measured) -> String {
    let line = |what: &str, summary: Summary| {
        let ([low, high], [min, max]) = (summary.quartiles, summary.extremes);
        format!(
            "- {what}: {:.1} ns (middle half {low:.1} to {high:.1}, all {min:.1} to {max:.1})\n",
            summary.median
        )
    };
    line("a locked exchange, one thread", measured.exchange)
        + &line(
            "a cache line to the other thread and back",
            measured.round_trip,
        )
}

pub fn write(results: &Results<'_>) {
    let peers = PEERS.map(machine::version).join(", ");
    let text = format!(
        "# Measured: the same call through wasm-pool and its peers\n\n\
        Written by `cargo run --release --manifest-path benches/peers/Cargo.toml`; do not edit.\n\n\
        - When: {date}; load average {before} before, {after} after\n\
        - Where: {machine}\n\
        - What: {peers}\n\
        - How long: {time:?} of each cell in {rounds}\n\n\
        ## Warm calls\n\n{warm}\n\
        In the same rounds:\n\n{noise}\n\
        ## Eight instances that ask for 32 MiB each, under 64 MiB\n\n{budget}\n\
        ## Cold\n\n{cold}\nThat was {cold_rounds}.\n\n\
        ## Artifacts\n\n{artifacts}\nThat was {artifact_rounds}.\n\n{NOTES}",
        date = machine::date(),
        before = results.load[0],
        after = results.load[1],
        machine = machine::description(),
        warm = results.warm,
        noise = noise(results.measured),
        budget = results.budget,
        time = results.plan.time,
        rounds = results.measured.rounds,
        cold = results.cold.0,
        cold_rounds = results.cold.1,
        artifacts = results.artifacts.0,
        artifact_rounds = results.artifacts.1,
    );
    fs::write(PATH, text).expect("RESULTS.md can be written");
    eprintln!("wrote {PATH}");
}
