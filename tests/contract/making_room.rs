//! R1 to R6: who goes when room is needed, whose the room is then, and who waits for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use crate::common::*;
use wasm_pool::{
    AcquireError, Budget, Definition, Function, Group, Limits, ManualClock, Policy, Pool,
    PoolBuilder, RemovalReason, WaitingFor,
};

const LONG: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);

type F = Function<(), i32>;

/// Instances that left, in order: function, group, why.
#[derive(Clone, Default)]
struct Left(Arc<Mutex<Vec<(String, Group, RemovalReason)>>>);

impl Left {
    fn take(&self) -> Vec<(String, Group, RemovalReason)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    /// The groups of what was evicted for room; nothing else may have left.
    #[track_caller]
    fn groups(&self) -> Vec<Group> {
        let left = self.take();
        assert!(
            left.iter()
                .all(|(_, _, reason)| *reason == RemovalReason::Room),
            "{left:?}"
        );
        left.into_iter().map(|(_, group, _)| group).collect()
    }
}

fn builder(limits: Limits) -> (PoolBuilder, ManualClock, Left) {
    let (clock, left) = (ManualClock::new(), Left::default());
    let builder = Pool::builder()
        .limits(limits)
        .idle_timeout(None)
        .clock(clock.clone())
        .no_housekeeper()
        .eviction_listener({
            let left = left.clone();
            move |e| {
                let one = (e.signature.to_string(), e.group.clone(), e.reason);
                left.0.lock().unwrap().push(one);
            }
        });
    (builder, clock, left)
}

fn pool(limits: Limits) -> (Pool, ManualClock, Left) {
    let (builder, clock, left) = builder(limits);
    (builder.build().unwrap(), clock, left)
}

/// A function with `pages` pages of memory and code of its own.
fn define(pool: &Pool, name: &str, pages: u32) -> F {
    let salt = name
        .bytes()
        .fold(1, |hash, byte| hash * 31 + u32::from(byte));
    let definition = Definition::new(name)
        .wasm(memory_module(pages, salt))
        .export("f");
    pool.define(definition).unwrap()
}

fn memory(bytes: u64) -> Limits {
    Limits::new().memory(bytes)
}

#[track_caller]
fn is_refused(result: Result<impl Sized, AcquireError>) {
    match result {
        Err(AcquireError::BudgetExceeded(_)) => {}
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("nothing refused it"),
    }
}

fn groups(of: impl IntoIterator<Item = u64>) -> Vec<Group> {
    of.into_iter().map(Group::from).collect()
}

// R1 ─────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn r1_a_leased_instance_is_nobodys_victim() {
    let (pool, _, left) = pool(memory(3 * instance_bytes(1)));
    let f = define(&pool, "f", 1);
    let mut oldest = f.acquire(1).unwrap();
    f.call(2, ()).unwrap();
    f.call(3, ()).unwrap();
    f.call(4, ()).unwrap();
    assert_eq!(
        left.groups(),
        groups([2]),
        "not group 1, though it was used before"
    );
    let (three, five) = (f.acquire(3).unwrap(), f.acquire(5).unwrap());
    assert_eq!(left.groups(), groups([4]));
    is_refused(f.acquire(6));
    assert_eq!(oldest.call(()).unwrap(), 1);
    drop((oldest, three, five));
    assert_eq!(check(&pool).idle, 3);
    assert_eq!(left.take(), []);
}

#[test]
fn r1_code_of_a_leased_instance_stays() {
    let (pool, _, left) = code_pool(Policy::ModuleLru);
    let [f, g, h] = known(&pool, ["f", "g", "h"]);
    pool.set_limits(Limits::new().code(2 * code_bytes(&pool, "f")))
        .unwrap();
    let mut lease = f.acquire(1).unwrap();
    f.call(2, ()).unwrap();
    g.call(1, ()).unwrap();
    left.take();
    h.call(1, ()).unwrap();
    let gone = left.take();
    assert_eq!(
        gone,
        [("g()".into(), 1.into(), RemovalReason::Room)],
        "f is older, but in use"
    );
    assert_eq!((lease.call(()).unwrap(), pool.stats().compilations), (1, 6));
    drop(lease);
    check_idle(&pool, 3);
}

// R2 ─────────────────────────────────────────────────────────────────────────────────────────────

/// Instances of these groups, used in this order, go in the order of their last use.
fn goes_in_order(advance: Duration) {
    let (pool, clock, left) = pool(memory(6 * instance_bytes(1)));
    let f = define(&pool, "f", 1);
    for group in [1, 2, 3, 4, 5, 6, 3, 1, 3, 6, 2, 1] {
        f.call(group, ()).unwrap();
        clock.advance(advance);
    }
    let mut order = Vec::new();
    for newcomer in 11..=16 {
        f.call(newcomer, ()).unwrap();
        clock.advance(advance);
        order.extend(left.groups());
        check(&pool);
    }
    assert_eq!(order, groups([4, 5, 3, 6, 2, 1]));
}

#[test]
fn r2_the_least_recently_used_goes_first() {
    goes_in_order(SECOND);
}

#[test]
fn r2_the_order_is_exact_while_the_clock_stands_still() {
    goes_in_order(Duration::ZERO);
}

#[test]
fn r2_recency_is_when_the_lease_ended() {
    let (pool, clock, left) = pool(memory(2 * instance_bytes(1)));
    let f = define(&pool, "f", 1);
    let long = f.acquire(1).unwrap();
    clock.advance(SECOND);
    f.call(2, ()).unwrap();
    clock.advance(SECOND);
    drop(long);
    f.call(3, ()).unwrap();
    assert_eq!(left.groups(), groups([2]));
    check(&pool);
}

#[test]
fn r2_the_order_holds_across_threads() {
    let (pool, clock, left) = pool(memory(3 * instance_bytes(1)));
    let f = define(&pool, "f", 1);
    // One thread has used its instance far more often, but earlier.
    for _ in 0..100 {
        f.call(1, ()).unwrap();
    }
    for group in [2, 3] {
        clock.advance(SECOND);
        let f = f.clone();
        thread::spawn(move || f.call(group, ()).unwrap())
            .join()
            .unwrap();
    }
    for newcomer in 11..=13 {
        f.call(newcomer, ()).unwrap();
    }
    assert_eq!(left.groups(), groups([1, 2, 3]));
}

#[test]
fn r2_only_as_many_go_as_are_needed() {
    let (pool, _, left) = pool(memory(4 * instance_bytes(1)));
    let (f, big) = (define(&pool, "f", 1), define(&pool, "big", 2));
    for group in 1..=4 {
        f.call(group, ()).unwrap();
    }
    drop(big.acquire(9).unwrap());
    assert_eq!(left.groups(), groups([1, 2]));
    check(&pool);
}

#[test]
fn r2_a_small_victim_is_spared_when_a_larger_one_must_go() {
    let (pool, _, left) = pool(memory(instance_bytes(1) + instance_bytes(3)));
    let (small, big) = (define(&pool, "small", 1), define(&pool, "big", 3));
    small.call(1, ()).unwrap();
    big.call(2, ()).unwrap();
    drop(big.acquire(3).unwrap());
    assert_eq!(
        left.groups(),
        groups([2]),
        "group 1 would not have been enough, and is not needed"
    );
    check_idle(&pool, 2);
}

#[test]
fn r2_mappings_are_made_room_for_like_memory() {
    let (pool, _, left) = pool(Limits::new());
    let f = define(&pool, "f", 1);
    for group in 1..=3 {
        f.call(group, ()).unwrap();
    }
    f.call(1, ()).unwrap();
    pool.set_limits(Limits::new().mappings(charged(&pool, Budget::Mappings)))
        .unwrap();
    f.call(4, ()).unwrap();
    assert_eq!(left.groups(), groups([2]));
    check(&pool);
}

// R3 ─────────────────────────────────────────────────────────────────────────────────────────────

/// A pool with no limits yet.
fn code_pool(policy: Policy) -> (Pool, ManualClock, Left) {
    let (builder, clock, left) = builder(Limits::new());
    (builder.policy(policy).build().unwrap(), clock, left)
}

/// Functions whose size of code the pool knows, so that it need not guess; none is loaded.
fn known<const N: usize>(pool: &Pool, names: [&str; N]) -> [F; N] {
    let functions = names.map(|name| define(pool, name, 1));
    for f in &functions {
        f.call(0, ()).unwrap();
    }
    pool.set_limits(Limits::new().code(1)).unwrap();
    assert_eq!(pool.stats().modules_loaded, 0);
    pool.set_limits(Limits::new()).unwrap();
    functions
}

fn code_bytes(pool: &Pool, name: &str) -> u64 {
    pool.stats().function(name).unwrap().code_bytes
}

fn loaded(pool: &Pool) -> Vec<String> {
    let functions = pool.stats().functions;
    functions
        .iter()
        .filter(|f| f.code_loaded)
        .map(|f| f.name.to_string())
        .collect()
}

#[track_caller]
fn check_idle(pool: &Pool, idle: usize) {
    pool.recount().unwrap();
    let stats = pool.stats();
    assert_eq!((stats.idle, stats.leased, stats.dying), (idle, 0, 0));
}

#[test]
fn r3_whole_modules_go_and_no_instance_of_one_that_stays() {
    let (pool, _, left) = code_pool(Policy::ModuleLru);
    let [f, g, h, new] = known(&pool, ["f", "g", "h", "new"]);
    pool.set_limits(Limits::new().code(3 * code_bytes(&pool, "f")))
        .unwrap();
    left.take();
    f.call(1, ()).unwrap(); // the least recently used instance, of a module used lately
    for group in [1, 2] {
        g.call(group, ()).unwrap();
    }
    h.call(1, ()).unwrap();
    f.call(2, ()).unwrap();
    new.call(1, ()).unwrap();
    let expected = [1, 2].map(|group| ("g()".into(), group.into(), RemovalReason::Room));
    let mut gone = left.take();
    gone.sort_by(|(_, a, _), (_, b, _)| a.cmp(b));
    assert_eq!(gone, expected);
    assert_eq!(loaded(&pool), ["f", "h", "new"]);
    assert_eq!(f.acquire(1).unwrap().uses(), 2);
    check_idle(&pool, 4);
}

#[test]
fn r3_code_without_instances_goes_without_any_eviction() {
    let (pool, _, left) = code_pool(Policy::ModuleLru);
    let [f, g, new] = known(&pool, ["f", "g", "new"]);
    pool.set_limits(Limits::new().code(2 * code_bytes(&pool, "f")))
        .unwrap();
    f.call(1, ()).unwrap();
    pool.retain(|_| false);
    g.call(1, ()).unwrap();
    left.take();
    new.call(1, ()).unwrap();
    assert_eq!(
        (left.take(), loaded(&pool)),
        (vec![], vec!["g".into(), "new".into()])
    );
    check_idle(&pool, 2);
}

#[test]
fn r3_a_module_with_one_lease_keeps_its_idle_instances() {
    let (pool, _, left) = code_pool(Policy::ModuleLru);
    let [f, g, new] = known(&pool, ["f", "g", "new"]);
    pool.set_limits(Limits::new().code(2 * code_bytes(&pool, "f")))
        .unwrap();
    for group in 1..=3 {
        f.call(group, ()).unwrap();
    }
    let lease = f.acquire(2).unwrap();
    g.call(1, ()).unwrap();
    left.take();
    new.call(1, ()).unwrap();
    assert_eq!(left.take(), [("g()".into(), 1.into(), RemovalReason::Room)]);
    drop(lease);
    assert_eq!(
        [1, 2, 3].map(|group| f.acquire(group).unwrap().uses()),
        [2, 3, 2]
    );
    check_idle(&pool, 4);
}

#[test]
fn r3_a_small_module_is_spared_when_a_large_one_must_go() {
    let (pool, _, left) = code_pool(Policy::ModuleLru);
    let large = |name: &str| {
        let text = format!(
            r#"(module (data $d "{}") (func (export "f") (result i32) (i32.const {})))"#,
            "x".repeat(100_000),
            name.len()
        );
        pool.define::<(), i32>(Definition::new(name).wasm(wat(&text)).export("f"))
            .unwrap()
    };
    let (large, larger) = (large("large"), large("larger"));
    larger.call(1, ()).unwrap();
    let [small] = known(&pool, ["small"]);
    small.call(1, ()).unwrap();
    large.call(1, ()).unwrap();
    pool.set_limits(Limits::new().code(charged(&pool, Budget::Code)))
        .unwrap();
    left.take();
    larger.call(1, ()).unwrap();
    assert_eq!(
        left.take(),
        [("large()".into(), 1.into(), RemovalReason::Room)]
    );
    assert_eq!(loaded(&pool), ["larger", "small"]);
}

#[test]
fn r3_memory_pressure_drops_no_code() {
    let (pool, _, _) = code_pool(Policy::CostAware);
    let [f, g] = known(&pool, ["f", "g"]);
    pool.set_limits(memory(instance_bytes(1))).unwrap();
    let before = pool.stats();
    for _ in 0..5 {
        f.call(1, ()).unwrap();
        g.call(1, ()).unwrap();
    }
    pool.recount().unwrap();
    let after = pool.stats();
    assert_eq!(after.compilations, before.compilations + 2);
    assert_eq!(
        (after.code_dropped, after.modules_loaded),
        (before.code_dropped, 2)
    );
}

// R4 ─────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn r4_a_request_that_cannot_be_met_evicts_nothing() {
    let (pool, _, left) = pool(memory(3 * instance_bytes(1)));
    let (f, big) = (define(&pool, "f", 1), define(&pool, "big", 2));
    let lease = f.acquire(1).unwrap();
    f.call(2, ()).unwrap();
    let second = f.acquire(3).unwrap();
    for _ in 0..3 {
        is_refused(big.acquire(9));
    }
    assert_eq!(left.take(), []);
    assert_eq!(f.acquire(2).unwrap().uses(), 2);
    assert_eq!(check(&pool).refused, 3);
    drop((lease, second));
}

#[test]
fn r4_nor_does_one_that_could_be_met_but_for_another_budget() {
    let (pool, _, left) = code_pool(Policy::ModuleLru);
    let [f, g] = known(&pool, ["f", "g"]);
    let code = code_bytes(&pool, "f");
    pool.set_limits(memory(3 * instance_bytes(1)).code(code))
        .unwrap();
    let lease = f.acquire(1).unwrap();
    f.call(2, ()).unwrap();
    f.call(3, ()).unwrap();
    left.take();
    is_refused(g.acquire(9));
    assert_eq!((left.take(), loaded(&pool)), (vec![], vec!["f".into()]));
    assert_eq!([2, 3].map(|group| f.acquire(group).unwrap().uses()), [2, 2]);
    drop(lease);
    check_idle(&pool, 3);
}

#[test]
fn r4_a_refusal_leaves_the_order_as_it_was() {
    let (pool, _, left) = pool(memory(4 * instance_bytes(1)));
    let (f, big) = (define(&pool, "f", 1), define(&pool, "big", 3));
    let leases = [f.acquire(8).unwrap(), f.acquire(9).unwrap()];
    for group in [1, 2, 1] {
        f.call(group, ()).unwrap();
    }
    is_refused(big.acquire(3));
    f.call(4, ()).unwrap();
    f.call(5, ()).unwrap();
    assert_eq!(left.groups(), groups([2, 1]));
    drop(leases);
    check(&pool);
}

// R5 ─────────────────────────────────────────────────────────────────────────────────────────────

/// What a thief saw and got, at the worst moment.
type Loot = Arc<Mutex<Vec<(u64, bool)>>>;

/// Looks at what is charged, and tries to take room that another made.
fn steal(pool: &OnceLock<Pool>, thief: &OnceLock<F>, loot: &Loot) {
    if let (Some(pool), Some(thief)) = (pool.get(), thief.get()) {
        let seen = charged(pool, Budget::Memory);
        let got = thief.try_acquire(99).is_ok();
        loot.lock().unwrap().push((seen, got));
    }
}

#[test]
fn r5_what_a_victim_frees_belongs_to_who_evicted_it() {
    let cell: Arc<(OnceLock<Pool>, OnceLock<F>)> = Arc::default();
    let loot = Loot::default();
    let thief = {
        let (cell, loot) = (cell.clone(), loot.clone());
        move || steal(&cell.0, &cell.1, &loot)
    };
    let while_made = thief.clone();
    let pool = Pool::builder()
        .limits(memory(2 * instance_bytes(1)))
        .clock(ManualClock::new())
        .no_housekeeper()
        .eviction_listener(move |_| thief())
        .on_create(move |_, _| {
            while_made();
            Ok(())
        })
        .build()
        .unwrap();
    let (f, big) = (define(&pool, "f", 1), define(&pool, "big", 2));
    f.call(1, ()).unwrap();
    f.call(2, ()).unwrap();
    assert_eq!(
        (cell.0.set(pool.clone()).is_ok(), cell.1.set(f).is_ok()),
        (true, true)
    );
    let lease = big.acquire(3).unwrap();
    let loot = std::mem::take(&mut *loot.lock().unwrap());
    // Twice when a victim has been freed, for its evictor; once while `big` is made.
    assert_eq!(loot, [(instance_bytes(2), false); 3]);
    drop(lease);
    check_idle(&pool, 1);
}

#[test]
fn r5_what_an_evictor_that_fails_took_is_everybodys() {
    let (builder, _, left) = builder(memory(2 * instance_bytes(1)));
    let pool = builder
        .on_create(|store, _| match store.data().memory_bytes() {
            131_072 => Err(wasmtime::Error::msg("too big for my taste")),
            _ => Ok(()),
        })
        .build()
        .unwrap();
    let (f, big) = (define(&pool, "f", 1), define(&pool, "big", 2));
    f.call(1, ()).unwrap();
    f.call(2, ()).unwrap();
    assert!(matches!(
        big.acquire(3),
        Err(AcquireError::Instantiate { .. })
    ));
    assert_eq!(left.groups(), groups([1, 2]));
    assert_eq!(charged(&pool, Budget::Memory), 0);
    f.call(1, ()).unwrap();
    f.call(2, ()).unwrap();
    check_idle(&pool, 2);
}

// R6 ─────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn r6_eight_tenants_are_all_served_in_turn() {
    // Each needs 32 MiB, all told.
    const PAGES: u32 = 511;
    let (pool, _, left) = pool(memory(64 << 20));
    let f = define(&pool, "f", PAGES);
    let (served, is_served) = mpsc::channel();
    let next = || {
        is_served
            .recv_timeout(30 * SECOND)
            .expect("somebody is served")
    };
    let mut tenants = Vec::new();
    let mut order = Vec::new();
    for tenant in 0..8_u64 {
        let (release, released) = mpsc::channel::<()>();
        let (f, served) = (f.clone(), served.clone());
        let thread = thread::spawn(move || {
            let mut lease = f.acquire_timeout(tenant, LONG).unwrap();
            assert_eq!(lease.call(()).unwrap(), 1);
            served.send(tenant).unwrap();
            released.recv().unwrap();
        });
        tenants.push(Some((release, thread)));
        match tenant {
            0 | 1 => order.push(next()),
            _ => wait_for_waiters(&pool, tenant as usize - 1),
        }
    }
    for turn in 0..8 {
        let (release, thread) = tenants[order[turn] as usize].take().unwrap();
        release.send(()).unwrap();
        thread.join().unwrap();
        if turn < 6 {
            order.push(next());
        }
    }
    assert_eq!(order, [0, 1, 2, 3, 4, 5, 6, 7], "first come, first served");
    assert_eq!(left.groups(), groups(0..6));
    let stats = check(&pool);
    assert_eq!((stats.misses, stats.refused, stats.waiting), (8, 0, 0));
}

/// Waits for room in another thread, and sends its number when it has it.
fn waits_for_room(
    pool: &Pool,
    f: &F,
    group: u64,
    timeout: Duration,
) -> thread::JoinHandle<Result<(), AcquireError>> {
    let f = f.clone();
    let waiting = pool.stats().waiting;
    let thread = thread::spawn(move || f.acquire_timeout(group, timeout).map(drop));
    wait_for_waiters(pool, waiting + 1);
    thread
}

#[test]
fn r6_a_deadline_ends_the_wait_for_room() {
    let (pool, clock, _) = pool(memory(instance_bytes(1)));
    let f = define(&pool, "f", 1);
    let lease = f.acquire(1).unwrap();
    let before = charges(&pool);
    let waiter = waits_for_room(&pool, &f, 2, 5 * SECOND);
    clock.advance(5 * SECOND - Duration::from_nanos(1));
    assert_eq!((pool.stats().waiting, waiter.is_finished()), (1, false));
    clock.advance(Duration::from_nanos(1));
    let error = waiter.join().unwrap().unwrap_err();
    let AcquireError::Timeout {
        waited,
        waiting_for,
        ..
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!((*waited, *waiting_for), (5 * SECOND, WaitingFor::Room));
    assert_eq!(
        error.to_string(),
        format!(
            "f() in group 2 waited 5s for room in a budget: f() in group 2 needs {need} bytes of \
             the memory budget, which has {need}: {need} are charged, and evicting everything idle \
             would free 0. The other {need} are in use: try again later, or raise the limit. Held by f() in \
             group 1: {need} in use",
            need = instance_bytes(1)
        )
    );
    assert_eq!(charges(&pool), before);
    drop(lease);
    check_idle(&pool, 1);
}

#[test]
fn r6_what_can_never_fit_fails_at_once() {
    let (pool, _, left) = pool(memory(instance_bytes(4)));
    let (f, big) = (define(&pool, "f", 1), define(&pool, "big", 4));
    f.call(1, ()).unwrap();
    pool.set_limits(memory(instance_bytes(3))).unwrap();
    is_refused(big.acquire_timeout(1, LONG));
    assert_eq!((left.take(), pool.stats().idle), (vec![], 1));
}

#[test]
fn r6_what_can_never_fit_does_not_even_queue() {
    let (pool, _, _) = pool(memory(instance_bytes(4)));
    let (f, big) = (define(&pool, "f", 3), define(&pool, "big", 4));
    pool.set_limits(memory(instance_bytes(3))).unwrap();
    let lease = f.acquire(1).unwrap();
    let waiter = waits_for_room(&pool, &f, 2, LONG);
    is_refused(big.acquire_timeout(1, LONG));
    drop(lease);
    waiter.join().unwrap().unwrap();
    check_idle(&pool, 1);
}

#[test]
fn r6_acquire_waits_for_room_only_if_told_to() {
    let (builder, clock, _) = builder(memory(instance_bytes(1)));
    let pool = builder
        .wait_for_room(true)
        .wait_timeout(3 * SECOND)
        .build()
        .unwrap();
    let f = define(&pool, "f", 1);
    let lease = f.acquire(1).unwrap();
    is_refused(f.try_acquire(2));
    let waiter = thread::spawn({
        let f = f.clone();
        move || f.acquire(2).map(drop)
    });
    wait_for_waiters(&pool, 1);
    clock.advance(3 * SECOND);
    let error = waiter.join().unwrap().unwrap_err();
    assert!(matches!(error, AcquireError::Timeout { .. }), "{error}");
    drop(lease);
    check_idle(&pool, 1);
}

#[test]
fn r6_a_newcomer_does_not_overtake() {
    in_time(|| {
        let (pool, _, _) = pool(memory(instance_bytes(3)));
        let (small, big) = (define(&pool, "small", 1), define(&pool, "big", 3));
        let lease = small.acquire(1).unwrap();
        let first = waits_for_room(&pool, &big, 1, LONG);
        // There is room for this one, but it came later and is as patient.
        let second = waits_for_room(&pool, &small, 2, LONG);
        assert!(!second.is_finished());
        drop(lease);
        first.join().unwrap().unwrap();
        second.join().unwrap().unwrap();
        check_idle(&pool, 1);
    });
}

#[test]
fn r6_who_gives_up_lets_the_next_in() {
    in_time(|| {
        let (pool, clock, _) = pool(memory(instance_bytes(3)));
        let (small, big) = (define(&pool, "small", 1), define(&pool, "big", 3));
        let lease = small.acquire(1).unwrap();
        let first = waits_for_room(&pool, &big, 1, SECOND);
        let second = waits_for_room(&pool, &small, 2, LONG);
        clock.advance(SECOND);
        assert!(first.join().unwrap().is_err());
        second.join().unwrap().unwrap();
        drop(lease);
        check_idle(&pool, 2);
    });
}

#[test]
fn r6_idle_instances_are_evicted_before_anybody_waits() {
    let (pool, _, left) = pool(memory(instance_bytes(1)));
    let f = define(&pool, "f", 1);
    f.call(1, ()).unwrap();
    drop(f.acquire_timeout(2, Duration::ZERO).unwrap());
    assert_eq!(left.groups(), groups([1]));
    check_idle(&pool, 1);
}

#[test]
fn r6_a_tenant_that_never_rests_starves_nobody() {
    // Room for one instance; each call of the busy tenant takes about a millisecond.
    let pool = Pool::builder()
        .limits(memory(2 << 20))
        .no_housekeeper()
        .build()
        .unwrap();
    let definition = Definition::new("spin").wasm(guest("rogue_spin"));
    let spin: Function<i64, i64> = pool.define(definition).unwrap();
    spin.call(1, 1).unwrap();
    let stop = AtomicBool::new(false);
    let outcome = thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // Refused while the other has the room.
                let _ = spin.call(1, 500_000);
            }
        });
        let outcome = spin.acquire_timeout(2, 5 * SECOND).map(drop);
        stop.store(true, Ordering::Relaxed);
        outcome
    });
    outcome.unwrap();
    check(&pool);
}

// Policies ───────────────────────────────────────────────────────────────────────────────────────

#[test]
fn r3_lru_drops_code_with_its_last_instance() {
    let (pool, _, _) = code_pool(Policy::Lru);
    let f = define(&pool, "f", 1);
    let (one, two) = (f.acquire(1).unwrap(), f.acquire(2).unwrap());
    one.discard();
    assert_eq!(
        (pool.stats().modules_loaded, pool.stats().code_dropped),
        (1, 0)
    );
    two.discard();
    let stats = check(&pool);
    assert_eq!((stats.modules_loaded, stats.code_dropped), (0, 1));
    assert_eq!(stats.budget(Budget::Code).charged, 0);
    f.call(1, ()).unwrap();
    assert_eq!((pool.stats().compilations, pool.stats().loads), (2, 2));
}

#[test]
fn r3_other_policies_keep_code_until_its_room_is_needed() {
    for policy in [Policy::ModuleLru, Policy::CostAware] {
        let (pool, _, _) = code_pool(policy);
        let f = define(&pool, "f", 1);
        f.acquire(1).unwrap().discard();
        let stats = check(&pool);
        assert_eq!(
            (stats.idle, stats.modules_loaded, stats.code_dropped),
            (0, 1, 0)
        );
        f.call(1, ()).unwrap();
        assert_eq!(pool.stats().compilations, 1);
        pool.retain(|_| false);
        pool.set_limits(Limits::new().code(1)).unwrap();
        assert_eq!(
            (pool.stats().modules_loaded, pool.stats().code_dropped),
            (0, 1)
        );
    }
}

/// `often` is used every 10 s, `rarely` every 10,000 s but last. Returns what stays when `new`
/// needs the room of one of them.
fn who_stays(policy: Policy) -> Vec<String> {
    let (pool, clock, _) = code_pool(policy);
    let [often, rarely, new] = known(&pool, ["often", "rarely", "new"]);
    pool.set_limits(Limits::new().code(2 * code_bytes(&pool, "often")))
        .unwrap();
    rarely.call(1, ()).unwrap();
    for _ in 0..1000 {
        clock.advance(10 * SECOND);
        often.call(1, ()).unwrap();
        pool.retain(|idle| idle.name() == "rarely");
    }
    pool.retain(|_| false);
    clock.advance(SECOND);
    rarely.call(1, ()).unwrap();
    clock.advance(SECOND);
    new.call(1, ()).unwrap();
    assert_eq!(pool.stats().compilations, 6);
    loaded(&pool)
}

#[test]
fn r3_module_lru_goes_by_last_use_alone() {
    assert_eq!(who_stays(Policy::ModuleLru), ["rarely", "new"]);
}

#[test]
fn r3_cost_aware_goes_by_the_expected_time_to_the_next_use() {
    assert_eq!(who_stays(Policy::CostAware), ["often", "new"]);
}

#[test]
fn r3_a_real_module_costs_what_its_policy_makes_of_it() {
    let compilations = |policy| {
        let (builder, _, _) = builder(memory(3 << 20));
        let pool = builder.policy(policy).build().unwrap();
        let of = |name: &str, file: &str| {
            let definition = Definition::new(name).wasm(guest(file));
            pool.define::<wasm_pool::Dynamic, wasm_pool::Dynamic>(definition)
                .unwrap()
        };
        let (sha, soundex) = (of("sha256", "hash_sha256"), of("soundex", "text_soundex"));
        // Each instance starts with more than one megabyte, so two of three fit.
        for group in [1, 2, 3] {
            drop(sha.acquire(group).unwrap());
            drop(soundex.acquire(group).unwrap());
        }
        check(&pool).compilations
    };
    assert_eq!(
        (
            compilations(Policy::ModuleLru),
            compilations(Policy::CostAware)
        ),
        (2, 2)
    );
    assert!(compilations(Policy::Lru) >= 2);
}
