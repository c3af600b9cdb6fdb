//! C-I5 and C-I6: instances that go for idleness, age or use.

use super::*;

// C-I5 ─────────────────────────────────────────────────────────────────────────────────────────────

const T: Duration = Duration::from_secs(4);
const NANO: Duration = Duration::from_nanos(1);

fn idling() -> (Pool, ManualClock, Reasons) {
    let reasons = Reasons::default();
    let (builder, clock) = quiet_with_clock();
    let pool = builder
        .idle_timeout(T)
        .removal_listener(reasons.listen())
        .build()
        .unwrap();
    (pool, clock, reasons)
}

#[test]
fn c_i5_an_instance_is_evicted_when_idle_for_the_timeout_and_not_before() {
    let (pool, clock, reasons) = idling();
    let next = counter(&pool);
    next.call(1, ()).unwrap();
    clock.advance(T - NANO);
    pool.sweep();
    assert_eq!(check(&pool).idle, 1);
    clock.advance(NANO);
    pool.sweep();
    let stats = check(&pool);
    assert_eq!((stats.idle, stats.functions[0].evictions), (0, 1));
    assert_eq!(reasons.take(), [RemovalReason::Idle]);
    assert_eq!(stats.budget(Budget::Memory).charged, 0);
}

#[test]
fn c_i5_a_warm_lease_starts_the_time_anew() {
    let (pool, clock, _) = idling();
    let next = counter(&pool);
    for _ in 0..10 {
        next.call(1, ()).unwrap();
        clock.advance(T - NANO);
        pool.sweep();
    }
    assert_eq!(next.call(1, ()).unwrap(), 11);
    check(&pool);
}

#[test]
fn c_i5_a_leased_instance_is_not_idle() {
    let (pool, clock, _) = idling();
    let next = counter(&pool);
    let lease = next.acquire(1).unwrap();
    clock.advance(3 * T);
    pool.sweep();
    drop(lease);
    clock.advance(T - NANO);
    pool.sweep();
    assert_eq!(check(&pool).idle, 1, "idle only since the lease ended");
    clock.advance(NANO);
    pool.sweep();
    assert_eq!(check(&pool).idle, 0);
}

#[test]
fn c_i5_swept_four_times_in_t_it_goes_between_t_and_2t() {
    for phase in 0..4 {
        let (pool, clock, _) = idling();
        let next = counter(&pool);
        clock.advance(phase * T / 16);
        next.call(1, ()).unwrap();
        let idle_since = now(&clock);
        clock.advance(T / 4 - phase * T / 16);
        while pool.stats().idle == 1 {
            pool.sweep();
            clock.advance(T / 4);
        }
        let idle = now(&clock) - T / 4 - idle_since;
        assert!(T <= idle && idle < 2 * T, "{idle:?}");
    }
}

#[test]
fn c_i5_only_what_is_idle_for_too_long_goes() {
    let (pool, clock, _) = idling();
    let next = counter(&pool);
    for group in 0..4_u64 {
        next.call(group, ()).unwrap();
        clock.advance(T / 2);
    }
    pool.sweep();
    assert_eq!(check(&pool).idle, 1);
    assert_eq!(next.call(3, ()).unwrap(), 2);
}

#[test]
fn c_i5_without_a_timeout_nothing_goes() {
    let (builder, clock) = quiet_with_clock();
    let pool = builder.idle_timeout(None).build().unwrap();
    counter(&pool).call(1, ()).unwrap();
    clock.advance(1000 * LONG);
    pool.sweep();
    assert_eq!(check(&pool).idle, 1);
}

#[test]
fn c_i5_the_housekeeper_sweeps_by_itself() {
    let clock = ManualClock::new();
    let timeout = Duration::from_millis(20);
    let pool = Pool::builder()
        .clock(clock.clone())
        .idle_timeout(timeout)
        .build()
        .unwrap();
    let next = counter(&pool);
    next.call(1, ()).unwrap();
    clock.advance(timeout);
    until(|| pool.stats().idle == 0);
    check(&pool);
}

// C-I6 ─────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn c_i6_an_instance_serves_max_uses_and_no_more() {
    let reasons = Reasons::default();
    let pool = quiet_with_clock()
        .0
        .max_uses(3)
        .removal_listener(reasons.listen())
        .build()
        .unwrap();
    let next = counter(&pool);
    let calls = [(); 7].map(|()| next.call(1, ()).unwrap());
    assert_eq!(calls, [1, 2, 3, 1, 2, 3, 1]);
    assert_eq!(reasons.take(), [RemovalReason::Uses; 2]);
    let stats = check(&pool);
    assert_eq!(
        (stats.functions[0].retirements, stats.functions[0].evictions),
        (2, 0)
    );
}

#[test]
fn c_i6_an_instance_past_its_lifetime_is_not_kept() {
    let reasons = Reasons::default();
    let (builder, clock) = quiet_with_clock();
    let pool = builder
        .max_lifetime(T)
        .idle_timeout(None)
        .removal_listener(reasons.listen())
        .build()
        .unwrap();
    let next = counter(&pool);
    next.call(1, ()).unwrap();
    clock.advance(T - NANO);
    assert_eq!(next.call(1, ()).unwrap(), 2);
    assert_eq!(reasons.take(), []);
    let lease = next.acquire(1).unwrap();
    clock.advance(NANO);
    drop(lease);
    assert_eq!(
        (reasons.take(), check(&pool).idle),
        (vec![RemovalReason::Lifetime], 0)
    );
    // Idle, it goes with the sweep.
    next.call(1, ()).unwrap();
    clock.advance(T - NANO);
    pool.sweep();
    assert_eq!(check(&pool).idle, 1);
    clock.advance(NANO);
    pool.sweep();
    assert_eq!(
        (reasons.take(), check(&pool).idle),
        (vec![RemovalReason::Lifetime], 0)
    );
}

#[test]
fn c_i6_an_instance_grown_too_large_is_not_kept() {
    let reasons = Reasons::default();
    let pool = quiet_with_clock()
        .0
        .max_idle_memory(2 << 16)
        .removal_listener(reasons.listen())
        .build()
        .unwrap();
    let definition = Definition::new("grow").wasm(memory_module(1, 0));
    let grow: Function<i32, i32> = pool.define(definition).unwrap();
    assert_eq!(grow.call(1, 1).unwrap(), 1);
    assert_eq!(
        (reasons.take(), pool.stats().idle),
        (vec![], 1),
        "just as large as may be"
    );
    assert_eq!(grow.call(1, 1).unwrap(), 2);
    assert_eq!(
        (reasons.take(), pool.stats().idle),
        (vec![RemovalReason::Oversize], 0)
    );
    assert_eq!(grow.call(1, 0).unwrap(), 1);
    check(&pool);
}

#[test]
fn c_i6_who_waits_is_served_when_an_instance_has_had_its_uses() {
    let pool = quiet_with_clock()
        .0
        .max_uses(1)
        .max_instances_per_entry(1)
        .build()
        .unwrap();
    let next = counter(&pool);
    let lease = next.acquire(1).unwrap();
    let served = queue(&pool, &next, 3);
    drop(lease);
    for number in 0..3 {
        assert_eq!(served.recv().unwrap(), (number, 1), "each has a new one");
    }
    until(|| pool.stats().leased == 0);
    check(&pool);
}
