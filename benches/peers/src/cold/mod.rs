//! First use of a module: compile and instantiate, by one thread and by eight at once.

mod newcomers;

use std::fs;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use newcomers::{Bare, Extism, Newcomer, Ours, Shared};

use crate::measure::Summary;
use crate::quiet;
use crate::table;

const HERD: usize = 8;

/// The module, and an export of it.
pub struct Guest {
    pub wasm: Vec<u8>,
    pub export: &'static str,
}

impl Guest {
    /// One of `examples/guests/prebuilt`.
    pub fn prebuilt(file: &str, export: &'static str) -> Self {
        let home = env!("CARGO_MANIFEST_DIR");
        let path = format!("{home}/../../examples/guests/prebuilt/{file}");
        let wasm = fs::read(path).expect("the guest is there");
        Self { wasm, export }
    }
}

/// For each contender: milliseconds of one thread and of the herd, and the herd's compilations.
type Round = [(f64, f64, usize); CONTENDERS.len()];

type Make = fn(&Guest) -> Box<dyn Newcomer>;

const CONTENDERS: [(&str, Make); 4] = [
    ("bare, each thread compiles", |guest| {
        Box::new(Bare::new(guest))
    }),
    ("bare, module in moka's get_with", |guest| {
        Box::new(Shared::new(guest))
    }),
    ("wasm-pool", |guest| Box::new(Ours::new(guest))),
    ("extism Pool", |guest| Box::new(Extism::new(guest))),
];

/// The table, as medians of interleaved rounds, and how many rounds that were.
pub fn table(guest: &Guest, rounds: usize) -> (String, String) {
    let kept = quiet::rounds(rounds, 2 * rounds, || {
        CONTENDERS.map(|(_, make)| {
            let alone = crowd(&*make(guest), 1);
            let newcomer = make(guest);
            (alone, crowd(&*newcomer, HERD), newcomer.compilations())
        })
    });
    let summary =
        |pick: &dyn Fn(&Round) -> f64| Summary::of(kept.rounds.iter().map(pick).collect()).median;
    let bare = summary(&|round| round[0].0);
    let head = [
        "first use of the module",
        "1 thread: ms",
        "× bare",
        "8 threads: ms",
        "× bare alone",
        "compilations",
    ];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    for (n, (name, _)) in CONTENDERS.iter().enumerate() {
        let (one, herd) = (summary(&|round| round[n].0), summary(&|round| round[n].1));
        lines.push(vec![
            (*name).to_owned(),
            format!("{one:.0}"),
            format!("{:.2}", one / bare),
            format!("{herd:.0}"),
            format!("{:.2}", herd / bare),
            kept.rounds[0][n].2.to_string(),
        ]);
    }
    (table::markdown(&lines), kept.to_string())
}

/// Milliseconds until all threads have an instance at once.
fn crowd(newcomer: &dyn Newcomer, threads: usize) -> f64 {
    let (start, all) = (Barrier::new(threads + 1), Barrier::new(threads + 1));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                start.wait();
                newcomer.first_use(&|| {
                    all.wait();
                });
            });
        }
        start.wait();
        let began = Instant::now();
        all.wait();
        began.elapsed().as_secs_f64() * 1e3
    })
}
