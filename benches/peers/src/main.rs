//! The same guest function through wasm-pool and through what one would pick instead of it.
//!
//! ```sh
//! cargo run --release --manifest-path benches/peers/Cargo.toml             # measure, write RESULTS.md
//! cargo run --release --manifest-path benches/peers/Cargo.toml -- --short  # see that all runs
//! cargo run --release --manifest-path benches/peers/Cargo.toml -- artifacts  # that table alone: ARTIFACTS.md
//! ```
//!
//! It takes two minutes, after a build of ten: four versions of wasmtime and one of wasmer are among
//! the dependencies. If others use the machine meanwhile, it takes longer, for rounds that they disturb
//! do not count. What is measured and how stands in `notes.md`,
//! which RESULTS.md ends with; every result of every call is checked.

mod artifacts;
mod budget;
mod cold;
mod guest;
mod machine;
mod measure;
mod peers;
mod quiet;
mod results;
mod rounds;
mod table;
mod workers;

use std::time::Duration;

use cold::Guest;
use results::Results;
use rounds::Plan;
use workers::Workers;

const FULL: Plan = Plan {
    rounds: 21,
    tries: 63,
    time: Duration::from_millis(30),
};

const SHORT: Plan = Plan {
    rounds: 1,
    tries: 1,
    time: Duration::from_millis(1),
};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => run(false),
        ["--short"] => run(true),
        ["artifacts"] => {
            let found = artifacts(FULL.rounds);
            println!("{}\nThat was {}.", found.0, found.1);
            artifacts::report::write(&found);
        }
        [budget::CHILD, name] => budget::child(name),
        other => {
            eprintln!("usage: wasm-pool-peers [--short | artifacts], not {other:?}");
            std::process::exit(2);
        }
    }
}

fn run(short: bool) {
    let plan = if short { SHORT } else { FULL };
    let before = machine::load();
    eprintln!("compiling guests, filling pools");
    let rows = peers::all();
    let workers = Workers::new(2);
    eprintln!("a round that does not count: whatever is made at first use");
    rounds::measure(&rows, &workers, SHORT);
    let measured = rounds::measure(&rows, &workers, plan);
    let warm = table::of(&measured);
    println!("{warm}\n{}", results::noise(&measured));
    drop(rows);

    let budget = budget::table();
    println!("{budget}");

    let (guest, times) = if short {
        (Guest::prebuilt("hash_sha256.wasm", "sha256"), 1)
    } else {
        (Guest::prebuilt("text_regex_match.wasm", "regex_match"), 5)
    };
    let cold = cold::table(&guest, times);
    println!("{}", cold.0);

    let artifacts = artifacts(plan.rounds);
    println!("{}", artifacts.0);

    if !short {
        results::write(&Results {
            measured: &measured,
            plan,
            load: [before, machine::load()],
            warm,
            budget,
            cold,
            artifacts,
        });
    }
}

/// Of a guest that takes some time to compile, and of one that takes long.
fn artifacts(rounds: usize) -> (String, String) {
    let guest = |name, file| artifacts::Guest {
        name,
        wasm: Guest::prebuilt(file, "alloc").wasm,
    };
    let guests = [
        guest("100 kB", "json_extract.wasm"),
        guest("1.1 MB", "text_regex_match.wasm"),
    ];
    artifacts::table(&guests, rounds)
}
