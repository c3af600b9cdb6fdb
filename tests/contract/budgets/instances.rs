//! C-B9: the budget of instances.

use super::*;
use wasm_pool::Share;

fn functions<const N: usize>(pool: &Pool) -> [Function<(), i32>; N] {
    std::array::from_fn(|n| define(pool, &format!("f{n}"), memory_module(1, n as u32)))
}

#[test]
fn c_b9_the_longest_idle_of_all_functions_and_groups_goes_for_another() {
    let pool = pool(Limits::new().instances(2));
    let [f, g, h] = functions(&pool);
    f.call("a", ()).unwrap();
    g.call("b", ()).unwrap();
    f.call("a", ()).unwrap();
    h.call("c", ()).unwrap();
    let stats = check(&pool);
    assert_eq!((stats.idle, stats.evictions), (2, 1));
    let instances = stats.budget(Budget::Instances);
    assert_eq!((instances.charged, instances.peak), (2, 2));
    assert_eq!(instances.limit, Some(2));
    // The code of the one that went is there still.
    assert_eq!((stats.compilations, stats.modules_loaded), (3, 3));
    assert_eq!(f.acquire("a").unwrap().uses(), 3);
}

#[test]
fn c_b9_a_refusal_says_who_has_them_and_nothing_is_evicted_in_vain() {
    let pool = pool(Limits::new().instances(2));
    let [f, g] = functions(&pool);
    let leases = [f.acquire("a").unwrap(), g.acquire("a").unwrap()];
    let short = refused(f.acquire("b"));
    assert_eq!(short.budget, Budget::Instances);
    assert_eq!((short.requested, short.limit, short.charged), (1, 2, 2));
    assert_eq!(short.evictable, 0);
    assert_eq!(short.holders.len(), 2);
    let holder = &short.holders[0];
    assert_eq!((holder.group.clone(), holder.leased), (Some("a".into()), 1));
    assert!(short.to_string().contains("1 instances"), "{short}");
    drop(leases);
    f.call("b", ()).unwrap();
    let stats = check(&pool);
    assert_eq!((stats.idle, stats.evictions), (2, 1));
    pool.close();
    check_empty(&pool);
}

#[test]
fn c_b9_who_asks_to_waits_for_the_end_of_any_lease() {
    let pool = builder(Limits::new().instances(1))
        .wait_for_room(true)
        .build()
        .unwrap();
    let [f, g] = functions(&pool);
    let lease = f.acquire("a").unwrap();
    thread::scope(|scope| {
        let waits = scope.spawn(|| g.call("b", ()).unwrap());
        while check(&pool).waiting == 0 {
            thread::yield_now();
        }
        drop(lease);
        waits.join().unwrap();
    });
    let stats = check(&pool);
    assert_eq!(stats.budget(Budget::Instances).peak, 1);
}

#[test]
fn c_b9_some_can_be_reserved_for_a_group() {
    let pool = pool(Limits::new().instances(2));
    let [f, g, h] = functions(&pool);
    pool.set_group("quiet", Share::new().reserve(Budget::Instances, 1))
        .unwrap();
    f.call("quiet", ()).unwrap();
    for _ in 0..3 {
        g.call("loud", ()).unwrap();
        h.call("loud", ()).unwrap();
    }
    assert_eq!(f.acquire("quiet").unwrap().uses(), 2);
    assert_eq!(check(&pool).budget(Budget::Instances).peak, 2);
}
