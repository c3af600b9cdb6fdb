//! C-R1 to C-R6: who goes when room is needed, whose the room is then, and who waits for it.

mod code;
mod waits;

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
        .removal_listener({
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

/// A pool with no limits yet.
fn code_pool(policy: Policy) -> (Pool, ManualClock, Left) {
    let (builder, clock, left) = builder(Limits::new());
    (builder.policy(policy).build().unwrap(), clock, left)
}

/// Functions whose size of code the pool knows, so that it need not guess; none is loaded.
fn known<const N: usize>(pool: &Pool, names: [&str; N]) -> [F; N] {
    let functions = names.map(|name| define_with_pages(pool, name, 1));
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

// C-R1 ─────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn c_r1_a_leased_instance_is_nobodys_victim() {
    let (pool, _, left) = pool(memory(3 * instance_bytes(1)));
    let f = define_with_pages(&pool, "f", 1);
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
fn c_r1_code_of_a_leased_instance_stays() {
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

// C-R2 ─────────────────────────────────────────────────────────────────────────────────────────────

/// Instances of these groups, used in this order, go in the order of their last use.
fn goes_in_order(advance: Duration) {
    let (pool, clock, left) = pool(memory(6 * instance_bytes(1)));
    let f = define_with_pages(&pool, "f", 1);
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
fn c_r2_the_least_recently_used_goes_first() {
    goes_in_order(SECOND);
}

#[test]
fn c_r2_the_order_is_exact_while_the_clock_stands_still() {
    goes_in_order(Duration::ZERO);
}

#[test]
fn c_r2_recency_is_when_the_lease_ended() {
    let (pool, clock, left) = pool(memory(2 * instance_bytes(1)));
    let f = define_with_pages(&pool, "f", 1);
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
fn c_r2_the_order_holds_across_threads() {
    let (pool, clock, left) = pool(memory(3 * instance_bytes(1)));
    let f = define_with_pages(&pool, "f", 1);
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
fn c_r2_only_as_many_go_as_are_needed() {
    let (pool, _, left) = pool(memory(4 * instance_bytes(1)));
    let (f, big) = (
        define_with_pages(&pool, "f", 1),
        define_with_pages(&pool, "big", 2),
    );
    for group in 1..=4 {
        f.call(group, ()).unwrap();
    }
    drop(big.acquire(9).unwrap());
    assert_eq!(left.groups(), groups([1, 2]));
    check(&pool);
}

#[test]
fn c_r2_a_small_victim_is_spared_when_a_larger_one_must_go() {
    let (pool, _, left) = pool(memory(instance_bytes(1) + instance_bytes(3)));
    let (small, big) = (
        define_with_pages(&pool, "small", 1),
        define_with_pages(&pool, "big", 3),
    );
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
fn c_r2_mappings_are_made_room_for_like_memory() {
    let (pool, _, left) = pool(Limits::new());
    let f = define_with_pages(&pool, "f", 1);
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

// C-R4 ─────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn c_r4_a_request_that_cannot_be_met_evicts_nothing() {
    let (pool, _, left) = pool(memory(3 * instance_bytes(1)));
    let (f, big) = (
        define_with_pages(&pool, "f", 1),
        define_with_pages(&pool, "big", 2),
    );
    let lease = f.acquire(1).unwrap();
    f.call(2, ()).unwrap();
    let second = f.acquire(3).unwrap();
    for _ in 0..3 {
        is_refused(big.acquire(9));
    }
    assert_eq!(left.take(), []);
    assert_eq!(f.acquire(2).unwrap().uses(), 2);
    assert_eq!(check(&pool).refusals, 3);
    drop((lease, second));
}

#[test]
fn c_r4_nor_does_one_that_could_be_met_but_for_another_budget() {
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
fn c_r4_a_refusal_leaves_the_order_as_it_was() {
    let (pool, _, left) = pool(memory(4 * instance_bytes(1)));
    let (f, big) = (
        define_with_pages(&pool, "f", 1),
        define_with_pages(&pool, "big", 3),
    );
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

// C-R5 ─────────────────────────────────────────────────────────────────────────────────────────────

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
fn c_r5_what_a_victim_frees_belongs_to_who_evicted_it() {
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
        .removal_listener(move |_| thief())
        .on_create(move |_, _| {
            while_made();
            Ok(())
        })
        .build()
        .unwrap();
    let (f, big) = (
        define_with_pages(&pool, "f", 1),
        define_with_pages(&pool, "big", 2),
    );
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
fn c_r5_what_an_evictor_that_fails_took_is_everybodys() {
    let (builder, _, left) = builder(memory(2 * instance_bytes(1)));
    let pool = builder
        .on_create(|store, _| match store.data().memory_bytes() {
            131_072 => Err(wasmtime::Error::msg("too big for my taste")),
            _ => Ok(()),
        })
        .build()
        .unwrap();
    let (f, big) = (
        define_with_pages(&pool, "f", 1),
        define_with_pages(&pool, "big", 2),
    );
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
