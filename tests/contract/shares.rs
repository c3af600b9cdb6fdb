//! What is reserved for a group: who may take it, who may not, and for how long.

use std::time::Duration;

use crate::common::*;
use wasm_pool::{
    AcquireError, Budget, Definition, ErrorKind, Function, Limits, ManualClock, Policy, Pool,
    RemovalReason, Share, ShareError,
};

const MINUTES: Duration = Duration::from_secs(60);

type F = Function<(), i32>;

/// Nothing leaves but for room.
fn pool_of(limits: Limits) -> (Pool, ManualClock) {
    let clock = ManualClock::new();
    let builder = Pool::builder().limits(limits).idle_timeout(None);
    let builder = builder.clock(clock.clone()).no_housekeeper();
    let builder =
        builder.removal_listener(|removal| assert_eq!(removal.reason, RemovalReason::Room));
    (builder.build().unwrap(), clock)
}

fn define(pool: &Pool, name: &str, salt: u32) -> F {
    let definition = Definition::new(name).wasm(memory_module(1, salt));
    pool.define(definition.export("f")).unwrap()
}

fn memory(instances: u64) -> u64 {
    instances * instance_bytes(1)
}

fn is_warm(f: &F, group: &str) -> bool {
    f.acquire(group).unwrap().uses() > 1
}

#[test]
fn what_is_reserved_outlasts_a_flood() {
    let (pool, _) = pool_of(Limits::new().memory(memory(4)));
    pool.set_group("quiet", Share::new().reserve(Budget::Memory, memory(2)))
        .unwrap();
    let f = define(&pool, "f", 0);
    // Three: one more than is reserved, so the longest idle of them is anybody's.
    let g = ["a", "b", "c"].map(|name| define(&pool, name, 0));
    for g in &g {
        g.call("quiet", ()).unwrap();
    }
    for tenant in 0..50 {
        f.call(tenant, ()).unwrap();
    }
    check(&pool);
    let warm = ["a", "b", "c"].map(|name| {
        let at = pool.stats();
        at.function(name).unwrap().idle == 1
    });
    assert_eq!(warm, [false, true, true]);
    // Two of the loud ones, one after the other, without room for a third.
    let held = [50, 51].map(|tenant| f.acquire(tenant).unwrap());
    let AcquireError::BudgetExceeded(short) = f.acquire(52).map(drop).unwrap_err() else {
        panic!("there is room for two");
    };
    assert_eq!((short.evictable, short.reserved), (0, memory(2)));
    let told = format!(
        ". {} bytes are idle, and reserved for other groups or pinned. The other {} are",
        memory(2),
        memory(2)
    );
    assert!(short.to_string().contains(&told), "{short}");
    drop(held);
    assert!(is_warm(&g[1], "quiet") && is_warm(&g[2], "quiet"));
}

#[test]
fn a_name_is_not_the_number_that_it_spells() {
    let (pool, _) = pool_of(Limits::new().memory(memory(1)));
    pool.set_group("7", Share::new().reserve(Budget::Memory, memory(1)))
        .unwrap();
    let f = define(&pool, "f", 0);
    f.call(7, ()).unwrap();
    f.call(8, ()).unwrap();
    f.call("7", ()).unwrap();
    assert!(f.call(7, ()).is_err());
    assert!(is_warm(&f, "7"));
}

/// Without an instance as well: code is what takes long to have again.
#[test]
fn code_is_kept_for_whoever_has_used_it() {
    for policy in [Policy::ModuleLru, Policy::CostAware] {
        let one = {
            let (pool, _) = pool_of(Limits::new());
            define(&pool, "f", 1).call(1, ()).unwrap();
            pool.stats().budget(Budget::Code).charged
        };
        let clock = ManualClock::new();
        let builder = Pool::builder()
            .limits(Limits::new().code(3 * one))
            .policy(policy);
        let pool = builder
            .clock(clock.clone())
            .no_housekeeper()
            .build()
            .unwrap();
        pool.set_group("quiet", Share::new().reserve(Budget::Code, one))
            .unwrap();
        let quiet = define(&pool, "quiet", 0);
        quiet.call("quiet", ()).unwrap();
        assert_eq!(pool.retain(|_| false), 1);
        let loud: Vec<F> = (1..20)
            .map(|n| define(&pool, &format!("f{n}"), n))
            .collect();
        for round in 0..3 {
            for f in &loud {
                f.call(round, ()).unwrap();
            }
        }
        check(&pool);
        let before = pool.stats().compilations;
        assert!(
            before >= 3 * 19 - 4,
            "{policy:?}: the flood is none: {before}"
        );
        quiet.call("quiet", ()).unwrap();
        assert_eq!(
            pool.stats().compilations,
            before,
            "{policy:?}: it was compiled again"
        );
        let stats = pool.stats();
        let group = &stats.groups[0];
        assert_eq!(group.holds(Budget::Code), one);
        assert_eq!(group.holds(Budget::Memory), memory(1));
        assert_eq!(group.holds(Budget::Total), one + memory(1));
        assert_eq!((group.reserved(Budget::Code), group.lapsed), (one, false));
    }
}

#[test]
fn who_stays_within_its_own_takes_what_others_have_reserved_when_all_else_is_leased() {
    let (pool, _) = pool_of(Limits::new().memory(memory(3)));
    let reserve = |group: &str, instances| {
        pool.set_group(
            group,
            Share::new().reserve(Budget::Memory, memory(instances)),
        )
    };
    reserve("a", 2).unwrap();
    reserve("b", 1).unwrap();
    let [f, g, h] = ["f", "g", "h"].map(|name| define(&pool, name, 0));
    f.call("b", ()).unwrap();
    let held = [f.acquire(1).unwrap(), f.acquire(2).unwrap()];
    // Nothing is reserved for them.
    assert!(f.acquire(3).is_err());
    // The first of two that are reserved for it: what others lease is not to be had, so the only idle one goes.
    g.call("a", ()).unwrap();
    assert_eq!(pool.stats().function("f").unwrap().idle, 0);
    // It gives up its own for another of its own, and nobody else's.
    h.call("a", ()).unwrap();
    assert_eq!(pool.stats().function("g").unwrap().idle, 0);
    drop(held);
    check(&pool);
}

#[test]
fn a_guest_grows_into_what_is_reserved_for_its_group_and_no_further() {
    let (pool, _) = pool_of(Limits::new().memory(memory(3)));
    for (group, instances) in [("quiet", 2), ("other", 1)] {
        pool.set_group(
            group,
            Share::new().reserve(Budget::Memory, memory(instances)),
        )
        .unwrap();
    }
    let f = define(&pool, "f", 0);
    f.call("other", ()).unwrap();
    f.call(1, ()).unwrap();
    let definition = Definition::new("grow").wasm(memory_module(1, 0));
    let grow: Function<i32, i32> = pool.define(definition).unwrap();
    let mut quiet = grow.acquire("quiet").unwrap();
    // The other group's instance was idle for longer, and is reserved.
    assert_eq!(quiet.call(1).unwrap(), 1);
    assert_eq!(pool.stats().function("f").unwrap().idle, 1);
    // Now it would take that one, and be beyond its own.
    assert_eq!(quiet.call(1).unwrap(), -1);
    drop(quiet);
    check(&pool);
    assert!(is_warm(&f, "other"));
}

#[test]
fn a_reservation_lapses_without_use_and_is_back_with_it() {
    let (pool, clock) = pool_of(Limits::new().memory(memory(1)));
    let share = Share::new().reserve(Budget::Memory, memory(1));
    pool.set_group("quiet", share.lapses_after(MINUTES))
        .unwrap();
    let f = define(&pool, "f", 0);
    f.call("quiet", ()).unwrap();
    let pass = |time| {
        clock.advance(time);
        pool.sweep();
    };
    pass(MINUTES / 2);
    // A warm lease, of which the pool's books do not hear.
    assert!(is_warm(&f, "quiet"));
    pass(MINUTES - Duration::from_nanos(1));
    assert!(f.acquire(1).is_err());
    pass(Duration::from_nanos(1));
    assert!(pool.stats().groups[0].lapsed);
    f.call(1, ()).unwrap();
    // It asks again, and is within its own again.
    f.call("quiet", ()).unwrap();
    assert!(!pool.stats().groups[0].lapsed);
    assert!(f.acquire(1).is_err());
}

/// Whoever waits for what is reserved gets it when the reservation lapses, or is given up.
#[test]
fn who_waits_for_room_gets_what_is_not_reserved_any_more() {
    for lapses in [true, false] {
        let (pool, clock) = pool_of(Limits::new().memory(memory(1)));
        let share = Share::new().reserve(Budget::Memory, memory(1));
        pool.set_group("quiet", share.lapses_after(MINUTES))
            .unwrap();
        let f = define(&pool, "f", 0);
        f.call("quiet", ()).unwrap();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| f.acquire_with(1, room_within(60 * MINUTES)).map(drop));
            wait_for_waiters(&pool, 1);
            if lapses {
                clock.advance(MINUTES);
                pool.sweep();
            } else {
                pool.set_group("quiet", Share::new()).unwrap();
            }
            waits.join().unwrap().unwrap();
        });
        check(&pool);
        assert_eq!(pool.stats().groups.len(), usize::from(lapses));
    }
}

#[test]
fn a_share_that_makes_no_sense_is_refused() {
    let (pool, _) = pool_of(Limits::new().memory(1_000_000));
    let set = |group: &str, share: Share| pool.set_group(group, share);
    let memory = |bytes| Share::new().reserve(Budget::Memory, bytes);
    set("a", memory(600_000)).unwrap();
    let refused = set("b", memory(400_001)).unwrap_err();
    let ShareError::Overcommitted {
        reserved,
        limit,
        requested,
        ..
    } = refused.clone()
    else {
        panic!("{refused}");
    };
    assert_eq!((reserved, limit, requested), (600_000, 1_000_000, 400_001));
    let told = "400001 bytes of the memory budget are to be reserved for group b, and 600000 are for others: it \
                has 1000000";
    assert_eq!(refused.to_string(), told);
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert!(matches!(
        set("b", Share::new().reserve(Budget::Compile, 1)),
        Err(ShareError::NotReservable {
            budget: Budget::Compile
        })
    ));
    assert_eq!(
        set("b", memory(1).lapses_after(Duration::ZERO)),
        Err(ShareError::LapsesAtOnce)
    );
    // Nothing was changed, and every other amount will do.
    assert_eq!(pool.stats().groups.len(), 1);
    for bytes in [0, 1, 400_000] {
        set("b", memory(bytes)).unwrap();
    }
    set("a", memory(0)).unwrap();
    set("b", memory(1_000_000).reserve(Budget::Code, u64::MAX)).unwrap();
    set(
        "a",
        Share::new()
            .reserve(Budget::Code, u64::MAX)
            .reserve(Budget::Total, u64::MAX),
    )
    .unwrap();
    check(&pool);
}
