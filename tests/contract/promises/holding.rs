//! 22: who waits for what it holds itself.

use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use wasm_pool::{AcquireError, Definition, Function, ManualClock, Pool, WaitingFor};

use crate::common::{answering, check, in_time, wait_for_waiters, wat};

const SECOND: Duration = Duration::from_secs(1);

fn held_between_calls(error: &AcquireError) -> usize {
    let AcquireError::Timeout {
        between_calls,
        waiting_for,
        ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!(*waiting_for, WaitingFor::Instance);
    *between_calls
}

#[test]
fn promise_22_waiting_for_ones_own_leases_ends_by_the_deadline_and_says_so() {
    let clock = ManualClock::new();
    let pool = Pool::builder()
        .no_housekeeper()
        .clock(clock.clone())
        .max_instances_per_entry(2)
        .build()
        .unwrap();
    let f: Function<(), i32> = pool
        .define(Definition::new("f").wasm(answering(1)).export("f"))
        .unwrap();
    let held = [f.acquire(1).unwrap(), f.acquire(1).unwrap()];
    let own = f.clone();
    let waiter = thread::spawn(move || {
        let error = own
            .acquire_with(1, crate::common::room_within(SECOND))
            .unwrap_err();
        drop(held);
        error
    });
    wait_for_waiters(&pool, 1);
    clock.advance(SECOND);
    let error = in_time(move || waiter.join().unwrap());
    assert_eq!(held_between_calls(&error), 2);
    assert!(
        wasm_pool::Report(&error)
            .to_string()
            .contains("2 of them between two calls"),
        "{error}"
    );
    assert_eq!(check(&pool).idle, 2);
}

#[test]
fn promise_22_what_a_thread_holds_may_end_on_another() {
    let pool = Pool::builder()
        .no_housekeeper()
        .max_instances_per_entry(1)
        .build()
        .unwrap();
    let f: Function<(), i32> = pool
        .define(Definition::new("f").wasm(answering(1)).export("f"))
        .unwrap();
    let held = f.acquire(1).unwrap();
    let (send, receive) = mpsc::channel();
    let looking = pool.clone();
    let other = thread::spawn(move || {
        let held = receive.recv().unwrap();
        wait_for_waiters(&looking, 1);
        drop(held);
    });
    send.send(held).unwrap();
    // This thread had it all: an error at once would have been wrong.
    let again = in_time(move || f.acquire(1).map(drop));
    again.unwrap();
    other.join().unwrap();
}

#[test]
fn promise_22_a_host_function_that_waits_for_its_own_call_is_told_at_once() {
    let own: Arc<OnceLock<Function<(), ()>>> = Arc::default();
    let inner = own.clone();
    let pool = Pool::builder()
        .no_housekeeper()
        .max_instances_per_entry(1)
        .imports(move |linker| {
            linker.func_wrap("env", "again", move || {
                let error = inner.get().unwrap().acquire(1).map(drop).unwrap_err();
                assert!(matches!(error, AcquireError::Deadlock { .. }), "{error}");
            })?;
            Ok(())
        })
        .build()
        .unwrap();
    let wasm = wat(r#"(module (import "env" "again" (func $again))
        (func (export "f") call $again))"#);
    let f: Function<(), ()> = pool.define(Definition::new("f").wasm(wasm)).unwrap();
    own.set(f.clone()).unwrap();
    in_time(move || f.call(1, ())).unwrap();
}
