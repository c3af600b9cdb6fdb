//! wasm-pool itself, by a handle resolved once and by (function, group) each time.

use wasm_pool::{Definition, Function, InGroup, Pool};

use crate::guest::ADD;
use crate::measure::Peer;
use crate::workers::Seat;

type Add = Function<(i64, i64), i64>;

/// `Function::in_group` once, then `InGroup::call`.
pub struct Resolved(Add);

/// `Function::call` with the group.
pub struct Keyed(Add);

/// A pool with all defaults: 30 s for a call, a housekeeper that ticks every 10 ms.
fn define() -> Add {
    let pool = Pool::builder().build().expect("the pool is plain");
    pool.define(Definition::new("math.add").wasm(ADD))
        .expect("the guest is good")
}

/// All threads hold a lease at once, so that there is an instance for each.
fn warm(add: &Add, seat: &Seat, group: u64) {
    let lease = add.acquire(group).expect("there is room");
    seat.together.wait();
    drop(lease);
}

impl Resolved {
    pub fn new() -> Self {
        Self(define())
    }
}

impl Keyed {
    pub fn new() -> Self {
        Self(define())
    }
}

impl Peer for Resolved {
    type Hand = InGroup<(i64, i64), i64>;

    fn hand(&self, seat: &Seat, group: u64) -> Self::Hand {
        warm(&self.0, seat, group);
        self.0.in_group(group)
    }

    #[inline]
    fn call(&self, add: &mut Self::Hand, a: i64, b: i64) -> i64 {
        add.call((a, b)).expect("it adds")
    }
}

impl Peer for Keyed {
    type Hand = u64;

    fn hand(&self, seat: &Seat, group: u64) -> u64 {
        warm(&self.0, seat, group);
        group
    }

    #[inline]
    fn call(&self, group: &mut u64, a: i64, b: i64) -> i64 {
        self.0.call(*group, (a, b)).expect("it adds")
    }
}
