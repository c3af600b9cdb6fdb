//! C-I1 to C-I7: how many instances, whose they are, how fresh each lease starts, which instances are
//! never leased again, and which go for idleness or age.

mod ages;
mod nested;
mod retired;

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

/// Why instances left, in order.
#[derive(Clone, Default)]
struct Reasons(Arc<Mutex<Vec<RemovalReason>>>);

impl Reasons {
    fn listen(&self) -> impl Fn(&wasm_pool::Removal) + Send + Sync + 'static {
        let this = self.clone();
        move |eviction| this.0.lock().unwrap().push(eviction.reason)
    }

    fn take(&self) -> Vec<RemovalReason> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

// C-I1 ─────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn c_i1_an_entry_has_so_many_leases_and_no_more() {
    let pool = quiet_with_clock()
        .0
        .max_instances_per_entry(2)
        .build()
        .unwrap();
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
fn c_i1_who_waits_is_served_first_come_first_served() {
    let pool = quiet_with_clock()
        .0
        .max_instances_per_entry(1)
        .build()
        .unwrap();
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
fn c_i1_who_waits_gets_the_seat_of_an_instance_that_is_retired() {
    let pool = quiet_with_clock()
        .0
        .max_instances_per_entry(1)
        .build()
        .unwrap();
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
fn c_i1_who_waits_gets_the_seat_of_an_instance_that_could_not_be_made() {
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
    let pool = quiet_with_clock()
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
fn c_i1_a_deadline_ends_the_wait_and_not_that_of_others() {
    let (builder, clock) = quiet_with_clock();
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
            Some(timeout) => next.acquire_with(1, room_within(timeout)).map(drop),
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
fn c_i1_no_lease_is_lost_when_many_threads_compete() {
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

// C-I2 ─────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn c_i2_groups_share_no_instance() {
    let pool = quiet_with_clock().0.build().unwrap();
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
fn c_i2_functions_of_one_module_share_no_instance() {
    let pool = quiet_with_clock().0.build().unwrap();
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
fn c_i2_every_store_has_the_data_of_its_group_whatever_the_pressure() {
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

// C-I3 ─────────────────────────────────────────────────────────────────────────────────────────────

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
    let pool = quiet_with_clock().0.fuel(1 << 40).build().unwrap();
    let mut lease = spinner(&pool).acquire(1).unwrap();
    lease.call(rounds).unwrap();
    (1 << 40) - lease.store().get_fuel().unwrap()
}

#[test]
fn c_i3_every_lease_starts_with_fresh_fuel() {
    let used = fuel_of(100);
    let pool = quiet_with_clock().0.fuel(used * 10 / 9).build().unwrap();
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
fn c_i3_fuel_lasts_for_all_calls_of_a_lease() {
    let used = fuel_of(100);
    let pool = quiet_with_clock().0.fuel(used * 10 / 9).build().unwrap();
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
fn c_i3_a_definition_may_have_its_own_fuel() {
    let used = fuel_of(100);
    let pool = quiet_with_clock().0.fuel(used / 2).build().unwrap();
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
fn c_i3_every_lease_starts_with_a_fresh_deadline() {
    let (pool, f) = ticking();
    for _ in 0..1000 {
        assert_eq!(f.call(1, 9).unwrap(), 1);
    }
    assert_eq!(f.acquire(1).unwrap().uses(), 1001);
    check(&pool);
}

#[test]
fn c_i3_the_deadline_lasts_for_all_calls_of_a_lease() {
    let (pool, f) = ticking();
    let mut lease = f.acquire(1).unwrap();
    lease.call(9).unwrap();
    let error = lease.call(9).unwrap_err();
    assert_eq!(error.to_string(), "f() in group 1 ran out of time (10ms)");
    drop(lease);
    assert_eq!(pool.stats().idle, 0);
    check(&pool);
}
