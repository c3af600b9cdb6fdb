//! No number that a host sets ends its process: it is served, or refused when the pool is built.

use std::time::Duration;

use wasm_pool::{
    BuildError, DefineError, Definition, Function, Limits, LimitsError, Pool, PoolBuilder,
};

use crate::common::{answering, child, in_time};

const ALL: u64 = u64::MAX;
/// What budgets and other large numbers may be, besides unlimited.
const LARGEST: u64 = 1 << 56;

type Set = fn(PoolBuilder, u64) -> PoolBuilder;

/// A setting, and the values next to the ends of what it accepts.
struct Row(&'static str, Set, &'static [u64]);

const NANOS: fn(u64) -> Duration = Duration::from_nanos;

#[rustfmt::skip]
const ROWS: &[Row] = &[
    Row("max_instances_per_entry", |b, n| b.max_instances_per_entry(n as usize), &[1, 1 << 16]),
    Row("max_compilations", |b, n| b.max_compilations(n as usize), &[1, 1024]),
    Row("max_wasm_stack", |b, n| b.max_wasm_stack(n as usize), &[1, 1 << 30]),
    Row("async_stack_size", |b, n| b.async_stack_size(n as usize), &[(576 << 10) + 1, 1 << 30]),
    Row("epoch_tick", |b, n| b.epoch_tick(NANOS(n)), &[100_000, LARGEST]),
    Row("max_uses", |b, n| b.max_uses(n), &[1, LARGEST, ALL]),
    Row("max_table_elements", |b, n| b.max_table_elements(n), &[1, LARGEST, ALL]),
    Row("max_idle_memory", |b, n| b.max_idle_memory(n), &[1, LARGEST, ALL]),
    // With more, an instance would be larger than any budget but none at all.
    Row("max_instance_memory", |b, n| b.max_instance_memory(n), &[1, LARGEST, ALL]),
    Row("fuel", |b, n| b.fuel(n), &[1, ALL]),
    Row("fuel_yield_interval", |b, n| b.fuel_yield_interval(n), &[1, LARGEST, ALL]),
    Row("call_timeout", |b, n| b.call_timeout(NANOS(n)), &[1, ALL]),
    Row("max_lifetime", |b, n| b.max_lifetime(NANOS(n)), &[0, ALL]),
    Row("idle_timeout", |b, n| b.idle_timeout(NANOS(n)), &[0, ALL]),
    Row("code_idle_timeout", |b, n| b.code_idle_timeout(NANOS(n)), &[0, ALL]),
    Row("wait_timeout", |b, n| b.wait_timeout(NANOS(n)), &[0, ALL]),
    Row("compile_cooldown", |b, n| b.compile_cooldown(NANOS(n)), &[0, ALL]),
    Row("code", |b, n| b.limits(Limits::new().code(n)), &[1, LARGEST, ALL]),
    Row("compile", |b, n| b.limits(Limits::new().compile(n)), &[1, LARGEST, ALL]),
    Row("mappings", |b, n| b.limits(Limits::new().mappings(n)), &[1, LARGEST, ALL]),
    Row("mapped", |b, n| b.limits(Limits::new().mapped(n)), &[1, LARGEST, ALL]),
    Row("memory", |b, n| b.limits(Limits::new().memory(n)), &[8 << 10, LARGEST, ALL]),
    Row("total", |b, n| b.limits(Limits::new().total(n)), &[8 << 10, LARGEST, ALL]),
    // Eight leases of an entry, with a stack of 1 MiB each.
    Row("stack", |b, n| b.limits(Limits::new().stack(n)), &[8 << 20, LARGEST, ALL]),
];

/// The ends of a range, what lies beside them, and what has ended a process once.
fn values(ends: &[u64]) -> Vec<u64> {
    let beside = |n: &u64| [n.saturating_sub(1), *n, n.saturating_add(1)];
    let mut values: Vec<_> = ends.iter().flat_map(beside).collect();
    values.extend([0, 1, 1 << 32, 1 << 40, 1 << 48, 1 << 63, ALL - 1, ALL]);
    values.sort_unstable();
    values.dedup();
    values
}

/// From the least to the greatest but one; and the greatest itself.
fn is_accepted(value: u64, ends: &[u64]) -> bool {
    match *ends {
        [least, most, unlimited] => (least..=most).contains(&value) || value == unlimited,
        [least, most] => (least..=most).contains(&value),
        _ => unreachable!("a row has two ends or three"),
    }
}

/// A pool that was built serves calls of threads and tasks, or refuses them in words.
fn use_it(pool: &Pool) {
    let f: Function<(), i32> = pool
        .define(Definition::new("f").wasm(answering(7)))
        .unwrap();
    for result in [f.call(1, ()), pollster::block_on(f.call_async(1, ()))] {
        match result {
            Ok(answer) => assert_eq!(answer, 7),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    pool.sweep();
    pool.recount().unwrap();
}

#[test]
fn promise_12_every_setting_is_served_or_refused_at_build() {
    let test = "promises::settings::promise_12_every_setting_is_served_or_refused_at_build";
    if !child::is_child(test, "") {
        return;
    }
    for Row(name, set, ends) in ROWS {
        for value in values(ends) {
            let built = in_time(move || {
                let pool = set(Pool::builder(), value).build()?;
                use_it(&pool);
                Ok::<_, BuildError>(())
            });
            let expected = is_accepted(value, ends);
            match built {
                Ok(()) => assert!(expected, "{name} = {value} is accepted"),
                Err(BuildError::Limits(error)) => {
                    assert!(!expected, "{name} = {value}: {error}");
                    let text = error.to_string();
                    assert!(text.contains(name), "{name} = {value}: {text}");
                }
                Err(other) => panic!("{name} = {value}: {other}"),
            }
        }
    }
}

#[test]
fn promise_12_the_largest_settings_are_served_together() {
    let pool = Pool::builder()
        .max_compilations(1024)
        .max_uses(ALL)
        .max_table_elements(ALL)
        .max_idle_memory(ALL)
        .fuel(ALL)
        .call_timeout(Duration::MAX)
        .max_lifetime(Duration::MAX)
        .idle_timeout(Duration::MAX)
        .code_idle_timeout(Duration::MAX)
        .wait_timeout(Duration::MAX)
        .compile_cooldown(Duration::MAX)
        .build()
        .unwrap();
    use_it(&pool);
    let definition = Definition::new("g").wasm(answering(8)).export("f");
    let g: Function<(), i32> = pool
        .define(definition.fuel(ALL).call_timeout(Duration::MAX))
        .unwrap();
    let mut lease = g
        .acquire_with(1, crate::common::room_within(Duration::MAX))
        .unwrap();
    assert_eq!(lease.call(()).unwrap(), 8);
    drop(lease);
    assert!(pool.close_and_drain(Duration::MAX));
}

#[test]
fn promise_12_a_definition_whose_calls_could_never_run_is_refused() {
    let pool = Pool::builder().fuel(1000).build().unwrap();
    let definition = || Definition::new("f").wasm(answering(7));
    let none = Duration::ZERO;
    for (field, definition) in [
        ("fuel", definition().fuel(0)),
        ("call_timeout", definition().call_timeout(none)),
    ] {
        let error = pool.define::<(), i32>(definition).unwrap_err();
        let DefineError::Limits { source, .. } = &error else {
            panic!("{error:?}");
        };
        assert_eq!(*source, LimitsError::Zero { field });
    }
    use_it(&pool);
}
