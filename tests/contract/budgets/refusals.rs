//! C-B1: every budget refuses, and says so in words.

use super::*;

// Every budget refuses, and says so in words ─────────────────────────────────────────────────────

#[test]
fn c_b1_the_memory_budget_refuses() {
    let pool = pool(Limits::new().memory(instance_bytes(1) + instance_bytes(2)));
    let (small, big) = (
        define_with_pages(&pool, "small", 1),
        define_with_pages(&pool, "big", 2),
    );
    let lease = small.acquire(1).unwrap();
    small.call(2, ()).unwrap();
    let held = big.acquire("reports").unwrap();
    let exceeded = refused(big.acquire("nightly"));
    assert_eq!(exceeded.budget, Budget::Memory);
    assert_eq!(exceeded.requested, instance_bytes(2));
    assert_eq!(exceeded.limit, instance_bytes(1) + instance_bytes(2));
    assert_eq!(exceeded.charged, instance_bytes(1) + instance_bytes(2));
    assert_eq!(exceeded.evictable, 0);
    assert_eq!(&*exceeded.target.signature, "big()");
    assert_eq!(exceeded.target.group, "nightly".into());
    assert_eq!(
        exceeded.to_string(),
        format!(
            "big() in group nightly needs {0} bytes of the memory budget, which has {1}: {1} are \
             charged, and evicting everything idle would free 0. The other {1} are in use: try \
             again later, or raise the limit. Held by big() in group reports: {0} in use; small() \
             in group 1: {2} in use",
            exceeded.requested,
            exceeded.limit,
            instance_bytes(1)
        )
    );
    drop((lease, held));
    check(&pool);
}

#[test]
fn c_b1_a_refusal_says_what_is_evictable_and_what_can_never_fit() {
    let pool = pool(Limits::new().memory(instance_bytes(3)));
    let (small, big) = (
        define_with_pages(&pool, "small", 1),
        define_with_pages(&pool, "big", 3),
    );
    let lease = small.acquire(1).unwrap();
    small.call(2, ()).unwrap();
    let exceeded = refused(big.acquire(7));
    assert_eq!(exceeded.evictable, instance_bytes(1));
    assert_eq!(
        exceeded.to_string(),
        format!(
            "big() in group 7 needs {0} bytes of the memory budget, which has {0}: {1} are \
             charged, and evicting everything idle would free {2}. The other {2} are in use: try \
             again later, or raise the limit. Held by small() in group 1: {2} in use; small() in \
             group 2: {2} idle",
            instance_bytes(3),
            2 * instance_bytes(1),
            instance_bytes(1)
        )
    );
    assert_eq!(pool.stats().idle, 1, "and was not evicted");
    drop(lease);
    pool.set_limits(Limits::new().memory(instance_bytes(2)))
        .unwrap();
    assert_eq!(
        refused(big.acquire(7)).to_string(),
        format!(
            "big() in group 7 needs {0} bytes of the memory budget, which has {1}: {2} are \
             charged, and evicting everything idle would free {2}. It can never fit: raise the \
             memory limit to at least {0}",
            instance_bytes(3),
            instance_bytes(2),
            instance_bytes(1)
        )
    );
}

/// Bytes of code of a function of [`define`].
fn code_of_one() -> u64 {
    let pool = pool(Limits::new());
    define_with_pages(&pool, "f", 1).call(1, ()).unwrap();
    charged(&pool, Budget::Code)
}

#[test]
fn c_b1_the_code_budget_refuses() {
    let code = code_of_one();
    let limit = 2 * code - 1;
    let pool = pool(Limits::new().code(limit));
    let (f, g) = (
        define_with_pages(&pool, "f", 1),
        define_with_pages(&pool, "g", 1),
    );
    let lease = f.acquire(1).unwrap();
    let exceeded = refused(g.acquire(1));
    assert_eq!(exceeded.budget, Budget::Code);
    assert!(exceeded.requested >= code, "{exceeded:?}");
    assert_eq!(
        (exceeded.limit, exceeded.charged, exceeded.evictable),
        (limit, code, 0)
    );
    assert_eq!(&*exceeded.target.signature, "g()");
    drop(lease);
    g.call(1, ()).unwrap();
    assert!(!pool.stats().function("f").unwrap().code_loaded);
    check(&pool);
}

#[test]
fn c_b1_the_compile_budget_refuses() {
    const LIMIT: u64 = 128 << 10;
    let pool = pool(Limits::new().compile(LIMIT));
    let f = define_with_pages(&pool, "f", 1);
    let needed = compile_need(&memory_module(1, u32::from(b'f')), "f");
    let exceeded = refused(f.acquire(1));
    assert_eq!(exceeded.budget, Budget::Compile);
    assert_eq!(exceeded.requested, needed);
    assert_eq!(
        (exceeded.limit, exceeded.charged, exceeded.evictable),
        (LIMIT, 0, 0)
    );
    assert_eq!(
        exceeded.to_string(),
        format!(
            "f() in group 1 needs {0} bytes of the compile budget, which has 131072: 0 are \
             charged, and evicting everything idle would free 0. It can never fit: raise the \
             compile limit to at least {0}",
            exceeded.requested
        )
    );
    assert_eq!(pool.stats().compilations, 0);
    check(&pool);
}

#[test]
fn c_b1_the_mappings_budget_refuses() {
    let pool = pool(Limits::new().mappings(8));
    let f = define_with_pages(&pool, "f", 1);
    let lease = f.acquire(1).unwrap();
    let exceeded = refused(f.acquire(2));
    assert_eq!(exceeded.budget, Budget::Mappings);
    assert_eq!(
        (exceeded.requested, exceeded.limit, exceeded.charged),
        (3, 8, 6)
    );
    assert_eq!(
        exceeded.to_string(),
        "f() in group 2 needs 3 mappings of the mappings budget, which has 8: 6 are charged, and \
         evicting everything idle would free 0. The other 6 are in use: try again later, or raise \
         the limit. Held by f() in group 1: 3 in use; code of f(): 3 in use"
    );
    drop(lease);
    check(&pool);
}

#[test]
fn c_b1_the_total_budget_refuses() {
    let pool = pool(Limits::new());
    let f = define_with_pages(&pool, "f", 2);
    let lease = f.acquire(1).unwrap();
    let charged = charged(&pool, Budget::Total);
    let limit = charged + instance_bytes(2) - 1;
    pool.set_limits(Limits::new().total(limit)).unwrap();
    let exceeded = refused(f.acquire(2));
    assert_eq!(exceeded.budget, Budget::Total);
    assert_eq!(exceeded.requested, instance_bytes(2));
    assert_eq!(
        (exceeded.limit, exceeded.charged, exceeded.evictable),
        (limit, charged, 0)
    );
    pool.set_limits(Limits::new().total(limit + 1)).unwrap();
    drop(f.acquire(2).unwrap());
    drop(lease);
    pool.recount().unwrap();
}

#[test]
fn c_b1_the_total_budget_takes_unused_code_when_instances_are_not_enough() {
    let pool = pool(Limits::new());
    let (f, g) = (
        define_with_pages(&pool, "f", 1),
        define_with_pages(&pool, "g", 1),
    );
    g.call(1, ()).unwrap();
    let lease = f.acquire(1).unwrap();
    let code = pool.stats().function("g").unwrap().code_bytes;
    // Room for one more instance is to be had from all that `g` has, and from nothing less.
    let limit = charged(&pool, Budget::Total) - code;
    pool.set_limits(Limits::new().total(limit + instance_bytes(1)))
        .unwrap();
    assert_eq!((pool.stats().idle, pool.stats().modules_loaded), (1, 2));
    pool.set_limits(Limits::new().total(limit)).unwrap();
    drop(f.acquire(2).unwrap());
    assert!(!pool.stats().function("g").unwrap().code_loaded);
    drop(lease);
    pool.recount().unwrap();
}

#[test]
fn c_b1_a_guess_at_the_size_of_code_refuses_nothing_that_fits() {
    let pool = pool(Limits::new().code(2 * code_of_one()));
    let (f, g) = (
        define_with_pages(&pool, "f", 1),
        define_with_pages(&pool, "g", 1),
    );
    let lease = f.acquire(1).unwrap();
    assert_eq!(g.call(1, ()).unwrap(), 1, "two modules of this size fit");
    drop(lease);
    check(&pool);
}

#[test]
fn c_b1_other_waits_speak_for_themselves() {
    let clock = ManualClock::new();
    let pool = Pool::builder()
        .max_instances_per_entry(1)
        .clock(clock.clone())
        .no_housekeeper()
        .build()
        .unwrap();
    let f = define_with_pages(&pool, "f", 1);
    let lease = f.acquire(1).unwrap();
    assert_eq!(
        f.try_acquire(1).unwrap_err().to_string(),
        "f() in group 1 would have to wait for one of its instances, all leased"
    );
    let waiter = thread::spawn({
        let f = f.clone();
        move || {
            f.acquire_with(1, room_within(Duration::from_secs(3)))
                .map(drop)
        }
    });
    wait_for_waiters(&pool, 1);
    clock.advance(Duration::from_secs(3));
    assert_eq!(
        waiter.join().unwrap().unwrap_err().to_string(),
        "f() in group 1 waited 3s for one of its instances, all leased (1 of them between two calls, \
         perhaps by this very thread)"
    );
    drop(lease);
}
