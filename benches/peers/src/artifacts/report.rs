//! Writes ARTIFACTS.md: this table alone, which needs half of the build and a minute.

use std::fs;

use crate::machine;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/ARTIFACTS.md");

const PEERS: [&str; 4] = [
    "wasm-pool",
    "wasmer",
    "wasmer-cache",
    "gear-wasmtime-cache",
];

const NOTES: &str = "\
The module is there already, in whatever a contender keeps it in; the program has just started (a new engine, a new pool). \
What is timed: from asking for the module to the first call of its allocator, the first time and once more. The file is in the page cache. \
\"Verified\" says what stands between a flipped bit in the file and machine code: `deserialize_file` maps the file as it is, and so \
do the caches around it; wasm-pool hashes all of it, in memory that is sealed. That is most of what its directory costs: with BLAKE3, on this kind of \
machine, several times what mapping costs. gear's cache keeps modules in memory, of the same process, and no file.\n";

/// The table, and how many rounds it took.
pub fn write((table, rounds): &(String, String)) {
    let text = format!(
        "# Measured: code that somebody has compiled before\n\n\
        Written by `cargo run --release --manifest-path benches/peers/Cargo.toml -- artifacts`; do not edit.\n\n\
        - When: {date}; load average {load}\n\
        - Where: {machine}\n\
        - What: {peers}\n\
        - Medians of {rounds}\n\n{table}\n{NOTES}",
        date = machine::date(),
        load = machine::load(),
        machine = machine::description(),
        peers = PEERS.map(machine::version).join(", "),
    );
    fs::write(PATH, text).expect("the folder of this program can be written to");
}
