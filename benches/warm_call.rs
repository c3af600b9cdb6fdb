//! What a warm lease costs beside the guest call that it serves, as ratios within one run.
//!
//! `cargo bench --bench warm_call`. Medians of interleaved rounds, one thread.

use std::hint::black_box;
use std::time::Instant;

use wasm_pool::{Definition, Function, Pool};
use wasmtime::{Config, Engine, Instance, Module, Store};

const ADD: &[u8] = include_bytes!("../examples/guests/prebuilt/math_add.wasm");
const ROUNDS: usize = 15;
const CALLS: i64 = 400_000;

/// Nanoseconds for each of `CALLS` calls.
fn time(mut call: impl FnMut(i64) -> i64) -> f64 {
    let began = Instant::now();
    for n in 0..CALLS {
        black_box(call(n));
    }
    began.elapsed().as_nanos() as f64 / CALLS as f64
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    let mut config = Config::new();
    config.epoch_interruption(true);
    let engine = Engine::new(&config).expect("the engine is plain");
    let module = Module::new(&engine, ADD).expect("the guest compiles");
    let mut store = Store::new(&engine, ());
    store.set_epoch_deadline(1 << 40);
    let instance = Instance::new(&mut store, &module, &[]).expect("the guest imports nothing");
    let bare = instance
        .get_typed_func::<(i64, i64), i64>(&mut store, "add")
        .expect("add");

    let pool = Pool::builder().build().expect("the pool is plain");
    let definition = Definition::new("math.add").wasm(ADD);
    let add: Function<(i64, i64), i64> = pool.define(definition).expect("the guest is good");
    let group = add.in_group(1);

    let mut times = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        times[0].push(time(|n| bare.call(&mut store, (n, 1)).expect("adds")));
        let mut lease = group.acquire().expect("room");
        times[1].push(time(|n| lease.call((n, 1)).expect("adds")));
        drop(lease);
        times[2].push(time(|n| group.call((n, 1)).expect("adds")));
        times[3].push(time(|n| add.call(1, (n, 1)).expect("adds")));
    }
    let [bare, held, resolved, keyed] = times.map(median);
    println!("bare TypedFunc::call                      {bare:6.1} ns");
    for (what, time) in [
        ("call in a held lease", held),
        ("acquire + call + release, resolved", resolved),
        ("acquire + call + release, by group", keyed),
    ] {
        println!("{what:41} {time:6.1} ns  {:.2} x bare", time / bare);
    }
}
