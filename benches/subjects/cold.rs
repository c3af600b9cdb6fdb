//! First use: compilation, and many who want it at once.

use std::sync::Barrier;
use std::time::{Duration, Instant};
use std::{fs, thread};

use wasm_pool::{Definition, Function, Pool, PoolBuilder};
use wasmtime::{Engine, Instance, Module, Store};

use super::{JSON, Subject, by_hand};

/// Bare: compile and instantiate in an engine that is there.
pub fn bare() -> Subject {
    let engine = by_hand::engine();
    Subject::new("compile and instantiate, bare", move |n| {
        let began = Instant::now();
        (0..n).for_each(|_| drop(compile_bare(&engine)));
        began.elapsed()
    })
}

fn compile_bare(engine: &Engine) -> (Store<()>, Instance) {
    let module = Module::new(engine, JSON).expect("the guest compiles");
    let mut store = Store::new(engine, ());
    let instance = Instance::new(&mut store, &module, &[]).expect("the guest imports nothing");
    (store, instance)
}

/// A pool whose function is defined and was never used.
fn unused(builder: PoolBuilder) -> (Pool, Function) {
    let pool = builder.build().expect("a plain pool");
    let definition = Definition::new("json.extract").wasm(JSON);
    let function = pool.define(definition).expect("a good guest");
    (pool, function)
}

/// The first acquire of a function in a pool that is there.
pub fn pooled() -> Subject {
    first_acquire("first acquire", Pool::builder)
}

/// The same, compiled in a process that waits for work.
#[cfg(all(target_os = "linux", feature = "compiler"))]
pub fn in_process() -> Subject {
    first_acquire("first acquire, in a process", || {
        let helper = env!("CARGO_BIN_EXE_wasm-pool-compiler");
        Pool::builder().compile_in(wasm_pool::CompilerProcess::helper(helper))
    })
}

fn first_acquire(name: &'static str, builder: impl Fn() -> PoolBuilder + 'static) -> Subject {
    Subject::new(name, move |n| {
        let once = |_| {
            let (pool, function) = unused(builder());
            let began = Instant::now();
            drop(function.acquire(0).expect("room"));
            let took = began.elapsed();
            assert_eq!(pool.stats().compilations, 1);
            took
        };
        (0..n).map(once).sum()
    })
}

/// What a number of threads took together.
pub struct Herd {
    pub compilations: u64,
    pub wall: Duration,
    /// On a processor, all threads together.
    pub cpu: Duration,
}

/// So many threads want one function at once that was never used.
pub fn herd(threads: usize) -> Herd {
    let (pool, function) = unused(Pool::builder());
    let mut herd = together(threads, || drop(function.acquire(0).expect("room")));
    herd.compilations = pool.stats().compilations;
    herd
}

/// So many threads compile it each for itself.
pub fn bare_herd(threads: usize) -> Herd {
    let engine = by_hand::engine();
    together(threads, || drop(compile_bare(&engine)))
}

fn together(threads: usize, work: impl Fn() + Sync) -> Herd {
    let barrier = Barrier::new(threads);
    let one = || {
        barrier.wait();
        let (began, cpu) = (Instant::now(), on_cpu());
        work();
        (began, Instant::now(), on_cpu().saturating_sub(cpu))
    };
    let times: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect()
    });
    let began = times.iter().map(|(began, ..)| *began).min();
    let ended = times.iter().map(|(_, ended, _)| *ended).max();
    Herd {
        compilations: threads as u64,
        wall: ended
            .zip(began)
            .map(|(ended, began)| ended - began)
            .unwrap_or_default(),
        cpu: times.iter().map(|(.., cpu)| *cpu).sum(),
    }
}

/// Time that this thread has been on a processor; Linux says so to the nanosecond.
fn on_cpu() -> Duration {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = stat
        .split_whitespace()
        .next()
        .and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}
