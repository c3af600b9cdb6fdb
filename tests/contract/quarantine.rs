//! Functions whose guests fail again and again are refused for a while.

use std::time::Duration;

use pollster::block_on;
use wasm_pool::{
    AcquireError, BuildError, CallError, Definition, ErrorKind, Function, LimitsError, ManualClock,
    Pool, PoolBuilder, Quarantine,
};

use crate::common::*;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// It does what it is told: returns, traps, spins, or asks for a thousand pages.
const TOLD: &str = r#"(module
    (import "host" "fail" (func $fail))
    (memory 1)
    (func (export "f") (param i32) (result i32)
        (if (i32.eq (local.get 0) (i32.const 1)) (then unreachable))
        (if (i32.eq (local.get 0) (i32.const 2)) (then (loop $on (br $on))))
        (if (i32.eq (local.get 0) (i32.const 3)) (then (return (memory.grow (i32.const 1000)))))
        (if (i32.eq (local.get 0) (i32.const 4)) (then (call $fail)))
        (i32.const 7)))"#;

const WELL: i32 = 0;
const TRAPS: i32 = 1;
const SPINS: i32 = 2;
const GROWS: i32 = 3;
const HOST_FAILS: i32 = 4;

type F = Function<i32, i32>;

fn builder(quarantine: Quarantine) -> (PoolBuilder, ManualClock) {
    let clock = ManualClock::new();
    let builder = Pool::builder()
        .clock(clock.clone())
        .no_housekeeper()
        .fuel(100_000)
        .max_instance_memory(1 << 20)
        .quarantine(quarantine)
        .imports(|linker| {
            let fail = || -> wasmtime::Result<()> { Err(wasmtime::Error::msg("the host fails")) };
            linker.func_wrap("host", "fail", fail).map(drop)
        });
    (builder, clock)
}

fn pool(quarantine: Quarantine) -> (Pool, ManualClock) {
    let (builder, clock) = builder(quarantine);
    (builder.build().unwrap(), clock)
}

fn define(pool: &Pool, name: &str) -> F {
    let definition = Definition::new(name).wasm(wat(TOLD)).export("f");
    pool.define(definition).unwrap()
}

/// How long a group will still be refused.
fn refused_for(f: &F, group: &str) -> Option<Duration> {
    match f.acquire(group).map(drop) {
        Err(AcquireError::Quarantined { time_left, .. }) => Some(time_left),
        Ok(()) => None,
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn what_a_guest_does_counts_and_what_the_host_does_does_not() {
    for (what, counts) in [
        (WELL, false),
        (TRAPS, true),
        (SPINS, true),
        (GROWS, true),
        (HOST_FAILS, false),
    ] {
        let (pool, _) = pool(Quarantine::after(2, MINUTE));
        let f = define(&pool, "f");
        for _ in 0..2 {
            assert_eq!(refused_for(&f, "a"), None, "{what}");
            let _ = f.call("a", what);
        }
        // In all groups, and whatever it would do.
        for group in ["a", "b"] {
            let expected = counts.then_some(SECOND);
            assert_eq!(refused_for(&f, group), expected, "{what} in {group}");
        }
        let stats = check(&pool);
        assert_eq!(stats.quarantines, u64::from(counts));
        assert_eq!(stats.quarantined.len(), usize::from(counts));
    }
}

#[test]
fn a_call_that_is_cancelled_or_dropped_is_not_the_guests_fault() {
    let (pool, _) = pool(Quarantine::after(1, MINUTE));
    let f = define(&pool, "f");
    let mut lease = f.acquire("a").unwrap();
    lease.canceller().cancel();
    let error = lease.call(SPINS).unwrap_err();
    assert!(matches!(error, CallError::Cancelled { .. }));
    drop(lease);
    f.acquire("a").unwrap().discard();
    drop(f.call_async("a", SPINS));
    assert_eq!(refused_for(&f, "a"), None);
}

#[test]
fn the_error_says_how_long() {
    let (pool, clock) = pool(Quarantine::after(1, MINUTE));
    let f = define(&pool, "f");
    f.call("a", TRAPS).unwrap_err();
    clock.advance(SECOND / 4);
    let error = f.call("a", WELL).unwrap_err();
    assert_eq!(
        error.to_string(),
        "f() in group a is in quarantine for another 750ms: its guests have failed too often"
    );
    assert_eq!(error.kind(), ErrorKind::Guest);
    let error = block_on(f.call_async("a", WELL)).unwrap_err();
    let CallError::Acquire(AcquireError::Quarantined { target, .. }) = error else {
        panic!("{error}");
    };
    assert_eq!(&*target.signature, "f()");
    let stats = pool.stats();
    let [quarantined] = &stats.quarantined[..] else {
        panic!("{stats:?}");
    };
    assert_eq!(&*quarantined.signature, "f()");
    assert_eq!(
        (&quarantined.group, quarantined.time_left),
        (&None, SECOND * 3 / 4)
    );
}

/// Twice as long each time, as long as it goes on; one failure is enough then.
#[test]
fn it_doubles_up_to_a_limit_and_is_forgotten() {
    let rule = Quarantine::after(3, MINUTE).backoff(10 * SECOND, 35 * SECOND);
    let (pool, clock) = pool(rule);
    let f = define(&pool, "f");
    let fail = |times| (0..times).for_each(|_| drop(f.call("a", TRAPS).unwrap_err()));
    fail(3);
    for expected in [10, 20, 35, 35] {
        let time = refused_for(&f, "a").unwrap();
        assert_eq!(time, expected * SECOND);
        clock.advance(time);
        fail(1);
    }
    clock.advance(35 * SECOND);
    assert_eq!(f.call("a", WELL).unwrap(), 7);
    // A minute without failure, from the end of the last.
    clock.advance(MINUTE + SECOND);
    fail(2);
    assert_eq!(refused_for(&f, "a"), None);
    fail(1);
    assert_eq!(refused_for(&f, "a"), Some(10 * SECOND));
}

/// Warm leases take no lock, and are refused all the same; those that have begun go on.
#[test]
fn idle_instances_are_refused_and_leases_go_on() {
    let (pool, clock) = pool(Quarantine::after(1, MINUTE));
    let f = define(&pool, "f");
    let mut held = f.acquire("a").unwrap();
    let in_group = f.in_group("a");
    in_group.call(WELL).unwrap();
    in_group.call(TRAPS).unwrap_err();
    assert_eq!(refused_for(&f, "a"), Some(SECOND));
    assert!(matches!(
        in_group.try_acquire().map(drop),
        Err(AcquireError::Quarantined { .. })
    ));
    assert_eq!(held.call(WELL).unwrap(), 7);
    drop(held);
    // What went back is there, and not to be had.
    assert_eq!(check(&pool).idle, 1);
    assert_eq!(refused_for(&f, "a"), Some(SECOND));
    clock.advance(SECOND);
    assert_eq!(in_group.acquire().unwrap().uses(), 2);
}

#[test]
fn who_waits_for_an_instance_is_told() {
    let (builder, _) = builder(Quarantine::after(1, MINUTE));
    let pool = builder.max_instances_per_entry(1).build().unwrap();
    let f = define(&pool, "f");
    let mut held = f.acquire("a").unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| f.acquire("a").map(drop));
        wait_for_waiters(&pool, 1);
        held.call(TRAPS).unwrap_err();
        let error = waits.join().unwrap().unwrap_err();
        assert!(matches!(error, AcquireError::Quarantined { .. }), "{error}");
    });
    drop(held);
    check(&pool);
}

#[test]
fn each_group_may_be_judged_by_itself() {
    let (pool, _) = pool(Quarantine::after(2, MINUTE).by_group(true));
    let [f, g] = ["f", "g"].map(|name| define(&pool, name));
    for f in [&f, &g] {
        for group in ["a", "b"] {
            f.call(group, TRAPS).unwrap_err();
        }
    }
    f.call("a", TRAPS).unwrap_err();
    assert_eq!(refused_for(&f, "a"), Some(SECOND));
    for (f, group) in [(&f, "b"), (&g, "a"), (&g, "b")] {
        assert_eq!(refused_for(f, group), None);
    }
    let stats = pool.stats();
    assert_eq!(stats.quarantined.len(), 1);
    assert_eq!(stats.quarantined[0].group, Some("a".into()));
}

#[test]
fn it_ends_by_hand_and_with_the_code() {
    let (pool, _) = pool(Quarantine::after(1, MINUTE));
    let f = define(&pool, "f");
    f.call("a", TRAPS).unwrap_err();
    pool.lift_quarantine("f").unwrap();
    assert_eq!(f.call("a", WELL).unwrap(), 7);
    f.call("a", TRAPS).unwrap_err();
    // The first again: nothing was held against it.
    assert_eq!(refused_for(&f, "a"), Some(SECOND));
    let definition = Definition::new("f").wasm(wat(TOLD)).export("f");
    let f: F = pool.replace(definition).unwrap();
    assert_eq!(f.call("a", WELL).unwrap(), 7);
    assert!(pool.lift_quarantine("g").is_err());
    assert_eq!(check(&pool).quarantines, 2);
}

/// Leases of the old code go on, and what they do is not held against the new.
#[test]
fn what_replaced_code_does_is_not_held_against_its_successor() {
    let (pool, _) = pool(Quarantine::after(1, MINUTE));
    let f = define(&pool, "f");
    let mut old = [1, 2].map(|group| f.acquire(group).unwrap());
    let definition = Definition::new("f").wasm(wat(TOLD)).export("f");
    let f: F = pool.replace(definition).unwrap();
    assert_eq!(old[0].call(GROWS).unwrap(), -1);
    old[1].call(TRAPS).unwrap_err();
    drop(old);
    assert_eq!(refused_for(&f, "a"), None);
    f.call("a", TRAPS).unwrap_err();
    assert_eq!(refused_for(&f, "a"), Some(SECOND));
    check(&pool);
}

#[test]
fn a_start_function_counts() {
    let (pool, _) = pool(Quarantine::after(2, MINUTE));
    let text = r#"(module (func $start unreachable) (start $start) (func (export "f")))"#;
    let f: Function<(), ()> = pool.define(Definition::new("f").wasm(wat(text))).unwrap();
    for _ in 0..2 {
        let error = f.acquire("a").map(drop).unwrap_err();
        assert!(
            matches!(error, AcquireError::StartTrapped { .. }),
            "{error}"
        );
    }
    let error = f.acquire("b").map(drop).unwrap_err();
    assert!(matches!(error, AcquireError::Quarantined { .. }), "{error}");
    check(&pool);
}

#[test]
fn rules_that_make_no_sense_are_refused() {
    let refused = |quarantine| match builder(quarantine).0.build().map(drop) {
        Err(BuildError::Limits(error)) => error,
        other => panic!("{other:?}"),
    };
    let zero = Duration::ZERO;
    for (quarantine, which) in [
        (Quarantine::after(0, MINUTE), "quarantine.failures"),
        (Quarantine::after(1, zero), "quarantine.within"),
        (
            Quarantine::after(1, MINUTE).backoff(zero, MINUTE),
            "quarantine.first",
        ),
    ] {
        let error = refused(quarantine);
        assert!(
            matches!(error, LimitsError::Zero { field } if field == which),
            "{error}"
        );
    }
    let error = refused(Quarantine::after(1025, MINUTE));
    assert!(
        matches!(error, LimitsError::TooLarge { max: 1024, .. }),
        "{error}"
    );
    let error = refused(Quarantine::after(1, MINUTE).backoff(MINUTE, SECOND));
    assert!(matches!(error, LimitsError::TooSmall { .. }), "{error}");
    // And at its ends.
    let longest = Duration::MAX;
    let (pool, _) = pool(Quarantine::after(1, longest).backoff(longest, longest));
    let f = define(&pool, "f");
    f.call("a", TRAPS).unwrap_err();
    assert!(refused_for(&f, "a").is_some());
    pool.close();
    assert!(matches!(
        f.acquire("a").map(drop),
        Err(AcquireError::Closed { .. })
    ));
}
