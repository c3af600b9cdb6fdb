//! Leases and calls of tasks.

use std::future::Future;
use std::time::Duration;

use wasm_pool::{AcquireError, Budget, CallError, Definition, Function, Limits, Pool};

fn add() -> Vec<u8> {
    wat::parse_str(
        r#"(module (memory (export "memory") 1)
        (func (export "f") (param i64) (result i64) local.get 0 i64.const 1 i64.add)
        (func (export "spin") (param i64) (result i64) (loop br 0) unreachable))"#,
    )
    .unwrap()
}

fn block_on<F: Future>(future: F) -> F::Output {
    pollster::block_on(future)
}

#[test]
fn a_task_calls_and_its_stack_is_charged() {
    let pool = Pool::builder().build().unwrap();
    let f: Function<i64, i64> = pool.define(Definition::new("f").wasm(add())).unwrap();
    assert_eq!(block_on(f.call_async(1, 41)).unwrap(), 42);
    assert_eq!(pool.stats().budget(Budget::Stack).charged, 1 << 20);
    assert_eq!(f.call(1, 41).unwrap(), 42);
    assert_eq!(block_on(f.call_async(1, 41)).unwrap(), 42);
    assert_eq!(pool.stats().idle, 1);
    pool.recount().unwrap();
    pool.close();
    assert_eq!(pool.stats().budget(Budget::Stack).charged, 0);
    let _ = (Limits::new(), Duration::ZERO);
}

#[test]
fn an_endless_guest_is_cancelled() {
    let pool = Pool::builder().build().unwrap();
    let f: Function<i64, i64> = pool
        .define(Definition::new("f").wasm(add()).export("spin"))
        .unwrap();
    let mut lease = block_on(f.acquire_async("group")).unwrap();
    let canceller = lease.canceller();
    std::thread::spawn(move || canceller.cancel());
    assert!(matches!(
        block_on(lease.call_async(1)),
        Err(CallError::Cancelled { .. })
    ));
    drop(lease);
    let mut lease = f.acquire("group").unwrap();
    let canceller = lease.canceller();
    std::thread::spawn(move || canceller.cancel());
    assert!(matches!(lease.call(1), Err(CallError::Cancelled { .. })));
    drop(lease);
    assert_eq!(pool.stats().idle, 0);
    let _: Option<AcquireError> = None;
    assert!(pool.close_and_drain(Duration::from_secs(5)));
}

fn is_send<T: Send>(value: T) -> T {
    value
}

#[test]
fn futures_are_send() {
    let pool = Pool::builder().build().unwrap();
    let f: Function<i64, i64> = pool.define(Definition::new("f").wasm(add())).unwrap();
    let group = f.in_group(1);
    drop(is_send(f.acquire_async("a")));
    drop(is_send(f.call_async("a", 1)));
    drop(is_send(group.call_async(1)));
    let mut lease = f.acquire(1).unwrap();
    drop(is_send(lease.call_async(1)));
}
