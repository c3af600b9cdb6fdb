//! Slots belong to threads (here after one lease), and are taken back in the middle of everything else.

use std::sync::atomic::{AtomicBool, Ordering};

use shuttle::thread;

use crate::explore::{assert_fails, explore};
use crate::store_buffers::Mutation;
use crate::world::{FOR_EVER, World, definition, room_for, room_within};

/// Schedules within which a protocol that is not right fails.
const ENOUGH: usize = 2_000;

/// One thread leases again and again, and owns the slot; another wants the instance, and sleeps for it.
fn an_owner_and_who_waits() {
    let world = World::new(1, |builder| builder);
    let f = world.define("f", 1);
    world.serve(f.acquire(1).unwrap(), 1);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..3 {
                world.serve(f.acquire(1).unwrap(), 1);
            }
        });
        scope.spawn(|| world.serve(f.acquire(1).unwrap(), 1));
    });
    world.finish(1);
}

#[test]
fn who_waits_for_an_owner_is_served() {
    explore(an_owner_and_who_waits);
}

#[test]
fn without_the_heavy_fence_it_fails() {
    assert_fails(an_owner_and_who_waits, Mutation::NoHeavyFence, ENOUGH);
}

#[test]
fn with_the_accesses_of_the_owner_exchanged_it_fails() {
    assert_fails(an_owner_and_who_waits, Mutation::NoLightFence, ENOUGH);
}

/// Room for one instance: whoever needs it evicts what another thread owns, or sleeps until its lease ends.
#[test]
fn what_others_own_is_evicted() {
    explore(|| {
        let world = World::new(1, |builder| builder.limits(room_for(1)));
        let f = world.define("f", 1);
        thread::scope(|scope| {
            for group in [1, 2] {
                let (world, f) = (&world, &f);
                scope.spawn(move || {
                    for _ in 0..3 {
                        let lease = f.acquire_with(group, room_within(FOR_EVER)).unwrap();
                        world.serve(lease, group);
                    }
                });
            }
        });
        world.finish(1);
    });
}

/// An instance is idle whenever nobody leases it, whoever owns its slot.
#[test]
fn nobody_is_refused_what_is_idle() {
    explore(|| {
        let world = World::new(2, |builder| builder);
        let f = world.define("f", 1);
        let owner = |f: &crate::world::Guest, world: &World| {
            for _ in 0..3 {
                world.serve(f.acquire(1).unwrap(), 1);
            }
        };
        // The thread that owns it has ended.
        thread::scope(|scope| _ = scope.spawn(|| owner(&f, &world)));
        assert_eq!(world.pool.stats().idle, 1);
        world.serve(f.try_acquire(1).unwrap(), 1);
        assert_eq!(world.pool.stats().idle, 1);
        // It goes on while others take what it owns, and sweeps take that back.
        thread::scope(|scope| {
            scope.spawn(|| owner(&f, &world));
            scope.spawn(|| world.serve(f.try_acquire(1).unwrap(), 1));
            world.pool.sweep();
            world.pool.sweep();
        });
        world.finish(world.pool.stats().idle as u64);
    });
}

/// A lease that ends on another thread, beside its owner's place.
#[test]
fn leases_end_where_nobody_owns_their_slot() {
    explore(|| {
        let world = World::new(1, |builder| builder);
        let f = world.define("f", 1);
        for _ in 0..2 {
            world.serve(f.acquire(1).unwrap(), 1);
        }
        let lease = f.acquire(1).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| world.serve(lease, 1));
            scope.spawn(|| world.serve(f.acquire(1).unwrap(), 1));
            world.serve(f.acquire(1).unwrap(), 1);
        });
        world.finish(1);
    });
}

/// The first in the queue is served first, whatever the owner does meanwhile.
#[test]
fn an_owner_passes_nobody_who_waits() {
    explore(|| {
        let world = World::new(1, |builder| builder);
        let f = world.define("f", 1);
        for _ in 0..2 {
            world.serve(f.acquire(1).unwrap(), 1);
        }
        let lease = f.acquire(1).unwrap();
        let served = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let lease = f.acquire(1).unwrap();
                served.store(true, Ordering::Relaxed);
                world.serve(lease, 1);
            });
            world.await_waiters(1);
            drop(lease);
            let lease = f.acquire(1).unwrap();
            assert!(served.load(Ordering::Relaxed), "overtaken");
            world.serve(lease, 1);
        });
        world.finish(1);
    });
}

/// Once `replace` has returned, nobody leases the old version, though its owner puts it back just then.
#[test]
fn what_a_thread_owns_is_replaced() {
    explore(|| {
        let world = World::new(1, |builder| builder);
        let f = world.define("f", 1);
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..4 {
                    let late = world.is_over();
                    let version = world.serve(f.acquire(1).unwrap(), 1);
                    assert!(version == 2 || !late, "an old version");
                }
            });
            drop(world.pool.replace::<i32, i32>(definition("f", 2)).unwrap());
            world.turn_over();
            assert_eq!(world.serve(f.acquire(1).unwrap(), 1), 2);
        });
        let stats = world.pool.stats();
        assert_eq!((stats.modules_loaded, stats.modules_known), (1, 1));
        world.finish(stats.idle as u64);
    });
}
