//! C-R3: which code goes, and with what instances.

use super::*;

// C-R3 ─────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn c_r3_whole_modules_go_and_no_instance_of_one_that_stays() {
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
fn c_r3_code_without_instances_goes_without_any_eviction() {
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
fn c_r3_a_module_with_one_lease_keeps_its_idle_instances() {
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
fn c_r3_a_small_module_is_spared_when_a_large_one_must_go() {
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
fn c_r3_memory_pressure_drops_no_code() {
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

// Policies ───────────────────────────────────────────────────────────────────────────────────────

#[test]
fn c_r3_lru_drops_code_with_its_last_instance() {
    let (pool, _, _) = code_pool(Policy::Lru);
    let f = define_with_pages(&pool, "f", 1);
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
fn c_r3_other_policies_keep_code_until_its_room_is_needed() {
    for policy in [Policy::ModuleLru, Policy::CostAware] {
        let (pool, _, _) = code_pool(policy);
        let f = define_with_pages(&pool, "f", 1);
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
fn c_r3_module_lru_goes_by_last_use_alone() {
    assert_eq!(who_stays(Policy::ModuleLru), ["rarely", "new"]);
}

#[test]
fn c_r3_cost_aware_goes_by_the_expected_time_to_the_next_use() {
    assert_eq!(who_stays(Policy::CostAware), ["often", "new"]);
}

#[test]
fn c_r3_a_real_module_costs_what_its_policy_makes_of_it() {
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
