//! Compiling takes as long as it takes: who waits for its own module's compilation, or for a turn to
//! compile, gives up only if it has set itself a deadline.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use wasm_pool::{
    AcquireError, Definition, Function, Limits, ManualClock, Pool, PoolBuilder, WaitingFor,
};

use crate::common::{
    answering, check, in_time, instance_bytes, memory_module, spans, until, wait_for_waiters,
};

/// More than the default wait, and less than a deadline of a day.
const LONG: Duration = Duration::from_secs(40);
const DAY: Duration = Duration::from_secs(86_400);

fn pool(set: impl FnOnce(PoolBuilder) -> PoolBuilder) -> (Pool, ManualClock) {
    let clock = ManualClock::new();
    let builder = Pool::builder().clock(clock.clone()).no_housekeeper();
    (set(builder).build().unwrap(), clock)
}

fn define(pool: &Pool, name: &str, answer: i32) -> Function<(), i32> {
    let definition = Definition::new(name).wasm(answering(answer)).export("f");
    pool.define(definition).unwrap()
}

#[track_caller]
fn assert_late(error: &AcquireError, what: WaitingFor) {
    let AcquireError::Timeout { waiting_for, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(*waiting_for, what);
}

#[test]
fn promise_19_threads_wait_for_their_modules_compilation_as_long_as_it_takes() {
    in_time(|| {
        let (pool, clock) = pool(|b| b.max_compilations(2));
        let f = define(&pool, "slow.threads", 7);
        let held = spans::hold("compile", "slow.threads()");
        thread::scope(|scope| {
            let leader = scope.spawn(|| f.call(1, ()));
            held.wait_until_reached();
            let follower = scope.spawn(|| f.call(2, ()));
            let hurried = scope.spawn(|| {
                f.acquire_with(3, crate::common::room_within(LONG / 2))
                    .map(drop)
            });
            wait_for_waiters(&pool, 2);
            clock.advance(LONG);
            // A deadline that was set holds for everything.
            let error = hurried.join().unwrap().unwrap_err();
            assert_late(&error, WaitingFor::Compilation);
            for _ in 0..3 {
                clock.advance(LONG);
                let late = f
                    .acquire_with(3, crate::common::room_within(Duration::ZERO))
                    .map(drop)
                    .unwrap_err();
                assert_late(&late, WaitingFor::Compilation);
                assert_eq!(pool.stats().waiting, 1, "it has not given up");
            }
            drop(held);
            assert_eq!(leader.join().unwrap().unwrap(), 7);
            assert_eq!(follower.join().unwrap().unwrap(), 7);
        });
        assert_eq!(check(&pool).compilations, 1);
    });
}

#[test]
fn promise_19_tasks_wait_for_their_modules_compilation_as_long_as_it_takes() {
    in_time(|| {
        let (pool, clock) = pool(|b| b);
        let f = define(&pool, "slow.tasks", 7);
        let held = spans::hold("compile", "slow.tasks()");
        thread::scope(|scope| {
            // Its own compilation, aside, and another's.
            let leader = scope.spawn(|| pollster::block_on(f.call_async(1, ())));
            held.wait_until_reached();
            let follower = scope.spawn(|| pollster::block_on(f.call_async(2, ())));
            let hurried = f.acquire_async_with(3, crate::common::room_within(LONG / 2));
            let hurried = scope.spawn(|| pollster::block_on(hurried).map(drop));
            wait_for_waiters(&pool, 2);
            clock.advance(LONG);
            pool.sweep();
            let error = hurried.join().unwrap().unwrap_err();
            assert_late(&error, WaitingFor::Compilation);
            clock.advance(LONG);
            pool.sweep();
            assert!(!leader.is_finished() && !follower.is_finished());
            drop(held);
            assert_eq!(leader.join().unwrap().unwrap(), 7);
            assert_eq!(follower.join().unwrap().unwrap(), 7);
        });
        assert_eq!(check(&pool).compilations, 1);
    });
}

#[test]
fn promise_19_a_turn_to_compile_is_waited_for_as_long_as_others_compile() {
    in_time(|| {
        let (pool, clock) = pool(|b| b.max_compilations(1));
        let f = define(&pool, "slow.turn", 7);
        let g = define(&pool, "next.turn", 8);
        let held = spans::hold("compile", "slow.turn()");
        thread::scope(|scope| {
            let leader = scope.spawn(|| f.call(1, ()));
            held.wait_until_reached();
            let next = scope.spawn(|| g.call(1, ()));
            wait_for_waiters(&pool, 1);
            let hurried = scope.spawn(|| {
                g.acquire_with(2, crate::common::room_within(LONG / 2))
                    .map(drop)
            });
            wait_for_waiters(&pool, 2);
            clock.advance(LONG);
            let error = hurried.join().unwrap().unwrap_err();
            assert_late(&error, WaitingFor::Compiler);
            clock.advance(LONG);
            assert_eq!(pool.stats().waiting, 1, "it has not given up");
            drop(held);
            assert_eq!(leader.join().unwrap().unwrap(), 7);
            assert_eq!(next.join().unwrap().unwrap(), 8);
        });
    });
}

#[test]
fn promise_19_compiling_leaves_the_whole_wait_for_what_comes_after() {
    in_time(|| {
        let limits = Limits::new().memory(instance_bytes(1));
        let (pool, clock) = pool(|b| b.limits(limits).wait_for_room(true));
        let wasm = memory_module(1, 0);
        let define = |name: &str| -> Function<(), i32> {
            let definition = Definition::new(name).wasm(wasm.clone());
            pool.define(definition.export("f")).unwrap()
        };
        let f = define("slow.room");
        let held = spans::hold("compile", "slow.room()");
        thread::scope(|scope| {
            let leader = scope.spawn(|| f.acquire(1));
            held.wait_until_reached();
            let follower = scope.spawn(|| f.call(2, ()));
            wait_for_waiters(&pool, 1);
            clock.advance(LONG);
            drop(held);
            let lease = leader.join().unwrap().unwrap();
            // It waits for room now, though more than the usual wait has passed.
            wait_for_waiters(&pool, 1);
            clock.advance(Duration::from_secs(20));
            drop(lease);
            assert_eq!(follower.join().unwrap().unwrap(), 1);
        });
        check(&pool);
    });
}

#[test]
fn promise_19_who_follows_a_leader_that_waits_for_room_keeps_its_deadline() {
    in_time(|| {
        let limits = Limits::new().memory(instance_bytes(1));
        let (pool, clock) = pool(|b| b.limits(limits));
        let define = |name: &str, salt| -> Function<(), i32> {
            let definition = Definition::new(name).wasm(memory_module(1, salt));
            pool.define(definition.export("f")).unwrap()
        };
        let holder = define("holder", 1);
        let f = define("stalled", 2);
        let lease = holder.acquire(1).unwrap();
        thread::scope(|scope| {
            let leader =
                scope.spawn(|| f.acquire_with(1, crate::common::room_within(DAY)).map(drop));
            wait_for_waiters(&pool, 1);
            let follower = scope.spawn(|| f.acquire(2).map(drop));
            wait_for_waiters(&pool, 2);
            clock.advance(LONG);
            let error = follower.join().unwrap().unwrap_err();
            assert_late(&error, WaitingFor::Compilation);
            drop(lease);
            leader.join().unwrap().unwrap();
        });
        check(&pool);
    });
}

#[test]
fn promise_19_the_end_of_the_pool_ends_the_wait_at_once() {
    in_time(|| {
        let (pool, _clock) = pool(|b| b);
        let f = define(&pool, "slow.closed", 7);
        let held = spans::hold("compile", "slow.closed()");
        thread::scope(|scope| {
            let leader = scope.spawn(|| f.call(1, ()));
            held.wait_until_reached();
            let thread = scope.spawn(|| f.acquire(2).map(drop));
            let task = scope.spawn(|| pollster::block_on(f.acquire_async(3)).map(drop));
            wait_for_waiters(&pool, 2);
            pool.close();
            // The compilation goes on, and nobody waits for it.
            for ended in [thread.join(), task.join()] {
                let error = ended.unwrap().unwrap_err();
                assert!(matches!(error, AcquireError::Closed { .. }), "{error:?}");
            }
            drop(held);
            assert!(leader.join().unwrap().is_err());
        });
        until(|| pool.stats().compiling == 0);
    });
}

/// Asks for an instance of the very module that is being compiled, while that is reported.
struct Curious {
    f: Function<(), i32>,
    asked: AtomicBool,
    refused: Arc<AtomicBool>,
}

impl Recorder for Curious {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        if !self.asked.swap(true, Ordering::Relaxed) {
            let late = matches!(self.f.call(2, ()), Err(error) if wasm_pool::Report(&error).to_string().contains("waited"));
            self.refused.store(late, Ordering::Relaxed);
        }
        Histogram::noop()
    }
}

#[test]
fn promise_19_code_within_a_compilation_does_not_wait_for_it_for_ever() {
    in_time(|| {
        let wait = Duration::from_millis(20);
        let pool = Pool::builder().wait_timeout(wait).build().unwrap();
        let f = define(&pool, "curious", 7);
        let refused = Arc::new(AtomicBool::new(false));
        let recorder = Curious {
            f: f.clone(),
            asked: AtomicBool::new(false),
            refused: refused.clone(),
        };
        let answer = metrics::with_local_recorder(&recorder, || f.call(1, ()).unwrap());
        assert_eq!(answer, 7);
        assert!(refused.load(Ordering::Relaxed), "it kept its deadline");
        assert_eq!(f.call(2, ()).unwrap(), 7);
        check(&pool);
    });
}
