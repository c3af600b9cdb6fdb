//! One entry: instances and seats are handed over, and nobody waits in vain.

use std::time::Duration;

use shuttle::thread;

use crate::explore::{exhaust, explore};
use crate::world::{FOR_EVER, World, room_within};
use crate::{AcquireError, CallError};

/// Each thread serves so often, on a pool that begins warm or cold.
fn take_turns(seats: usize, threads: usize, rounds: usize, warm: bool) {
    let world = World::new(seats, |builder| builder);
    let f = world.define("f", 1);
    if warm {
        world.serve(f.acquire(1).unwrap(), 1);
    }
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for _ in 0..rounds {
                    world.serve(f.acquire(1).unwrap(), 1);
                }
            });
        }
    });
    let idle = world.pool.stats().idle as u64;
    assert!((1..=seats as u64).contains(&idle));
    world.finish(idle);
}

#[test]
fn two_threads_and_one_seat() {
    explore(|| take_turns(1, 2, 2, false));
}

#[test]
fn three_threads_and_one_seat() {
    explore(|| take_turns(1, 3, 2, true));
}

#[test]
fn three_threads_and_two_seats() {
    explore(|| take_turns(2, 3, 2, true));
}

#[test]
fn a_lease_ends_while_another_begins_in_every_order() {
    exhaust(|| {
        let world = World::new(1, |builder| builder);
        let f = world.define("f", 1).in_group(1);
        let lease = f.acquire().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| drop(lease));
            match f.try_acquire() {
                Ok(lease) => drop(lease),
                Err(error) => assert!(matches!(error, AcquireError::WouldBlock { .. })),
            }
        });
        drop(f.try_acquire().unwrap());
        world.finish(1);
    });
}

/// A million schedules: with this many, also the one that waits is served in every order.
#[test]
#[ignore = "takes minutes"]
fn a_lease_ends_while_another_waits_in_every_order() {
    exhaust(|| {
        let world = World::new(1, |builder| builder);
        let f = world.define("f", 1).in_group(1);
        let lease = f.acquire().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| drop(lease));
            // Its end would multiply the schedules.
            std::mem::forget(f.acquire().unwrap());
        });
    });
}

#[test]
fn handles_that_keep_their_entry() {
    explore(|| {
        let world = World::new(1, |builder| builder);
        let f = world.define("f", 1).in_group(1);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    world.serve(f.acquire().unwrap(), 1);
                    world.serve(f.acquire_with(room_within(FOR_EVER)).unwrap(), 1);
                });
            }
        });
        world.finish(1);
    });
}

#[test]
fn a_seat_goes_on_when_its_instance_has_served_its_time() {
    explore(|| {
        let world = World::new(1, |builder| builder.max_uses(1));
        let f = world.define("f", 1);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let lease = f.acquire(1).unwrap();
                    assert_eq!(lease.uses(), 1);
                    world.serve(lease, 1);
                });
            }
        });
        world.finish(0);
    });
}

#[test]
fn a_seat_goes_on_when_its_instance_traps_or_is_discarded() {
    explore(|| {
        let world = World::new(1, |builder| builder);
        let f = world.define("f", 1);
        world.serve(f.acquire(1).unwrap(), 1);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut lease = f.acquire(1).unwrap();
                world.begin(&mut lease, 1);
                assert!(matches!(lease.call(-1), Err(CallError::Trap { .. })));
                world.taint(&lease);
                drop(lease);
            });
            scope.spawn(|| {
                let mut lease = f.acquire(1).unwrap();
                world.begin(&mut lease, 1);
                world.taint(&lease);
                lease.discard();
            });
            scope.spawn(|| world.serve(f.acquire(1).unwrap(), 1));
        });
        let idle = world.pool.stats().idle as u64;
        world.finish(idle);
    });
}

#[test]
fn whoever_does_not_wait_finds_the_instance_or_none() {
    explore(|| {
        let world = World::new(1, |builder| builder);
        let f = world.define("f", 1);
        let lease = f.acquire(1).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| drop(lease));
            for _ in 0..2 {
                scope.spawn(|| match f.try_acquire(1) {
                    Ok(lease) => _ = world.serve(lease, 1),
                    Err(error) => assert!(matches!(error, AcquireError::WouldBlock { .. })),
                });
            }
        });
        world.serve(f.try_acquire(1).unwrap(), 1);
        world.finish(1);
    });
}

#[test]
fn whoever_does_not_wait_passes_nobody_who_does() {
    explore(|| {
        let world = World::new(1, |builder| builder);
        let f = world.define("f", 1);
        let lease = f.acquire(1).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| drop(lease));
            scope.spawn(|| world.serve(f.acquire(1).unwrap(), 1));
            scope.spawn(|| {
                if let Ok(lease) = f.try_acquire(1) {
                    world.serve(lease, 1);
                }
            });
        });
        world.serve(f.try_acquire(1).unwrap(), 1);
        world.finish(1);
    });
}

#[test]
fn a_deadline_comes_while_the_instance_is_on_its_way() {
    explore(|| {
        let world = World::new(1, |builder| builder);
        let f = world.define("f", 1);
        let lease = f.acquire(1).unwrap();
        let second = Duration::from_secs(1);
        thread::scope(|scope| {
            scope.spawn(|| drop(lease));
            scope.spawn(|| world.clock.advance(second));
            for _ in 0..2 {
                scope.spawn(|| match f.acquire_with(1, room_within(second)) {
                    Ok(lease) => _ = world.serve(lease, 1),
                    Err(error) => assert!(matches!(error, AcquireError::Timeout { .. })),
                });
            }
        });
        world.serve(f.try_acquire(1).unwrap(), 1);
        world.finish(1);
    });
}
