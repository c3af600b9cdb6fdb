//! I1 to I7: how many instances, whose they are, how fresh each lease starts, which instances are
//! never leased again, and which go for idleness or age.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use crate::common::*;
use wasm_pool::{
    AcquireError, Budget, CallError, CallLimit, Definition, Function, Lease, Limits, ManualClock,
    Pool, PoolBuilder, RemovalReason, StoreData, WaitingFor,
};
use wasmtime::{Caller, Error};

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(3600);

fn builder() -> (PoolBuilder, ManualClock) {
    let clock = ManualClock::new();
    (Pool::builder().clock(clock.clone()).no_housekeeper(), clock)
}

/// A function that counts its instance's calls: a fresh instance says 1.
fn counter<T: Send + 'static>(pool: &Pool<T>) -> Function<(), i64, T> {
    let definition = Definition::new("state.next").wasm(guest("state_counter"));
    pool.define(definition).unwrap()
}

/// Why instances left, in order.
#[derive(Clone, Default)]
struct Reasons(Arc<Mutex<Vec<RemovalReason>>>);

impl Reasons {
    fn listen(&self) -> impl Fn(&wasm_pool::Eviction) + Send + Sync + 'static {
        let this = self.clone();
        move |eviction| this.0.lock().unwrap().push(eviction.reason)
    }

    fn take(&self) -> Vec<RemovalReason> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

// I1 ─────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn i1_an_entry_has_so_many_leases_and_no_more() {
    let pool = builder().0.max_instances_per_entry(2).build().unwrap();
    let next = counter(&pool);
    let (one, two) = (next.acquire(1).unwrap(), next.acquire(1).unwrap());
    let error = next.try_acquire(1).unwrap_err();
    let AcquireError::WouldBlock { waiting_for, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(waiting_for, WaitingFor::Instance);
    let other = next.try_acquire(2).unwrap();
    drop(one);
    let again = next.try_acquire(1).unwrap();
    assert_eq!(
        (again.uses(), pool.stats().blocks),
        (2, 0),
        "who would block did not"
    );
    drop((two, other, again));
    assert_eq!(check(&pool).idle, 3);
}

/// Threads that queue for the same instance, one after the other; each sends its number when it is
/// served.
fn queue(pool: &Pool, next: &Function<(), i64>, count: usize) -> mpsc::Receiver<(usize, i64)> {
    let (served, is_served) = mpsc::channel();
    for number in 0..count {
        let (next, served) = (next.clone(), served.clone());
        thread::spawn(move || {
            let mut lease = next.acquire(1).unwrap();
            let calls = lease.call(()).unwrap();
            served.send((number, calls)).unwrap();
        });
        wait_for_waiters(pool, number + 1);
    }
    is_served
}

#[test]
fn i1_who_waits_is_served_first_come_first_served() {
    let pool = builder().0.max_instances_per_entry(1).build().unwrap();
    let next = counter(&pool);
    let lease = next.acquire(1).unwrap();
    let served = queue(&pool, &next, 5);
    assert_eq!(pool.stats().blocks, 5);
    assert!(matches!(
        next.try_acquire(1),
        Err(AcquireError::WouldBlock { .. })
    ));
    drop(lease);
    for number in 0..5 {
        assert_eq!(served.recv().unwrap(), (number, number as i64 + 1));
    }
    until(|| pool.stats().leased == 0);
    let stats = check(&pool);
    assert_eq!((stats.misses, stats.hits, stats.blocks), (1, 5, 5));
}

#[test]
fn i1_who_waits_gets_the_seat_of_an_instance_that_is_retired() {
    let pool = builder().0.max_instances_per_entry(1).build().unwrap();
    let next = counter(&pool);
    let mut lease = next.acquire(1).unwrap();
    lease.call(()).unwrap();
    let served = queue(&pool, &next, 2);
    lease.discard();
    assert_eq!(served.recv().unwrap(), (0, 1), "a new instance");
    assert_eq!(served.recv().unwrap(), (1, 2));
    until(|| pool.stats().leased == 0);
    assert_eq!(check(&pool).misses, 2);
}

#[test]
fn i1_who_waits_gets_the_seat_of_an_instance_that_could_not_be_made() {
    let (reached, is_reached) = mpsc::channel();
    let (go, may_go) = mpsc::channel::<()>();
    let first = AtomicBool::new(true);
    let may_go = Mutex::new(may_go);
    let hook = move |_: &mut wasmtime::Store<StoreData<()>>, _: &wasmtime::Instance| {
        if first.swap(false, Ordering::Relaxed) {
            reached.send(()).unwrap();
            may_go.lock().unwrap().recv().unwrap();
            return Err(Error::msg("not the first"));
        }
        Ok(())
    };
    let pool = builder()
        .0
        .max_instances_per_entry(1)
        .on_create(hook)
        .build()
        .unwrap();
    let next = counter(&pool);
    let maker = thread::spawn({
        let next = next.clone();
        move || next.acquire(1).map(drop)
    });
    is_reached.recv().unwrap();
    let served = queue(&pool, &next, 1);
    go.send(()).unwrap();
    assert!(matches!(
        maker.join().unwrap(),
        Err(AcquireError::Instantiate { .. })
    ));
    assert_eq!(served.recv().unwrap(), (0, 1));
    until(|| pool.stats().leased == 0);
    check(&pool);
}

#[test]
fn i1_a_deadline_ends_the_wait_and_not_that_of_others() {
    let (builder, clock) = builder();
    let pool = builder
        .max_instances_per_entry(1)
        .wait_timeout(9 * SECOND)
        .build()
        .unwrap();
    let next = counter(&pool);
    let lease = next.acquire(1).unwrap();
    let waiter = |timeout: Option<Duration>| {
        let waiting = pool.stats().waiting;
        let next = next.clone();
        let thread = thread::spawn(move || match timeout {
            Some(timeout) => next.acquire_timeout(1, timeout).map(drop),
            None => next.acquire(1).map(drop),
        });
        wait_for_waiters(&pool, waiting + 1);
        thread
    };
    let (short, usual, long) = (waiter(Some(SECOND)), waiter(None), waiter(Some(LONG)));
    for (thread, seconds) in [(short, 1), (usual, 9)] {
        clock.advance(Duration::from_secs(seconds) - Duration::from_nanos(1) - now(&clock));
        assert!(!thread.is_finished());
        clock.advance(Duration::from_nanos(1));
        let error = thread.join().unwrap().unwrap_err();
        let AcquireError::Timeout {
            waited,
            waiting_for,
            ..
        } = error
        else {
            panic!("{error}");
        };
        assert_eq!(
            (waited.as_secs(), waiting_for),
            (seconds, WaitingFor::Instance)
        );
    }
    assert_eq!(pool.stats().waiting, 1);
    drop(lease);
    long.join().unwrap().unwrap();
    let stats = check(&pool);
    assert_eq!((stats.waiting, stats.blocks, stats.idle), (0, 3, 1));
}

fn now(clock: &ManualClock) -> Duration {
    wasm_pool::Clock::now(clock)
}

#[test]
fn i1_no_lease_is_lost_when_many_threads_compete() {
    const THREADS: usize = 6;
    const LEASES: usize = 300;
    let live = Arc::new(AtomicUsize::new(0));
    let pool = Pool::builder()
        .max_instances_per_entry(2)
        .no_housekeeper()
        .build()
        .unwrap();
    let next = counter(&pool);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for n in 0..LEASES {
                    let mut lease = next.acquire(1).unwrap();
                    assert!(live.fetch_add(1, Ordering::SeqCst) < 2);
                    lease.call(()).unwrap();
                    live.fetch_sub(1, Ordering::SeqCst);
                    if n % 50 == 0 {
                        lease.discard();
                    }
                }
            });
        }
    });
    let stats = check(&pool);
    assert_eq!(stats.hits + stats.misses, (THREADS * LEASES) as u64);
    assert_eq!((stats.leased, stats.waiting), (0, 0));
    assert!(stats.idle <= 2);
}

// I2 ─────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn i2_groups_share_no_instance() {
    let pool = builder().0.build().unwrap();
    let next = counter(&pool);
    for round in 1..=3 {
        for group in 0..4_u64 {
            assert_eq!(next.call(group, ()).unwrap(), round);
        }
        assert_eq!(next.call("1", ()).unwrap(), round, "a name is not a number");
    }
    assert_eq!(check(&pool).idle, 5);
}

#[test]
fn i2_functions_of_one_module_share_no_instance() {
    let pool = builder().0.build().unwrap();
    let next = counter(&pool);
    let definition = Definition::new("other.next").wasm(guest("state_counter"));
    let other: Function<(), i64> = pool.define(definition).unwrap();
    assert_eq!(
        (next.call(1, ()).unwrap(), other.call(1, ()).unwrap()),
        (1, 1)
    );
    assert_eq!(check(&pool).modules_loaded, 1);
}

#[test]
fn i2_every_store_has_the_data_of_its_group_whatever_the_pressure() {
    let pool = Pool::builder_with(|name, group| format!("{name} for {group}"))
        .limits(Limits::new().memory(7 << 20))
        .no_housekeeper()
        .build()
        .unwrap();
    let next = counter(&pool);
    thread::scope(|scope| {
        for seed in 0..4_u64 {
            let next = &next;
            scope.spawn(move || {
                for n in 0..300 {
                    let group = (n * 7 + seed) % 12;
                    let Ok(lease) = next.acquire(group) else {
                        continue;
                    };
                    assert_eq!(*lease.data(), format!("state.next for {group}"));
                    assert_eq!(*lease.group(), group.into());
                }
            });
        }
    });
    assert!(check(&pool).functions[0].evictions > 0);
}

// I3 ─────────────────────────────────────────────────────────────────────────────────────────────

const SPIN: &str = r#"(module (func (export "spin") (param i32) (result i32)
    (loop $again
        (local.set 0 (i32.sub (local.get 0) (i32.const 1)))
        (br_if $again (local.get 0)))
    (i32.const 1)))"#;

fn spinner(pool: &Pool) -> Function<i32, i32> {
    pool.define(Definition::new("spin").wasm(wat(SPIN)))
        .unwrap()
}

/// Fuel that `rounds` of `spin` take.
fn fuel_of(rounds: i32) -> u64 {
    let pool = builder().0.fuel(1 << 40).build().unwrap();
    let mut lease = spinner(&pool).acquire(1).unwrap();
    lease.call(rounds).unwrap();
    (1 << 40) - lease.store().get_fuel().unwrap()
}

#[test]
fn i3_every_lease_starts_with_fresh_fuel() {
    let used = fuel_of(100);
    let pool = builder().0.fuel(used * 10 / 9).build().unwrap();
    let spin = spinner(&pool);
    for _ in 0..10_000 {
        assert_eq!(spin.call(1, 100).unwrap(), 1);
    }
    assert_eq!(
        spin.acquire(1).unwrap().uses(),
        10_001,
        "one instance served them all"
    );
    check(&pool);
}

#[test]
fn i3_fuel_lasts_for_all_calls_of_a_lease() {
    let used = fuel_of(100);
    let pool = builder().0.fuel(used * 10 / 9).build().unwrap();
    let spin = spinner(&pool);
    let mut lease = spin.acquire(1).unwrap();
    lease.call(100).unwrap();
    let error = lease.call(100).unwrap_err();
    let CallError::Limit { limit, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(*limit, CallLimit::Fuel(used * 10 / 9));
}

#[test]
fn i3_a_definition_may_have_its_own_fuel() {
    let used = fuel_of(100);
    let pool = builder().0.fuel(used / 2).build().unwrap();
    let definition = Definition::new("spin").wasm(wat(SPIN)).fuel(used);
    let spin: Function<i32, i32> = pool.define(definition).unwrap();
    spin.call(1, 100).unwrap();
    spin.call(1, 100).unwrap();
    assert!(matches!(spin.call(1, 200), Err(CallError::Limit { .. })));
}

/// Asks the host to move the epoch so many times.
const TICKS: &str = r#"(module (import "host" "tick" (func $tick))
    (func (export "f") (param i32) (result i32)
        (loop $again
            (call $tick)
            (local.set 0 (i32.sub (local.get 0) (i32.const 1)))
            (br_if $again (local.get 0)))
        (i32.const 1)))"#;

/// A pool whose leases have the time of ten ticks, and a function that lets so many pass.
fn ticking() -> (Pool, Function<i32, i32>) {
    let cell: Arc<OnceLock<Pool>> = Arc::default();
    let this = cell.clone();
    let pool = Pool::builder()
        .no_housekeeper()
        .epoch_tick(Duration::from_millis(1))
        .call_timeout(Duration::from_millis(10))
        .imports(move |linker| {
            linker.func_wrap("host", "tick", move || this.get().unwrap().tick())?;
            Ok(())
        })
        .build()
        .unwrap();
    cell.set(pool.clone()).unwrap();
    let definition = Definition::new("f").wasm(wat(TICKS));
    let f = pool.define(definition).unwrap();
    (pool, f)
}

#[test]
fn i3_every_lease_starts_with_a_fresh_deadline() {
    let (pool, f) = ticking();
    for _ in 0..1000 {
        assert_eq!(f.call(1, 9).unwrap(), 1);
    }
    assert_eq!(f.acquire(1).unwrap().uses(), 1001);
    check(&pool);
}

#[test]
fn i3_the_deadline_lasts_for_all_calls_of_a_lease() {
    let (pool, f) = ticking();
    let mut lease = f.acquire(1).unwrap();
    lease.call(9).unwrap();
    let error = lease.call(9).unwrap_err();
    assert_eq!(error.to_string(), "f() in group 1 ran out of time (10ms)");
    drop(lease);
    assert_eq!(pool.stats().idle, 0);
    check(&pool);
}

// I4 ─────────────────────────────────────────────────────────────────────────────────────────────

/// Counts its calls, and fails in every way.
const FAILING: &str = r#"(module
    (import "host" "fail" (func $fail)) (import "host" "panic" (func $panic))
    (memory (export "memory") 1)
    (global $calls (mut i32) (i32.const 0))
    (func (export "count") (result i32)
        (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
        (global.get $calls))
    (func (export "trap") unreachable)
    (func (export "divide") (result i32) (i32.div_u (i32.const 1) (i32.const 0)))
    (func (export "recurse") (call 5))
    (func (export "endless") (loop (br 0)))
    (func (export "fail") (call $fail))
    (func (export "panic") (call $panic)))"#;

struct Failing {
    pool: Pool,
    count: Function<(), i32>,
    reasons: Reasons,
}

fn failing() -> Failing {
    let reasons = Reasons::default();
    let pool = builder()
        .0
        .fuel(1 << 20)
        .eviction_listener(reasons.listen())
        .imports(|linker| {
            linker.func_wrap("host", "fail", || -> wasmtime::Result<()> {
                Err(Error::msg("the disk is full"))
            })?;
            linker.func_wrap("host", "panic", || -> () {
                panic!("a host function panics")
            })?;
            Ok(())
        })
        .build()
        .unwrap();
    let definition = Definition::new("count").wasm(wat(FAILING));
    let count = pool.define(definition).unwrap();
    Failing {
        pool,
        count,
        reasons,
    }
}

/// Whatever happens with a lease of an instance that has counted to 1: it is never leased again.
#[track_caller]
fn is_retired(with: impl FnOnce(Lease<'static, (), i32>)) {
    let Failing {
        pool,
        count,
        reasons,
    } = failing();
    assert_eq!(count.call(1, ()).unwrap(), 1);
    let before = charges(&pool);
    let lease = count.acquire(1).unwrap();
    assert_eq!(lease.uses(), 2);
    with(lease);
    let stats = check(&pool);
    assert_eq!((stats.idle, stats.leased, stats.dying), (0, 0, 0));
    assert_eq!(
        (stats.functions[0].retirements, stats.functions[0].evictions),
        (1, 0)
    );
    assert_eq!(reasons.take(), [RemovalReason::Failed]);
    assert_eq!(
        count.call(1, ()).unwrap(),
        1,
        "a new instance counts from the start"
    );
    assert_eq!(charges(&pool), before);
}

/// As [`is_retired`], after a failed call of this export. Returns what it said.
#[track_caller]
fn export_retires(export: &str) -> String {
    let mut said = String::new();
    is_retired(|mut lease| {
        let export = lease.export::<(), ()>(export).unwrap();
        let error = export.call(&mut lease, ()).unwrap_err();
        assert!(lease.is_broken());
        assert!(matches!(lease.call(()), Err(CallError::Broken { .. })));
        assert!(matches!(
            export.call(&mut lease, ()),
            Err(CallError::Broken { .. })
        ));
        said = error.to_string();
    });
    said
}

#[test]
fn i4_a_trap_retires() {
    let said = export_retires("trap");
    assert!(said.starts_with("count() in group 1 trapped: "), "{said}");
}

#[test]
fn i4_a_stack_overflow_retires() {
    let said = export_retires("recurse");
    assert!(said.contains("trapped"), "{said}");
}

#[test]
fn i4_exhausted_fuel_retires() {
    assert_eq!(
        export_retires("endless"),
        "count() in group 1 ran out of fuel (1048576 units)"
    );
}

#[test]
fn i4_a_failing_host_function_retires() {
    let said = export_retires("fail");
    assert!(said.starts_with("count() in group 1: "), "{said}");
    assert!(said.contains("the disk is full"), "{said}");
}

#[test]
fn i4_a_panicking_host_function_retires() {
    is_retired(|mut lease| {
        let panic = lease.export::<(), ()>("panic").unwrap();
        let panicked = catch_unwind(AssertUnwindSafe(|| panic.call(&mut lease, ())));
        assert!(panicked.is_err());
        assert!(lease.is_broken());
        assert!(matches!(lease.call(()), Err(CallError::Broken { .. })));
    });
}

#[test]
fn i4_a_panic_that_unwinds_the_lease_retires() {
    is_retired(|mut lease| {
        let panic = lease.export::<(), ()>("panic").unwrap();
        let panicked = catch_unwind(AssertUnwindSafe(move || panic.call(&mut lease, ())));
        assert!(panicked.is_err());
    });
}

#[test]
fn i4_a_panic_of_the_holder_between_calls_retires() {
    is_retired(|lease| {
        let panicked = catch_unwind(AssertUnwindSafe(move || {
            let _held = lease;
            panic!("between two writes");
        }));
        assert!(panicked.is_err());
    });
}

#[test]
fn i4_an_exhausted_deadline_retires() {
    let (pool, f) = ticking();
    f.call(1, 1).unwrap();
    let error = f.call(1, 1000).unwrap_err();
    assert!(
        matches!(
            error,
            CallError::Limit {
                limit: CallLimit::Time(_),
                ..
            }
        ),
        "{error}"
    );
    let stats = check(&pool);
    assert_eq!((stats.idle, stats.functions[0].retirements), (0, 1));
    assert_eq!(f.acquire(1).unwrap().uses(), 1);
}

#[test]
fn i4_a_call_that_fails_at_once_through_the_function_retires() {
    let pool = builder().0.build().unwrap();
    let definition = Definition::new("trap_if").wasm(guest("rogue_trap"));
    let trap: Function<i32, i32> = pool.define(definition).unwrap();
    assert_eq!(trap.call(1, 0).unwrap(), 7);
    assert!(matches!(trap.call(1, 1), Err(CallError::Trap { .. })));
    assert_eq!(check(&pool).idle, 0);
    let tenant = trap.in_group(1);
    assert_eq!(tenant.call(0).unwrap(), 7);
    assert!(tenant.call(1).is_err());
    assert_eq!(tenant.acquire().unwrap().uses(), 1);
}

#[test]
fn i4_a_discarded_instance_is_gone() {
    let Failing {
        pool,
        count,
        reasons,
    } = failing();
    assert_eq!(count.call(1, ()).unwrap(), 1);
    count.acquire(1).unwrap().discard();
    assert_eq!(reasons.take(), [RemovalReason::Discarded]);
    assert_eq!(count.call(1, ()).unwrap(), 1);
    check(&pool);
}

#[test]
fn i4_a_thread_with_too_little_stack_harms_nothing() {
    let Failing { pool, count, .. } = failing();
    let mut lease = count.acquire(1).unwrap();
    let (error, lease) = thread::Builder::new()
        .stack_size(256 << 10)
        .spawn(move || (lease.call(()).unwrap_err(), lease))
        .unwrap()
        .join()
        .unwrap();
    assert!(matches!(error, CallError::StackTooSmall { .. }), "{error}");
    assert!(!lease.is_broken());
    drop(lease);
    assert_eq!(count.call(1, ()).unwrap(), 1, "the guest has never run");
    assert_eq!(check(&pool).idle, 1);
}

#[test]
fn i4_an_instance_that_a_create_hook_refused_is_never_leased() {
    let made = Arc::new(AtomicUsize::new(0));
    let hook = {
        let made = made.clone();
        move |_: &mut wasmtime::Store<StoreData<()>>, _: &wasmtime::Instance| match made
            .fetch_add(1, Ordering::Relaxed)
        {
            0 => Err(Error::msg("refused")),
            1 => panic!("a hook panics"),
            _ => Ok(()),
        }
    };
    let pool = builder()
        .0
        .max_instances_per_entry(1)
        .on_create(hook)
        .build()
        .unwrap();
    let next = counter(&pool);
    assert!(matches!(
        next.acquire(1),
        Err(AcquireError::Instantiate { .. })
    ));
    assert_eq!(charged(&pool, Budget::Memory), 0);
    assert!(catch_unwind(AssertUnwindSafe(|| drop(next.acquire(1)))).is_err());
    assert_eq!(
        (charged(&pool, Budget::Memory), check(&pool).leased),
        (0, 0)
    );
    assert_eq!(next.call(1, ()).unwrap(), 1, "its only seat is free");
    assert_eq!(made.load(Ordering::Relaxed), 3);
}

/// What becomes of an instance that the recycle hook treats so.
#[track_caller]
fn recycled(hook: impl Fn() -> wasmtime::Result<()> + Send + Sync + 'static) {
    let reasons = Reasons::default();
    let pool = builder()
        .0
        .on_recycle(move |_, _| hook())
        .eviction_listener(reasons.listen())
        .build()
        .unwrap();
    let next = counter(&pool);
    for _ in 0..3 {
        assert_eq!(next.call(1, ()).unwrap(), 1);
        assert_eq!(reasons.take(), [RemovalReason::Discarded]);
    }
    let stats = check(&pool);
    assert_eq!((stats.idle, stats.misses), (0, 3));
}

#[test]
fn i4_an_instance_that_the_recycle_hook_refuses_is_retired() {
    recycled(|| Err(Error::msg("dirty")));
}

#[test]
fn i4_an_instance_that_the_recycle_hook_panics_about_is_retired() {
    recycled(|| panic!("a hook panics"));
}

#[test]
fn i4_the_recycle_hook_may_mend_an_instance() {
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = calls.clone();
    let pool = builder()
        .0
        .on_recycle(move |store, instance| {
            seen.fetch_add(1, Ordering::Relaxed);
            let next = instance.get_typed_func::<(), i64>(&mut *store, "next")?;
            next.call(store, ()).map(drop)
        })
        .build()
        .unwrap();
    let next = counter(&pool);
    assert_eq!([(); 3].map(|()| next.call(1, ()).unwrap()), [1, 3, 5]);
    next.acquire(1).unwrap().discard();
    assert_eq!(calls.load(Ordering::Relaxed), 3, "not for what is not kept");
}

// I5 ─────────────────────────────────────────────────────────────────────────────────────────────

const T: Duration = Duration::from_secs(4);
const NANO: Duration = Duration::from_nanos(1);

fn idling() -> (Pool, ManualClock, Reasons) {
    let reasons = Reasons::default();
    let (builder, clock) = builder();
    let pool = builder
        .idle_timeout(T)
        .eviction_listener(reasons.listen())
        .build()
        .unwrap();
    (pool, clock, reasons)
}

#[test]
fn i5_an_instance_is_evicted_when_idle_for_the_timeout_and_not_before() {
    let (pool, clock, reasons) = idling();
    let next = counter(&pool);
    next.call(1, ()).unwrap();
    clock.advance(T - NANO);
    pool.sweep();
    assert_eq!(check(&pool).idle, 1);
    clock.advance(NANO);
    pool.sweep();
    let stats = check(&pool);
    assert_eq!((stats.idle, stats.functions[0].evictions), (0, 1));
    assert_eq!(reasons.take(), [RemovalReason::Idle]);
    assert_eq!(stats.budget(Budget::Memory).charged, 0);
}

#[test]
fn i5_a_warm_lease_starts_the_time_anew() {
    let (pool, clock, _) = idling();
    let next = counter(&pool);
    for _ in 0..10 {
        next.call(1, ()).unwrap();
        clock.advance(T - NANO);
        pool.sweep();
    }
    assert_eq!(next.call(1, ()).unwrap(), 11);
    check(&pool);
}

#[test]
fn i5_a_leased_instance_is_not_idle() {
    let (pool, clock, _) = idling();
    let next = counter(&pool);
    let lease = next.acquire(1).unwrap();
    clock.advance(3 * T);
    pool.sweep();
    drop(lease);
    clock.advance(T - NANO);
    pool.sweep();
    assert_eq!(check(&pool).idle, 1, "idle only since the lease ended");
    clock.advance(NANO);
    pool.sweep();
    assert_eq!(check(&pool).idle, 0);
}

#[test]
fn i5_swept_four_times_in_t_it_goes_between_t_and_2t() {
    for phase in 0..4 {
        let (pool, clock, _) = idling();
        let next = counter(&pool);
        clock.advance(phase * T / 16);
        next.call(1, ()).unwrap();
        let idle_since = now(&clock);
        clock.advance(T / 4 - phase * T / 16);
        while pool.stats().idle == 1 {
            pool.sweep();
            clock.advance(T / 4);
        }
        let idle = now(&clock) - T / 4 - idle_since;
        assert!(T <= idle && idle < 2 * T, "{idle:?}");
    }
}

#[test]
fn i5_only_what_is_idle_for_too_long_goes() {
    let (pool, clock, _) = idling();
    let next = counter(&pool);
    for group in 0..4_u64 {
        next.call(group, ()).unwrap();
        clock.advance(T / 2);
    }
    pool.sweep();
    assert_eq!(check(&pool).idle, 1);
    assert_eq!(next.call(3, ()).unwrap(), 2);
}

#[test]
fn i5_without_a_timeout_nothing_goes() {
    let (builder, clock) = builder();
    let pool = builder.idle_timeout(None).build().unwrap();
    counter(&pool).call(1, ()).unwrap();
    clock.advance(1000 * LONG);
    pool.sweep();
    assert_eq!(check(&pool).idle, 1);
}

#[test]
fn i5_the_housekeeper_sweeps_by_itself() {
    let clock = ManualClock::new();
    let timeout = Duration::from_millis(20);
    let pool = Pool::builder()
        .clock(clock.clone())
        .idle_timeout(timeout)
        .build()
        .unwrap();
    let next = counter(&pool);
    next.call(1, ()).unwrap();
    clock.advance(timeout);
    until(|| pool.stats().idle == 0);
    check(&pool);
}

// I6 ─────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn i6_an_instance_serves_max_uses_and_no_more() {
    let reasons = Reasons::default();
    let pool = builder()
        .0
        .max_uses(3)
        .eviction_listener(reasons.listen())
        .build()
        .unwrap();
    let next = counter(&pool);
    let calls = [(); 7].map(|()| next.call(1, ()).unwrap());
    assert_eq!(calls, [1, 2, 3, 1, 2, 3, 1]);
    assert_eq!(reasons.take(), [RemovalReason::Uses; 2]);
    let stats = check(&pool);
    assert_eq!(
        (stats.functions[0].retirements, stats.functions[0].evictions),
        (2, 0)
    );
}

#[test]
fn i6_an_instance_past_its_lifetime_is_not_kept() {
    let reasons = Reasons::default();
    let (builder, clock) = builder();
    let pool = builder
        .max_lifetime(T)
        .idle_timeout(None)
        .eviction_listener(reasons.listen())
        .build()
        .unwrap();
    let next = counter(&pool);
    next.call(1, ()).unwrap();
    clock.advance(T - NANO);
    assert_eq!(next.call(1, ()).unwrap(), 2);
    assert_eq!(reasons.take(), []);
    let lease = next.acquire(1).unwrap();
    clock.advance(NANO);
    drop(lease);
    assert_eq!(
        (reasons.take(), check(&pool).idle),
        (vec![RemovalReason::Lifetime], 0)
    );
    // Idle, it goes with the sweep.
    next.call(1, ()).unwrap();
    clock.advance(T - NANO);
    pool.sweep();
    assert_eq!(check(&pool).idle, 1);
    clock.advance(NANO);
    pool.sweep();
    assert_eq!(
        (reasons.take(), check(&pool).idle),
        (vec![RemovalReason::Lifetime], 0)
    );
}

#[test]
fn i6_an_instance_grown_too_large_is_not_kept() {
    let reasons = Reasons::default();
    let pool = builder()
        .0
        .max_idle_memory(2 << 16)
        .eviction_listener(reasons.listen())
        .build()
        .unwrap();
    let definition = Definition::new("grow").wasm(memory_module(1, 0));
    let grow: Function<i32, i32> = pool.define(definition).unwrap();
    assert_eq!(grow.call(1, 1).unwrap(), 1);
    assert_eq!(
        (reasons.take(), pool.stats().idle),
        (vec![], 1),
        "just as large as may be"
    );
    assert_eq!(grow.call(1, 1).unwrap(), 2);
    assert_eq!(
        (reasons.take(), pool.stats().idle),
        (vec![RemovalReason::Oversize], 0)
    );
    assert_eq!(grow.call(1, 0).unwrap(), 1);
    check(&pool);
}

#[test]
fn i6_who_waits_is_served_when_an_instance_has_had_its_uses() {
    let pool = builder()
        .0
        .max_uses(1)
        .max_instances_per_entry(1)
        .build()
        .unwrap();
    let next = counter(&pool);
    let lease = next.acquire(1).unwrap();
    let served = queue(&pool, &next, 3);
    drop(lease);
    for number in 0..3 {
        assert_eq!(served.recv().unwrap(), (number, 1), "each has a new one");
    }
    until(|| pool.stats().leased == 0);
    check(&pool);
}

// I7 ─────────────────────────────────────────────────────────────────────────────────────────────

type Nested = Function<i32, i32>;

/// Calls the host with its argument, and returns what the host says.
const NESTED: &str = r#"(module (import "host" "again" (func $again (param i32) (result i32)))
    (memory 1)
    (func (export "f") (param i32) (result i32) (call $again (local.get 0))))"#;

const DEADLOCK: i32 = -1;
const TIMEOUT: i32 = -2;
const NO_ROOM: i32 = -3;

fn code(error: &AcquireError) -> i32 {
    match error {
        AcquireError::Deadlock { .. } => DEADLOCK,
        AcquireError::Timeout { .. } => TIMEOUT,
        AcquireError::BudgetExceeded(_) => NO_ROOM,
        other => panic!("{other}"),
    }
}

/// A pool whose guests call `again` with what their host function is given.
fn nesting(
    seats: usize,
    again: impl Fn(&[Nested], i32) -> i32 + Send + Sync + 'static,
) -> (Pool, Vec<Nested>) {
    nesting_in(
        Pool::builder()
            .max_instances_per_entry(seats)
            .no_housekeeper(),
        NESTED,
        again,
    )
}

fn nesting_in(
    builder: PoolBuilder,
    text: &str,
    again: impl Fn(&[Nested], i32) -> i32 + Send + Sync + 'static,
) -> (Pool, Vec<Nested>) {
    let cell: Arc<OnceLock<Vec<Nested>>> = Arc::default();
    let functions = cell.clone();
    let host = move |_: Caller<'_, StoreData<()>>, n: i32| again(functions.get().unwrap(), n);
    let pool = builder
        .imports(move |linker| linker.func_wrap("host", "again", host).map(drop))
        .build()
        .unwrap();
    let define = |name| {
        let definition = Definition::new(name).export("f").wasm(wat(text));
        pool.define(definition).unwrap()
    };
    let functions = ["a", "b", "c"].map(define).to_vec();
    cell.set(functions.clone()).unwrap();
    (pool, functions)
}

/// Leases the function once more, `depth` times in a row; returns the depth that it came to.
fn deeper(f: &Nested, depth: i32) -> i32 {
    match f.acquire(1) {
        _ if depth == 0 => 0,
        Ok(mut lease) => match lease.call(depth - 1).unwrap() {
            error if error < 0 => error,
            inner => inner + 1,
        },
        Err(error) => code(&error),
    }
}

#[test]
fn i7_a_lease_within_its_own_lease_is_an_error_when_there_is_no_other() {
    in_time(|| {
        let (pool, functions) = nesting(1, |functions, depth| deeper(&functions[0], depth));
        assert_eq!(functions[0].call(1, 1).unwrap(), DEADLOCK);
        assert_eq!(
            functions[0].call(1, 0).unwrap(),
            0,
            "the instance is as good as before"
        );
        let stats = check(&pool);
        assert_eq!((stats.misses, stats.waiting, stats.idle), (1, 0, 1));
    });
}

#[test]
fn i7_it_gets_another_instance_when_there_is_one() {
    in_time(|| {
        let (pool, functions) = nesting(2, |functions, depth| deeper(&functions[0], depth));
        assert_eq!(functions[0].call(1, 1).unwrap(), 1);
        assert_eq!(functions[0].call(1, 2).unwrap(), DEADLOCK);
        assert_eq!(check(&pool).idle, 2);
    });
}

#[test]
fn i7_the_error_says_what_happened() {
    in_time(|| {
        let said: Arc<OnceLock<String>> = Arc::default();
        let says = said.clone();
        let (_pool, functions) = nesting(1, move |functions, _| {
            let error = functions[0].acquire(1).unwrap_err();
            says.set(error.to_string()).unwrap();
            0
        });
        functions[0].call(1, 0).unwrap();
        assert_eq!(
            said.get().unwrap(),
            "a() in group 1 would wait for itself: all its instances are in calls that wait for \
             this one"
        );
    });
}

#[test]
fn i7_a_way_back_through_another_function_is_seen() {
    in_time(|| {
        // a → b → a
        let (pool, functions) = nesting(1, |functions, step| match step {
            2 => functions[1].call(1, 1).unwrap(),
            1 => deeper(&functions[0], 1),
            _ => 0,
        });
        assert_eq!(functions[0].call(1, 2).unwrap(), DEADLOCK);
        assert_eq!(check(&pool).idle, 2);
    });
}

#[test]
fn i7_another_group_is_not_waited_for() {
    in_time(|| {
        let (pool, functions) = nesting(1, |functions, group| match group {
            9 => 9,
            _ => functions[0].call(group as u64 + 1, group + 1).unwrap(),
        });
        assert_eq!(functions[0].call(1, 1).unwrap(), 9);
        assert_eq!(check(&pool).idle, 9);
    });
}

/// Threads hold one instance each, and want that of the next: one of them learns that it cannot
/// have it; then the others get theirs.
fn ring(threads: usize) {
    let all = Arc::new(Barrier::new(threads));
    let meet = all.clone();
    let (pool, functions) = nesting(1, move |functions, step| {
        let wanted = step as usize % 10;
        if step >= 10 {
            return 1;
        }
        meet.wait();
        match functions[wanted].acquire(1) {
            Ok(mut lease) => lease.call(10).unwrap(),
            Err(error) => code(&error),
        }
    });
    let outcomes: Vec<i32> = thread::scope(|scope| {
        let start = |n: usize| {
            let f = &functions[n];
            let next = (n + 1) % threads;
            scope.spawn(move || f.call(1, next as i32).unwrap())
        };
        let threads: Vec<_> = (0..threads).map(start).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(
        outcomes.iter().filter(|o| **o == DEADLOCK).count(),
        1,
        "{outcomes:?}"
    );
    assert_eq!(
        outcomes.iter().filter(|o| **o == 1).count(),
        threads - 1,
        "{outcomes:?}"
    );
    let stats = check(&pool);
    assert_eq!((stats.waiting, stats.leased), (0, 0));
}

#[test]
fn i7_two_threads_that_cross_both_end() {
    in_time(|| (0..20).for_each(|_| ring(2)));
}

#[test]
fn i7_three_threads_in_a_ring_all_end() {
    in_time(|| (0..20).for_each(|_| ring(3)));
}

#[test]
fn i7_two_threads_within_the_same_function_both_end() {
    in_time(|| {
        let both = Arc::new(Barrier::new(2));
        let (pool, functions) = nesting(2, move |functions, step| {
            if step == 1 {
                both.wait();
            }
            deeper(&functions[0], step)
        });
        let outcomes = thread::scope(|scope| {
            let f = &functions[0];
            let one = scope.spawn(move || f.call(1, 1).unwrap());
            let two = scope.spawn(move || f.call(1, 1).unwrap());
            let mut both = [one.join().unwrap(), two.join().unwrap()];
            both.sort_unstable();
            both
        });
        assert_eq!(outcomes, [DEADLOCK, 1]);
        assert_eq!(check(&pool).waiting, 0);
    });
}

#[test]
fn i7_a_lease_in_another_threads_hands_is_waited_for() {
    in_time(|| {
        let (pool, functions) = nesting(1, |_, n| n);
        let lease = functions[0].acquire(1).unwrap();
        let (release, released) = mpsc::channel();
        let holder = thread::spawn(move || {
            let mut lease: Lease<'static, i32, i32> = lease;
            assert_eq!(lease.call(5).unwrap(), 5);
            released.recv().unwrap();
        });
        let waker = thread::spawn({
            let pool = pool.clone();
            move || {
                wait_for_waiters(&pool, 1);
                release.send(()).unwrap();
            }
        });
        assert_eq!(functions[0].call(1, 6).unwrap(), 6);
        holder.join().unwrap();
        waker.join().unwrap();
        assert_eq!(check(&pool).blocks, 1);
    });
}

#[test]
fn i7_a_call_on_another_thread_is_waited_for_even_by_who_leased_it() {
    in_time(|| {
        let (inside, is_inside) = mpsc::channel();
        let (go, may_go) = mpsc::channel::<()>();
        let (inside, may_go) = (Mutex::new(inside), Mutex::new(may_go));
        let (pool, functions) = nesting(1, move |_, n| {
            if n == 5 {
                inside.lock().unwrap().send(()).unwrap();
                may_go.lock().unwrap().recv().unwrap();
            }
            n
        });
        let mut lease = functions[0].acquire(1).unwrap();
        let caller = thread::spawn(move || lease.call(5).unwrap());
        is_inside.recv().unwrap();
        let waker = thread::spawn({
            let pool = pool.clone();
            move || {
                wait_for_waiters(&pool, 1);
                go.send(()).unwrap();
            }
        });
        assert_eq!(functions[0].call(1, 6).unwrap(), 6);
        assert_eq!(caller.join().unwrap(), 5);
        waker.join().unwrap();
        check(&pool);
    });
}

#[test]
fn i7_a_lease_outside_of_any_call_may_still_end() {
    let (pool, functions) = nesting(1, |_, n| n);
    let held = functions[0].acquire(1).unwrap();
    let error = functions[0].acquire_timeout(1, Duration::ZERO).unwrap_err();
    assert_eq!(
        code(&error),
        TIMEOUT,
        "another thread might get the lease and drop it"
    );
    drop(held);
    check(&pool);
}

#[test]
fn i7_a_lease_that_finds_no_room_beside_its_own_caller_is_refused_at_once() {
    in_time(|| {
        let limits = Limits::new().memory(100 << 10);
        let builder = Pool::builder().limits(limits).no_housekeeper();
        let (pool, functions) = nesting_in(builder, NESTED, |functions, n| match n {
            1 => deeper(&functions[1], 1),
            n => n,
        });
        assert_eq!(functions[0].call(1, 1).unwrap(), NO_ROOM);
        assert_eq!(functions[0].call(1, 5).unwrap(), 5);
        check(&pool);
    });
}

#[test]
fn i7_a_start_function_that_needs_its_own_instance_is_an_error() {
    in_time(|| {
        let text = r#"(module (import "host" "again" (func $again (param i32) (result i32)))
            (global $said (mut i32) (i32.const 0))
            (func $start (global.set $said (call $again (i32.const 1)))) (start $start)
            (func (export "f") (param i32) (result i32) (global.get $said)))"#;
        let builder = Pool::builder()
            .max_instances_per_entry(1)
            .wait_timeout(2 * SECOND)
            .no_housekeeper();
        let (_pool, functions) = nesting_in(builder, text, |functions, depth| {
            deeper(&functions[0], depth)
        });
        assert_eq!(functions[0].call(1, 0).unwrap(), DEADLOCK);
    });
}

#[test]
fn i7_a_lease_kept_after_its_host_function_panicked_is_in_no_call() {
    let pool = Pool::builder()
        .max_instances_per_entry(1)
        .no_housekeeper()
        .imports(|linker| {
            let panics = || -> () { panic!("host") };
            linker.func_wrap("host", "panics", panics).map(|_| ())
        })
        .build()
        .unwrap();
    let text = r#"(module (import "host" "panics" (func $p)) (func (export "f") call $p))"#;
    let f: Function<(), ()> = pool.define(Definition::new("f").wasm(wat(text))).unwrap();
    let mut lease = f.acquire(1).unwrap();
    let call = AssertUnwindSafe(|| lease.call(()));
    assert!(catch_unwind(call).is_err());
    // Held, and in no call: to wait for it is pointless here, but not waiting for oneself.
    let error = f.acquire_timeout(1, Duration::ZERO).unwrap_err();
    assert!(matches!(error, AcquireError::Timeout { .. }), "{error}");
    assert!(lease.is_broken());
    drop(lease);
    assert_eq!(check(&pool).leased, 0);
}
