//! Point 23: what a clock at its end says, and a lease that is left over.

use std::time::Duration;

use wasm_pool::{CallError, CallLimit, Clock, Definition, Function, ManualClock, Pool};

use crate::common::{in_time, wat};

#[test]
fn promise_23_a_clock_that_is_at_its_end_stays_there() {
    let clock = ManualClock::new();
    clock.advance(Duration::from_secs(5));
    clock.advance(Duration::MAX);
    let end = clock.now();
    assert!(end > Duration::from_secs(5), "{end:?}");
    clock.advance(Duration::MAX);
    clock.advance(Duration::from_nanos(1));
    assert_eq!(clock.now(), end);
}

const SPIN: &str = r#"(module (func (export "spin") (loop br 0)))"#;

#[test]
fn promise_23_a_lease_that_outlives_its_pool_names_the_limit_that_it_had() {
    let limit = Duration::from_millis(20);
    let timeout = in_time(move || {
        let pool = Pool::builder().call_timeout(limit).build().unwrap();
        let spin: Function<(), ()> = pool
            .define(Definition::new("spin").wasm(wat(SPIN)))
            .unwrap();
        let mut lease = spin.acquire("tenant").unwrap();
        drop((spin, pool));
        lease.call(()).unwrap_err()
    });
    let CallError::Limit {
        limit: reported, ..
    } = timeout
    else {
        panic!("{timeout:?}")
    };
    assert_eq!(reported, CallLimit::Time(limit));

    let pool = Pool::builder().fuel(1_000).build().unwrap();
    let spin: Function<(), ()> = pool
        .define(Definition::new("spin").wasm(wat(SPIN)))
        .unwrap();
    let mut lease = spin.acquire("tenant").unwrap();
    drop((spin, pool));
    let CallError::Limit {
        limit: reported, ..
    } = lease.call(()).unwrap_err()
    else {
        panic!("it has no end without fuel")
    };
    assert_eq!(reported, CallLimit::Fuel(1_000));
}
