//! A group with fewer instances than its functions could have: whoever waits for one is served by whatever lease of the
//! group ends, warm ends without the lock included.

use shuttle::thread;

use crate::explore::explore;
use crate::world::{Guest, World};
use crate::{AcquireError, GroupLimit, Reuse, Share};

const GROUP: u64 = 1;

fn world(instances: u32) -> (World, [Guest; 3]) {
    let world = World::new(2, |builder| builder);
    let functions = ["f", "g", "h"].map(|name| world.define(name, 1));
    limit(&world, instances);
    (world, functions)
}

fn limit(world: &World, instances: u32) {
    let share = Share::new().max_instances(instances);
    world.pool.set_group(GROUP, share).unwrap();
}

fn within(world: &World, instances: usize) {
    assert!(world.pool.stats().groups[0].instances <= instances);
}

/// Each thread leases another function, again and again, and waits for ever: a lost wake-up is a deadlock.
#[test]
fn one_instance_goes_around_among_functions() {
    explore(|| {
        let (world, functions) = world(1);
        thread::scope(|scope| {
            for f in &functions {
                let world = &world;
                scope.spawn(move || {
                    for _ in 0..2 {
                        world.serve(f.acquire(GROUP).unwrap(), GROUP);
                        within(world, 1);
                    }
                });
            }
        });
        world.finish(1);
    });
}

/// Warm leases of one function end without the lock, unless somebody of the group has asked.
#[test]
fn a_warm_lease_that_ends_serves_who_waits_for_another_function() {
    explore(|| {
        let (world, [f, g, _]) = world(2);
        for f in [&f, &g] {
            world.serve(f.acquire(GROUP).unwrap(), GROUP);
        }
        thread::scope(|scope| {
            for f in [&f, &g, &f] {
                let world = &world;
                scope.spawn(move || {
                    for _ in 0..2 {
                        world.serve(f.acquire(GROUP).unwrap(), GROUP);
                    }
                });
            }
        });
        within(&world, 2);
        world.finish(2);
    });
}

#[test]
fn a_limit_is_changed_beside_leases_and_waits() {
    explore(|| {
        let (world, [f, g, h]) = world(2);
        thread::scope(|scope| {
            for f in [&f, &g, &h] {
                let world = &world;
                scope.spawn(move || world.serve(f.acquire(GROUP).unwrap(), GROUP));
            }
            scope.spawn(|| {
                limit(&world, 1);
                limit(&world, 3);
                limit(&world, 1);
            });
        });
        within(&world, 1);
        world.finish(1);
    });
}

#[test]
fn who_waits_for_a_group_that_is_barred_is_told() {
    explore(|| {
        let (world, [f, g, _]) = world(1);
        thread::scope(|scope| {
            for f in [&f, &g] {
                let world = &world;
                scope.spawn(move || match f.acquire(GROUP) {
                    Ok(lease) => _ = world.serve(lease, GROUP),
                    Err(AcquireError::GroupLimit { limit, .. }) => {
                        assert_eq!(limit, GroupLimit::Instances);
                    }
                    Err(other) => panic!("{other}"),
                });
            }
            scope.spawn(|| limit(&world, 0));
        });
        within(&world, 0);
        world.finish(0);
    });
}

/// Leases that end are left to a recycler that never comes.
#[test]
fn instances_that_are_leased_once_go_around_without_a_recycler() {
    explore(|| {
        let world = World::new(2, |builder| builder.reuse(Reuse::Pristine));
        world.pool.recycle_by_hand();
        let functions = ["f", "g"].map(|name| world.define(name, 1));
        limit(&world, 1);
        thread::scope(|scope| {
            for f in functions.iter().chain(&functions[..1]) {
                let world = &world;
                scope.spawn(move || {
                    for _ in 0..2 {
                        world.serve(f.acquire(GROUP).unwrap(), GROUP);
                    }
                });
            }
            scope.spawn(|| world.pool.recycle());
        });
        within(&world, 1);
        world.pool.recount().unwrap();
        world.close();
    });
}
