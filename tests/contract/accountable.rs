//! C-R15: what a function takes counts in its owner's share, whoever calls it.

use std::thread;

use crate::common::*;
use wasm_pool::{AcquireError, Billing, Budget, Definition, Function, Pool, Share};

fn of(owner: &str, name: &str, salt: u32) -> Definition {
    let definition = Definition::new(name).wasm(memory_module(1, salt));
    definition.export("f").accountable(owner)
}

#[test]
fn c_r15_all_callers_of_an_owners_functions_are_within_its_limit_and_their_own_are_not_touched() {
    let pool = quiet().build().unwrap();
    let limit = Share::new().limit(Budget::Memory, 2 * instance_bytes(1));
    pool.set_group("owner", limit).unwrap();
    pool.set_group("caller", Share::new().limit(Budget::Memory, 0))
        .unwrap();
    let f: Function<(), i32> = pool.define(of("owner", "f", 1)).unwrap();
    let g: Function<(), i32> = pool.define(of("owner", "g", 2)).unwrap();
    let held = [f.acquire("caller").unwrap(), g.acquire("another").unwrap()];
    let Err(AcquireError::BudgetExceeded(short)) = f.acquire("a third") else {
        panic!("nothing refused it");
    };
    assert!(short.of_group);
    assert_eq!(short.limit, 2 * instance_bytes(1));
    drop(held);
    // What was idle goes for it, whoever had called that.
    f.call("a third", ()).unwrap();
    let stats = check(&pool);
    assert_eq!((stats.idle, stats.evictions), (2, 1));
    let owner = &stats
        .groups
        .iter()
        .find(|g| g.group == "owner".into())
        .unwrap();
    assert_eq!(owner.holds(Budget::Memory), 2 * instance_bytes(1));
    assert_eq!((owner.instances, owner.definitions), (2, 2));
    let caller = stats.groups.iter().find(|g| g.group == "caller".into());
    assert_eq!(caller.unwrap().holds(Budget::Memory), 0);
}

#[test]
fn c_r15_instances_are_of_their_callers_all_the_same() {
    let pool = quiet().billing(Billing::new()).build().unwrap();
    let f = pool
        .define::<(), i64>(
            Definition::new("f")
                .wasm(guest("state_counter"))
                .export("next")
                .accountable("owner"),
        )
        .unwrap();
    assert_eq!(f.call("one", ()).unwrap(), 1);
    assert_eq!(f.call("another", ()).unwrap(), 1);
    assert_eq!(f.call("one", ()).unwrap(), 2);
    let bills = check(&pool).bills.unwrap();
    assert_eq!(bills.group("one").unwrap().calls, 2);
    assert!(bills.group("owner").is_none());
}

#[test]
fn c_r15_a_reservation_of_the_owner_keeps_what_callers_use() {
    let builder = quiet().limits(wasm_pool::Limits::new().memory(2 * instance_bytes(1)));
    let pool = builder.build().unwrap();
    let reserve = Share::new().reserve(Budget::Memory, instance_bytes(1));
    pool.set_group("owner", reserve).unwrap();
    let f: Function<(), i32> = pool.define(of("owner", "f", 1)).unwrap();
    let others = [2, 3].map(|n| define(&pool, &format!("other{n}"), memory_module(1, n)));
    f.call("caller", ()).unwrap();
    for other in others.iter().chain(&others) {
        other.call("caller", ()).unwrap();
    }
    assert_eq!(f.acquire("caller").unwrap().uses(), 2);
}

#[test]
fn c_r15_who_waits_waits_for_any_call_of_the_owners_functions() {
    let pool = quiet().build().unwrap();
    pool.set_group("owner", Share::new().max_instances(1))
        .unwrap();
    let f: Function<(), i32> = pool.define(of("owner", "f", 1)).unwrap();
    let g: Function<(), i32> = pool.define(of("owner", "g", 2)).unwrap();
    let lease = f.acquire("one").unwrap();
    thread::scope(|scope| {
        let waits = scope.spawn(|| g.call("another", ()).unwrap());
        wait_for_waiters(&pool, 1);
        drop(lease);
        assert_eq!(waits.join().unwrap(), 1);
    });
    assert_eq!(check(&pool).idle, 1);
}

#[test]
fn c_r15_a_replacement_that_counts_elsewhere_is_found_by_every_handle() {
    let pool = quiet().build().unwrap();
    let f: Function<(), i32> = pool.define(of("owner", "f", 1)).unwrap();
    let named = Share::new().limit(Budget::Code, u64::MAX - 1);
    for group in ["owner", "other"] {
        pool.set_group(group, named).unwrap();
    }
    let instances = |group: &str| {
        let stats = check(&pool);
        let of_group = |g: &&wasm_pool::GroupStats| g.group == group.into();
        stats.groups.iter().find(of_group).unwrap().instances
    };
    let old = f.acquire("caller").unwrap();
    assert_eq!(instances("owner"), 1);
    pool.replace::<(), i32>(of("other", "f", 2)).unwrap();
    assert_eq!(f.call("caller", ()).unwrap(), 1);
    assert_eq!((instances("owner"), instances("other")), (1, 1));
    drop(old);
    assert_eq!((instances("owner"), instances("other")), (0, 1));
    // One that says nothing leaves it as it was.
    let silent = Definition::new("f").wasm(memory_module(1, 3)).export("f");
    pool.replace::<(), i32>(silent).unwrap();
    f.call("caller", ()).unwrap();
    assert_eq!((instances("owner"), instances("other")), (0, 1));
    pool.close();
    check_empty(&pool);
}

/// A pool with many owners, whose functions everybody calls, and limits for all groups.
#[test]
fn c_r15_owners_of_whom_nothing_is_said_have_the_limits_of_all() {
    let pool: Pool = quiet().max_group_instances(1).build().unwrap();
    let f: [Function<(), i32>; 3] = std::array::from_fn(|n| {
        let owner = format!("owner{}", n / 2);
        pool.define(of(&owner, &format!("f{n}"), n as u32)).unwrap()
    });
    let first = f[0].acquire("caller").unwrap();
    assert!(f[1].try_acquire("another").is_err(), "of the same owner");
    let other = f[2].acquire("caller").unwrap();
    drop((first, other));
    f[1].call("another", ()).unwrap();
    check(&pool);
}
