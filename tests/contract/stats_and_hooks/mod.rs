//! C-O1 to C-O3: what can be seen from outside: statistics, hooks, the removal listener, metrics and
//! traces; and that nobody who looks is called under the pool's lock.

mod recorded;
mod traces;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use crate::common::*;
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use wasm_pool::{
    Billing, Budget, Definition, Function, Group, Limits, ManualClock, Pool, PoolBuilder, Removal,
    RemovalReason,
};

const SECOND: Duration = Duration::from_secs(1);

type F = Function<(), i32>;

// C-O1: statistics ─────────────────────────────────────────────────────────────────────────────────

#[test]
fn c_o1_stats_count_what_happened() {
    let pool = quiet_with_clock()
        .0
        .max_instances_per_entry(2)
        .build()
        .unwrap();
    let (f, g) = (
        define_with_pages(&pool, "f", 1),
        define_with_pages(&pool, "g", 2),
    );
    let lease = f.acquire(1).unwrap();
    f.call(1, ()).unwrap();
    f.call(1, ()).unwrap();
    f.acquire(2).unwrap().discard();
    g.call(1, ()).unwrap();
    let stats = check(&pool);
    assert_eq!(
        (stats.idle, stats.leased, stats.dying, stats.waiting),
        (2, 1, 0, 0)
    );
    assert_eq!(
        (stats.hits, stats.misses, stats.blocks, stats.refusals),
        (1, 4, 0, 0)
    );
    assert_eq!((stats.modules_known, stats.modules_loaded), (2, 2));
    assert_eq!(
        (stats.compilations, stats.loads, stats.code_dropped),
        (2, 2, 0)
    );
    assert_eq!((stats.compiling, stats.closed), (0, false));
    let [of_f, of_g] = &stats.functions[..] else {
        panic!("{:?}", stats.functions);
    };
    assert_eq!((&*of_f.name, &*of_f.arguments), ("f", ""));
    assert_eq!(
        (of_f.hits, of_f.misses, of_f.idle, of_f.leased),
        (1, 3, 1, 1)
    );
    assert_eq!(
        (of_f.retirements, of_f.evictions, of_f.growth_refusals),
        (1, 0, 0)
    );
    assert_eq!(
        (of_g.hits, of_g.misses, of_g.idle, of_g.leased),
        (0, 1, 1, 0)
    );
    assert!(of_g.code_loaded);
    assert_eq!(
        of_f.code_bytes + of_g.code_bytes,
        charged(&pool, Budget::Code)
    );
    assert_eq!(stats.budgets().count(), Budget::ALL.len());
    drop(lease);
}

#[test]
fn c_o1_overloads_are_told_apart() {
    let pool = quiet_with_clock().0.build().unwrap();
    let one: F = pool
        .define(definition_with_pages("f", 1).args(["int"]))
        .unwrap();
    let _two: F = pool
        .define(definition_with_pages("f", 1).args(["text"]))
        .unwrap();
    one.call(1, ()).unwrap();
    let stats = check(&pool);
    assert_eq!(*stats.function("f").unwrap().arguments, *"int");
    let misses: Vec<_> = stats
        .functions
        .iter()
        .map(|f| (&*f.arguments, f.misses))
        .collect();
    assert_eq!(misses, [("int", 1), ("text", 0)]);
    assert!(stats.function("g").is_none());
}

#[test]
fn c_o1_hits_outlive_the_entries_that_counted_them() {
    let (builder, clock) = quiet_with_clock();
    let pool = builder.idle_timeout(SECOND).build().unwrap();
    let f = define_with_pages(&pool, "f", 1);
    let caller = f.clone();
    // A thread keeps a reference to the entries that it used; this one ends.
    thread::spawn(move || (0..5).for_each(|_| drop(caller.call(1, ()))))
        .join()
        .unwrap();
    assert_eq!(pool.stats().hits, 4);
    clock.advance(SECOND);
    pool.sweep();
    pool.sweep();
    let stats = check(&pool);
    assert_eq!((stats.idle, stats.hits, stats.misses), (0, 4, 1));
    f.call(1, ()).unwrap();
    f.call(1, ()).unwrap();
    assert_eq!(pool.stats().hits, 5);
}

#[test]
fn c_o1_every_snapshot_is_consistent_in_itself() {
    let limits = Limits::new().memory(8 * instance_bytes(1));
    let pool = Pool::builder()
        .limits(limits)
        .no_housekeeper()
        .build()
        .unwrap();
    let f = define_with_pages(&pool, "f", 1);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for seed in 0..2_u64 {
            let (f, done) = (&f, &done);
            scope.spawn(move || {
                for n in 0.. {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    let _ = f.call((seed + n * 5) % 13, ());
                }
            });
        }
        let mut before = pool.stats();
        for _ in 0..3000 {
            let now = pool.stats();
            is_consistent(&now);
            assert!(now.misses >= before.misses && now.hits >= before.hits);
            before = now;
        }
        done.store(true, Ordering::Relaxed);
    });
    check(&pool);
}

fn is_consistent(stats: &wasm_pool::Stats) {
    let charged = |budget| stats.budget(budget).charged;
    let parts = [Budget::Memory, Budget::Code, Budget::Compile, Budget::Stack];
    assert_eq!(
        charged(Budget::Total),
        parts.map(charged).iter().sum::<u64>()
    );
    let live = (stats.idle + stats.leased) as u64;
    assert!(
        charged(Budget::Memory) >= live * instance_bytes(1),
        "{stats:?}"
    );
    let all = stats
        .functions
        .iter()
        .map(|f| f.idle + f.leased)
        .sum::<usize>();
    assert_eq!(all as u64, live);
    assert_eq!(stats.functions[0].misses, stats.misses);
}

// C-O1: retain ─────────────────────────────────────────────────────────────────────────────────────

#[test]
fn c_o1_retain_shows_what_is_idle_and_evicts_what_is_not_wanted() {
    let (builder, clock) = quiet_with_clock();
    let pool = builder.build().unwrap();
    let (f, g) = (
        define_with_pages(&pool, "f", 1),
        define_with_pages(&pool, "g", 2),
    );
    f.call(1, ()).unwrap();
    clock.advance(SECOND);
    g.call("reports", ()).unwrap();
    clock.advance(SECOND);
    f.call(1, ()).unwrap();
    clock.advance(SECOND);
    let leased = f.acquire(2).unwrap();
    let mut seen = Vec::new();
    let evicted = pool.retain(|idle| {
        let memory = idle.memory_bytes;
        seen.push((
            idle.name().to_owned(),
            idle.group.clone(),
            memory,
            idle.age,
            idle.idle,
        ));
        idle.name() == "f"
    });
    seen.sort();
    let of_f = (
        "f".into(),
        Group::from(1),
        instance_bytes(1),
        3 * SECOND,
        SECOND,
    );
    let of_g = (
        "g".into(),
        Group::from("reports"),
        instance_bytes(2),
        2 * SECOND,
        2 * SECOND,
    );
    assert_eq!((evicted, seen), (1, vec![of_f, of_g]));
    let stats = check(&pool);
    assert_eq!((stats.idle, stats.leased), (1, 1));
    assert_eq!(stats.function("g").unwrap().evictions, 1);
    assert_eq!((pool.retain(|_| true), pool.retain(|_| false)), (0, 1));
    drop(leased);
    check(&pool);
}

// Hooks ──────────────────────────────────────────────────────────────────────────────────────────

/// Looks into the pool: this hangs in a thread that holds the lock.
fn look<T: Send + 'static>(pool: &OnceLock<Pool<T>>, calls: &AtomicU64) {
    if let Some(pool) = pool.get() {
        pool.stats();
        pool.recount().unwrap();
        calls.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn c_o1_nothing_of_the_hosts_is_called_under_the_lock() {
    let calls = in_time(|| {
        let cell: Arc<OnceLock<Pool<u8>>> = Arc::default();
        let calls: Arc<[AtomicU64; 5]> = Arc::default();
        let looks = |which: usize| {
            let (cell, calls) = (cell.clone(), calls.clone());
            move || look(&cell, &calls[which])
        };
        let (data, create, recycle) = (looks(0), looks(1), looks(2));
        let (evict, import) = (looks(3), looks(4));
        let pool = Pool::builder_with(move |_, _| {
            data();
            7
        })
        .no_housekeeper()
        .on_create(move |_, _| {
            create();
            Ok(())
        })
        .on_recycle(move |_, _| {
            recycle();
            Ok(())
        })
        .removal_listener(move |_| evict())
        .imports(move |linker| linker.func_wrap("host", "look", import).map(drop))
        .build()
        .unwrap();
        assert!(cell.set(pool.clone()).is_ok());
        let text = r#"(module (import "host" "look" (func $look)) (func (export "f") call $look))"#;
        let f: Function<(), (), u8> = pool.define(Definition::new("f").wasm(wat(text))).unwrap();
        f.call(1, ()).unwrap();
        f.call(2, ()).unwrap();
        let retained = pool.retain(|_| {
            pool.stats();
            false
        });
        assert_eq!(retained, 2);
        f.acquire(1).unwrap().discard();
        pool.close();
        [0, 1, 2, 3, 4].map(|n| calls[n].load(Ordering::Relaxed))
    });
    assert_eq!(calls, [3, 3, 2, 3, 2]);
}

#[test]
fn c_o1_a_listener_may_use_the_pool() {
    in_time(|| {
        let cell: Arc<OnceLock<F>> = Arc::default();
        let function = cell.clone();
        let pool = quiet_with_clock()
            .0
            .removal_listener(move |eviction| {
                if eviction.reason == RemovalReason::Discarded {
                    function.get().unwrap().call(9, ()).unwrap();
                }
            })
            .build()
            .unwrap();
        let f = define_with_pages(&pool, "f", 1);
        cell.set(f.clone()).unwrap();
        f.acquire(1).unwrap().discard();
        assert_eq!(check(&pool).idle, 1);
        assert_eq!(f.acquire(9).unwrap().uses(), 2);
    });
}

#[test]
fn c_o1_a_listener_that_panics_costs_nothing() {
    let pool = quiet_with_clock()
        .0
        .removal_listener(|_| panic!("a listener panics"))
        .build()
        .unwrap();
    let f = define_with_pages(&pool, "f", 1);
    f.acquire(1).unwrap().discard();
    f.call(2, ()).unwrap();
    f.call(3, ()).unwrap();
    assert_eq!(pool.retain(|_| false), 2);
    let stats = check(&pool);
    assert_eq!((stats.dying, stats.budget(Budget::Memory).charged), (0, 0));
    pool.close();
    check_empty(&pool);
}

/// Says so when it is dropped.
struct Tell(Arc<AtomicBool>);

impl Drop for Tell {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn c_o1_the_listener_hears_of_an_instance_when_it_is_gone() {
    let dropped = Arc::new(AtomicBool::new(false));
    let data = dropped.clone();
    let seen = Arc::new(AtomicBool::new(false));
    let listener = seen.clone();
    let pool = Pool::builder_with({
        let data = data.clone();
        move |_, _| Tell(data.clone())
    })
    .no_housekeeper()
    .removal_listener(move |_| listener.store(data.load(Ordering::Relaxed), Ordering::Relaxed))
    .build()
    .unwrap();
    define_with_pages(&pool, "f", 1)
        .acquire(1)
        .unwrap()
        .discard();
    assert!(dropped.load(Ordering::Relaxed) && seen.load(Ordering::Relaxed));
}

#[test]
fn c_o1_a_create_hook_runs_once_for_each_instance_and_before_its_first_lease() {
    let text = r#"(module (global (export "g") (mut i32) (i32.const 0))
        (func (export "f") (result i32) global.get 0))"#;
    let pool = quiet_with_clock()
        .0
        .on_create(|store, instance| {
            let global = instance.get_global(&mut *store, "g").unwrap();
            let wasmtime::Val::I32(before) = global.get(&mut *store) else {
                panic!("it is an i32");
            };
            global.set(store, wasmtime::Val::I32(before + 42))
        })
        .build()
        .unwrap();
    let f: F = pool.define(Definition::new("f").wasm(wat(text))).unwrap();
    assert_eq!([(); 3].map(|()| f.call(1, ()).unwrap()), [42; 3]);
    assert_eq!(f.call(2, ()).unwrap(), 42);
}

// The removal listener ──────────────────────────────────────────────────────────────────────────

type Evictions = Arc<Mutex<Vec<Removal>>>;

fn listening() -> (PoolBuilder, ManualClock, Evictions) {
    let (builder, clock) = quiet_with_clock();
    let seen = Evictions::default();
    let listener = seen.clone();
    let builder = builder.removal_listener(move |e| listener.lock().unwrap().push(e.clone()));
    (builder, clock, seen)
}

/// What left, and nothing else did; the listener forgets it.
#[track_caller]
fn left(seen: &Evictions, expected: &[RemovalReason]) {
    let reasons: Vec<_> = seen.lock().unwrap().drain(..).map(|e| e.reason).collect();
    assert_eq!(reasons, expected);
}

#[test]
fn c_o1_an_eviction_says_who_and_how_much() {
    let (builder, _, seen) = listening();
    let pool = builder.build().unwrap();
    let grow: Function<i32, i32> = pool
        .define(
            Definition::new("math.grow")
                .args(["int"])
                .wasm(memory_module(1, 0)),
        )
        .unwrap();
    for _ in 0..3 {
        grow.call("reports", 1).unwrap();
    }
    pool.retain(|_| false);
    let seen = seen.lock().unwrap();
    let [eviction] = &seen[..] else {
        panic!("{seen:?}");
    };
    assert_eq!(&*eviction.signature, "math.grow(int)");
    assert_eq!(
        (&eviction.group, eviction.reason),
        (&"reports".into(), RemovalReason::NotRetained)
    );
    assert_eq!((eviction.uses, eviction.memory_bytes), (3, 4 << 16));
}

#[test]
fn c_o1_reasons_of_idle_instances() {
    let (builder, clock, seen) = listening();
    let pool = builder
        .limits(Limits::new().memory(instance_bytes(1)))
        .idle_timeout(SECOND)
        .build()
        .unwrap();
    let f = define_with_pages(&pool, "f", 1);
    f.call(1, ()).unwrap();
    f.call(2, ()).unwrap();
    left(&seen, &[RemovalReason::Room]);
    clock.advance(SECOND);
    pool.sweep();
    left(&seen, &[RemovalReason::Idle]);
    f.call(1, ()).unwrap();
    pool.replace::<(), i32>(definition_with_pages("f", 0))
        .unwrap();
    left(&seen, &[RemovalReason::Replaced]);
    f.call(1, ()).unwrap();
    pool.remove("f").unwrap();
    left(&seen, &[RemovalReason::Removed]);
    define_with_pages(&pool, "g", 1).call(1, ()).unwrap();
    pool.close();
    left(&seen, &[RemovalReason::Closed]);
    check_empty(&pool);
}

#[test]
fn c_o1_reasons_of_leased_instances() {
    let (builder, clock, seen) = listening();
    let pool = builder
        .max_lifetime(SECOND)
        .max_uses(9)
        .max_idle_memory(1 << 16)
        .build()
        .unwrap();
    let f = define_with_pages(&pool, "f", 1);
    let lease = f.acquire(1).unwrap();
    clock.advance(SECOND);
    drop(lease);
    left(&seen, &[RemovalReason::Lifetime]);
    (0..9).for_each(|_| drop(f.call(1, ())));
    left(&seen, &[RemovalReason::Uses]);
    let mut lease = f.acquire(1).unwrap();
    lease.memory().unwrap().grow(lease.store_mut(), 1).unwrap();
    drop(lease);
    left(&seen, &[RemovalReason::Oversize]);
    f.acquire(1).unwrap().discard();
    left(&seen, &[RemovalReason::Discarded]);
    let trap: Function<i32, i32> = pool
        .define(Definition::new("trap_if").wasm(guest("rogue_trap")))
        .unwrap();
    trap.call(1, 1).unwrap_err();
    left(&seen, &[RemovalReason::Failed]);
    let lease = f.acquire(1).unwrap();
    pool.replace::<(), i32>(definition_with_pages("f", 0))
        .unwrap();
    left(&seen, &[]);
    drop(lease);
    left(&seen, &[RemovalReason::Replaced]);
    let lease = f.acquire(1).unwrap();
    pool.remove("f").unwrap();
    drop(lease);
    left(&seen, &[RemovalReason::Removed]);
    let lease = define_with_pages(&pool, "g", 1).acquire(1).unwrap();
    pool.close();
    drop(lease);
    left(&seen, &[RemovalReason::Closed]);
    check_empty(&pool);
}

/// As the listener's documentation says: it holds no lock of its own while it leases.
#[test]
fn c_o1_a_listener_whose_lease_evicts_is_told_of_that_within_itself() {
    let told = in_time(|| {
        let cell: Arc<OnceLock<F>> = Arc::default();
        let depth = Arc::new(AtomicU64::new(0));
        let told: Arc<Mutex<Vec<(RemovalReason, u64)>>> = Arc::default();
        let (function, log) = (cell.clone(), told.clone());
        let pool = quiet_with_clock()
            .0
            .limits(Limits::new().memory(2 * instance_bytes(1)))
            .removal_listener(move |removal| {
                let within = depth.fetch_add(1, Ordering::Relaxed);
                log.lock().unwrap().push((removal.reason, within));
                if removal.reason == RemovalReason::Discarded {
                    // The first has room, the second only when what is idle has been evicted.
                    let leases = [8_u64, 9].map(|group| function.get().unwrap().acquire(group));
                    let _leased = leases.map(Result::unwrap);
                }
                depth.fetch_sub(1, Ordering::Relaxed);
            })
            .build()
            .unwrap();
        let f = define_with_pages(&pool, "f", 1);
        cell.set(f.clone()).unwrap();
        f.call(2, ()).unwrap();
        f.acquire(1).unwrap().discard();
        assert_eq!(check(&pool).idle, 2);
        told.lock().unwrap().clone()
    });
    assert_eq!(
        told,
        [(RemovalReason::Discarded, 0), (RemovalReason::Room, 1)]
    );
}
