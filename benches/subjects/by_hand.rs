//! What a host would write itself: wasmtime, and a container of the standard kind.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use crossbeam_queue::ArrayQueue;
use crossbeam_utils::atomic::AtomicCell;
use parking_lot::Mutex;
use wasmtime::{Config, Engine, Instance, Module, Store, TypedFunc};

use super::ADD;

/// An instance of the guest, held by hand.
pub struct Held {
    store: Store<()>,
    add: TypedFunc<(i64, i64), i64>,
}

/// Calls may be interrupted by the epoch, as the pool's are.
pub fn engine() -> Engine {
    let mut config = Config::new();
    config.epoch_interruption(true);
    Engine::new(&config).expect("a plain engine")
}

impl Held {
    pub fn new(engine: &Engine, module: &Module) -> Self {
        let mut store = Store::new(engine, ());
        store.set_epoch_deadline(1 << 40);
        let instance = Instance::new(&mut store, module, &[]).expect("the guest imports nothing");
        let add = instance.get_typed_func(&mut store, "add").expect("add");
        Self { store, add }
    }

    /// The call and nothing else.
    #[inline]
    pub fn bare(&mut self, a: i64, b: i64) -> i64 {
        self.add.call(&mut self.store, (a, b)).expect("adds")
    }

    /// The call with its deadline set afresh, as a pool must.
    #[inline]
    pub fn call(&mut self, a: i64, b: i64) -> i64 {
        self.store.set_epoch_deadline(100);
        self.bare(a, b)
    }
}

/// `count` instances of one module.
pub fn instances(count: usize) -> impl Iterator<Item = Held> {
    let engine = engine();
    let module = Module::new(&engine, ADD).expect("the guest compiles");
    (0..count).map(move |_| Held::new(&engine, &module))
}

/// One instance.
pub fn instance() -> Held {
    instances(1).next().expect("one")
}

pub struct MutexVec(Mutex<Vec<Held>>);

impl MutexVec {
    pub fn new(count: usize) -> Self {
        Self(Mutex::new(instances(count).collect()))
    }

    #[inline]
    pub fn call(&self, a: i64, b: i64) -> i64 {
        let mut held = self.0.lock().pop().expect("one for each thread");
        let sum = held.call(a, b);
        self.0.lock().push(held);
        sum
    }
}

pub struct Queue(ArrayQueue<Box<Held>>);

impl Queue {
    pub fn new(count: usize) -> Self {
        let queue = ArrayQueue::new(count);
        for held in instances(count) {
            assert!(queue.push(Box::new(held)).is_ok());
        }
        Self(queue)
    }

    #[inline]
    pub fn call(&self, a: i64, b: i64) -> i64 {
        let mut held = self.0.pop().expect("one for each thread");
        let sum = held.call(a, b);
        assert!(self.0.push(held).is_ok());
        sum
    }
}

/// The least that any pool between threads does: take an instance out of one place by an atomic
/// exchange, and put it back by another. No key, no budget, no recency, nobody can wait.
pub struct Swap(AtomicCell<Option<Box<Held>>>);

impl Swap {
    pub fn new() -> Self {
        Self(AtomicCell::new(Some(Box::new(instance()))))
    }

    #[inline]
    pub fn call(&self, a: i64, b: i64) -> i64 {
        let mut held = self.0.take().expect("nobody else takes it");
        let sum = held.call(a, b);
        self.0.store(Some(held));
        sum
    }
}

type Key = (&'static str, u64);

pub struct LockedMap(RwLock<HashMap<Key, Arc<Mutex<Held>>>>);

impl LockedMap {
    pub fn new(keys: impl IntoIterator<Item = Key>) -> Self {
        let keys: Vec<_> = keys.into_iter().collect();
        let held = instances(keys.len()).map(|held| Arc::new(Mutex::new(held)));
        Self(RwLock::new(keys.into_iter().zip(held).collect()))
    }

    #[inline]
    pub fn call(&self, key: Key, a: i64, b: i64) -> i64 {
        let held = self.0.read().expect("nobody panics")[&key].clone();
        let mut held = held.lock();
        held.call(a, b)
    }
}
