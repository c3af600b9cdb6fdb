//! Where each lease has an instance that nobody has used before: spares, how many, and at whose expense.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pollster::block_on;
use wasm_pool::{
    Definition, Function, Limits, ManualClock, Pool, PoolBuilder, PoolingAllocator, RemovalReason,
    Reuse, Share, Stats,
};

use crate::common::*;

/// Says what it finds of an earlier lease, everywhere where one can leave a mark, and leaves one: memory, a global, a
/// table, a segment and an element segment that are dropped.
const MARKS: &str = r#"(module
    (memory (export "memory") 2)
    (table $table 1 funcref)
    (global $global (mut i32) (i32.const 0))
    (data $data "x")
    (elem $elem func $other)
    (func $other)
    (func (export "f") (param $mark i32) (result i32) (local $found i32)
        (local.set $found (i32.or (i32.load (i32.const 0)) (i32.load (i32.const 130000))))
        (local.set $found (i32.or (local.get $found) (global.get $global)))
        (local.set $found (i32.or (local.get $found)
            (i32.eqz (ref.is_null (table.get $table (i32.const 0))))))
        (local.set $found (i32.or (local.get $found)
            (i32.sub (memory.size) (i32.const 2))))
        ;; Traps where they were dropped.
        (memory.init $data (i32.const 8) (i32.const 0) (i32.const 1))
        (table.init $table $elem (i32.const 0) (i32.const 0) (i32.const 1))
        (i32.store (i32.const 0) (local.get $mark))
        (i32.store (i32.const 130000) (local.get $mark))
        (global.set $global (local.get $mark))
        (data.drop $data)
        (elem.drop $elem)
        (drop (memory.grow (i32.const 1)))
        (local.get $found)))"#;

fn quiet() -> PoolBuilder {
    Pool::builder().no_housekeeper().reuse(Reuse::Pristine)
}

fn marks(pool: &Pool) -> Function<i32, i32> {
    pool.define(Definition::new("f").wasm(wat(MARKS))).unwrap()
}

/// Of its own module, with so many pages.
fn pages<T: Send + 'static>(pool: &Pool<T>, name: &str, pages: u32) -> Function<(), i32, T> {
    let wasm = memory_module(pages, name.len() as u32);
    let definition = Definition::new(name).export("f").wasm(wasm);
    pool.define(definition).unwrap()
}

fn warm(pool: &Pool, name: &str, count: u32) -> Function<(), i32> {
    let wasm = memory_module(count, name.len() as u32);
    let definition = Definition::new(name).export("f").wasm(wasm);
    pool.define(definition.reuse(Reuse::Warm)).unwrap()
}

fn misses(pool: &Pool) -> u64 {
    pool.stats().functions.iter().map(|f| f.misses).sum()
}

/// So many leases at once.
fn at_once<T: Send + 'static>(f: &Function<(), i32, T>, count: usize) {
    let leases: Vec<_> = (0..count).map(|_| f.acquire(1).unwrap()).collect();
    drop(leases);
}

#[test]
fn no_lease_finds_what_another_has_left() {
    let leases = leases(3000);
    let places = PoolingAllocator::for_instances(16);
    for builder in [
        quiet(),
        Pool::builder().reuse(Reuse::Pristine),
        quiet().pooling_allocator(places),
        quiet().pooling_allocator(places.keep_resident(20_000)),
    ] {
        let pool = builder.build().unwrap();
        let at_first = charges(&pool);
        let f = marks(&pool);
        let threads = 2;
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let (pool, f) = (&pool, &f);
                scope.spawn(move || {
                    for lease in 0..leases / threads {
                        let mark = 1 + thread + 2 * lease;
                        assert_eq!(f.call(1, mark).unwrap(), 0, "somebody's mark");
                        if lease % 5 == 0 {
                            pool.sweep();
                        }
                    }
                });
            }
        });
        let stats = check(&pool);
        assert!(stats.spares_made > 0 && stats.functions[0].hits > 0);
        assert!(pool.close_and_drain(Duration::from_secs(60)));
        // Nothing, but for places.
        assert_eq!(charges(&pool), at_first);
    }
}

/// As often as the environment says, or else so often.
fn leases(count: i32) -> i32 {
    match std::env::var("WASM_POOL_PRISTINE_LEASES") {
        Ok(count) => count.parse().expect("a number"),
        Err(_) => count,
    }
}

/// Every other page of its memory is written to, before and behind its data, and on it: more parts than any scan of dirty
/// pages tells apart at once. What was there before is counted.
const MANY_PARTS: &str = r#"(module
    (memory 32)
    (data (i32.const 40960) "from the module")
    (func (export "f") (param $mark i32) (result i32) (local $at i32) (local $found i32)
        (loop $next
            (if (i32.ne (i32.load (local.get $at))
                    (select (i32.const 0x6d6f7266) (i32.const 0) (i32.eq (local.get $at) (i32.const 40960))))
                (then (local.set $found (i32.add (local.get $found) (i32.const 1)))))
            (i32.store (local.get $at) (local.get $mark))
            (local.set $at (i32.add (local.get $at) (i32.const 8192)))
            (br_if $next (i32.lt_u (local.get $at) (i32.const 0x200000))))
        (local.get $found)))"#;

#[test]
fn no_lease_finds_any_of_many_parts_that_another_has_written_to() {
    let leases = leases(400);
    for keep in [0, 4096, 100_000, 4 << 20] {
        let places = PoolingAllocator::for_instances(3).keep_resident(keep);
        let pool = quiet().pooling_allocator(places).build().unwrap();
        let f: Function<i32, i32> =
            (pool.define(Definition::new("f").wasm(wat(MANY_PARTS)))).unwrap();
        for lease in 1..=leases {
            assert_eq!(f.call(1, -lease).unwrap(), 0, "lease {lease}, {keep} kept");
            if lease % 3 == 0 {
                pool.sweep();
            }
        }
        check(&pool);
    }
}

#[test]
fn the_host_s_data_is_made_anew_for_each_lease() {
    let builder = Pool::builder_with(|_, _| Vec::<u8>::new());
    let pool = (builder.no_housekeeper().reuse(Reuse::Pristine).build()).unwrap();
    let f = pages(&pool, "f", 1);
    for _ in 0..5 {
        let mut lease = f.acquire(1).unwrap();
        assert!(lease.data().is_empty());
        lease.data_mut().push(1);
        drop(lease);
        pool.sweep();
    }
    assert_eq!(pool.stats().functions[0].misses, 1);
}

#[test]
fn the_next_lease_has_a_spare_and_misses_nothing() {
    let pool = quiet().build().unwrap();
    let f = pages(&pool, "f", 1);
    f.call(1, ()).unwrap();
    let before = pool.stats();
    assert_eq!((before.idle, before.spares_made, misses(&pool)), (0, 0, 1));
    pool.sweep();
    for round in 1..5 {
        let stats = check(&pool);
        assert_eq!((stats.idle, stats.spares_made), (1, round));
        // Charged as any idle instance.
        let memory = stats.budget(wasm_pool::Budget::Memory).charged;
        assert_eq!(memory, instance_bytes(1));
        f.call(1, ()).unwrap();
        assert_eq!(misses(&pool), 1);
        pool.sweep();
    }
}

#[test]
fn spares_follow_demand_up_and_down() {
    let clock = ManualClock::new();
    let builder = quiet().clock(clock.clone()).max_instances_per_entry(16);
    let pool = builder.max_spares(6).build().unwrap();
    let f = pages(&pool, "f", 0);
    let spares_after = |count| {
        at_once(&f, count);
        pool.sweep();
        check(&pool).idle
    };
    // Twice as many for each lease that found none, up to the limit.
    assert_eq!(spares_after(1), 1);
    assert_eq!(spares_after(1), 1);
    assert_eq!(spares_after(2), 2);
    assert_eq!(spares_after(3), 4);
    assert_eq!(spares_after(9), 6);
    let misses_of_peak = misses(&pool);
    // What nobody needed for as long as an instance may be idle is too many.
    let period = |pool: &Pool, count| {
        at_once(&f, count);
        pool.sweep();
        clock.advance(Duration::from_secs(5));
        pool.sweep();
        check(pool).idle
    };
    period(&pool, 2);
    assert_eq!(period(&pool, 2), 2);
    assert_eq!(period(&pool, 2), 2);
    period(&pool, 1);
    assert_eq!(period(&pool, 1), 1);
    period(&pool, 0);
    assert_eq!(period(&pool, 0), 0);
    assert_eq!(misses(&pool), misses_of_peak);
    // And so it begins again.
    assert_eq!(spares_after(1), 1);
}

#[test]
fn a_function_has_spares_for_its_own_idle_time() {
    let clock = ManualClock::new();
    let pool = quiet().clock(clock.clone()).build().unwrap();
    let definition = Definition::new("f").wasm(memory_module(0, 0));
    let hour = Duration::from_secs(3600);
    let f: Function<(), i32> = pool.define(definition.idle_timeout(hour)).unwrap();
    f.call(1, ()).unwrap();
    pool.sweep();
    for _ in 0..3 {
        clock.advance(Duration::from_secs(600));
        pool.sweep();
        assert_eq!(check(&pool).idle, 1);
    }
    for _ in 0..2 {
        clock.advance(hour);
        pool.sweep();
    }
    assert_eq!(check(&pool).idle, 0);
}

#[test]
fn there_are_none_where_none_may_be() {
    let pool = quiet().max_spares(0).build().unwrap();
    let f = pages(&pool, "f", 0);
    for _ in 0..3 {
        at_once(&f, 3);
        pool.sweep();
    }
    let stats = check(&pool);
    assert_eq!((stats.idle, stats.spares_made, misses(&pool)), (0, 0, 9));
    // Nor more than instances may be at all.
    let builder = quiet().max_instances_per_entry(2);
    let pool = builder.max_spares(usize::MAX).build().unwrap();
    let f = pages(&pool, "f", 0);
    at_once(&f, 2);
    for _ in 0..3 {
        pool.sweep();
        assert_eq!(check(&pool).idle, 2);
        at_once(&f, 2);
    }
}

#[test]
fn spares_are_the_first_to_go_for_room() {
    let room = 3 * instance_bytes(1);
    let pool = quiet().limits(Limits::new().memory(room)).build().unwrap();
    let old = warm(&pool, "old", 1);
    let spare = pages(&pool, "spare", 1);
    old.call(1, ()).unwrap();
    spare.call(1, ()).unwrap();
    pool.sweep();
    let third = warm(&pool, "third", 1);
    third.call(1, ()).unwrap();
    assert_eq!(check(&pool).idle, 3);
    // Room for one more: the spare goes, though the others were idle for longer.
    let fourth = warm(&pool, "fourth_", 1);
    fourth.call(1, ()).unwrap();
    let idle = |name: &str| {
        let stats = check(&pool);
        let function = stats.functions.iter().find(|f| *f.name == *name);
        function.map(|f| f.idle)
    };
    assert_eq!(idle("old"), Some(1));
    assert_eq!(idle("spare"), Some(0));
    assert_eq!(idle("third"), Some(1));
}

#[test]
fn none_is_made_at_the_expense_of_others() {
    let room = 2 * instance_bytes(1);
    let pool = quiet().limits(Limits::new().memory(room)).build().unwrap();
    let f = pages(&pool, "f", 1);
    let other = warm(&pool, "other", 1);
    let another = warm(&pool, "another", 1);
    f.call(1, ()).unwrap();
    let leased = other.acquire(1).unwrap();
    another.call(1, ()).unwrap();
    // All is full, of which one could be evicted.
    pool.sweep();
    let stats = check(&pool);
    assert_eq!((stats.idle, stats.leased, stats.spares_made), (1, 1, 0));
    // And a lease is what a lease ever was.
    f.call(1, ()).unwrap();
    // That has made room, for the next.
    pool.sweep();
    assert_eq!(check(&pool).spares_made, 1);
    drop(leased);
}

#[test]
fn none_is_made_beyond_a_group_s_limit() {
    let share = Share::new().limit(wasm_pool::Budget::Memory, 2 * instance_bytes(1));
    let pool = quiet().group(1, share).build().unwrap();
    let f = pages(&pool, "f", 1);
    at_once(&f, 2);
    at_once(&f, 2);
    let held = warm(&pool, "held", 1);
    let lease = held.acquire(1).unwrap();
    pool.sweep();
    assert_eq!(check(&pool).idle, 1, "one has room beside the lease");
    // The spare makes room for what its own group asks for.
    let second = warm(&pool, "second", 1);
    let another = second.acquire(1).unwrap();
    assert_eq!(check(&pool).idle, 0);
    drop((lease, another));
}

#[test]
fn what_replaces_a_function_may_say_otherwise() {
    let pool = quiet().build().unwrap();
    let f = marks(&pool);
    f.call(1, 7).unwrap();
    pool.sweep();
    assert_eq!(check(&pool).idle, 1);
    let warm = Definition::new("f").wasm(wat(MARKS)).reuse(Reuse::Warm);
    let f: Function<i32, i32> = pool.replace(warm).unwrap();
    assert_eq!(check(&pool).idle, 0, "C-N2");
    assert_eq!(f.call(1, 7).unwrap(), 0);
    pool.sweep();
    assert!(
        f.call(1, 7).is_err(),
        "its segments are gone, as they were dropped"
    );
    f.call(1, 7).unwrap();
    let pristine = Definition::new("f").wasm(wat(MARKS));
    let f: Function<i32, i32> = pool.replace(pristine).unwrap();
    for _ in 0..3 {
        assert_eq!(f.call(1, 7).unwrap(), 0);
        pool.sweep();
    }
    assert_eq!(check(&pool).idle, 1);
    pool.remove("f").unwrap();
    pool.sweep();
    let stats = check(&pool);
    assert_eq!((stats.idle, stats.leased), (0, 0));
}

#[test]
fn a_lease_that_fails_costs_the_next_nothing() {
    let pool = quiet().build().unwrap();
    let wasm = wat(r#"(module (func (export "f") (param i32) (result i32)
        (if (local.get 0) (then unreachable)) i32.const 1))"#);
    let f: Function<i32, i32> = pool.define(Definition::new("f").wasm(wasm)).unwrap();
    for _ in 0..3 {
        f.call(1, 1).unwrap_err();
        pool.sweep();
        assert_eq!(check(&pool).idle, 1, "a spare in its place");
    }
    assert_eq!(f.call(1, 0).unwrap(), 1);
    assert_eq!(misses(&pool), 1);
}

#[test]
fn a_recycler_makes_them_beside_the_leases() {
    let pool = (Pool::builder().reuse(Reuse::Pristine).build()).unwrap();
    let f = pages(&pool, "f", 1);
    for _ in 0..50 {
        f.call(1, ()).unwrap();
        until(|| pool.stats().idle == 1 && pool.stats().dying == 0);
    }
    let stats = check(&pool);
    assert_eq!((stats.functions[0].hits, misses(&pool)), (49, 1));
    assert_eq!(stats.functions[0].retirements, 50);
    assert!(pool.close_and_drain(Duration::from_secs(60)));
    check_empty(&pool);
}

#[test]
fn instances_are_destroyed_on_another_thread() {
    struct Data(Arc<Mutex<Vec<std::thread::ThreadId>>>);
    impl Drop for Data {
        fn drop(&mut self) {
            self.0.lock().unwrap().push(std::thread::current().id());
        }
    }
    let dropped = Arc::new(Mutex::new(Vec::new()));
    let list = dropped.clone();
    let builder = Pool::builder_with(move |_, _| Data(list.clone()));
    let pool = builder.reuse(Reuse::Pristine).build().unwrap();
    let f = pages(&pool, "f", 1);
    for round in 1..20 {
        f.call(1, ()).unwrap();
        until(|| dropped.lock().unwrap().len() == round);
    }
    let own = std::thread::current().id();
    assert!(dropped.lock().unwrap().iter().all(|id| *id != own));
}

#[test]
fn who_waits_for_an_instance_is_told_of_the_end_of_a_lease() {
    let builder = Pool::builder().reuse(Reuse::Pristine);
    let pool = builder.max_instances_per_entry(1).build().unwrap();
    let f = pages(&pool, "f", 1);
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..100 {
                    f.call(1, ()).unwrap();
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(done.into_inner(), 400);
    check(&pool);
}

#[test]
fn who_waits_for_room_is_told_of_the_end_of_a_lease() {
    let limits = Limits::new().memory(instance_bytes(1));
    let builder = Pool::builder().reuse(Reuse::Pristine).limits(limits);
    let pool = builder.build().unwrap();
    let all = ["a", "bb", "ccc"].map(|name| pages(&pool, name, 1));
    std::thread::scope(|scope| {
        for f in &all {
            scope.spawn(move || {
                for _ in 0..100 {
                    let options = room_within(Duration::from_secs(60));
                    let mut lease = f.acquire_with(1, options).unwrap();
                    assert_eq!(lease.call(()).unwrap(), 1);
                }
            });
        }
    });
    check(&pool);
}

#[test]
fn tasks_have_spares_with_stacks() {
    let pool = quiet().build().unwrap();
    let f = pages(&pool, "f", 1);
    let call = || {
        let called = block_on(async { f.acquire_async(1).await.unwrap().call_async(()).await });
        assert_eq!(called.unwrap(), 1);
    };
    call();
    pool.sweep();
    let before = charges(&pool);
    for _ in 0..3 {
        let mut lease = block_on(f.acquire_async(1)).unwrap();
        assert_eq!(charges(&pool), before, "its stack was reserved with it");
        assert_eq!(block_on(lease.call_async(())).unwrap(), 1);
        drop(lease);
        pool.sweep();
    }
    assert_eq!(misses(&pool), 1);
    check(&pool);
}

#[test]
fn host_code_that_panics_in_the_background_costs_a_spare() {
    let panics = Arc::new(AtomicBool::new(false));
    let tries = Arc::new(AtomicU64::new(0));
    let (asked, counts) = (panics.clone(), tries.clone());
    let builder = Pool::builder_with(move |_, _| {
        counts.fetch_add(1, Ordering::Relaxed);
        assert!(!asked.load(Ordering::Relaxed), "on purpose");
    });
    let builder = builder.reuse(Reuse::Pristine).no_housekeeper();
    let pool = builder.build().unwrap();
    let f = pages(&pool, "f", 1);
    f.call(1, ()).unwrap();
    let before = charges(&pool);
    panics.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        pool.sweep();
        assert_eq!(charges(&pool), before);
        pool.recount().unwrap();
    }
    assert_eq!(tries.load(Ordering::Relaxed), 2, "a lease, and one spare");
    panics.store(false, Ordering::Relaxed);
    f.call(1, ()).unwrap();
    pool.sweep();
    assert_eq!(check(&pool).idle, 1);
}

#[test]
fn guests_that_fail_to_start_in_the_background_are_not_tried_for_ever() {
    let pool = quiet().imports(|linker| {
        let starts = AtomicU64::new(0);
        linker.func_wrap("env", "start", move || {
            match starts.fetch_add(1, Ordering::Relaxed) % 2 {
                0 => Ok(()),
                _ => Err(wasm_pool::wasmtime::format_err!("on purpose")),
            }
        })?;
        Ok(())
    });
    let pool = pool.build().unwrap();
    let wasm = wat(
        r#"(module (import "env" "start" (func $start)) (start $start)
        (func (export "f") (result i32) i32.const 1))"#,
    );
    let f: Function<(), i32> = pool.define(Definition::new("f").wasm(wasm)).unwrap();
    for round in 1..4 {
        f.call(1, ()).unwrap();
        // Once, and not again before the next lease.
        for _ in 0..3 {
            pool.sweep();
        }
        let stats = check(&pool);
        assert_eq!((stats.idle, stats.spares_made), (0, 0));
        assert_eq!(misses(&pool), round);
    }
}

#[test]
fn a_recycler_that_is_held_up_holds_nobody_up() {
    let (entered, is_held) = channel();
    let (go, may_go) = channel::<()>();
    let may_go = Mutex::new(may_go);
    let holds = Arc::new(AtomicBool::new(false));
    let asked = holds.clone();
    let builder = Pool::builder_with(move |_, _| {
        let is_recycler = std::thread::current().name() == Some("wasm-pool recycler");
        if is_recycler && asked.swap(false, Ordering::Relaxed) {
            entered.send(()).unwrap();
            let _ = may_go.lock().unwrap().recv();
        }
    });
    // Room for what is being made, and for one lease.
    let limits = Limits::new().memory(2 * instance_bytes(1));
    let builder = builder.reuse(Reuse::Pristine).limits(limits);
    let pool = builder.max_instances_per_entry(1).build().unwrap();
    let f = pages(&pool, "f", 1);
    let other = pages(&pool, "other", 1);
    holds.store(true, Ordering::Relaxed);
    f.call(1, ()).unwrap();
    is_held.recv_timeout(Duration::from_secs(60)).unwrap();
    // The seat is for whoever asks, and what is spent meanwhile gives its room back; nobody waits.
    for _ in 0..500 {
        drop(f.try_acquire(1).unwrap());
        drop(other.try_acquire(2).unwrap());
    }
    go.send(()).unwrap();
    until(|| pool.stats().dying == 0 && pool.stats().leased == 0);
    check(&pool);
}

#[test]
fn a_pool_that_goes_leaves_nothing_of_them() {
    let dropped = Arc::new(AtomicU64::new(0));
    struct Data(Arc<AtomicU64>);
    impl Drop for Data {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let made = Arc::new(AtomicU64::new(0));
    for _ in 0..20 {
        let (counts, data) = (made.clone(), dropped.clone());
        let builder = Pool::builder_with(move |_, _| {
            counts.fetch_add(1, Ordering::Relaxed);
            Data(data.clone())
        });
        let pool = builder.reuse(Reuse::Pristine).build().unwrap();
        let f = pages(&pool, "f", 1);
        for _ in 0..7 {
            f.call(1, ()).unwrap();
        }
        let lease = f.acquire(1).unwrap();
        drop((pool, f));
        drop(lease);
    }
    until(|| made.load(Ordering::Relaxed) == dropped.load(Ordering::Relaxed));
}

#[test]
fn spares_are_evicted_and_reported_as_others_are() {
    let removals = Arc::new(Mutex::new(Vec::new()));
    let list = removals.clone();
    let builder =
        quiet().removal_listener(move |removal| list.lock().unwrap().push(removal.reason));
    let pool = builder.build().unwrap();
    let f = pages(&pool, "f", 1);
    f.call(1, ()).unwrap();
    pool.sweep();
    assert_eq!(pool.retain(|_| false), 1);
    let expected = [RemovalReason::Uses, RemovalReason::NotRetained];
    assert_eq!(*removals.lock().unwrap(), expected);
    let Stats { idle, .. } = check(&pool);
    assert_eq!(idle, 0);
}

#[test]
fn the_end_of_a_lease_that_fails_wakes_the_recycler() {
    let pool = (Pool::builder().reuse(Reuse::Pristine).build()).unwrap();
    let wasm = wat(r#"(module (func (export "f") (param i32) (result i32)
        (if (local.get 0) (then unreachable)) i32.const 1))"#);
    let f: Function<i32, i32> = pool.define(Definition::new("f").wasm(wasm)).unwrap();
    f.call(1, 0).unwrap();
    for _ in 0..2 {
        until(|| pool.stats().idle == 1);
        // Longer than it looks by itself.
        let began = std::time::Instant::now();
        until(|| began.elapsed() > Duration::from_millis(150));
        f.call(1, 1).unwrap_err();
    }
    until(|| pool.stats().idle == 1);
    assert_eq!(misses(&pool), 1);
}

/// Somebody is told of the end of one instance, and needs the room of another, whose lease ended before.
#[test]
fn a_listener_may_lease_in_the_room_of_what_is_spent() {
    type Told = Mutex<Option<Function<(), i32>>>;
    let told: Arc<Told> = Arc::default();
    let (asked, leased) = (told.clone(), Arc::new(AtomicU64::new(0)));
    let counts = leased.clone();
    let builder = Pool::builder()
        .reuse(Reuse::Pristine)
        .removal_listener(move |removal| {
            let large = asked.lock().unwrap().clone();
            if let Some(large) = large.filter(|_| removal.reason == RemovalReason::Discarded) {
                let options = room_within(Duration::from_secs(30));
                counts.fetch_add(
                    u64::from(large.acquire_with(3, options).is_ok()),
                    Ordering::Relaxed,
                );
            }
        });
    let limits = Limits::new().memory(2 * instance_bytes(1));
    let pool = builder.max_spares(0).limits(limits).build().unwrap();
    let (a, b) = (pages(&pool, "a", 1), pages(&pool, "bb", 1));
    *told.lock().unwrap() = Some(pages(&pool, "large", 2));
    for round in 1..20 {
        let [first, second] = [a.acquire(1).unwrap(), b.acquire(2).unwrap()];
        in_time_of(&pool, || {
            drop(first);
            second.discard();
        });
        until(|| leased.load(Ordering::Relaxed) == round);
    }
    *told.lock().unwrap() = None;
    check(&pool);
}

/// What the listener waits for is on this very thread, if it is anywhere: then it is late.
fn in_time_of(pool: &Pool, run: impl FnOnce()) {
    let began = std::time::Instant::now();
    run();
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "{:?}",
        pool.stats()
    );
}

#[test]
fn a_spare_that_grows_as_it_starts_evicts_nobody() {
    let grown = Arc::new(AtomicU64::new(0));
    let (starts, grows) = (AtomicU64::new(0), grown.clone());
    let builder = quiet().imports(move |linker| {
        let grows = grows.clone();
        linker.func_wrap("env", "told", move |before: i32| {
            grows.fetch_add(u64::from(before == -1), Ordering::Relaxed);
        })?;
        Ok(())
    });
    let builder = builder.imports(move |linker| {
        let starts = AtomicU64::new(starts.load(Ordering::Relaxed));
        linker.func_wrap("env", "by", move || {
            match starts.fetch_add(1, Ordering::Relaxed) {
                0 => 0_i32,
                _ => 1,
            }
        })?;
        Ok(())
    });
    let wasm = wat(r#"(module (import "env" "by" (func $by (result i32)))
        (import "env" "told" (func $told (param i32)))
        (memory 0)
        (func $start (call $told (memory.grow (call $by))))
        (start $start)
        (func (export "f") (result i32) i32.const 1))"#);
    let room = instance_bytes(1) + instance_bytes(0) + 10_000;
    let pool = builder.limits(Limits::new().memory(room)).build().unwrap();
    let f: Function<(), i32> = pool.define(Definition::new("f").wasm(wasm)).unwrap();
    let other = warm(&pool, "other", 1);
    other.call(1, ()).unwrap();
    f.call(1, ()).unwrap();
    pool.sweep();
    assert_eq!(grown.load(Ordering::Relaxed), 1, "it was refused a page");
    let stats = check(&pool);
    let idle = stats.functions.iter().find(|of| &*of.name == "other");
    assert_eq!(idle.unwrap().idle, 1, "who was there stays");
}

#[test]
fn leases_that_have_ended_are_not_told_to_stop() {
    // A spare that is put into its slot at that moment would count, too.
    let builder = Pool::builder().reuse(Reuse::Pristine).max_spares(0);
    let pool = builder.cancellable_calls(true).build().unwrap();
    let f = pages(&pool, "f", 1);
    for _ in 0..100 {
        let lease = f.acquire(1).unwrap();
        assert_eq!(pool.cancel_group(1), 1);
        drop(lease);
        f.call(1, ()).unwrap();
        assert_eq!(pool.cancel_group(1), 0);
    }
}

#[test]
fn a_spare_has_been_idle_since_it_was_made() {
    let clock = ManualClock::new();
    let pool = quiet().clock(clock.clone()).build().unwrap();
    let f = pages(&pool, "f", 1);
    clock.advance(Duration::from_secs(1000));
    f.call(1, ()).unwrap();
    pool.sweep();
    clock.advance(Duration::from_secs(1));
    let mut seen = Vec::new();
    pool.retain(|idle| {
        seen.push(idle.idle);
        true
    });
    assert_eq!(seen, [Duration::from_secs(1)]);
}
