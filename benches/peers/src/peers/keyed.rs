//! One instance for each (function, group) in a shared map or cache, each behind its own mutex:
//! two threads of one group wait for each other.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, RwLock};

use crate::guest::{Guest, Workshop};
use crate::measure::Peer;
use crate::workers::Seat;

type Shared = Arc<parking_lot::Mutex<Guest>>;

/// Function and group, both numbers: what costs a cache least.
type Key = (u64, u64);

/// Function and group, as one would write it.
type Name = (&'static str, u64);

const ADD: u64 = 1;

/// The standard library's map and locks, by name and group.
pub struct Map(RwLock<HashMap<Name, Arc<Mutex<Guest>>>>, Workshop);

/// moka's synchronous cache.
pub struct Moka(moka::sync::Cache<Key, Shared>, Workshop);

/// quick_cache's synchronous cache.
pub struct QuickCache(quick_cache::sync::Cache<Key, Shared>, Workshop);

fn shared(workshop: &Workshop) -> Shared {
    Arc::new(parking_lot::Mutex::new(workshop.make()))
}

impl Map {
    pub fn new(workshop: &Workshop) -> Self {
        Self(RwLock::default(), workshop.clone())
    }

    #[cold]
    fn insert(&self, key: Name) -> Arc<Mutex<Guest>> {
        let mut map = self.0.write().expect("nobody panics");
        let make = || Arc::new(Mutex::new(self.1.make()));
        map.entry(key).or_insert_with(make).clone()
    }
}

impl Moka {
    pub fn new(workshop: &Workshop) -> Self {
        Self(moka::sync::Cache::new(1_000), workshop.clone())
    }
}

impl QuickCache {
    pub fn new(workshop: &Workshop) -> Self {
        Self(quick_cache::sync::Cache::new(1_000), workshop.clone())
    }
}

impl Peer for Map {
    type Hand = u64;

    fn hand(&self, _: &Seat, group: u64) -> u64 {
        group
    }

    #[inline]
    fn call(&self, group: &mut u64, a: i64, b: i64) -> i64 {
        let key = ("math.add", *group);
        let map = self.0.read().expect("nobody panics");
        let found = map.get(&key).cloned();
        drop(map);
        let guest = found.unwrap_or_else(|| self.insert(key));
        guest.lock().expect("nobody panics").add_afresh(a, b)
    }
}

impl Peer for Moka {
    type Hand = u64;

    fn hand(&self, _: &Seat, group: u64) -> u64 {
        group
    }

    #[inline]
    fn call(&self, group: &mut u64, a: i64, b: i64) -> i64 {
        let guest = self.0.get_with((ADD, *group), || shared(&self.1));
        guest.lock().add_afresh(a, b)
    }
}

impl Peer for QuickCache {
    type Hand = u64;

    fn hand(&self, _: &Seat, group: u64) -> u64 {
        group
    }

    #[inline]
    fn call(&self, group: &mut u64, a: i64, b: i64) -> i64 {
        let make = || Ok::<_, std::convert::Infallible>(shared(&self.1));
        let guest = self.0.get_or_insert_with(&(ADD, *group), make);
        guest.expect("it cannot fail").lock().add_afresh(a, b)
    }
}
