//! Calls are cancelled by who does not hold their leases: all of a group, of a function, of what was removed or closed.
//! Those that are meant end, no other one notices, and the instance of a call that was stopped is never seen again.

use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use pollster::block_on;
use wasm_pool::{CallError, Function, Lease, ManualClock, Pool};

use super::stopping::{SPIN, doing, host, is_cancelled, is_retired};
use crate::common::polling::{ByHand, MINUTE};
use crate::common::*;

const SECOND: Duration = Duration::from_secs(1);

/// A call of this lease in a thread of its own, and what it returns once the lease has ended.
fn in_a_thread(mut lease: Lease<'static, (), i32>) -> Receiver<Result<i32, CallError>> {
    let (ended, has_ended) = mpsc::channel();
    thread::spawn(move || {
        let result = lease.call(());
        drop(lease);
        ended.send(result).unwrap();
    });
    has_ended
}

/// A task that calls in this lease, which ends with the call.
fn as_task(mut lease: Lease<'static, (), i32>) -> ByHand<Result<i32, CallError>> {
    ByHand::new(async move { lease.call_async(()).await })
}

/// What a call returns that was cancelled, and is looked at each tick.
fn within_two_ticks<X>(pool: &Pool, has_ended: &Receiver<X>) -> X {
    pool.tick();
    // It may have been looked at just before: then it is again at the next tick.
    let ended = has_ended.recv_timeout(SECOND);
    ended.unwrap_or_else(|_| {
        pool.tick();
        has_ended.recv_timeout(MINUTE).unwrap()
    })
}

/// What a call returns whose time comes to its end.
fn after_ticks<X>(pool: &Pool, has_ended: &Receiver<X>) -> X {
    with_ticks(pool, || has_ended.recv_timeout(MINUTE).unwrap())
}

// Leases between calls ───────────────────────────────────────────────────────────────────────────

#[test]
fn c_i10_the_leases_of_a_group_are_cancelled_and_no_others() {
    let pool = quiet().build().unwrap();
    let (f, g) = (counter(&pool), define(&pool, "g", answering(7)));
    let mut bad = [f.acquire("bad").unwrap(), f.acquire("bad").unwrap()];
    let (mut bad_too, mut good) = (g.acquire("bad").unwrap(), f.acquire("good").unwrap());
    assert_eq!(pool.cancel_group("nobody's"), 0);
    assert_eq!(pool.cancel_group("bad"), 3);
    for lease in &mut bad {
        assert!(matches!(lease.call(()), Err(CallError::Cancelled { .. })));
        assert!(lease.is_broken());
    }
    is_cancelled(bad_too.call(()));
    assert_eq!(good.call(()).unwrap(), 1);
    drop((bad, bad_too, good));
    assert_eq!(check(&pool).idle, 1, "the good one's");
    assert_eq!(f.call("bad", ()).unwrap(), 1, "a new instance, at once");
    assert_eq!(f.call("good", ()).unwrap(), 2);
}

#[test]
fn c_i10_a_lease_that_ends_by_itself_is_unharmed_and_so_is_the_next() {
    let pool = quiet().build().unwrap();
    let f = counter(&pool);
    // As often as it takes to own a slot, and more.
    for round in 0..30 {
        let lease = f.acquire(1).unwrap();
        assert_eq!(pool.cancel_group(1), 1);
        drop(lease);
        assert_eq!(pool.cancel_group(1), 0, "it is idle");
        assert_eq!(f.call(1, ()).unwrap(), round + 1);
    }
    assert_eq!(pool.stats().idle, 1);
}

/// Each way in which a lease begins under the lock, where no hit is counted.
#[test]
fn c_i10_later_leases_are_not_meant_however_they_get_their_instance() {
    let pool = one_at_a_time().build().unwrap();
    let f = counter(&pool);
    let first = f.acquire(1).unwrap();
    let waiting = f.clone();
    let handed = thread::spawn(move || waiting.acquire(1).unwrap().call(()));
    wait_for_waiters(&pool, 1);
    assert_eq!(pool.cancel_group(1), 1);
    drop(first);
    assert_eq!(handed.join().unwrap().unwrap(), 1, "handed on");
    // Made in the seat of one that was cancelled.
    let mut second = f.acquire(1).unwrap();
    assert_eq!(pool.cancel_group(1), 1);
    assert!(second.call(()).is_err());
    let waiting = f.clone();
    let made = thread::spawn(move || waiting.acquire(1).unwrap().call(()));
    wait_for_waiters(&pool, 1);
    drop(second);
    assert_eq!(made.join().unwrap().unwrap(), 1, "a new one");
    // Claimed under the lock, since it lies in a slot of another thread's.
    for _ in 0..20 {
        f.call(1, ()).unwrap();
    }
    let third = f.acquire(1).unwrap();
    assert_eq!(pool.cancel_group(1), 1);
    drop(third);
    let other = f.clone();
    let claimed = thread::spawn(move || other.call(1, ()).unwrap());
    assert_eq!(claimed.join().unwrap(), 22);
    // Made in the seat of one that was evicted since.
    let fourth = f.acquire(1).unwrap();
    assert_eq!(pool.cancel_group(1), 1);
    drop(fourth);
    assert_eq!(pool.retain(|_| false), 1);
    assert_eq!(f.call(1, ()).unwrap(), 1);
    check(&pool);
}

// Calls under way ────────────────────────────────────────────────────────────────────────────────

#[test]
fn c_i10_a_thread_in_a_guest_that_spins_is_stopped_where_all_are_looked_at() {
    let (pool, _, has_begun) = host(Pool::builder().cancellable_calls(true));
    let (spin, other) = (doing(&pool, "spin", SPIN), counter(&pool));
    for resolved in [false, true] {
        let mut good = other.acquire("good").unwrap();
        let lease = match resolved {
            true => spin.in_group("bad").acquire_owned().unwrap(),
            false => spin.acquire("bad").unwrap(),
        };
        let has_ended = in_a_thread(lease);
        has_begun.recv_timeout(MINUTE).unwrap();
        (0..5).for_each(|_| pool.tick());
        assert!(has_ended.try_recv().is_err(), "nothing stops it");
        assert_eq!(pool.cancel_group("bad"), 1);
        is_cancelled(within_two_ticks(&pool, &has_ended));
        good.call(()).unwrap();
        drop(good);
        pool.retain(|_| false);
        is_retired(&pool);
    }
}

#[test]
fn c_i10_otherwise_only_a_lease_with_a_canceller_is_looked_at() {
    let (pool, _, has_begun) = host(Pool::builder().call_timeout(SECOND));
    let spin = doing(&pool, "spin", SPIN);
    let mut with_canceller = spin.acquire(1).unwrap();
    let canceller = with_canceller.canceller();
    let has_ended = [with_canceller, spin.acquire(1).unwrap()].map(in_a_thread);
    (0..2).for_each(|_| has_begun.recv_timeout(MINUTE).unwrap());
    assert_eq!(pool.cancel_group(1), 2);
    is_cancelled(within_two_ticks(&pool, &has_ended[0]));
    assert!(!canceller.is_cancelled(), "that is another way");
    assert!(has_ended[1].try_recv().is_err());
    let late = after_ticks(&pool, &has_ended[1]);
    assert!(matches!(late, Err(CallError::Limit { .. })), "{late:?}");
    is_retired(&pool);
}

#[test]
fn c_i10_a_task_is_stopped_at_once_while_it_waits_for_its_host() {
    let (pool, gate, _) = host(Pool::builder());
    let waits = doing(&pool, "waits", "call $gate");
    let [mut bad, mut good] = [1, 2].map(|group| as_task(lease_of_a_task(&waits, group)));
    assert!(bad.poll().is_none() && good.poll().is_none());
    assert_eq!(gate.came(), 2);
    assert!(!bad.is_woken() && !good.is_woken());
    assert_eq!(pool.cancel_group(1), 1);
    assert!(bad.is_woken() && !good.is_woken());
    is_cancelled(bad.poll().unwrap());
    assert!(good.poll().is_none());
    gate.open();
    assert_eq!(good.finish().unwrap(), 1);
    pool.retain(|_| false);
    is_retired(&pool);
}

#[test]
fn c_i10_a_task_in_a_guest_that_spins_is_stopped_at_a_tick() {
    let (pool, _, has_begun) = host(Pool::builder());
    let spin = doing(&pool, "spin", SPIN);
    let (ended, has_ended) = mpsc::channel();
    thread::spawn(move || ended.send(block_on(spin.call_async(1, ()))).unwrap());
    has_begun.recv_timeout(MINUTE).unwrap();
    assert_eq!(pool.cancel_group(1), 1);
    is_cancelled(within_two_ticks(&pool, &has_ended));
    is_retired(&pool);
}

#[test]
fn c_i10_a_host_function_may_cancel_the_call_that_it_is_in() {
    let builder = Pool::builder().no_housekeeper().cancellable_calls(true);
    let own = std::sync::Arc::new(std::sync::OnceLock::<Pool>::new());
    let import = own.clone();
    let builder = builder.imports(move |linker| {
        let cancel = move || import.get().unwrap().cancel_all() as i32;
        linker.func_wrap("env", "cancel", cancel)?;
        Ok(())
    });
    let pool = builder.build().unwrap();
    assert!(own.set(pool.clone()).is_ok());
    let wasm = wat(
        r#"(module (import "env" "cancel" (func $cancel (result i32)))
            (func (export "f") (result i32) call $cancel))"#,
    );
    let f = define(&pool, "f", wasm);
    let mut lease = f.acquire(1).unwrap();
    assert_eq!(lease.call(()).unwrap(), 1, "no tick has come");
    is_cancelled(lease.call(()));
    drop(lease);
    is_retired(&pool);
}

// By function ────────────────────────────────────────────────────────────────────────────────────

#[test]
fn c_i10_the_leases_of_a_function_are_cancelled_by_name_or_by_overload() {
    let pool = quiet().build().unwrap();
    let overload = |arguments: &'static str| -> Function<(), i32> {
        let definition = definition("f", answering(1));
        pool.define(definition.args([arguments])).unwrap()
    };
    let (by_int, by_text) = (overload("int"), overload("text"));
    let other = define(&pool, "g", answering(2));
    let leases = || [&by_int, &by_text, &other].map(|f| f.acquire(1).unwrap());
    let ended = |leases: &mut [Lease<'static, (), i32>; 3]| {
        let mut ended = [false; 3];
        for (lease, ended) in leases.iter_mut().zip(&mut ended) {
            *ended = matches!(lease.call(()), Err(CallError::Cancelled { .. }));
        }
        ended
    };
    let mut one = leases();
    assert_eq!(pool.cancel_function("f(text)"), 1);
    assert_eq!(ended(&mut one), [false, true, false]);
    let mut all = leases();
    assert_eq!(pool.cancel_function("f"), 4, "those of before, too");
    assert_eq!(ended(&mut all), [true, true, false]);
    assert_eq!(pool.cancel_function("nothing"), 0);
    assert_eq!(pool.cancel_function("f(("), 0);
}

#[test]
fn c_i10_old_code_and_removed_functions_are_meant_too() {
    let pool = quiet().build().unwrap();
    let f = define(&pool, "f", answering(1));
    let mut old = f.acquire(1).unwrap();
    let new: Function<(), i32> = pool.replace(definition("f", answering(2))).unwrap();
    let mut current = new.acquire(1).unwrap();
    pool.remove("f").unwrap();
    let again = define(&pool, "f", answering(3));
    let mut another = again.acquire(1).unwrap();
    assert_eq!(pool.cancel_function("f"), 3);
    for lease in [&mut old, &mut current, &mut another] {
        is_cancelled(lease.call(()));
    }
    drop((old, current, another));
    is_retired(&pool);
}

// Removed, closed ────────────────────────────────────────────────────────────────────────────────

#[test]
fn c_i10_what_is_removed_may_end_by_itself_until_it_is_cancelled() {
    let clock = ManualClock::new();
    let pool = Pool::builder().no_housekeeper().clock(clock.clone());
    let pool = pool.build().unwrap();
    let f = define(&pool, "f", answering(1));
    let unknown = pool.remove_and_cancel("g", Duration::ZERO);
    assert_eq!(unknown.unwrap_err().target, "g");
    f.call(1, ()).unwrap();
    assert_eq!(pool.remove_and_cancel("f", MINUTE).unwrap(), 0);

    let f = define(&pool, "f", answering(1));
    let (ends, mut stays) = (f.acquire(1).unwrap(), f.acquire(2).unwrap());
    let removing = pool.clone();
    let mut removed =
        ByHand::new(async move { removing.remove_and_cancel_async("f", SECOND).await });
    assert!(removed.poll().is_none());
    assert!(f.acquire(1).is_err(), "it is removed");
    drop(ends);
    assert!(!removed.is_woken());
    assert_eq!(stays.call(()).unwrap(), 1);
    clock.advance(SECOND);
    pool.sweep();
    assert!(removed.is_woken());
    assert_eq!(removed.poll().unwrap().unwrap(), 1);
    is_cancelled(stays.call(()));
    drop(stays);
    is_retired(&pool);

    // The last one's end is told.
    let f = define(&pool, "f", answering(1));
    let lease = f.acquire(1).unwrap();
    let removing = pool.clone();
    let mut removed =
        ByHand::new(async move { removing.remove_and_cancel_async("f", SECOND).await });
    assert!(removed.poll().is_none());
    drop(lease);
    assert!(removed.is_woken());
    assert_eq!(removed.poll().unwrap().unwrap(), 0);
}

#[test]
fn c_i10_a_removal_that_is_dropped_cancels_nothing() {
    let pool = quiet().build().unwrap();
    let f = define(&pool, "f", answering(1));
    let mut lease = f.acquire(1).unwrap();
    let removing = pool.clone();
    let mut removed =
        ByHand::new(async move { removing.remove_and_cancel_async("f", SECOND).await });
    assert!(removed.poll().is_none());
    drop(removed);
    assert_eq!(lease.call(()).unwrap(), 1);
    drop(lease);
    is_retired(&pool);
}

#[test]
fn c_i10_a_pool_that_closes_cancels_what_runs_on() {
    let (pool, _, has_begun) = host(Pool::builder().cancellable_calls(true));
    let spin = doing(&pool, "spin", SPIN);
    let has_ended = in_a_thread(spin.acquire(1).unwrap());
    has_begun.recv_timeout(MINUTE).unwrap();
    let drained = with_ticks(&pool, || pool.close_and_cancel(Duration::ZERO, MINUTE));
    assert!(drained);
    is_cancelled(has_ended.recv_timeout(MINUTE).unwrap());
    check_empty(&pool);
    assert!(
        pool.close_and_cancel(Duration::ZERO, Duration::ZERO),
        "and again"
    );
}

#[test]
fn c_i10_a_task_closes_a_pool_and_cancels_what_waits() {
    let clock = ManualClock::new();
    let (pool, gate, _) = host(Pool::builder().clock(clock.clone()));
    let waits = doing(&pool, "waits", "call $gate");
    let mut call = as_task(lease_of_a_task(&waits, 1));
    assert!(call.poll().is_none());
    assert_eq!(gate.came(), 1);
    let closing = pool.clone();
    let mut closed =
        ByHand::new(async move { closing.close_and_cancel_async(SECOND, SECOND).await });
    assert!(closed.poll().is_none());
    assert!(!call.is_woken(), "it has a second");
    clock.advance(SECOND);
    pool.sweep();
    assert!(closed.is_woken());
    assert!(closed.poll().is_none());
    assert!(call.is_woken());
    is_cancelled(call.poll().unwrap());
    drop(call);
    assert!(closed.is_woken());
    assert_eq!(closed.poll(), Some(true));
    check_empty(&pool);
}
