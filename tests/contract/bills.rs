//! Who has used what: by group, by function, and all together.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pollster::block_on;
use wasm_pool::{
    AcquireOptions, Bill, Billing, Bills, Budget, CallError, Definition, Function, Limits,
    ManualClock, Pool, PoolBuilder,
};

use crate::common::*;

const SECOND: Duration = Duration::from_secs(1);
const NANOS: u128 = 1_000_000_000;

/// It does what it is told: returns, traps, spins, asks for a thousand pages, fails in the host, takes a second, or grows by
/// a page.
const TOLD: &str = r#"(module
    (import "host" "fail" (func $fail))
    (import "host" "second" (func $second))
    (memory 1)
    (func (export "f") (param i32) (result i32)
        (if (i32.eq (local.get 0) (i32.const 1)) (then unreachable))
        (if (i32.eq (local.get 0) (i32.const 2)) (then (loop $on (br $on))))
        (if (i32.eq (local.get 0) (i32.const 3)) (then (return (memory.grow (i32.const 1000)))))
        (if (i32.eq (local.get 0) (i32.const 4)) (then (call $fail)))
        (if (i32.eq (local.get 0) (i32.const 5)) (then (call $second)))
        (if (i32.eq (local.get 0) (i32.const 6)) (then (return (memory.grow (i32.const 1)))))
        (i32.const 7)))"#;

const WELL: i32 = 0;
const TRAPS: i32 = 1;
const SPINS: i32 = 2;
const TOO_MUCH: i32 = 3;
const HOST_FAILS: i32 = 4;
const TAKES_A_SECOND: i32 = 5;
const GROWS: i32 = 6;

type F = Function<i32, i32>;

fn builder(clock: &ManualClock) -> PoolBuilder {
    let moved = clock.clone();
    Pool::builder()
        .clock(clock.clone())
        .no_housekeeper()
        .idle_timeout(None)
        .fuel(100_000)
        .max_instance_memory(1 << 20)
        .billing(Billing::new())
        .imports(move |linker| {
            let fail = || -> wasmtime::Result<()> { Err(wasmtime::Error::msg("the host fails")) };
            linker.func_wrap("host", "fail", fail)?;
            linker.func_wrap("host", "second", move || moved.advance(SECOND))?;
            Ok(())
        })
}

fn define(pool: &Pool, name: &str) -> F {
    // Modules of their own: nobody shares code, but where a test says so.
    let module = format!("{} (@custom \"name\" \"{name}\"))", &TOLD[..TOLD.len() - 1]);
    let definition = Definition::new(name).wasm(wat(&module)).export("f");
    pool.define(definition).unwrap()
}

fn bills(pool: &Pool) -> Bills {
    let stats = check(pool);
    let bills = *stats.bills.clone().expect("this pool keeps bills");
    check_sums(&bills);
    let total = &bills.total;
    assert_eq!(total.hits, stats.hits);
    assert_eq!(total.misses, stats.misses);
    assert_eq!(total.blocks, stats.blocks);
    assert_eq!(total.refusals, stats.refusals);
    assert_eq!(total.growth_refusals, stats.growth_refusals);
    assert_eq!(total.compilations, stats.compilations);
    bills
}

/// What is on the bills of groups, and of functions, is the total: exactly.
fn check_sums(bills: &Bills) {
    let groups = bills.groups.iter().map(|of| &of.bill);
    let groups = groups.chain([&bills.other_groups]);
    let functions = bills.functions.iter().map(|of| &of.bill);
    let functions = functions.chain([&bills.other_functions]);
    let groups = sums(groups);
    assert_eq!(groups, sums(functions), "{bills:#?}");
    let mut total = sums([&bills.total].into_iter());
    for (at, budget) in Budget::ALL.iter().enumerate() {
        total.held[at] -= bills.unassigned(*budget);
        assert!(total.leased[at] <= total.held[at], "{budget}: {bills:#?}");
    }
    assert_eq!(groups, total, "{bills:#?}");
}

#[derive(Debug, Default, PartialEq)]
struct Sums {
    counts: [u64; 17],
    times: [Duration; 2],
    held: [u128; Budget::ALL.len()],
    leased: [u128; Budget::ALL.len()],
}

fn sums<'a>(bills: impl Iterator<Item = &'a Bill>) -> Sums {
    let mut sums = Sums::default();
    for bill in bills {
        let failures = &bill.failures;
        let counts = [
            bill.hits,
            bill.misses,
            bill.blocks,
            bill.room_waits,
            bill.refusals,
            bill.growth_refusals,
            bill.calls,
            failures.traps,
            failures.fuel,
            failures.time,
            failures.cancelled,
            failures.host,
            bill.fuel,
            bill.bytes_in,
            bill.bytes_out,
            bill.compilations,
            0,
        ];
        (sums.counts.iter_mut().zip(counts)).for_each(|(sum, count)| *sum += count);
        sums.times[0] += bill.guest_time;
        sums.times[1] += bill.compile_time;
        for (at, budget) in Budget::ALL.iter().enumerate() {
            sums.held[at] += bill.held(*budget);
            sums.leased[at] += bill.leased(*budget);
        }
    }
    sums
}

fn bill_of(bills: &Bills, group: &str) -> Bill {
    bills.group(group).expect("it has a bill").clone()
}

#[test]
fn there_are_no_bills_unless_they_are_asked_for() {
    let pool = Pool::builder().no_housekeeper().build().unwrap();
    assert_eq!(pool.stats().bills, None);
    let pool = Pool::builder().no_housekeeper().strangers();
    assert!(pool.build().unwrap().stats().bills.is_some());
}

#[test]
fn calls_and_failures_are_on_the_bill_of_who_made_them() {
    let clock = ManualClock::new();
    let pool = builder(&clock).build().unwrap();
    let (f, g) = (define(&pool, "f"), define(&pool, "g"));
    for what in [WELL, TRAPS, SPINS, TOO_MUCH, HOST_FAILS] {
        let _ = f.call("a", what);
    }
    let mut lease = g.acquire("b").unwrap();
    for _ in 0..3 {
        assert_eq!(lease.call(WELL).unwrap(), 7);
    }
    lease.canceller().cancel();
    assert!(matches!(lease.call(WELL), Err(CallError::Cancelled { .. })));
    drop(lease);
    let bills = bills(&pool);
    let a = bill_of(&bills, "a");
    let failures = a.failures;
    assert_eq!((failures.traps, failures.fuel, failures.host), (1, 1, 1));
    assert_eq!((failures.time, failures.cancelled), (0, 0));
    // Who failed is made anew: after the trap, and after it has spun.
    assert_eq!((a.calls, a.misses, a.hits), (5, 3, 2));
    assert_eq!((a.growth_refusals, a.compilations), (1, 1));
    // All that a lease may have, where it has spun, and a little elsewhere.
    assert!(a.fuel > 100_000 && a.fuel < 101_000, "{}", a.fuel);
    let b = bill_of(&bills, "b");
    assert_eq!((b.calls, b.misses, b.failures.cancelled), (3, 1, 1));
    assert_eq!(bills.functions.len(), 2);
    for of in &bills.functions {
        let same = if &*of.signature == "f()" { &a } else { &b };
        assert_eq!(&of.bill, same, "each has one function alone");
    }
}

#[test]
fn what_is_held_is_billed_for_as_long_as_it_is_idle_and_leased_apart() {
    let clock = ManualClock::new();
    let pool = builder(&clock).build().unwrap();
    let f = define(&pool, "f");
    // The code stays, and is nobody's, while there is no instance.
    f.call("a", TRAPS).unwrap_err();
    let code = charged(&pool, Budget::Code);
    clock.advance(SECOND);
    let before = bills(&pool);
    assert_eq!(bill_of(&before, "a").held(Budget::Code), 0);
    assert_eq!(before.unassigned(Budget::Code), u128::from(code) * NANOS);

    let mut lease = f.acquire("a").unwrap();
    let small = u128::from(charged(&pool, Budget::Memory));
    clock.advance(3 * SECOND);
    assert_eq!(lease.call(GROWS).unwrap(), 1);
    let large = u128::from(charged(&pool, Budget::Memory));
    assert!(large >= small + 65_536);
    clock.advance(4 * SECOND);
    // It goes on.
    let goes_on = bill_of(&bills(&pool), "a");
    let leased = (3 * small + 4 * large) * NANOS;
    assert_eq!(goes_on.leased(Budget::Memory), leased);
    assert_eq!(goes_on.held(Budget::Memory), leased);
    drop(lease);
    clock.advance(5 * SECOND);
    let after = bills(&pool);
    let a = bill_of(&after, "a");
    assert_eq!(a.leased(Budget::Memory), leased);
    assert_eq!(a.idle(Budget::Memory), 5 * large * NANOS);
    assert_eq!(a.held(Budget::Code), u128::from(code) * 12 * NANOS);
    assert_eq!(a.leased(Budget::Code), 0);
    assert_eq!(after.unassigned(Budget::Memory), 0);
    assert_eq!(after.total.held(Budget::Memory), a.held(Budget::Memory));
    // What has gone costs nothing more.
    pool.retain(|_| false);
    clock.advance(5 * SECOND);
    let gone = bill_of(&bills(&pool), "a");
    assert_eq!(gone.held(Budget::Memory), a.held(Budget::Memory));
    assert_eq!(gone.held(Budget::Code), a.held(Budget::Code));
}

#[test]
fn who_has_instances_of_a_module_bears_an_equal_part_of_its_code() {
    let clock = ManualClock::new();
    let pool = builder(&clock).build().unwrap();
    let module = wat(TOLD);
    let define = |name: &str| -> F {
        let definition = Definition::new(name).export("f");
        pool.define(definition.wasm(module.clone())).unwrap()
    };
    let (f, g) = (define("f"), define("g"));
    let code = |bills: &Bills, group| bill_of(bills, group).held(Budget::Code);
    f.call("a", WELL).unwrap();
    let bytes = u128::from(charged(&pool, Budget::Code));
    clock.advance(3 * SECOND);
    f.call("b", WELL).unwrap();
    clock.advance(3 * SECOND);
    g.call("b", WELL).unwrap();
    clock.advance(3 * SECOND);
    let bills = bills(&pool);
    // Alone; one of two; one of three.
    let parts = |thirds: u128| bytes * NANOS * thirds / 2;
    assert_eq!(code(&bills, "a"), parts(6 + 3 + 2));
    assert_eq!(code(&bills, "b"), parts(3 + 2 * 2));
    assert_eq!(bills.total.held(Budget::Code), bytes * 9 * NANOS);
}

#[test]
fn time_in_guests_is_counted_in_calls_and_not_while_a_task_waits() {
    let clock = ManualClock::new();
    let moved = clock.clone();
    let pool = builder(&clock)
        .imports(move |linker| {
            let moved = moved.clone();
            linker.func_wrap_async("host", "waits", move |_, (): ()| {
                let moved = moved.clone();
                Box::new(async move {
                    moved.advance(SECOND);
                    polled_twice().await;
                    moved.advance(SECOND);
                })
            })?;
            Ok(())
        })
        .build()
        .unwrap();
    let f = define(&pool, "f");
    f.call("threads", TAKES_A_SECOND).unwrap();
    let mut lease = f.acquire("threads").unwrap();
    lease.call(TAKES_A_SECOND).unwrap();
    // In the host, and not in a call.
    clock.advance(9 * SECOND);
    drop(lease);
    let waits = wat(r#"(module (import "host" "waits" (func $w)) (func (export "f") (call $w)))"#);
    let waits: Function<(), ()> = pool
        .define(Definition::new("waits").export("f").wasm(waits))
        .unwrap();
    block_on(waits.call_async("tasks", ())).unwrap();
    {
        let mut call = pin!(waits.call_async("tasks", ()));
        let mut context = Context::from_waker(Waker::noop());
        assert!(call.as_mut().poll(&mut context).is_pending());
        assert_eq!(pool.stats().leased, 1);
        clock.advance(5 * SECOND);
        block_on(call).unwrap();
    }
    block_on(f.call_async("tasks", WELL)).unwrap();
    let bills = bills(&pool);
    assert_eq!(bill_of(&bills, "threads").guest_time, 2 * SECOND);
    let tasks = bill_of(&bills, "tasks");
    assert_eq!((tasks.guest_time, tasks.calls), (4 * SECOND, 3));
}

async fn polled_twice() {
    let mut before = false;
    std::future::poll_fn(|context| {
        context.waker().wake_by_ref();
        match std::mem::replace(&mut before, true) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
}

#[test]
fn bytes_that_go_in_and_out_are_counted() {
    let pool = builder(&ManualClock::new()).max_instance_memory(4 << 20);
    let pool = pool.build().unwrap();
    let definition = Definition::new("text.soundex").wasm(guest("text_soundex"));
    let soundex: Function<(i32, i32), i64> = pool.define(definition).unwrap();
    let answer = text_to_text(&soundex, "Robert").unwrap();
    assert_eq!(answer.as_deref(), Some("R163"));
    let bills = bills(&pool);
    assert_eq!((bills.total.bytes_in, bills.total.bytes_out), (6, 4));
    // With `alloc` and `dealloc`.
    assert_eq!(bills.total.calls, 3);
}

#[test]
fn refusals_and_waits_are_on_the_bill_of_who_asked() {
    let clock = ManualClock::new();
    let one = instance_bytes(1);
    let limits = Limits::new().memory(one + one / 2);
    let pool = builder(&clock).max_instance_memory(1 << 16).limits(limits);
    let pool = pool.max_instances_per_entry(1).build().unwrap();
    let f = pool.define::<(), i32>(Definition::new("f").wasm(memory_module(1, 1)));
    let f = f.unwrap();
    let held = f.acquire("holder").unwrap();
    assert!(f.acquire("refused").is_err());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let waited = f.acquire_with("waits", room_within(60 * SECOND));
            drop(waited.unwrap());
        });
        wait_for_waiters(&pool, 1);
        drop(held);
    });
    let held = f.acquire("waits").unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| f.acquire("waits").map(drop).unwrap());
        wait_for_waiters(&pool, 1);
        drop(held);
    });
    let bills = bills(&pool);
    let of = |group| bill_of(&bills, group);
    assert_eq!((of("refused").refusals, of("refused").calls), (1, 0));
    assert_eq!((of("waits").room_waits, of("waits").blocks), (1, 1));
    assert_eq!((of("holder").refusals, of("holder").room_waits), (0, 0));
}

#[test]
fn who_is_gone_leaves_what_he_has_used_with_the_pool() {
    let clock = ManualClock::new();
    let pool = builder(&clock).billing(Billing::new().kept_groups(2));
    let pool = pool.build().unwrap();
    let f = define(&pool, "f");
    for group in ["first", "second", "third"] {
        let mut lease = f.acquire(group).unwrap();
        lease.call(WELL).unwrap();
        clock.advance(SECOND);
    }
    let before = bills(&pool);
    assert_eq!(before.groups.len(), 3);
    let lease = f.acquire("third").unwrap();
    pool.remove("f").unwrap();
    let during = bills(&pool);
    assert!(during.functions.is_empty(), "it is not defined any more");
    clock.advance(SECOND);
    drop(lease);
    let after = bills(&pool);
    assert!(after.group("first").is_none());
    assert_eq!(bill_of(&after, "second"), bill_of(&before, "second"));
    assert_eq!(after.other_groups.calls, 1);
    assert_eq!(after.other_functions.calls, 3);
    assert_eq!(after.total.calls, 3);
    // Who comes back goes on where he was.
    let f = define(&pool, "f");
    f.call("second", WELL).unwrap();
    assert_eq!(bill_of(&bills(&pool), "second").calls, 2);
}

#[test]
fn what_is_done_for_a_function_before_anybody_calls_it_is_on_its_bill() {
    let pool = builder(&ManualClock::new()).build().unwrap();
    let f = define(&pool, "f");
    pool.prepare(&f).unwrap();
    let before = bills(&pool);
    assert_eq!(before.functions[0].bill.compilations, 1);
    assert_eq!(before.other_groups.compilations, 1, "for no group");
    // What replaces it goes on with its bill, whatever its type.
    f.call("a", WELL).unwrap();
    let other = wat(r#"(module (func (export "f") (result i64) (i64.const 1)))"#);
    let other = Definition::new("f").wasm(other).allow_type_change();
    let other: Function<(), i64> = pool.replace(other).unwrap();
    other.call("a", ()).unwrap();
    let after = bills(&pool);
    let bill = &after.functions[0].bill;
    assert_eq!((bill.compilations, bill.misses), (2, 2));
    assert!(bill.held(Budget::Memory) >= before.functions[0].bill.held(Budget::Memory));
}

#[test]
fn time_in_compilers_is_billed_whatever_comes_of_it() {
    let pool = builder(&ManualClock::new()).build().unwrap();
    // It passes each look at its sections.
    let broken = wat(r#"(module (func (export "f") (result i32)))"#);
    let f: Function<(), i32> = pool.define(Definition::new("f").wasm(broken)).unwrap();
    assert!(f.call("a", ()).is_err());
    let a = bill_of(&bills(&pool), "a");
    assert_eq!(a.compilations, 0);
    assert!(a.compile_time > Duration::ZERO);
}

#[test]
fn who_comes_and_goes_costs_nobody_his_bill() {
    let pool = builder(&ManualClock::new()).billing(Billing::new().kept_groups(2));
    let pool = pool.build().unwrap();
    let (other, f) = (define(&pool, "other"), define(&pool, "f"));
    other.call("other", WELL).unwrap();
    f.call("restless", WELL).unwrap();
    pool.remove("other").unwrap();
    for _ in 0..5 {
        pool.remove("f").unwrap();
        define(&pool, "f").call("restless", WELL).unwrap();
    }
    let bills = bills(&pool);
    assert_eq!(bill_of(&bills, "other").calls, 1);
    assert_eq!(bill_of(&bills, "restless").calls, 6);
}

/// Nothing is lost between threads: each call is on two bills, whoever looks meanwhile.
#[test]
fn threads_and_tasks_lose_no_count() {
    let _crowd = crowd();
    let clock = ManualClock::new();
    let pool = builder(&clock).max_instances_per_entry(3).build().unwrap();
    let functions = ["f", "g"].map(|name| define(&pool, name));
    let calls = 2_000;
    std::thread::scope(|scope| {
        for thread in 0..4_usize {
            let (functions, pool, clock) = (&functions, &pool, &clock);
            scope.spawn(move || {
                for n in 0..calls {
                    let f = &functions[(n / 7) % 2];
                    let group = ["a", "b", "c"][(n / 3 + thread) % 3];
                    match (n % 50, thread % 2) {
                        (0, _) => drop(f.call(group, TRAPS).unwrap_err()),
                        (_, 0) => drop(f.call(group, WELL).unwrap()),
                        _ => drop(block_on(f.call_async(group, WELL)).unwrap()),
                    }
                    if n % 100 == thread {
                        clock.advance(Duration::from_millis(1));
                        check_sums(&pool.stats().bills.unwrap());
                    }
                }
            });
        }
    });
    let bills = bills(&pool);
    assert_eq!(bills.total.calls, 4 * calls as u64);
    assert_eq!(bills.total.hits + bills.total.misses, 4 * calls as u64);
    assert_eq!(bills.total.failures.traps, 4 * calls as u64 / 50);
}

/// A lease that is leaked is leased for ever.
#[test]
fn a_leaked_lease_is_billed_for_ever() {
    let clock = ManualClock::new();
    let pool = builder(&clock).build().unwrap();
    let f = define(&pool, "f");
    std::mem::forget(f.acquire("a").unwrap());
    clock.advance(SECOND);
    let bytes = u128::from(charged(&pool, Budget::Memory));
    let a = bill_of(&bills(&pool), "a");
    assert_eq!(a.leased(Budget::Memory), bytes * NANOS);
}

/// Bytes times time are what is charged, times how long: as somebody sums them up who looks from outside.
#[test]
fn what_was_charged_is_billed_exactly() {
    let clock = ManualClock::new();
    let limits = Limits::new().memory(6 * instance_bytes(1));
    let pool = builder(&clock).limits(limits).max_instance_memory(3 << 16);
    let pool = pool.billing(Billing::new().kept_groups(1)).build().unwrap();
    let mut dice = Dice(7);
    let mut leases = Vec::new();
    let mut expected = Budget::ALL.map(|_| 0_u128);
    for round in 0..400 {
        let name = ["f", "g", "h"][dice.below(3) as usize];
        match dice.below(12) {
            0 => drop(pool.remove(name)),
            1 => drop(pool.retain(|_| round % 2 == 0)),
            2..=4 => leases.truncate(leases.len() / 2),
            _ => {
                let known = pool.function::<i32, i32>(name);
                let f = known.unwrap_or_else(|_| define(&pool, name));
                let group = ["a", "b", "c", "d"][dice.below(4) as usize];
                let now = AcquireOptions::new().timeout(Duration::ZERO);
                if let Ok(mut lease) = f.in_group(group).acquire_owned_with(now) {
                    let _ = lease.call([WELL, GROWS, TRAPS][dice.below(3) as usize]);
                    leases.push(lease);
                }
            }
        }
        let nanos = dice.below(1 << 20);
        for (sum, (_, charged)) in expected.iter_mut().zip(charges(&pool)) {
            *sum += u128::from(charged) * u128::from(nanos);
        }
        clock.advance(Duration::from_nanos(nanos));
        let bills = bills(&pool);
        let held = Budget::ALL.map(|budget| bills.total.held(budget));
        assert_eq!(held, expected, "in round {round}");
        assert_eq!(
            bills.unassigned(Budget::Memory),
            0,
            "all of it is somebody's"
        );
    }
    let evicted = pool.stats().evictions;
    assert!(evicted > 20, "room was made {evicted} times");
}

#[test]
fn bills_are_kept_until_the_pool_is_closed_and_after() {
    let clock = ManualClock::new();
    let pool = builder(&clock).build().unwrap();
    let f = define(&pool, "f");
    let mut lease = f.acquire("a").unwrap();
    pool.close();
    clock.advance(SECOND);
    lease.call(WELL).unwrap();
    lease.discard();
    let bills = bills(&pool);
    assert_eq!(bills.total.calls, 1);
    let bytes = bills.total.leased(Budget::Memory);
    assert!(bytes >= 65_536 * NANOS && bytes == bills.total.held(Budget::Memory));
    clock.advance(SECOND);
    assert_eq!(pool.stats().bills.unwrap().total, bills.total);
}
