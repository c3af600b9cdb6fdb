//! Crates that pool objects of any kind, with a guard that gives the object back.

use lockfree_object_pool::LinearObjectPool;

use crate::guest::{Guest, Workshop};
use crate::measure::Peer;
use crate::peers::INSTANCES;
use crate::workers::Seat;

/// `object-pool`: a mutex and a `Vec` inside.
pub struct ObjectPool(object_pool::Pool<Guest>, Workshop);

/// `lockfree-object-pool`, its linear pool. It makes 32 objects at once.
pub struct Lockfree(LinearObjectPool<Guest>);

/// `opool`: a lock-free queue inside.
pub struct Opool(opool::Pool<Workshop, Guest>);

impl ObjectPool {
    pub fn new(workshop: &Workshop) -> Self {
        let pool = object_pool::Pool::new(INSTANCES, || workshop.make());
        Self(pool, workshop.clone())
    }
}

impl Lockfree {
    pub fn new(workshop: &Workshop) -> Self {
        let workshop = workshop.clone();
        // Its hook runs when an instance is given back: a deadline set there could pass before the
        // next check-out.
        Self(LinearObjectPool::new(move || workshop.make(), |_| ()))
    }
}

impl Opool {
    pub fn new(workshop: &Workshop) -> Self {
        Self(opool::Pool::new_prefilled(INSTANCES, workshop.clone()))
    }
}

impl opool::PoolAllocator<Guest> for Workshop {
    #[inline]
    fn allocate(&self) -> Guest {
        self.make()
    }

    #[inline]
    fn reset(&self, guest: &mut Guest) {
        guest.refresh();
    }
}

impl Peer for ObjectPool {
    type Hand = ();

    fn hand(&self, _: &Seat, _: u64) {}

    #[inline]
    fn call(&self, (): &mut (), a: i64, b: i64) -> i64 {
        self.0.pull(|| self.1.make()).add_afresh(a, b)
    }
}

impl Peer for Lockfree {
    type Hand = ();

    fn hand(&self, _: &Seat, _: u64) {}

    #[inline]
    fn call(&self, (): &mut (), a: i64, b: i64) -> i64 {
        self.0.pull().add_afresh(a, b)
    }
}

impl Peer for Opool {
    type Hand = ();

    fn hand(&self, _: &Seat, _: u64) {}

    #[inline]
    fn call(&self, (): &mut (), a: i64, b: i64) -> i64 {
        self.0.get().add(a, b)
    }
}
