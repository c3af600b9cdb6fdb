//! Plain wasmtime: a held instance, and a new one for each call.

use crate::guest::{Guest, Workshop};
use crate::measure::Peer;
use crate::workers::Seat;

/// The baseline: each thread holds an instance of its own and calls it. Nothing is acquired.
pub struct Bare(pub Workshop);

/// A new store and instance for each call, dropped after it.
pub struct Fresh(pub Workshop);

impl Peer for Bare {
    type Hand = Guest;

    fn hand(&self, _: &Seat, _: u64) -> Guest {
        self.0.make().without_deadline()
    }

    #[inline]
    fn call(&self, guest: &mut Guest, a: i64, b: i64) -> i64 {
        guest.add(a, b)
    }
}

impl Peer for Fresh {
    type Hand = ();

    fn hand(&self, _: &Seat, _: u64) {}

    #[inline]
    fn call(&self, (): &mut (), a: i64, b: i64) -> i64 {
        self.0.make().add(a, b)
    }
}
