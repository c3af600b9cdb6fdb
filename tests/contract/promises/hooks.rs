//! 15: what a hook calls has a whole limit of its own, whoever the lease was.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use pollster::block_on;
use wasm_pool::{AcquireError, CallError, Definition, Function, Lease, Pool, PoolBuilder};
use wasmtime::{Instance, Store};

use crate::common::{check, in_time, wat};

/// `f` and `g` count down from what they are given, 0 being for ever.
fn counting() -> Vec<u8> {
    let less = "(i64.sub (local.get 0) (i64.const 1))";
    let body = format!("(loop $on (br_if $on (i64.ne (local.tee 0 {less}) (i64.const 0))))");
    wat(&format!(
        r#"(module (func (export "f") (param i64) {body}) (func (export "g") (param i64) {body}))"#
    ))
}

type Counting = Function<i64, ()>;

fn counting_in(pool: &Pool) -> Counting {
    pool.define(Definition::new("f").wasm(counting())).unwrap()
}

/// A hook that has the guest count down.
fn counts_down<D>(
    rounds: i64,
) -> impl Fn(&mut Store<D>, &Instance) -> wasmtime::Result<()> + Send + Sync + 'static
where
    D: 'static,
{
    move |store, instance| {
        let g = instance.get_typed_func::<i64, ()>(&mut *store, "g")?;
        g.call(store, rounds)
    }
}

type Use = fn(&mut Lease<'_, i64, ()>) -> Result<(), CallError>;

/// Each way to lease, and to use a lease; each lasts for some ticks.
fn leases(pool: &Pool, f: &Counting) -> Vec<(&'static str, Result<(), CallError>)> {
    let hold = |mut lease: Lease<'_, i64, ()>, used: Use| {
        let result = used(&mut lease);
        pool.tick();
        pool.tick();
        result
    };
    let thread = |used| {
        let leased = f.acquire(1).map_err(CallError::from);
        leased.and_then(|lease| hold(lease, used))
    };
    let task = |used| {
        let leased = block_on(f.acquire_async(1)).map_err(CallError::from);
        leased.and_then(|lease| hold(lease, used))
    };
    vec![
        ("a thread", thread(|lease| lease.call(1))),
        ("a task", task(|lease| block_on(lease.call_async(1)))),
        ("a task that calls nothing", task(|_| Ok(()))),
        ("a task that calls as a thread", task(|lease| lease.call(1))),
        (
            "a canceller",
            thread(|lease| {
                drop(lease.canceller());
                lease.call(1)
            }),
        ),
        (
            "a canceller that comes late",
            thread(|lease| {
                let canceller = lease.canceller();
                lease.call(1)?;
                canceller.cancel();
                Ok(())
            }),
        ),
        (
            "a task's canceller",
            task(|lease| {
                drop(lease.canceller());
                block_on(lease.call_async(1))
            }),
        ),
    ]
}

#[test]
fn promise_15_a_create_hook_has_the_whole_limit_in_a_task_too() {
    // Some ticks long, under a limit of very many.
    let rounds = Arc::new(AtomicI64::new(1));
    let hooks = rounds.clone();
    let pool = Pool::builder()
        .epoch_tick(Duration::from_millis(1))
        .on_create(move |store, instance| {
            counts_down(hooks.load(Ordering::SeqCst))(store, instance)
        })
        .build()
        .unwrap();
    let f = counting_in(&pool);
    // As many rounds as take the machine of this test some ticks.
    let mut lease = f.acquire("measured").unwrap();
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_millis(20) {
        let more = 2 * rounds.load(Ordering::SeqCst);
        rounds.store(more, Ordering::SeqCst);
        lease.call(more).unwrap();
    }
    drop(lease);
    in_time(move || {
        drop(f.acquire("thread").unwrap());
        drop(block_on(f.acquire_async("task")).unwrap());
        block_on(f.call_async("another task", 1)).unwrap();
    });
    assert_eq!(check(&pool).idle, 4);
}

#[test]
fn promise_15_a_recycle_hook_that_calls_its_guest_keeps_it_warm() {
    let fuel = |builder: PoolBuilder| builder.fuel(1_000);
    let same = |builder: PoolBuilder| builder;
    for set in [same, fuel] {
        for rounds in [1, 20] {
            let hooked = Pool::builder()
                .no_housekeeper()
                .max_instances_per_entry(1)
                .on_create(counts_down(rounds))
                .on_recycle(counts_down(rounds));
            let pool = set(hooked).build().unwrap();
            let f = counting_in(&pool);
            for _ in 0..2 {
                for (who, result) in leases(&pool, &f) {
                    result.unwrap_or_else(|error| panic!("{who}: {error}"));
                }
            }
            let stats = check(&pool);
            assert_eq!((stats.misses, stats.idle), (1, 1));
        }
    }
}

#[test]
fn promise_15_a_recycle_hook_after_a_lease_that_used_up_its_fuel_has_its_own() {
    let pool = Pool::builder()
        .no_housekeeper()
        .fuel(1_000)
        .on_recycle(counts_down(100))
        .build()
        .unwrap();
    let f = counting_in(&pool);
    for _ in 0..3 {
        f.call(1, 100).unwrap();
        block_on(f.call_async(1, 100)).unwrap();
    }
    assert_eq!(check(&pool).misses, 1);
    // And the lease that follows has all of its own.
    f.call(1, 100).unwrap();
}

#[test]
fn promise_15_a_hook_whose_guest_loops_ends() {
    let quick = |builder: PoolBuilder| {
        let tick = Duration::from_millis(1);
        // Long enough for the calls that must succeed, while other tests take the processors.
        builder.epoch_tick(tick).call_timeout(50 * tick)
    };
    let fuel = |builder: PoolBuilder| builder.no_housekeeper().call_timeout(None).fuel(10_000);
    for set in [quick as fn(PoolBuilder) -> PoolBuilder, fuel] {
        let created = set(Pool::builder())
            .on_create(counts_down(0))
            .build()
            .unwrap();
        let recycled = set(Pool::builder())
            .on_recycle(counts_down(0))
            .build()
            .unwrap();
        in_time(move || {
            let f = counting_in(&created);
            let thread = f.acquire(1).map(drop);
            let task = block_on(f.acquire_async(1)).map(drop);
            for result in [thread, task] {
                let failed = matches!(result, Err(AcquireError::Instantiate { .. }));
                assert!(failed, "{result:?}");
            }
            check(&created);
            let f = counting_in(&recycled);
            for (who, result) in leases(&recycled, &f) {
                result.unwrap_or_else(|error| panic!("{who}: {error}"));
                let stats = check(&recycled);
                assert_eq!((stats.idle, stats.leased), (0, 0), "{who}");
            }
        });
    }
}
