//! Instances of plain wasmtime, kept by a map or a cache.

use std::sync::Arc;

use parking_lot::Mutex;
use wasmtime::{Engine, Instance, Module, Store, TypedFunc};

use super::fillers::{FILL, Filler};

/// An instance as a value of a cache, with the bytes that it is weighed as.
#[derive(Clone)]
pub struct Entry {
    guest: Arc<Mutex<Guest>>,
    pub bytes: u32,
}

type Guest = (Store<()>, TypedFunc<i64, i64>);

/// A map or cache of instances by group.
pub trait Keep: Sync {
    fn find(&self, group: u64) -> Option<Entry>;
    fn put(&self, group: u64, entry: Entry);
    fn take_out(&self, group: u64);

    /// Does the evictions that were put off.
    fn catch_up(&self) {}
}

/// A map or cache as a contender.
pub struct Cached<K> {
    kept: K,
    module: Module,
}

impl<K> Cached<K> {
    pub fn new(kept: K) -> Self {
        let wasm = wat::parse_str(FILL).expect("well-formed");
        let module = Module::new(&Engine::default(), wasm).expect("it compiles");
        Self { kept, module }
    }

    fn make(&self) -> Entry {
        let mut store = Store::new(self.module.engine(), ());
        let instance = Instance::new(&mut store, &self.module, &[]).expect("no imports");
        let fill = instance.get_typed_func(&mut store, "fill");
        let fill = fill.expect("the guest exports it");
        Entry {
            guest: Arc::new(Mutex::new((store, fill))),
            bytes: 65_536,
        }
    }
}

impl<K: Keep> Filler for Cached<K> {
    /// As careful as it can be with a cache: what has grown is put back with its new weight.
    fn fill(&self, group: u64, pages: i64, hold: &dyn Fn()) -> bool {
        let mut entry = self.kept.find(group).unwrap_or_else(|| {
            let made = self.make();
            self.kept.put(group, made.clone());
            made
        });
        let bytes = {
            let (store, fill) = &mut *entry.guest.lock();
            fill.call(store, pages).expect("no trap")
        };
        if let Ok(bytes) = u32::try_from(bytes) {
            entry.bytes = bytes;
            self.kept.put(group, entry.clone());
        }
        hold();
        bytes > 0
    }

    fn forget(&self, group: u64) {
        self.kept.take_out(group);
    }

    fn settle(&self) {
        self.kept.catch_up();
    }
}
