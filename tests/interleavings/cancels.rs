//! Leases are told to stop by who does not hold them, in the middle of everything else.

use shuttle::thread;

use crate::explore::explore;
use crate::world::{Guest, World};
use crate::{AcquireError, CallError};

/// Leases, and calls: cancelled, unless the lease has begun when the cancelling was over.
fn serve_or_be_cancelled(world: &World, f: &Guest) {
    let later = world.is_over();
    let mut lease = f.acquire(1).unwrap();
    world.begin(&mut lease, 1);
    match lease.call(0) {
        Ok(_) => world.end(lease),
        Err(CallError::Cancelled { .. }) if !later => {
            world.taint(&lease);
            drop(lease);
        }
        Err(error) => panic!("{error}, later: {later}"),
    }
}

fn cancel_meanwhile(seats: usize, evicts: bool) {
    let world = World::new(seats, |builder| builder);
    let f = world.define("f", 1);
    world.serve(f.acquire(1).unwrap(), 1);
    let mut held = f.acquire(1).unwrap();
    world.begin(&mut held, 1);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..2 {
                serve_or_be_cancelled(&world, &f);
            }
        });
        if evicts {
            scope.spawn(|| world.pool.retain(|_| false));
        }
        assert!(world.pool.cancel_group(1) >= 1);
        world.turn_over();
        assert!(matches!(held.call(0), Err(CallError::Cancelled { .. })));
        world.taint(&held);
        drop(held);
        world.serve(f.acquire(1).unwrap(), 1);
    });
    let left = world.pool.stats().idle as u64;
    assert!(left <= seats as u64);
    world.serve(f.acquire(1).unwrap(), 1);
    world.check(left.max(1));
    world.close();
}

#[test]
fn who_waits_for_a_lease_that_is_cancelled_is_not_meant() {
    explore(|| cancel_meanwhile(1, false));
}

#[test]
fn leases_that_begin_later_are_not_meant_whatever_their_slots_have_seen() {
    explore(|| cancel_meanwhile(2, false));
}

#[test]
fn nor_are_those_of_instances_that_are_made_where_others_were_evicted() {
    explore(|| cancel_meanwhile(2, true));
}

/// The lease ends by itself at the moment at which it is told to stop.
#[test]
fn a_removal_that_cancels_ends_whatever_comes_first() {
    explore(|| {
        let world = World::new(1, |builder| builder);
        let f = world.define("f", 1);
        let mut lease = f.acquire(1).unwrap();
        world.begin(&mut lease, 1);
        thread::scope(|scope| {
            scope.spawn(|| match lease.call(0) {
                Ok(_) => world.end(lease),
                Err(CallError::Cancelled { .. }) => drop(lease),
                Err(error) => panic!("{error}"),
            });
            let cancelled = world.pool.remove_and_cancel("f", std::time::Duration::ZERO);
            assert!(cancelled.unwrap() <= 1);
            assert!(matches!(f.acquire(1), Err(AcquireError::Removed { .. })));
        });
        world.check(0);
        world.close();
    });
}
