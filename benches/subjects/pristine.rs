//! Leases that each have an instance which nobody has used: off the spares, and without.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use wasm_pool::{Pool, PoolBuilder, PoolingAllocator, Reuse};
use wasmtime::{Engine, InstanceAllocationStrategy, InstancePre, Linker, Module, Store};

use super::by_hand::{self, Held};
use super::{ADD, Add, Subject, pool_of};

/// Spares that are there before leases are timed.
const SPARES: u64 = 256;

fn pristine(builder: PoolBuilder) -> (Pool, Add) {
    let builder = builder.max_instances_per_entry(1024);
    pool_of(builder.reuse(Reuse::Pristine).max_spares(SPARES as usize))
}

/// Waits until everything that is spent has gone, and all spares are there.
fn wait_for_spares(pool: &Pool) {
    loop {
        let stats = pool.stats();
        if stats.idle as u64 == SPARES && stats.leased == 0 && stats.dying == 0 {
            return;
        }
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Instances are made on demand.
pub fn on_demand() -> PoolBuilder {
    Pool::builder()
}

/// Instances lie in places of wasmtime's pooling allocator.
pub fn in_places() -> PoolBuilder {
    Pool::builder().pooling_allocator(PoolingAllocator::for_instances(1024))
}

/// Acquire, call, release while spares last: what the caller waits for.
pub fn while_spares_last(builder: PoolBuilder) -> Subject {
    let (pool, add) = pristine(builder);
    let group = add.in_group(1);
    // As many at once want as many spares.
    drop((0..SPARES).map(|_| group.acquire()).collect::<Vec<_>>());
    // The group's handle keeps its pool, and the subject's closure both.
    let group: &'static _ = Box::leak(Box::new(group));
    Subject::new("pristine, while spares last", move |n| {
        let call = |a| group.call((a, 1)).expect("adds");
        in_rounds(n, || wait_for_spares(&pool), call)
    })
}

/// What a host would write itself: a thread that makes instances ahead and drops them, with a queue each way.
pub fn made_ahead_by_hand() -> Subject {
    let engine = by_hand::engine();
    let module = Module::new(&engine, ADD).expect("the guest compiles");
    let ready = Arc::new(Mutex::new(Vec::new()));
    let used = Arc::new(Mutex::new(Vec::new()));
    let (to_fill, to_empty) = (Arc::downgrade(&ready), used.clone());
    // Ends when nobody takes what it makes.
    std::thread::spawn(move || {
        while let Some(ready) = to_fill.upgrade() {
            drop(to_empty.lock().pop());
            if (ready.lock().len() as u64) < SPARES {
                let fresh = Held::new(&engine, &module);
                ready.lock().insert(0, fresh);
            } else {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
    });
    Subject::new("made ahead, by hand", move |n| {
        in_rounds(
            n,
            || {
                while (ready.lock().len() as u64) < SPARES || !used.lock().is_empty() {
                    std::thread::sleep(Duration::from_micros(100));
                }
            },
            |a| {
                let mut held = ready.lock().pop().expect("some are left");
                let sum = held.call(a, 1);
                used.lock().push(held);
                sum
            },
        )
    })
}

/// So many calls, each time after a wait as many as there are spares; the waits do not count.
fn in_rounds(n: u64, wait: impl Fn(), call: impl Fn(i64) -> i64) -> Duration {
    let rounds = n.div_ceil(SPARES);
    let mut took = Duration::ZERO;
    for _ in 0..rounds {
        wait();
        let began = Instant::now();
        for a in 0..SPARES as i64 {
            assert_eq!(call(a), a + 1);
        }
        took += began.elapsed();
    }
    took * n as u32 / (rounds * SPARES) as u32
}

/// One after the other, however fast they are made: what the whole takes. With it, what the process has used of
/// its processors, in nanoseconds for each lease.
pub fn sustained(builder: PoolBuilder, n: u64) -> (Duration, f64) {
    let (_pool, add) = pristine(builder);
    let group = add.in_group(1);
    group.call((1, 1)).expect("adds");
    let (began, used) = (Instant::now(), processor_time());
    for i in 0..n as i64 {
        assert_eq!(group.call((i, 1)).expect("adds"), i + 1);
    }
    let used = processor_time().saturating_sub(used);
    (began.elapsed(), used.as_nanos() as f64 / n as f64)
}

/// The same where each lease makes its instance and destroys it.
pub fn without_spares(builder: PoolBuilder) -> Subject {
    let (_pool, add) = pool_of(builder.max_uses(1));
    let group: &'static _ = Box::leak(Box::new(add.in_group(1)));
    Subject::calls("without spares", move |a, b| {
        group.call((a, b)).expect("adds")
    })
}

/// A fresh instance from wasmtime's pooling allocator, as a host would write it itself.
pub fn fresh_pooled() -> Subject {
    fresh(
        "fresh, pooling allocator",
        InstanceAllocationStrategy::pooling(),
    )
}

pub fn fresh_on_demand() -> Subject {
    fresh("fresh, on demand", InstanceAllocationStrategy::OnDemand)
}

fn fresh(name: &'static str, strategy: InstanceAllocationStrategy) -> Subject {
    let mut config = wasmtime::Config::new();
    config
        .epoch_interruption(true)
        .allocation_strategy(strategy);
    let engine = Engine::new(&config).expect("a plain engine");
    let module = Module::new(&engine, ADD).expect("the guest compiles");
    let pre: InstancePre<()> = Linker::new(&engine)
        .instantiate_pre(&module)
        .expect("the guest imports nothing");
    Subject::calls(name, move |a, b| {
        let mut store = Store::new(&engine, ());
        store.set_epoch_deadline(1 << 40);
        let instance = pre.instantiate(&mut store).expect("room");
        let add = instance.get_typed_func::<(i64, i64), i64>(&mut store, "add");
        add.expect("add").call(&mut store, (a, b)).expect("adds")
    })
}

/// Of all threads that live; Linux says so to the nanosecond.
fn processor_time() -> Duration {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten();
    let stat = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("schedstat")).ok();
    let nanos = |stat: String| stat.split_whitespace().next()?.parse::<u64>().ok();
    let all = threads.filter_map(|thread| stat(thread.ok()?).and_then(nanos));
    Duration::from_nanos(all.sum::<u64>())
}
