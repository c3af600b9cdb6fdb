//! What an acquire waits for, and how that is said.

use std::time::Duration;

use pollster::block_on;
use wasm_pool::{
    AcquireError, AcquireOptions, Budget, Definition, Function, INSTANCE_OVERHEAD, Limits, Pool,
    PoolBuilder, WaitingFor,
};

use crate::common::{check, memory_module};

/// There is room for one instance.
fn builder() -> PoolBuilder {
    let limits = Limits::new().memory(65_536 + INSTANCE_OVERHEAD);
    Pool::builder().limits(limits)
}

fn define(pool: &Pool) -> Function<(), i32> {
    let definition = Definition::new("f").wasm(memory_module(1, 1));
    pool.define(definition).unwrap()
}

/// Of every acquire that has a deadline: whether it waited for room.
fn waits(f: &Function<(), i32>, options: AcquireOptions) -> bool {
    let group = f.in_group(3);
    let outcomes = [
        f.acquire_with(2, options).map(drop),
        group.acquire_with(options).map(drop),
        group.acquire_owned_with(options).map(drop),
        block_on(f.acquire_async_with(2, options)).map(drop),
        block_on(group.acquire_async_with(options)).map(drop),
        block_on(group.acquire_owned_async_with(options)).map(drop),
    ];
    let waited = outcomes.map(|outcome| match outcome.unwrap_err() {
        AcquireError::BudgetExceeded(short) => {
            assert_eq!(short.budget, Budget::Memory);
            false
        }
        AcquireError::Timeout {
            waiting_for: WaitingFor::Room,
            ..
        } => true,
        other => panic!("{other}"),
    });
    assert!(waited.iter().all(|one| *one == waited[0]), "{waited:?}");
    waited[0]
}

#[test]
fn a_deadline_does_not_make_an_acquire_wait_for_room() {
    let pool = builder().build().unwrap();
    let f = define(&pool);
    let held = f.acquire(1).unwrap();
    let short = Duration::from_millis(1);
    let within = AcquireOptions::new().timeout(short);
    assert!(!waits(&f, AcquireOptions::new()));
    assert!(!waits(&f, within));
    assert!(!waits(&f, within.wait_for_room(false)));
    assert!(waits(&f, within.wait_for_room(true)));
    let group = f.in_group(2);
    for refused in [
        f.acquire_timeout(2, short).map(drop),
        group.acquire_timeout(short).map(drop),
        block_on(f.acquire_async_timeout(2, short)).map(drop),
        block_on(group.acquire_async_timeout(short)).map(drop),
    ] {
        let error = refused.unwrap_err();
        assert!(matches!(error, AcquireError::BudgetExceeded(_)), "{error}");
    }
    drop(held);
    check(&pool);
}

#[test]
fn one_acquire_may_differ_from_its_pool() {
    let short = Duration::from_millis(1);
    let pool = builder().wait_for_room(true).wait_timeout(short);
    let pool = pool.build().unwrap();
    let f = define(&pool);
    let held = f.acquire(1).unwrap();
    assert!(waits(&f, AcquireOptions::new()));
    assert!(waits(&f, AcquireOptions::new().timeout(short)));
    assert!(!waits(&f, AcquireOptions::new().wait_for_room(false)));
    drop(held);
    check(&pool);
}

#[test]
fn a_deadline_holds_for_an_instance_as_for_room() {
    let pool = builder().max_instances_per_entry(1).build().unwrap();
    let f = define(&pool);
    let held = f.acquire(1).unwrap();
    let short = Duration::from_millis(1);
    let error = f.acquire_timeout(1, short).unwrap_err();
    let AcquireError::Timeout {
        waited,
        waiting_for: WaitingFor::Instance,
        ..
    } = error
    else {
        panic!("{error}")
    };
    assert!(waited >= short);
    drop(held);
    assert_eq!(f.acquire_timeout(1, short).unwrap().call(()).unwrap(), 1);
}
