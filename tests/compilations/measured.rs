//! What a compilation took, and what was reserved for it.

use std::sync::{Arc, Mutex};

use wasm_pool::{Artifacts, Compiled, MemoryStore, Pool, PoolBuilder, PrecompileError};

use crate::common::heap;

/// A pool that measures what it compiles.
pub struct Meter {
    pool: Pool,
    last: Arc<Mutex<Option<Compiled>>>,
}

impl Meter {
    pub fn new(builder: PoolBuilder) -> Self {
        let last = Arc::new(Mutex::new(None));
        let told = last.clone();
        let artifacts = Artifacts::builder().store(MemoryStore::new(1)).build();
        let pool = builder
            .artifacts(&artifacts)
            .no_housekeeper()
            .compile_probe(|compile| Some(heap::peak_during(compile).1))
            .on_compiled(move |compiled| *told.lock().unwrap() = Some(compiled.clone()))
            .build()
            .unwrap();
        Self { pool, last }
    }

    /// Compiles a module; `Err` with why not, if it was refused before.
    pub fn compile(&self, name: &str, wasm: &[u8]) -> Result<Compiled, PrecompileError> {
        let done = self.pool.precompile([(name, wasm)]).next().unwrap();
        match self.last.lock().unwrap().take() {
            Some(compiled) => Ok(compiled),
            None => Err(done.outcome.expect_err("it was not compiled")),
        }
    }
}

/// Peak over reserved.
pub fn tightness(compiled: &Compiled) -> f64 {
    compiled.heap_bytes.unwrap() as f64 / compiled.reserved_bytes as f64
}

pub fn describe(compiled: &Compiled) -> String {
    format!(
        "{}: wasm {}, peak {}, reserved {}, ratio {:.3}, {} ms{}",
        compiled.signature,
        compiled.wasm_bytes,
        compiled.heap_bytes.unwrap(),
        compiled.reserved_bytes,
        tightness(compiled),
        compiled.time.as_millis(),
        if compiled.succeeded { "" } else { ", refused" },
    )
}

/// All of these took no more than was reserved. Prints them, and how close the two are.
#[track_caller]
pub fn check(meter: &Meter, modules: impl IntoIterator<Item = (String, Vec<u8>)>) {
    let mut ratios = Vec::new();
    let mut short = Vec::new();
    for (name, wasm) in modules {
        match meter.compile(&name, &wasm) {
            Ok(compiled) => {
                println!("{}", describe(&compiled));
                ratios.push(tightness(&compiled));
                if tightness(&compiled) > 1.0 {
                    short.push(describe(&compiled));
                }
            }
            Err(refused) => println!("{name}: {refused:?}"),
        }
    }
    ratios.sort_by(f64::total_cmp);
    let (median, worst) = (ratios[ratios.len() / 2], ratios[ratios.len() - 1]);
    println!(
        "{} modules: peak over reserved {median:.3} in the middle, {worst:.3} at most, {:.3} at least",
        ratios.len(),
        ratios[0],
    );
    assert!(short.is_empty(), "{}", short.join("\n"));
}
