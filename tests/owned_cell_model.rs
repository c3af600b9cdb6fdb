//! `src/pool/hot/owned_cell.rs` alone, under the model checker, with store buffers; and the proof that this can
//! fail: without the heavy fence, or with the owner's two accesses exchanged, it does, within so many schedules.
#![allow(
    dead_code,
    unused_imports,
    missing_docs,
    reason = "it includes the library's sources, and uses some of them"
)]

#[path = "interleavings/explore.rs"]
mod explore;
#[path = "owned_cell/slot.rs"]
mod slot;
#[path = "interleavings/store_buffers.rs"]
mod store_buffers;
#[path = "interleavings/sync.rs"]
mod sync;
#[path = "../src/pool"]
mod pool {
    pub mod hot {
        pub mod owned_cell;
        pub mod thread;
    }
}
/// Nothing has to be compiled.
mod world {
    pub fn prepare() {}
}

use std::sync::Arc;

use explore::{assert_fails, exhaust, explore};
use shuttle::thread;
use slot::Slot;
use store_buffers::Mutation;

/// Schedules within which a protocol that is not right fails.
const ENOUGH: usize = 2_000;

/// One thread leases, and comes to own the slot; another asks for the end of a lease.
fn an_owner_and_who_asks() {
    let slot = Slot::new();
    thread::scope(|scope| {
        scope.spawn(|| (0..4).for_each(|_| slot.lease(true)));
        scope.spawn(|| slot.ask_and_wait());
    });
    slot.finish();
}

/// Two threads own it by turns, while one asks.
fn owners_and_who_asks() {
    let slot = Slot::new();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (0..3).for_each(|_| slot.lease(true)));
        }
        scope.spawn(|| (0..2).for_each(|_| slot.ask_and_wait()));
    });
    slot.finish();
}

#[test]
fn every_end_is_reported() {
    explore(an_owner_and_who_asks);
}

#[test]
fn it_changes_hands() {
    explore(owners_and_who_asks);
}

/// Also when nothing is delayed.
#[test]
fn in_every_order() {
    exhaust(|| {
        let slot = Slot::new();
        slot.lease(true);
        thread::scope(|scope| {
            scope.spawn(|| slot.lease(true));
            slot.ask();
        });
        slot.finish();
    });
}

#[test]
fn without_the_heavy_fence_it_fails() {
    assert_fails(an_owner_and_who_asks, Mutation::NoHeavyFence, ENOUGH);
}

#[test]
fn with_the_accesses_of_the_owner_exchanged_it_fails() {
    assert_fails(an_owner_and_who_asks, Mutation::NoLightFence, ENOUGH);
}
