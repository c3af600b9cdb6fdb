//! C-B3: growth is charged before it succeeds, evicts what is idle if that makes room, and is
//! refused with −1 otherwise.

use std::sync::{Arc, Mutex};
use std::thread;

use crate::common::*;
use wasm_pool::{
    AcquireError, Budget, Definition, Function, Lease, Limits, ManualClock, Pool, PoolBuilder,
};
use wasmtime::{Config, Engine};

const MIB: u64 = 1 << 20;
const PAGE: u64 = 65_536;

fn builder(memory: u64) -> PoolBuilder {
    let limits = Limits::new().memory(memory);
    Pool::builder()
        .limits(limits)
        .clock(ManualClock::new())
        .no_housekeeper()
}

fn pool(memory: u64) -> Pool {
    builder(memory).build().unwrap()
}

/// Grows by so many pages: returns the pages that there were, or −1.
fn grower(pool: &Pool, pages: u32) -> Function<i32, i32> {
    let definition = Definition::new("grow").wasm(memory_module(pages, 0));
    pool.define(definition).unwrap()
}

fn define<P, R>(pool: &Pool, text: &str) -> Function<P, R>
where
    (P, R): wasm_pool::CallTypes,
{
    pool.define(Definition::new("f").wasm(wat(text))).unwrap()
}

fn memory_of(pool: &Pool) -> u64 {
    charged(pool, Budget::Memory)
}

fn refusals(pool: &Pool) -> u64 {
    pool.stats()
        .functions
        .iter()
        .map(|f| f.growth_refusals)
        .sum()
}

// Memory ─────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn c_b3_growth_is_charged_to_the_byte() {
    let pool = pool(MIB);
    let grow = grower(&pool, 1);
    let mut lease = grow.acquire(1).unwrap();
    assert_eq!(lease.call(3).unwrap(), 1);
    assert_eq!(
        (memory_of(&pool), lease.memory_bytes()),
        (instance_bytes(4), 4 * PAGE)
    );
    assert_eq!(lease.call(0).unwrap(), 4);
    assert_eq!(memory_of(&pool), instance_bytes(4));
    drop(lease);
    assert_eq!(
        memory_of(&pool),
        instance_bytes(4),
        "an idle instance keeps its memory"
    );
    assert_eq!(check(&pool).budget(Budget::Memory).peak, instance_bytes(4));
    pool.close();
    check_empty(&pool);
}

#[test]
fn c_b3_a_refused_growth_gives_minus_one_and_is_counted() {
    let pool = pool(instance_bytes(4));
    let grow = grower(&pool, 1);
    let other = grow.acquire(2).unwrap();
    let mut lease = grow.acquire(1).unwrap();
    let before = charges(&pool);
    assert_eq!(lease.call(2).unwrap(), -1);
    assert_eq!(charges(&pool), before);
    assert_eq!(refusals(&pool), 1);
    assert_eq!(
        lease.call(1).unwrap(),
        1,
        "the instance is as usable as before"
    );
    assert_eq!(refusals(&pool), 1);
    assert!(!lease.is_broken());
    drop((lease, other));
    let stats = check(&pool);
    assert_eq!((stats.idle, stats.functions[0].retirements), (2, 0));
}

#[test]
fn c_b3_growth_up_to_the_limit_succeeds() {
    let pool = pool(instance_bytes(5));
    let grow = grower(&pool, 1);
    let mut lease = grow.acquire(1).unwrap();
    assert_eq!(lease.call(5).unwrap(), -1);
    assert_eq!(lease.call(4).unwrap(), 1);
    assert_eq!(lease.call(1).unwrap(), -1);
    assert_eq!(
        check(&pool).budget(Budget::Memory).charged,
        instance_bytes(5)
    );
}

#[test]
fn c_b3_growth_is_charged_to_total_as_well() {
    let pool = Pool::builder()
        .limits(Limits::new().memory(MIB))
        .no_housekeeper()
        .build()
        .unwrap();
    let grow = grower(&pool, 1);
    let mut lease = grow.acquire(1).unwrap();
    let total = charged(&pool, Budget::Total);
    pool.set_limits(Limits::new().memory(MIB).total(total + 2 * PAGE))
        .unwrap();
    assert_eq!(lease.call(3).unwrap(), -1);
    assert_eq!(lease.call(2).unwrap(), 1);
    assert_eq!(charged(&pool, Budget::Total), total + 2 * PAGE);
}

#[test]
fn c_b3_growth_by_the_host_is_charged_too() {
    let pool = pool(instance_bytes(2));
    let grow = grower(&pool, 1);
    let mut lease = grow.acquire(1).unwrap();
    let memory = lease.memory().unwrap();
    assert!(memory.grow(lease.store_mut(), 2).is_err());
    assert_eq!(memory.grow(lease.store_mut(), 1).unwrap(), 1);
    assert_eq!(memory_of(&pool), instance_bytes(2));
    assert_eq!(refusals(&pool), 1);
}

#[test]
fn c_b3_a_real_guest_that_leaks_meets_the_budget() {
    let pool = pool(8 * MIB);
    let definition = Definition::new("leak").wasm(guest("rogue_leak"));
    let leak: Function<i32, i64> = pool.define(definition).unwrap();
    let mut lease = leak.acquire(1).unwrap();
    let mut total = 0;
    loop {
        match lease.call(1 << 18).unwrap() {
            -1 => break,
            more => total = more,
        }
        check(&pool);
    }
    assert!(total as u64 > 4 * MIB, "{total}");
    assert!(lease.memory_bytes() <= 8 * MIB);
    assert!(refusals(&pool) >= 1);
}

// Making room ────────────────────────────────────────────────────────────────────────────────────

#[test]
fn c_b3_growth_evicts_the_least_recently_used() {
    let pool = pool(3 * instance_bytes(1) + instance_bytes(1));
    let grow = grower(&pool, 1);
    for group in [1, 2, 3, 1] {
        grow.call(group, 0).unwrap();
    }
    let mut lease = grow.acquire(9).unwrap();
    assert_eq!(lease.call(1).unwrap(), 1);
    let stats = check(&pool);
    assert_eq!((stats.idle, stats.functions[0].evictions), (2, 1));
    drop(lease);
    let uses = |group| grow.acquire(group).unwrap().uses();
    assert_eq!(
        (uses(1), uses(3)),
        (3, 2),
        "group 2 was the least recently used"
    );
}

#[test]
fn c_b3_growth_may_evict_idle_instances_of_its_own_entry() {
    let pool = pool(2 * instance_bytes(1));
    let grow = grower(&pool, 1);
    let (mut first, second) = (grow.acquire(1).unwrap(), grow.acquire(1).unwrap());
    drop(second);
    assert_eq!(first.call(1).unwrap(), 1);
    assert_eq!(
        (check(&pool).idle, memory_of(&pool)),
        (0, instance_bytes(2))
    );
}

#[test]
fn c_b3_growth_that_cannot_fit_evicts_nothing() {
    let pool = pool(3 * instance_bytes(1));
    let grow = grower(&pool, 1);
    let held = grow.acquire(1).unwrap();
    grow.call(2, 0).unwrap();
    let mut lease = grow.acquire(3).unwrap();
    assert_eq!(lease.call(2).unwrap(), -1);
    let stats = check(&pool);
    assert_eq!((stats.idle, stats.functions[0].evictions), (1, 0));
    drop(held);
    assert_eq!(lease.call(2).unwrap(), 1, "now two are idle, and enough");
    assert_eq!(check(&pool).idle, 0);
}

#[test]
fn c_b3_growth_is_charged_while_its_victims_are_destroyed() {
    /// The host's data of a victim, which goes before its memory does.
    struct Witness(Arc<Mutex<Report>>);
    /// The pool, once it is there, and what was charged when each victim went.
    type Report = (Option<Pool<Witness>>, Vec<u64>);
    impl Drop for Witness {
        fn drop(&mut self) {
            let pool = self.0.lock().unwrap().0.clone();
            let seen = pool.map(|pool| charged(&pool, Budget::Memory));
            self.0.lock().unwrap().1.extend(seen);
        }
    }
    let seen: Arc<Mutex<Report>> = Arc::default();
    let witness = seen.clone();
    let pool = Pool::builder_with(move |_, _| Witness(witness.clone()))
        .limits(Limits::new().memory(3 * instance_bytes(1)))
        .no_housekeeper()
        .build()
        .unwrap();
    let definition = Definition::new("grow").wasm(memory_module(1, 0));
    let grow: Function<i32, i32, Witness> = pool.define(definition).unwrap();
    grow.call(1, 0).unwrap();
    grow.call(2, 0).unwrap();
    let mut lease = grow.acquire(3).unwrap();
    seen.lock().unwrap().0 = Some(pool.clone());
    assert_eq!(lease.call(2).unwrap(), 1);
    // Who is told of an eviction finds it freed; who is destroyed is charged still.
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    assert_eq!(seen.1.first(), Some(&(3 * instance_bytes(1))));
    assert_eq!(seen.1.len(), 2);
    assert_eq!(
        check(&pool).budget(Budget::Memory).charged,
        instance_bytes(3)
    );
}

#[test]
fn c_b3_growth_in_overdraft_is_refused() {
    let pool = pool(MIB);
    let grow = grower(&pool, 3);
    let mut lease = grow.acquire(1).unwrap();
    pool.set_limits(Limits::new().memory(instance_bytes(2)))
        .unwrap();
    assert_eq!(lease.call(1).unwrap(), -1);
    assert_eq!(lease.call(0).unwrap(), 3);
    assert_eq!(memory_of(&pool), instance_bytes(3));
    pool.recount().unwrap();
}

#[test]
fn c_b3_growth_after_close_is_refused() {
    let pool = pool(MIB);
    let mut lease = grower(&pool, 1).acquire(1).unwrap();
    pool.close();
    assert_eq!(lease.call(1).unwrap(), -1);
    drop(lease);
    check_empty(&pool);
}

#[test]
fn c_b3_growth_without_a_pool_is_refused() {
    let pool = pool(MIB);
    let mut lease: Lease<'static, i32, i32> = grower(&pool, 1).acquire(1).unwrap();
    drop(pool);
    assert_eq!(lease.call(1).unwrap(), -1);
    assert_eq!(lease.call(0).unwrap(), 1);
}

// Caps of the instance itself ────────────────────────────────────────────────────────────────────

#[test]
fn c_b3_an_instance_grows_to_its_own_cap_and_no_further() {
    let pool = builder(MIB).max_instance_memory(4 * PAGE).build().unwrap();
    let mut lease = grower(&pool, 1).acquire(1).unwrap();
    assert_eq!(lease.call(4).unwrap(), -1);
    assert_eq!(refusals(&pool), 1);
    assert_eq!(memory_of(&pool), instance_bytes(1));
    assert_eq!(lease.call(3).unwrap(), 1);
    assert_eq!((lease.call(1).unwrap(), refusals(&pool)), (-1, 2));
    assert_eq!(memory_of(&pool), instance_bytes(4));
}

#[test]
fn c_b3_the_cap_is_on_all_memories_together() {
    let text = r#"(module (memory $a 1) (memory $b 1)
        (func (export "f") (param i32 i32) (result i32 i32)
            (memory.grow $a (local.get 0)) (memory.grow $b (local.get 1))))"#;
    let pool = builder(MIB).max_instance_memory(4 * PAGE).build().unwrap();
    let mut lease = define::<(i32, i32), (i32, i32)>(&pool, text)
        .acquire(1)
        .unwrap();
    let before = memory_of(&pool);
    assert_eq!(lease.call((1, 2)).unwrap(), (1, -1));
    assert_eq!(lease.call((0, 1)).unwrap(), (2, 1));
    assert_eq!(lease.call((1, 1)).unwrap(), (-1, -1));
    assert_eq!(
        (lease.memory_bytes(), memory_of(&pool)),
        (4 * PAGE, before + 2 * PAGE)
    );
}

#[test]
fn c_b3_growth_beyond_what_the_module_declares_costs_nothing() {
    let text = r#"(module (memory 1 3)
        (func (export "f") (param i32) (result i32) (memory.grow (local.get 0))))"#;
    let pool = pool(MIB);
    let mut lease = define::<i32, i32>(&pool, text).acquire(1).unwrap();
    let before = charges(&pool);
    assert_eq!(lease.call(3).unwrap(), -1);
    assert_eq!((charges(&pool), refusals(&pool)), (before, 0));
    assert_eq!(lease.call(2).unwrap(), 1);
    check(&pool);
}

#[test]
fn c_b3_growth_beyond_the_address_space_costs_nothing() {
    let pool = pool(u64::MAX);
    let mut lease = grower(&pool, 1).acquire(1).unwrap();
    let before = charges(&pool);
    for pages in [65_536, i32::MAX, -1] {
        assert_eq!(lease.call(pages).unwrap(), -1);
        assert_eq!(charges(&pool), before, "{pages}");
    }
    check(&pool);
}

#[test]
fn c_b3_growth_that_the_system_refuses_is_given_back() {
    let text = r#"(module (memory i64 1)
        (func (export "f") (param i64) (result i64) (memory.grow (local.get 0))))"#;
    let pool = pool(u64::MAX);
    let mut lease = define::<i64, i64>(&pool, text).acquire(1).unwrap();
    let before = charges(&pool);
    // 2^47 bytes and more: beyond what a process can map.
    for pages in [1 << 31, 1 << 40, i64::MAX, -1] {
        assert_eq!(lease.call(pages).unwrap(), -1);
        assert_eq!(charges(&pool), before, "{pages}");
        assert_eq!(lease.memory_bytes(), PAGE);
    }
    assert_eq!(lease.call(2).unwrap(), 1);
    assert!(!lease.is_broken());
    assert!(charged(&pool, Budget::Memory) < MIB);
    check(&pool);
}

// Tables ─────────────────────────────────────────────────────────────────────────────────────────

const TABLE: &str = r#"(module (table 10 50000 funcref)
    (func (export "f") (param i32) (result i32)
        (table.grow (ref.null func) (local.get 0))))"#;

#[test]
fn c_b3_table_growth_is_charged() {
    let pool = pool(MIB);
    let mut lease = define::<i32, i32>(&pool, TABLE).acquire(1).unwrap();
    let before = memory_of(&pool);
    assert_eq!(lease.call(1000).unwrap(), 10);
    assert_eq!((memory_of(&pool), lease.memory_bytes()), (before + 8000, 0));
    assert_eq!(lease.call(0).unwrap(), 1010);
    drop(lease);
    pool.close();
    check_empty(&pool);
}

#[test]
fn c_b3_table_growth_beyond_the_budget_is_refused() {
    let pool = pool(64 << 10);
    let mut lease = define::<i32, i32>(&pool, TABLE).acquire(1).unwrap();
    let before = charges(&pool);
    assert_eq!(lease.call(9000).unwrap(), -1);
    assert_eq!((charges(&pool), refusals(&pool)), (before, 1));
    assert_eq!(lease.call(1000).unwrap(), 10);
    check(&pool);
}

#[test]
fn c_b3_table_growth_has_a_cap_of_its_own() {
    let pool = builder(MIB).max_table_elements(100).build().unwrap();
    let mut lease = define::<i32, i32>(&pool, TABLE).acquire(1).unwrap();
    let before = charges(&pool);
    assert_eq!(lease.call(91).unwrap(), -1);
    assert_eq!((charges(&pool), refusals(&pool)), (before, 1));
    assert_eq!(lease.call(90).unwrap(), 10);
    check(&pool);
}

#[test]
fn c_b3_table_growth_beyond_what_the_module_declares_costs_nothing() {
    let pool = pool(MIB);
    let mut lease = define::<i32, i32>(&pool, TABLE).acquire(1).unwrap();
    let before = charges(&pool);
    for elements in [49_991, i32::MAX, -1] {
        assert_eq!(lease.call(elements).unwrap(), -1);
    }
    assert_eq!((charges(&pool), refusals(&pool)), (before, 0));
    check(&pool);
}

// The start function ─────────────────────────────────────────────────────────────────────────────

/// Grows in its start function; `f` returns what that gave.
fn starter(pool: &Pool, by: u32) -> Function<(), i32> {
    let text = format!(
        r#"(module (memory 1) (global $grown (mut i32) (i32.const 0))
            (func $start (global.set $grown (memory.grow (i32.const {by})))) (start $start)
            (func (export "f") (result i32) global.get $grown)
            (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0))))"#
    );
    define(pool, &text)
}

#[test]
fn c_b3_growth_in_the_start_function_is_charged() {
    let pool = pool(MIB);
    let mut lease = starter(&pool, 3).acquire(1).unwrap();
    assert_eq!(lease.call(()).unwrap(), 1);
    assert_eq!(
        (memory_of(&pool), lease.memory_bytes()),
        (instance_bytes(4), 4 * PAGE)
    );
    let grow = lease.export::<i32, i32>("grow").unwrap();
    assert_eq!(grow.call(&mut lease, 1).unwrap(), 4);
    assert_eq!(memory_of(&pool), instance_bytes(5));
    drop(lease);
    check(&pool);
}

#[test]
fn c_b3_growth_in_the_start_function_can_be_refused() {
    let pool = pool(instance_bytes(3));
    let f = starter(&pool, 3);
    assert_eq!(f.call(1, ()).unwrap(), -1);
    assert_eq!((memory_of(&pool), refusals(&pool)), (instance_bytes(1), 1));
    assert_eq!(f.call(1, ()).unwrap(), -1);
    let stats = check(&pool);
    assert_eq!(
        (stats.idle, stats.hits),
        (1, 1),
        "the instance is as good as any"
    );
}

#[test]
fn c_b3_growth_in_the_start_function_evicts_what_is_idle() {
    let pool = pool(instance_bytes(4));
    let other = grower(&pool, 1);
    other.call(1, 0).unwrap();
    assert_eq!(starter(&pool, 3).call(1, ()).unwrap(), 1);
    let stats = check(&pool);
    assert_eq!(
        (stats.idle, stats.function("grow").unwrap().evictions),
        (1, 1)
    );
    assert_eq!(memory_of(&pool), instance_bytes(4));
}

#[test]
fn c_b3_growth_in_a_start_function_that_then_fails_is_given_back() {
    let text = r#"(module (memory 1)
        (func $start (drop (memory.grow (i32.const 4))) unreachable) (start $start)
        (func (export "f") (result i32) (i32.const 1)))"#;
    let pool = pool(MIB);
    let error = define::<(), i32>(&pool, text).acquire(1).unwrap_err();
    assert!(matches!(error, AcquireError::StartTrapped { .. }));
    assert_eq!(memory_of(&pool), 0);
    check(&pool);
}

// Many at once ───────────────────────────────────────────────────────────────────────────────────

#[test]
fn c_b3_eight_instances_share_64_mib_and_no_more() {
    const ASKED: i32 = 512; // pages: 32 MiB
    let pool = pool(64 * MIB);
    let grow = grower(&pool, 1);
    let all = std::sync::Barrier::new(8);
    let outcomes: Vec<i32> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|group| {
                let (grow, all, pool) = (&grow, &all, &pool);
                scope.spawn(move || {
                    let mut lease = grow.acquire(group).unwrap();
                    all.wait();
                    let outcome = lease.call(ASKED).unwrap();
                    assert!(memory_of(pool) <= 64 * MIB);
                    all.wait();
                    assert_eq!(lease.memory_bytes() > 32 * MIB, outcome == 1);
                    outcome
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    // Twice 32 MiB and eight first pages are more than 64 MiB: one of the eight has its wish.
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == 1).count(), 1);
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == -1).count(), 7);
    let stats = check(&pool);
    assert_eq!((refusals(&pool), stats.functions[0].evictions), (7, 0));
    assert!(stats.budget(Budget::Memory).peak <= 64 * MIB);
}

// Garbage-collected heaps ────────────────────────────────────────────────────────────────────────

/// Allocates `n` structs of 64 bytes or so, and keeps them all alive.
const STRUCTS: &str = r#"(module
    (type $node (struct (field (ref null $node))
        (field i64) (field i64) (field i64) (field i64) (field i64) (field i64)))
    (global $list (mut (ref null $node)) (ref.null $node))
    (func (export "f") (param $n i32) (result i32)
        (loop $again
            (global.set $list (struct.new $node (global.get $list)
                (i64.const 1) (i64.const 2) (i64.const 3) (i64.const 4) (i64.const 5) (i64.const 6)))
            (local.set $n (i32.sub (local.get $n) (i32.const 1)))
            (br_if $again (local.get $n)))
        (i32.const 7)))"#;

fn gc_pool(memory: u64) -> Pool {
    let mut config = Config::new();
    config
        .wasm_gc(true)
        .wasm_function_references(true)
        .epoch_interruption(true);
    config.collector(wasmtime::Collector::Null);
    builder(memory)
        .engine(Engine::new(&config).unwrap())
        .build()
        .unwrap()
}

#[test]
fn c_b3_a_gc_heap_is_charged_as_it_grows() {
    let pool = gc_pool(64 * MIB);
    let mut lease = define::<i32, i32>(&pool, STRUCTS).acquire(1).unwrap();
    assert_eq!(lease.call(1).unwrap(), 7);
    let small = memory_of(&pool);
    assert_eq!(lease.call(100_000).unwrap(), 7);
    let grown = memory_of(&pool) - small;
    assert!(grown >= 100_000 * 56 - small, "{grown}");
    assert!(lease.memory_bytes() >= 100_000 * 56);
    drop(lease);
    check(&pool);
    pool.close();
    check_empty(&pool);
}

#[test]
fn c_b3_a_gc_heap_beyond_the_budget_is_refused() {
    let pool = gc_pool(4 * MIB);
    let f = define::<i32, i32>(&pool, STRUCTS);
    let mut lease = f.acquire(1).unwrap();
    let error = lease.call(1_000_000).unwrap_err();
    assert!(lease.is_broken(), "{error}");
    assert!(check(&pool).budget(Budget::Memory).peak <= 4 * MIB);
    assert!(refusals(&pool) > 0);
    drop(lease);
    assert_eq!(memory_of(&pool), 0);
    assert_eq!(f.call(1, 1).unwrap(), 7, "the next instance begins afresh");
    check(&pool);
}
