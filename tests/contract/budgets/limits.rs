//! C-B7 and C-B8: which limits make sense, and what happens when they change.

use super::*;

// C-B7 ─────────────────────────────────────────────────────────────────────────────────────────────

#[track_caller]
fn limits_error(builder: PoolBuilder) -> LimitsError {
    match builder.build() {
        Err(BuildError::Limits(error)) => error,
        other => panic!("{other:?}"),
    }
}

type Setter = fn(Limits, u64) -> Limits;

const BUDGETS: [(&str, Setter); 8] = [
    ("memory", Limits::memory),
    ("code", Limits::code),
    ("compile", Limits::compile),
    ("stack", Limits::stack),
    ("mappings", Limits::mappings),
    ("total", Limits::total),
    ("mapped", Limits::mapped),
    ("instances", Limits::instances),
];

#[test]
fn c_b7_a_budget_of_zero_is_named() {
    for (field, set) in BUDGETS {
        let error = limits_error(builder(set(Limits::new(), 0)));
        assert_eq!(error, LimitsError::Zero { field });
        assert_eq!(
            error.to_string(),
            format!("{field} is zero: nothing could ever be served")
        );
    }
}

#[test]
fn c_b7_a_budget_beyond_any_machine_is_named() {
    for (field, set) in BUDGETS {
        for value in [(1 << 56) + 1, u64::MAX - 1] {
            let error = limits_error(builder(set(Limits::new(), value)));
            let max = 1 << 56;
            assert_eq!(error, LimitsError::TooLarge { field, value, max });
        }
        assert!(
            builder(set(Limits::new(), 1 << 56)).build().is_ok(),
            "{field}"
        );
        assert!(
            builder(set(Limits::new(), u64::MAX)).build().is_ok(),
            "{field}"
        );
    }
}

#[test]
fn c_b7_a_budget_too_small_for_any_instance_is_named() {
    for (field, set) in [BUDGETS[0], BUDGETS[5]] {
        let value = INSTANCE_OVERHEAD - 1;
        let error = limits_error(builder(set(Limits::new(), value)));
        let (what, needed) = ("the smallest instance", INSTANCE_OVERHEAD);
        assert_eq!(
            error,
            LimitsError::NeverFits {
                field,
                value,
                what,
                needed
            }
        );
        assert!(
            builder(set(Limits::new(), INSTANCE_OVERHEAD))
                .build()
                .is_ok()
        );
    }
}

#[test]
fn c_b7_an_instance_that_can_never_fit_is_named() {
    for (field, set) in [BUDGETS[0], BUDGETS[5]] {
        let value = MIB + INSTANCE_OVERHEAD - 1;
        let error = limits_error(builder(set(Limits::new(), value)).max_instance_memory(MIB));
        assert_eq!(
            error.to_string(),
            format!(
                "{field} is 1056767 bytes, but an instance grown to max_instance_memory needs \
                 1056768: no instance could ever be made"
            )
        );
        let limits = set(Limits::new(), value + 1);
        assert!(builder(limits).max_instance_memory(MIB).build().is_ok());
    }
}

#[test]
fn c_b7_other_settings_of_zero_are_named() {
    let with = |set: fn(PoolBuilder) -> PoolBuilder| limits_error(set(builder(Limits::new())));
    let zero = |field| LimitsError::Zero { field };
    assert_eq!(
        with(|b| b.max_instance_memory(0)),
        zero("max_instance_memory")
    );
    assert_eq!(with(|b| b.max_idle_memory(0)), zero("max_idle_memory"));
    assert_eq!(
        with(|b| b.max_instances_per_entry(0)),
        zero("max_instances_per_entry")
    );
    assert_eq!(with(|b| b.max_compilations(0)), zero("max_compilations"));
    assert_eq!(with(|b| b.max_uses(0)), zero("max_uses"));
    assert_eq!(
        with(|b| b.max_table_elements(0)),
        zero("max_table_elements")
    );
    assert_eq!(with(|b| b.max_wasm_stack(0)), zero("max_wasm_stack"));
    assert_eq!(with(|b| b.epoch_tick(Duration::ZERO)), zero("epoch_tick"));
}

#[test]
fn c_b7_bad_limits_set_later_change_nothing() {
    let pool = pool(Limits::new().memory(MIB).code(MIB));
    let f = define_with_pages(&pool, "f", 1);
    f.call(1, ()).unwrap();
    let before = pool.stats();
    for (field, set) in BUDGETS {
        let zero = pool.set_limits(set(Limits::new().memory(MIB), 0));
        assert_eq!(zero, Err(LimitsError::Zero { field }));
    }
    let tiny = pool.set_limits(Limits::new().memory(1).code(1));
    assert!(matches!(
        tiny,
        Err(LimitsError::NeverFits {
            field: "memory",
            ..
        })
    ));
    let after = pool.stats();
    assert!(before.budgets().eq(after.budgets()));
    assert_eq!((after.idle, after.modules_loaded), (1, 1));
    check(&pool);
}

// C-B8 ─────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn c_b8_a_raised_limit_serves_who_waits_for_room_at_once() {
    let pool = pool(Limits::new().memory(instance_bytes(1)));
    let f = define_with_pages(&pool, "f", 1);
    let lease = f.acquire(1).unwrap();
    let waiter = thread::spawn({
        let f = f.clone();
        move || {
            f.acquire_with(2, room_within(Duration::from_secs(1)))
                .map(drop)
        }
    });
    wait_for_waiters(&pool, 1);
    pool.set_limits(Limits::new().memory(2 * instance_bytes(1)))
        .unwrap();
    // The clock stands still: nothing but the new limit can have woken it.
    waiter.join().unwrap().unwrap();
    assert_eq!(lease.uses(), 1);
    check(&pool);
}

#[test]
fn c_b8_a_raised_limit_serves_all_who_wait_for_room() {
    let pool = pool(Limits::new().memory(instance_bytes(1)));
    let f = define_with_pages(&pool, "f", 1);
    let lease = f.acquire(0).unwrap();
    let (hold, held) = (Arc::new(std::sync::Barrier::new(4)), &pool);
    thread::scope(|scope| {
        for group in 1..4 {
            let (f, hold) = (f.clone(), hold.clone());
            scope.spawn(move || {
                let lease = f
                    .acquire_with(group, room_within(Duration::from_secs(1)))
                    .unwrap();
                hold.wait();
                drop(lease);
            });
        }
        wait_for_waiters(held, 3);
        held.set_limits(Limits::new().memory(4 * instance_bytes(1)))
            .unwrap();
        hold.wait();
    });
    drop(lease);
    check(&pool);
}

#[test]
fn c_b8_a_raised_limit_lets_an_instance_grow_further() {
    let pool = pool(Limits::new().memory(MIB));
    let grow: Function<i32, i32> = pool
        .define(Definition::new("grow").wasm(memory_module(1, 0)))
        .unwrap();
    let mut lease = grow.acquire(1).unwrap();
    assert_eq!(lease.call(32).unwrap(), -1);
    pool.set_limits(Limits::new().memory(8 * MIB)).unwrap();
    assert_eq!(
        lease.call(32).unwrap(),
        1,
        "the limit that refused it is raised"
    );
    check(&pool);
}

#[test]
fn c_b8_a_raised_limit_admits_a_larger_module() {
    let pool = pool(Limits::new().memory(MIB));
    pool.set_limits(Limits::new().memory(8 * MIB)).unwrap();
    let definition = Definition::new("big")
        .wasm(memory_module(32, 0))
        .export("f");
    let big = pool.define::<(), i32>(definition).unwrap();
    assert_eq!(big.call(1, ()).unwrap(), 1);
    check(&pool);
}

#[test]
fn c_b8_a_lowered_limit_evicts_the_least_recently_used_and_no_more() {
    let pool = pool(Limits::new().memory(MIB));
    let f = define_with_pages(&pool, "f", 1);
    for group in [1, 2, 3, 1] {
        f.call(group, ()).unwrap();
    }
    pool.set_limits(Limits::new().memory(2 * instance_bytes(1)))
        .unwrap();
    let stats = pool.stats();
    assert_eq!((stats.idle, stats.functions[0].evictions), (2, 1));
    assert_eq!(stats.budget(Budget::Memory).overdraft, 0);
    let uses = |group| f.acquire(group).unwrap().uses();
    assert_eq!((uses(1), uses(3)), (3, 2));
    pool.recount().unwrap();
}

#[test]
fn c_b8_a_lowered_code_limit_drops_modules() {
    let pool = builder(Limits::new())
        .policy(Policy::ModuleLru)
        .build()
        .unwrap();
    for name in ["f", "g"] {
        define_with_pages(&pool, name, 1).call(1, ()).unwrap();
    }
    let one = pool.stats().functions[1].code_bytes;
    pool.set_limits(Limits::new().code(one)).unwrap();
    let stats = pool.stats();
    assert_eq!(
        (stats.modules_loaded, stats.code_dropped, stats.idle),
        (1, 1, 1)
    );
    assert!(stats.function("g").unwrap().code_loaded);
    pool.recount().unwrap();
}

#[test]
fn c_b8_what_leases_still_hold_is_an_overdraft_and_new_needs_are_refused() {
    let pool = pool(Limits::new().memory(MIB));
    let f = define_with_pages(&pool, "f", 1);
    let (one, two) = (f.acquire(1).unwrap(), f.acquire(2).unwrap());
    f.call(3, ()).unwrap();
    pool.set_limits(Limits::new().memory(instance_bytes(1) + 1))
        .unwrap();
    let memory = pool.stats().budget(Budget::Memory);
    assert_eq!(pool.stats().idle, 0);
    assert_eq!(memory.overdraft, instance_bytes(1) - 1);
    assert_eq!(memory.charged, 2 * instance_bytes(1));
    let exceeded = refused(f.acquire(3));
    assert_eq!((exceeded.charged, exceeded.evictable), (memory.charged, 0));
    drop((one, two));
    pool.recount().unwrap();
}

#[test]
fn c_b8_the_overdraft_is_gone_when_leases_end() {
    let pool = pool(Limits::new().memory(MIB));
    let f = define_with_pages(&pool, "f", 1);
    let (one, two) = (f.acquire(1).unwrap(), f.acquire(2).unwrap());
    pool.set_limits(Limits::new().memory(instance_bytes(1)))
        .unwrap();
    drop(one);
    let memory = pool.stats().budget(Budget::Memory);
    assert_eq!((memory.charged, memory.overdraft), (instance_bytes(1), 0));
    drop(two);
    assert_eq!(pool.stats().idle, 1, "what fits stays");
    pool.recount().unwrap();
}

#[test]
fn c_b8_who_waits_for_what_can_no_longer_fit_is_refused_at_once() {
    let pool = pool(Limits::new().memory(instance_bytes(4)));
    let (small, big) = (
        define_with_pages(&pool, "small", 1),
        define_with_pages(&pool, "big", 4),
    );
    let lease = small.acquire(1).unwrap();
    let waiter = thread::spawn(move || {
        big.acquire_with(1, room_within(Duration::from_secs(1)))
            .map(drop)
    });
    wait_for_waiters(&pool, 1);
    pool.set_limits(Limits::new().memory(instance_bytes(2)))
        .unwrap();
    let exceeded = refused(waiter.join().unwrap());
    assert_eq!(
        (exceeded.requested, exceeded.limit),
        (instance_bytes(4), instance_bytes(2))
    );
    drop(lease);
    pool.recount().unwrap();
}

// Stacks, and what is mapped ──────────────────────────────────────────────────────────────────────

#[test]
fn c_b7_stacks_that_can_never_fit_are_named() {
    let small = Pool::builder().async_stack_size(1).build();
    let Err(BuildError::Limits(LimitsError::NeverFits { field, needed, .. })) = small else {
        panic!("{small:?}");
    };
    assert_eq!((field, needed), ("async_stack_size", (512 + 128) << 10));
    let few = builder(Limits::new().stack(3 << 20)).max_instances_per_entry(4);
    let error = limits_error(few);
    let expected = LimitsError::NeverFits {
        field: "stack",
        value: 3 << 20,
        what: "a fiber stack for each of max_instances_per_entry",
        needed: 4 << 20,
    };
    assert_eq!(error, expected);
    let enough = builder(Limits::new().stack(4 << 20)).max_instances_per_entry(4);
    assert!(enough.build().is_ok());
}

#[test]
fn the_preset_has_the_ancestors_figures() {
    let pool = Pool::builder().scylla().build().unwrap();
    let stats = pool.stats();
    assert_eq!(stats.budget(Budget::Mapped).limit, Some(40 << 20));
    assert_eq!(stats.budget(Budget::Memory).limit, Some(100_000_000));
}
