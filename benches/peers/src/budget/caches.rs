//! A map, and caches that weigh instances by their memory.

use std::collections::HashMap;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use super::cached::{Entry, Keep};
use super::{BUDGET, INSTANCES};

pub type Map = Mutex<HashMap<u64, Entry>>;
pub type Moka = moka::sync::Cache<u64, Entry>;
pub type QuickCache = quick_cache::sync::Cache<u64, Entry, ByBytes>;

pub fn map() -> Map {
    Mutex::default()
}

pub fn moka() -> Moka {
    let weigher = |_: &u64, entry: &Entry| entry.bytes;
    let cache = moka::sync::Cache::builder().weigher(weigher);
    cache.max_capacity(BUDGET).build()
}

#[derive(Clone)]
pub struct ByBytes;

impl quick_cache::Weighter<u64, Entry> for ByBytes {
    fn weight(&self, _: &u64, entry: &Entry) -> u64 {
        entry.bytes.into()
    }
}

/// Its shards share the budget out among them, and take nothing larger than their share.
pub fn quick_cache() -> QuickCache {
    QuickCache::with_weighter(INSTANCES, BUDGET, ByBytes)
}

impl Keep for Map {
    fn find(&self, group: u64) -> Option<Entry> {
        self.lock().get(&group).cloned()
    }

    fn put(&self, group: u64, entry: Entry) {
        self.lock().insert(group, entry);
    }

    fn take_out(&self, group: u64) {
        self.lock().remove(&group);
    }
}

impl Keep for Moka {
    fn find(&self, group: u64) -> Option<Entry> {
        self.get(&group)
    }

    fn put(&self, group: u64, entry: Entry) {
        self.insert(group, entry);
    }

    fn take_out(&self, group: u64) {
        self.invalidate(&group);
    }

    /// What it evicts it frees later, in the course of further uses.
    fn catch_up(&self) {
        for missing in 1_000..1_100 {
            self.run_pending_tasks();
            self.get(&missing);
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Keep for QuickCache {
    fn find(&self, group: u64) -> Option<Entry> {
        self.get(&group)
    }

    fn put(&self, group: u64, entry: Entry) {
        self.insert(group, entry);
    }

    fn take_out(&self, group: u64) {
        self.remove(&group);
    }
}
