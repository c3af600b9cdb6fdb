//! Groups as calls name them: by number, by name, by a [`Group`], by a key made once, by a type of the host's.

use std::sync::Arc;

use pollster::block_on;
use wasm_pool::{AsGroup, Group, GroupKey};

use crate::common::{answering, check, define, quiet};

/// Of every length that is kept in place, and of some that are not.
fn names() -> impl Iterator<Item = String> {
    (0..40).map(|len| "abcdefghij".chars().cycle().take(len).collect())
}

#[test]
fn a_key_finds_what_its_name_finds() {
    let pool = quiet().build().unwrap();
    let f = define(&pool, "f", answering(3));
    for (number, name) in (1..).zip(names()) {
        let key = pool.group(&name);
        f.call(&name, ()).unwrap();
        for _ in 0..3 {
            let lease = f.acquire(key).unwrap();
            assert_eq!(lease.group(), &Group::from(&name));
            drop(lease);
            f.call(name.as_str(), ()).unwrap();
            f.call(name.clone(), ()).unwrap();
            f.call(Arc::<str>::from(&*name), ()).unwrap();
            let group = Group::from(&name);
            f.call(&group, ()).unwrap();
            f.call(group, ()).unwrap();
            f.call(pool.group(&Group::from(&name)), ()).unwrap();
            f.in_group(key).call(()).unwrap();
            block_on(f.call_async(key, ())).unwrap();
            drop(block_on(f.acquire_async(&name)).unwrap());
        }
        assert_eq!(check(&pool).misses, number, "{name:?}");
    }
}

#[test]
fn a_key_of_a_number_is_none_of_its_digits() {
    let pool = quiet().build().unwrap();
    let f = define(&pool, "f", answering(3));
    for key in [pool.group(7), pool.group("7")] {
        for _ in 0..3 {
            let lease = f.acquire(key).unwrap();
            assert_eq!(lease.group(), &key.to_group());
        }
    }
    f.call(7, ()).unwrap();
    f.call("7", ()).unwrap();
    assert_eq!(check(&pool).misses, 2);
    assert_ne!(pool.group(7), pool.group("7"));
    assert_eq!(pool.group("7"), GroupKey::from(&Group::from("7")));
    assert_eq!(format!("{:?}", pool.group("7")), r#"GroupKey(Group("7"))"#);
}

/// A key is of no pool: so none can be of the wrong one.
#[test]
fn a_key_names_the_same_group_in_every_pool() {
    let (first, second) = (quiet().build().unwrap(), quiet().build().unwrap());
    let here = define(&first, "f", answering(1));
    let there = define(&second, "f", answering(2));
    let long = "the longest name of a group that anybody has seen so far";
    let keys = [first.group("reports"), first.group(long), first.group(1)];
    drop(first);
    for _ in 0..3 {
        for key in keys {
            let lease = there.acquire(key).unwrap();
            assert_eq!(lease.group(), &key.to_group());
            drop(lease);
            assert_eq!(there.call(key, ()).unwrap(), 2);
            assert_eq!(here.call(key, ()).unwrap(), 1);
        }
    }
    let groups = second.stats().functions[0].clone();
    assert_eq!(groups.idle, keys.len());
}

#[test]
fn a_key_outlives_what_a_pool_forgets_and_replaces() {
    let pool = quiet().build().unwrap();
    let f = define(&pool, "f", answering(1));
    let key = pool.group("reports");
    assert_eq!(f.call(key, ()).unwrap(), 1);
    pool.retain(|_| false);
    // Entries that nothing uses are forgotten, when there are more than a thousand.
    for other in 0..2000_u64 {
        drop(f.in_group(other));
    }
    assert_eq!(f.call(key, ()).unwrap(), 1);
    let replaced = crate::common::definition("f", answering(2));
    let _new: wasm_pool::Function<(), i32> = pool.replace(replaced).unwrap();
    assert_eq!(f.call(key, ()).unwrap(), 2);
    check(&pool);
}

/// Sent, copied, and shared; and as small as is said.
#[test]
fn a_key_is_a_small_plain_value() {
    fn plain<X: Copy + Send + Sync>(_: X) {}
    let pool = quiet().build().unwrap();
    plain(pool.group("reports"));
    assert_eq!(size_of::<GroupKey<'_>>(), 40);
    let f = define(&pool, "f", answering(3));
    for name in names() {
        let detached = pool.group(&name).detached();
        assert_eq!(detached.is_some(), name.len() <= 22, "{name:?}");
        let group = Group::from(&name);
        // Nobody has the text any more.
        drop(name);
        if let Some(key) = detached {
            assert_eq!(f.acquire(key).unwrap().group(), &group);
        }
    }
    assert_eq!(pool.group(7).detached(), Some(GroupKey::from(7)));
}

/// A host's own type.
struct Tenant {
    name: String,
}

impl AsGroup for &Tenant {
    fn key(&self) -> GroupKey<'_> {
        GroupKey::from(&self.name)
    }
}

#[test]
fn a_type_of_the_hosts_names_a_group() {
    let pool = quiet().build().unwrap();
    let f = define(&pool, "f", answering(3));
    let tenant = Tenant {
        name: "reports".into(),
    };
    for _ in 0..3 {
        assert_eq!(f.call(&tenant, ()).unwrap(), 3);
        assert_eq!(block_on(f.call_async(&tenant, ())).unwrap(), 3);
    }
    assert_eq!(f.acquire("reports").unwrap().uses(), 7);
}
