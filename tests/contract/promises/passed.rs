//! Who waits for room is passed by a bounded number.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use wasm_pool::{
    AcquireError, Budget, BudgetExceeded, Definition, Function, Limits, ManualClock, Pool,
};

use crate::common::{check, check_empty, crowd, until, wat};

/// Longer than anything here takes: a wait that ends by it was forgotten.
const FOR_EVER: Duration = Duration::from_secs(60);
const PAGE: u64 = 64 << 10;

/// A module with so many pages of memory, of `salt`'s own identity, whose `f` counts to its argument.
fn counting(pages: u64, salt: u32) -> Vec<u8> {
    wat(&format!(
        r#"(module (memory {pages}) (func (export "salt") (result i32) (i32.const {salt}))
            (func (export "f") (param $n i32) (result i32) (local $i i32)
                (loop $more
                    (local.set $i (i32.add (local.get $i) (i32.const 1)))
                    (br_if $more (i32.lt_s (local.get $i) (local.get $n))))
                (local.get $i)))"#
    ))
}

fn define(pool: &Pool, name: &str, wasm: Vec<u8>) -> Function<i32, i32> {
    let definition = Definition::new(name).wasm(wasm).export("f");
    pool.define(definition).unwrap()
}

fn pool(limits: Limits) -> Pool {
    let builder = Pool::builder().limits(limits).idle_timeout(None);
    builder.no_housekeeper().build().unwrap()
}

/// Leases after which the others stop. A fourth of them is far more than may pass who waits, since those that
/// need no lock are not seen from the moment when it is woken to the moment when it runs: on two processors that has been some
/// 50,000.
const MANY: u64 = 2_000_000;

/// One request for much waits beside threads of which each begins a lease before it ends the one before, so
/// that each always has one; returns how many leases passed it.
fn passed(pool: &Pool, large: &Function<i32, i32>, small: &[(&Function<i32, i32>, u64)]) -> u64 {
    let _crowd = crowd();
    let (served, leases) = (AtomicBool::new(false), AtomicU64::new(0));
    let done = || served.load(Ordering::Relaxed) || leases.load(Ordering::Relaxed) > MANY;
    thread::scope(|scope| {
        for (function, group) in small {
            let (leases, done) = (&leases, &done);
            scope.spawn(move || {
                let mut held = None;
                while !done() {
                    match function.acquire(*group) {
                        Ok(mut lease) => {
                            lease.call(1000).unwrap();
                            leases.fetch_add(1, Ordering::Relaxed);
                            held = Some(lease);
                        }
                        Err(AcquireError::BudgetExceeded(short)) => {
                            assert!(short.requested <= short.limit, "{short}");
                            held = None;
                            thread::yield_now();
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
                drop(held);
            });
        }
        // Each thread has both of its instances.
        until(|| {
            let stats = pool.stats();
            stats.idle + stats.leased >= 2 * small.len()
        });
        let before = leases.load(Ordering::Relaxed);
        let mut lease = large
            .acquire_with("large", crate::common::room_within(FOR_EVER))
            .unwrap();
        let passed = leases.load(Ordering::Relaxed) - before;
        served.store(true, Ordering::Relaxed);
        lease.call(1).unwrap();
        passed
    })
}

#[test]
fn promise_20_who_waits_for_memory_is_served_beside_leases_that_never_rest() {
    // Room for ten small ones, of which the large one needs eight, and five are always leased.
    let pool = pool(Limits::new().memory(10 * (PAGE + (9 << 10))));
    let small = define(&pool, "small", counting(1, 0));
    let large = define(&pool, "large", counting(8, 1));
    let small: Vec<_> = (0..5).map(|group| (&small, group)).collect();
    let passed = passed(&pool, &large, &small);
    println!("passed by {passed} leases");
    assert!(passed <= MANY / 4, "passed by {passed} leases");
    check(&pool);
    pool.close();
    check_empty(&pool);
}

#[test]
fn promise_20_who_waits_for_code_is_served_beside_modules_that_are_never_idle() {
    let pool = pool(Limits::new().code(64 << 10));
    let large = define(&pool, "large", counting(1, 9));
    let modules: Vec<_> = (0..4)
        .map(|n| define(&pool, &format!("small{n}"), counting(1, n)))
        .collect();
    large.acquire("large").unwrap().call(1).unwrap();
    let one = pool.stats().budget(Budget::Code).charged;
    // Room for the code of four, so that the fifth needs one of theirs.
    pool.set_limits(Limits::new().code(4 * one + one / 2))
        .unwrap();
    for module in &modules {
        module.acquire("warm").unwrap().call(1).unwrap();
    }
    let small: Vec<_> = modules.iter().map(|module| (module, 1)).collect();
    let passed = passed(&pool, &large, &small);
    println!("passed by {passed} leases");
    assert!(passed <= MANY / 4, "passed by {passed} leases");
    check(&pool);
}

/// The error says where the room is.
#[test]
fn promise_20_who_is_refused_meanwhile_is_told_for_whom_room_is_kept() {
    // Room for three small ones, all of which the large one needs.
    let pool = pool(Limits::new().memory(3 * (PAGE + (9 << 10))));
    let small = define(&pool, "small", counting(1, 0));
    let large = define(&pool, "large", counting(3, 1));
    let held = small.acquire("held").unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            large
                .acquire_with("large", crate::common::room_within(FOR_EVER))
                .map(drop)
        });
        until(|| pool.stats().waiting == 1);
        let short = refused(&small);
        assert_eq!(short.budget, Budget::Memory);
        let told = format!(
            "{} bytes are kept for a request that has waited",
            short.promised
        );
        assert!(
            short.promised > 0 && short.to_string().contains(&told),
            "{short}"
        );
        drop(held);
        waiting.join().unwrap().unwrap();
    });
    // Served, it keeps nothing from anybody.
    drop(small.acquire("busy").unwrap());
    check(&pool);
}

/// Leases for one group after the other, each of which takes room, until that is refused.
fn refused(function: &Function<i32, i32>) -> BudgetExceeded {
    for group in 0..MANY {
        match function.acquire(group) {
            Ok(mut lease) => _ = lease.call(1000).unwrap(),
            Err(AcquireError::BudgetExceeded(short)) => return short,
            Err(other) => panic!("{other}"),
        }
        thread::yield_now();
    }
    panic!("passed by {MANY} leases");
}

#[test]
fn promise_20_who_gives_up_leaves_what_was_kept_for_it() {
    let clock = ManualClock::new();
    let pool = Pool::builder()
        .limits(Limits::new().memory(3 * (PAGE + (9 << 10))))
        .idle_timeout(None)
        .clock(clock.clone())
        .no_housekeeper()
        .build()
        .unwrap();
    let small = define(&pool, "small", counting(1, 0));
    let large = define(&pool, "large", counting(3, 1));
    let held = small.acquire("held").unwrap();
    thread::scope(|scope| {
        let patience = Duration::from_secs(1);
        let waiting = scope.spawn(move || {
            large
                .acquire_with("large", crate::common::room_within(patience))
                .map(drop)
        });
        until(|| pool.stats().waiting == 1);
        refused(&small);
        clock.advance(patience);
        let error = waiting.join().unwrap().unwrap_err();
        assert!(matches!(error, AcquireError::Timeout { .. }), "{error}");
    });
    drop(small.acquire("busy").unwrap());
    drop(held);
    assert_eq!(check(&pool).waiting, 0);
    pool.close();
    check_empty(&pool);
}
