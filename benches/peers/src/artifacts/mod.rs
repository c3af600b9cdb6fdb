//! Code that somebody has compiled before, from where it is kept to the first call.

mod caches;
pub mod report;

use std::time::Instant;

use caches::{Bare, Gear, Ours, Wasmer, WasmtimesOwn};

use crate::measure::Summary;
use crate::quiet;
use crate::table;

/// Where compiled code is kept, with the code of one module in it.
pub trait Cache {
    /// As a process has it that has just started: an engine, and nothing loaded.
    fn start(&self) -> Box<dyn Started + '_>;
}

pub trait Started {
    /// From the code to the first call of the guest's allocator. Nothing stays loaded.
    fn first_call(&mut self);
}

/// The module, and what it is called.
pub struct Guest {
    pub name: &'static str,
    pub wasm: Vec<u8>,
}

type Make = fn(&Guest) -> Box<dyn Cache>;

const CONTENDERS: [(&str, &str, Make); 6] = [
    ("Module::deserialize_file", "nothing", |guest| {
        Box::new(Bare::new(guest))
    }),
    ("wasmtime's own cache", "nothing", |guest| {
        Box::new(WasmtimesOwn::new(guest))
    }),
    ("wasmer-cache, FileSystemCache", "nothing", |guest| {
        Box::new(Wasmer::new(guest))
    }),
    ("gear-wasmtime-cache", "in memory only", |guest| {
        Box::new(Gear::new(guest))
    }),
    ("wasm-pool, directory", "all of it", |guest| {
        Box::new(Ours::in_directory(guest))
    }),
    ("wasm-pool, memory before it", "all of it", |guest| {
        Box::new(Ours::in_memory_and_directory(guest))
    }),
];

/// The table, as medians of interleaved rounds, and how many rounds that were.
pub fn table(guests: &[Guest], rounds: usize) -> (String, String) {
    let caches: Vec<Vec<_>> = guests
        .iter()
        .map(|guest| CONTENDERS.map(|(_, _, make)| make(guest)).into())
        .collect();
    let kept = quiet::rounds(rounds, 2 * rounds, || {
        let each = |cache: &Box<dyn Cache>| {
            let mut started = cache.start();
            [(); 2].map(|()| {
                let began = Instant::now();
                started.first_call();
                began.elapsed().as_secs_f64() * 1e3
            })
        };
        caches
            .iter()
            .map(|of_guest| of_guest.iter().map(each).collect::<Vec<_>>())
            .collect::<Vec<_>>()
    });
    let median = |guest: usize, row: usize, again: usize| {
        let times = kept.rounds.iter().map(|round| round[guest][row][again]);
        Summary::of(times.collect()).median
    };
    let mut head = vec!["from code that is kept to the first call".to_owned()];
    for guest in guests {
        for when in ["first", "again"] {
            head.extend([format!("{}, {when}: ms", guest.name), "× bare".into()]);
        }
    }
    head.push("verified".into());
    let mut lines = vec![head];
    for (row, (name, verified, _)) in CONTENDERS.iter().enumerate() {
        let mut line = vec![(*name).to_owned()];
        for guest in 0..guests.len() {
            for again in 0..2 {
                let (took, bare) = (median(guest, row, again), median(guest, 0, again));
                line.extend([format!("{took:.2}"), format!("{:.2}", took / bare)]);
            }
        }
        line.push((*verified).to_owned());
        lines.push(line);
    }
    (table::markdown(&lines), kept.to_string())
}
