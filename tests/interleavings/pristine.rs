//! Instances that are leased once: what their leases leave to a recycler that may be late, or never come.

use shuttle::thread;

use crate::explore::explore;
use crate::world::{FOR_EVER, Guest, Leased, Mark, World, definition, room_for, room_within};
use crate::{PoolBuilder, Reuse};

fn world(seats: usize, set: impl FnOnce(PoolBuilder<Mark>) -> PoolBuilder<Mark>) -> World {
    let world = World::new(seats, |builder| set(builder.reuse(Reuse::Pristine)));
    world.pool.recycle_by_hand();
    world
}

/// Nobody has used its instance before.
fn serve(world: &World, mut lease: Leased<'_>, group: u64) {
    let mark = lease.data_mut();
    assert!(!mark.late, "somebody has used it");
    mark.late = true;
    world.serve(lease, group);
}

fn leases(world: &World, f: &Guest, count: usize) {
    for _ in 0..count {
        serve(world, f.acquire(1).unwrap(), 1);
    }
}

/// What is left of a pool whose leases have ended.
fn finish(world: &World) {
    world.pool.recount().unwrap();
    world.close();
    let stats = world.pool.stats();
    assert_eq!((stats.leased, stats.dying, stats.idle), (0, 0, 0));
}

/// A recycler that is held up for ever.
#[test]
fn who_waits_for_an_instance_needs_no_recycler() {
    explore(|| {
        let world = world(1, |builder| builder);
        let f = world.define("f", 1);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| leases(&world, &f, 2));
            }
        });
        finish(&world);
    });
}

#[test]
fn who_waits_for_room_needs_no_recycler() {
    explore(|| {
        let world = world(2, |builder| builder.limits(room_for(1)));
        let all = [("f", 1), ("g", 2)].map(|(name, version)| world.define(name, version));
        thread::scope(|scope| {
            for f in &all {
                let world = &world;
                scope.spawn(move || {
                    for _ in 0..2 {
                        let lease = f.acquire_with(1, room_within(FOR_EVER)).unwrap();
                        serve(world, lease, 1);
                    }
                });
            }
        });
        finish(&world);
    });
}

#[test]
fn spares_are_made_and_leased_once_beside_leases() {
    explore(|| {
        let world = world(2, |builder| builder.limits(room_for(2)));
        let f = world.define("f", 1);
        thread::scope(|scope| {
            scope.spawn(|| (0..3).for_each(|_| world.pool.recycle()));
            for _ in 0..2 {
                scope.spawn(|| leases(&world, &f, 2));
            }
        });
        world.pool.recycle();
        finish(&world);
    });
}

#[test]
fn a_function_is_replaced_beside_its_spares() {
    explore(|| {
        let world = world(2, |builder| builder);
        let f = world.define("f", 1);
        leases(&world, &f, 1);
        thread::scope(|scope| {
            scope.spawn(|| (0..2).for_each(|_| world.pool.recycle()));
            scope.spawn(|| leases(&world, &f, 2));
            scope.spawn(|| {
                let new = definition("f", 2);
                world.pool.replace::<i32, i32>(new).unwrap();
                let mut lease = f.acquire(1).unwrap();
                assert_eq!(lease.call(0).unwrap(), 2, "C-N2");
            });
        });
        world.pool.recycle();
        finish(&world);
    });
}

#[test]
fn a_pool_is_closed_beside_what_is_left_to_the_recycler() {
    explore(|| {
        let world = world(2, |builder| builder);
        let f = world.define("f", 1);
        leases(&world, &f, 1);
        thread::scope(|scope| {
            scope.spawn(|| world.pool.recycle());
            scope.spawn(|| {
                if let Ok(lease) = f.acquire(1) {
                    serve(&world, lease, 1);
                }
            });
            scope.spawn(|| assert!(world.pool.close_and_drain(FOR_EVER)));
        });
        finish(&world);
    });
}

/// Whoever waits until a function's leases have ended hears of it without a recycler.
#[test]
fn a_function_is_removed_beside_the_end_of_its_lease() {
    explore(|| {
        let world = world(2, |builder| builder);
        let f = world.define("f", 1);
        let lease = f.acquire(1).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| drop(lease));
            scope.spawn(|| {
                let stopped = world.pool.remove_and_cancel("f", FOR_EVER);
                assert_eq!(stopped.unwrap(), 0);
            });
        });
        finish(&world);
    });
}
