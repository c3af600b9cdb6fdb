//! Close, replace, remove and sweep, in the middle of everything else.

use std::time::Duration;

use shuttle::thread;

use crate::explore::explore;
use crate::world::{FOR_EVER, Guest, World, definition, room_for, room_within};
use crate::{AcquireError, Budget};

fn charged(world: &World) -> u64 {
    world.pool.recount().unwrap();
    let stats = world.pool.stats();
    stats.budgets().map(|(_, report)| report.charged).sum()
}

#[test]
fn the_pool_closes_over_a_lease_and_who_waits_for_it() {
    explore(|| close_meanwhile(true));
}

#[test]
fn the_pool_closes_over_an_instance_that_is_made() {
    explore(|| close_meanwhile(false));
}

fn close_meanwhile(warm: bool) {
    let world = World::new(1, |builder| builder);
    let f = world.define("f", 1);
    if warm {
        world.serve(f.acquire(1).unwrap(), 1);
    }
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| match f.acquire(1) {
                Ok(lease) => {
                    assert!(!lease.data().late, "made in a closed pool");
                    world.serve(lease, 1);
                }
                Err(error) => assert!(matches!(error, AcquireError::Closed { .. })),
            });
        }
        world.pool.close();
        world.turn_over();
        assert!(matches!(f.acquire(1), Err(AcquireError::Closed { .. })));
    });
    world.close();
}

#[test]
fn the_pool_closes_over_who_waits_for_room() {
    explore(|| {
        let world = World::new(1, |builder| builder.limits(room_for(1)));
        let f = world.define("f", 1);
        let lease = f.acquire(1).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| drop(lease));
            for group in [2, 3] {
                let (world, f) = (&world, &f);
                scope.spawn(move || match f.acquire_with(group, room_within(FOR_EVER)) {
                    Ok(lease) => _ = world.serve(lease, group),
                    Err(error) => assert!(matches!(error, AcquireError::Closed { .. })),
                });
            }
            world.pool.close();
        });
        world.close();
    });
}

/// Leases may outlive every handle.
#[test]
fn the_last_handle_goes_before_a_lease() {
    explore(|| {
        let world = World::new(2, |builder| builder);
        let f = world.define("f", 1);
        world.serve(f.acquire(1).unwrap(), 1);
        let mut lease = f.acquire(1).unwrap();
        thread::scope(|scope| {
            scope.spawn(move || {
                assert_eq!(lease.call(0).unwrap(), 1);
                drop(lease);
            });
            scope.spawn(move || {
                drop(f);
                drop(world);
            });
        });
    });
}

/// Threads lease while one replaces the function. Once it has, no acquire that begins later sees the
/// old version, and none that began earlier makes an instance of it.
fn replace_meanwhile(warm: bool, seats: usize) {
    let world = World::new(seats, |builder| builder);
    let f = world.define("f", 1);
    if warm {
        world.serve(f.acquire(1).unwrap(), 1);
    }
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..2 {
                    let late = world.is_over();
                    let lease = f.acquire(1).unwrap();
                    let late = late || lease.data().late;
                    let version = world.serve(lease, 1);
                    assert!(version == 2 || !late, "an old version");
                }
            });
        }
        let replace = || world.pool.replace::<i32, i32>(definition("f", 2)).unwrap();
        drop(replace());
        world.turn_over();
        assert_eq!(world.serve(f.acquire(1).unwrap(), 1), 2);
    });
    let stats = world.pool.stats();
    assert_eq!((stats.modules_loaded, stats.modules_known), (1, 1));
    world.finish(stats.idle as u64);
}

#[test]
fn a_function_is_replaced_while_it_is_leased() {
    explore(|| replace_meanwhile(true, 1));
}

#[test]
fn a_function_is_replaced_while_it_is_leased_twice() {
    explore(|| replace_meanwhile(true, 2));
}

#[test]
fn a_function_is_replaced_while_its_instance_is_made() {
    explore(|| replace_meanwhile(false, 1));
}

#[test]
fn a_function_is_removed_while_it_is_leased_and_awaited() {
    explore(|| {
        let world = World::new(1, |builder| builder);
        let f = world.define("f", 1);
        world.serve(f.acquire(1).unwrap(), 1);
        let use_once = |f: &Guest| match f.acquire(1) {
            Ok(lease) => _ = world.serve(lease, 1),
            Err(error) => assert!(matches!(error, AcquireError::Removed { .. })),
        };
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    use_once(&f);
                    use_once(&f);
                });
            }
            world.pool.remove("f").unwrap();
            assert!(matches!(f.acquire(1), Err(AcquireError::Removed { .. })));
        });
        assert_eq!(charged(&world), 0);
        world.close();
    });
}

#[test]
fn a_function_is_removed_and_defined_again() {
    explore(|| {
        let world = World::new(1, |builder| builder).and_of_a_namesake();
        let f = world.define("f", 1);
        world.serve(f.acquire(1).unwrap(), 1);
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..2 {
                    if let Ok(lease) = f.acquire(1) {
                        assert_eq!(world.serve(lease, 1), 1);
                    }
                }
            });
            world.pool.remove("f").unwrap();
            let again = world.define("f", 2);
            assert_eq!(world.serve(again.acquire(1).unwrap(), 1), 2);
        });
        world.finish(1);
    });
}

#[test]
fn idle_instances_are_swept_out_while_they_are_leased() {
    explore(|| {
        let idle = Duration::from_secs(1);
        let world = World::new(2, |builder| builder.idle_timeout(idle));
        let f = world.define("f", 1);
        world.serve(f.acquire(1).unwrap(), 1);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..2 {
                        world.serve(f.acquire(1).unwrap(), 1);
                    }
                });
            }
            for _ in 0..2 {
                world.clock.advance(idle);
                world.pool.sweep();
            }
        });
        let left = world.pool.stats().idle as u64;
        world.check(left);
        world.clock.advance(idle);
        world.pool.sweep();
        world.check(0);
        assert!(world.pool.stats().budget(Budget::Code).charged > 0);
        world.close();
    });
}
