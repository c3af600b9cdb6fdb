//! Several entries and too little room: idle instances are evicted, and requests wait their turn.

use std::sync::atomic::{AtomicU64, Ordering};

use shuttle::sync::Barrier;
use shuttle::thread;

use crate::explore::explore;
use crate::state::Budget;
use crate::world::{
    CODE, COMPILER, FOR_EVER, Guest, INSTANCE, LARGE_INSTANCE, World, large_definition, module,
    room_for, room_within,
};
use crate::{AcquireError, Limits, Policy, Share};

/// Each thread serves its own group so often.
fn take_turns(world: &World, f: &Guest, groups: &[u64], rounds: usize) {
    thread::scope(|scope| {
        for &group in groups {
            scope.spawn(move || {
                for _ in 0..rounds {
                    world.serve(f.acquire_with(group, room_within(FOR_EVER)).unwrap(), group);
                }
            });
        }
    });
}

fn world(instances: u64) -> (World, Guest) {
    let world = World::new(1, |builder| builder.limits(room_for(instances)));
    let f = world.define("f", 1);
    world.serve(f.acquire(1).unwrap(), 1);
    (world, f)
}

#[test]
fn two_entries_and_room_for_one() {
    explore(|| {
        let (world, f) = world(1);
        take_turns(&world, &f, &[1, 2], 2);
        world.finish(1);
    });
}

#[test]
fn three_entries_and_room_for_one() {
    explore(|| {
        let (world, f) = world(1);
        take_turns(&world, &f, &[1, 2, 3], 1);
        world.finish(1);
    });
}

#[test]
fn three_entries_and_room_for_two() {
    explore(|| {
        let (world, f) = world(2);
        take_turns(&world, &f, &[1, 2, 3], 2);
        world.finish(2);
    });
}

/// All of it is leased, so the first of them can only wait.
#[test]
fn three_wait_for_the_room_of_a_lease() {
    explore(|| {
        let (world, f) = world(1);
        let lease = f.acquire(1).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| drop(lease));
            for group in 2..5 {
                let (world, f) = (&world, &f);
                scope.spawn(move || {
                    world.serve(f.acquire_with(group, room_within(FOR_EVER)).unwrap(), group);
                });
            }
        });
        world.finish(1);
    });
}

/// One waits for room, the other for the seat of the lease that holds it.
#[test]
fn a_lease_is_awaited_for_its_seat_and_for_its_room() {
    explore(|| {
        let (world, f) = world(1);
        take_turns(&world, &f, &[1, 1, 2], 2);
        world.finish(1);
    });
}

/// Who does not wait for room is refused or served, and takes nothing from anybody.
#[test]
fn whoever_does_not_wait_for_room() {
    explore(|| {
        let (world, f) = world(1);
        thread::scope(|scope| {
            for group in [1, 2] {
                let (world, f) = (&world, &f);
                scope.spawn(move || {
                    for _ in 0..2 {
                        match f.acquire(group) {
                            Ok(lease) => _ = world.serve(lease, group),
                            Err(AcquireError::BudgetExceeded(_)) => {}
                            Err(other) => panic!("{other}"),
                        }
                    }
                });
            }
        });
        world.serve(f.acquire(3).unwrap(), 3);
        world.finish(1);
    });
}

/// Two modules, and room for the code of one.
#[test]
fn code_makes_room_for_code() {
    explore(|| {
        let limits = Limits::new().code(*CODE + *CODE / 2);
        let world = World::new(1, |builder| {
            builder.limits(limits).policy(Policy::ModuleLru)
        });
        let functions = [world.define("f", 1), world.define("g", 2)];
        thread::scope(|scope| {
            for (f, version) in functions.iter().zip([1, 2]) {
                let world = &world;
                scope.spawn(move || {
                    for _ in 0..2 {
                        let lease = f.acquire_with(1, room_within(FOR_EVER)).unwrap();
                        assert_eq!(world.serve(lease, 1), version);
                    }
                });
            }
        });
        assert_eq!(world.pool.stats().modules_loaded, 1);
        world.finish(1);
    });
}

/// Two lease again and again what a third one needs at once. After a few of those, room is kept for it.
#[test]
fn who_waits_for_much_is_passed_by_few() {
    explore(|| {
        let limits = Limits::new().memory(LARGE_INSTANCE + INSTANCE / 2);
        let world = World::new(1, |builder| builder.limits(limits));
        let small = world.define("small", 1);
        let large = world.pool.define(large_definition("large")).unwrap();
        let busy = [small.acquire(1).unwrap(), small.acquire(2).unwrap()];
        thread::scope(|scope| {
            scope.spawn(|| {
                let lease = large.acquire_with(3, room_within(FOR_EVER)).unwrap();
                world.serve(lease, 3);
            });
            world.await_waiters(1);
            for (group, lease) in [1, 2].into_iter().zip(busy) {
                let (world, small) = (&world, &small);
                scope.spawn(move || {
                    drop(lease);
                    for _ in 0..6 {
                        match small.acquire(group) {
                            Ok(lease) => _ = world.serve(lease, group),
                            Err(AcquireError::BudgetExceeded(_)) => {}
                            Err(other) => panic!("{other}"),
                        }
                    }
                });
            }
        });
        world.pool.recount().unwrap();
        let stats = world.pool.stats();
        let memory = stats.budget(Budget::Memory);
        assert!(memory.allows(memory.peak));
        assert_eq!((stats.leased, stats.waiting, stats.dying), (0, 0, 0));
        // Nothing is kept for anybody any more.
        world.serve(small.acquire(1).unwrap(), 1);
        world.close();
    });
}

#[test]
fn limits_are_lowered_and_raised_while_others_wait() {
    explore(|| {
        let (world, f) = world(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                world.pool.set_limits(room_for(1)).unwrap();
                world.pool.set_limits(room_for(2)).unwrap();
            });
            for group in 1..4 {
                let (world, f) = (&world, &f);
                scope.spawn(move || {
                    world.serve(f.acquire_with(group, room_within(FOR_EVER)).unwrap(), group);
                });
            }
        });
        let idle = world.pool.stats().idle as u64;
        assert!((1..=2).contains(&idle));
        world.finish(idle);
    });
}

/// What leases held beyond it is given back when they end.
#[test]
fn limits_are_lowered_under_leases() {
    explore(|| {
        let (world, f) = world(2);
        let leases = [f.acquire(1).unwrap(), f.acquire(2).unwrap()];
        world.pool.set_limits(room_for(1)).unwrap();
        thread::scope(|scope| {
            for lease in leases {
                scope.spawn(|| drop(lease));
            }
        });
        let memory = world.pool.stats().budget(Budget::Memory);
        assert_eq!((memory.overdraft, memory.charged), (0, INSTANCE));
        world.close();
    });
}

#[test]
fn limits_are_lowered_while_leases_end() {
    explore(|| {
        let (world, f) = world(2);
        thread::scope(|scope| {
            scope.spawn(|| world.pool.set_limits(room_for(1)).unwrap());
            for group in 1..3 {
                let (world, f) = (&world, &f);
                scope.spawn(move || {
                    world.serve(f.acquire_with(group, room_within(FOR_EVER)).unwrap(), group);
                });
            }
        });
        // What ended just as the limit was lowered is found by the next sweep.
        world.pool.sweep();
        let memory = world.pool.stats().budget(Budget::Memory);
        assert_eq!((memory.overdraft, memory.charged), (0, INSTANCE));
        world.close();
    });
}

/// Nothing else makes room.
#[test]
fn raised_limits_serve_who_waits() {
    explore(|| {
        let (world, f) = world(1);
        let lease = f.acquire(1).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| world.serve(f.acquire_with(2, room_within(FOR_EVER)).unwrap(), 2));
            world.pool.set_limits(room_for(2)).unwrap();
        });
        drop(lease);
        world.finish(2);
    });
}

/// One of them is woken by the end of a lease, and must wake the other.
#[test]
fn two_wait_for_the_room_of_two_leases() {
    explore(|| {
        let (world, f) = world(2);
        let leases = [f.acquire(1).unwrap(), f.acquire(2).unwrap()];
        let both = Barrier::new(2);
        thread::scope(|scope| {
            for group in 3..5 {
                let (world, f, both) = (&world, &f, &both);
                scope.spawn(move || {
                    let lease = f.acquire_with(group, room_within(FOR_EVER)).unwrap();
                    both.wait();
                    world.serve(lease, group);
                });
            }
            drop(leases);
        });
        world.finish(2);
    });
}

/// Whatever else wakes them.
#[test]
fn room_goes_to_who_came_first() {
    explore(|| {
        let (world, f) = world(1);
        let lease = f.acquire(1).unwrap();
        let served = AtomicU64::new(0);
        thread::scope(|scope| {
            for (place, group) in [2, 3].into_iter().enumerate() {
                let (world, f, served) = (&world, &f, &served);
                scope.spawn(move || {
                    let lease = f.acquire_with(group, room_within(FOR_EVER)).unwrap();
                    assert_eq!(served.fetch_add(1, Ordering::Relaxed), place as u64);
                    world.serve(lease, group);
                });
                world.await_waiters(place + 1);
            }
            scope.spawn(|| drop(lease));
            world.pool.set_limits(room_for(1)).unwrap();
        });
        world.finish(1);
    });
}

/// One budget for all: what a module's code holds may be what an instance waits for.
#[test]
fn code_and_memory_under_one_total() {
    explore(|| {
        // To compile one takes all but a little of it.
        let wasm = module(1).len() as u64;
        let total = COMPILER + 96 * wasm + *CODE + INSTANCE + *CODE / 2;
        let limits = Limits::new().total(total);
        let world = World::new(1, |builder| {
            builder.limits(limits).policy(Policy::ModuleLru)
        });
        let functions = [world.define("f", 1), world.define("g", 2)];
        thread::scope(|scope| {
            for (function, group) in [(0, 1), (1, 1), (0, 2)] {
                let (world, f) = (&world, &functions[function]);
                scope.spawn(move || {
                    for _ in 0..2 {
                        let lease = f.acquire_with(group, room_within(FOR_EVER)).unwrap();
                        assert_eq!(world.serve(lease, group) as usize, function + 1);
                    }
                });
            }
        });
        world.finish(world.pool.stats().idle as u64);
    });
}

/// A guest grows in the middle of its lease: an idle instance goes, or the growth is refused.
#[test]
fn growth_takes_the_room_of_what_is_idle() {
    const PAGE: u64 = 64 << 10;
    explore(|| {
        let limits = Limits::new().memory(PAGE + INSTANCE + INSTANCE / 2);
        let world = World::new(1, |builder| builder.limits(limits));
        let f = world.define("f", 1);
        world.serve(f.acquire(2).unwrap(), 2);
        let grown = thread::scope(|scope| {
            let grower = scope.spawn(|| {
                let mut lease = f.acquire_with(1, room_within(FOR_EVER)).unwrap();
                world.begin(&mut lease, 1);
                let memory = lease.memory().expect("it exports one");
                let grown = memory.grow(lease.store_mut(), 1).is_ok();
                world.end(lease);
                grown
            });
            for _ in 0..2 {
                let lease = f.acquire_with(2, room_within(FOR_EVER)).unwrap();
                world.serve(lease, 2);
            }
            grower.join().unwrap()
        });
        world.pool.recount().unwrap();
        let stats = world.pool.stats();
        let memory = stats.budget(Budget::Memory);
        assert!(memory.allows(memory.peak));
        let page = if memory.charged > PAGE { PAGE } else { 0 };
        assert!(grown || page == 0);
        assert_eq!(memory.charged, stats.idle as u64 * INSTANCE + page);
        world.close();
    });
}

/// Its idle instances go for it, while others lease them at the same moment.
#[test]
fn a_group_keeps_within_its_limit() {
    explore(|| {
        let world = World::new(1, |builder| builder);
        let functions = ["f", "g", "h"].map(|name| world.define(name, 1));
        let most = room_for(2).get(Budget::Memory).unwrap();
        let limit = Share::new().limit(Budget::Memory, most);
        world.pool.set_group(1, limit).unwrap();
        for f in &functions[..2] {
            world.serve(f.acquire(1).unwrap(), 1);
        }
        thread::scope(|scope| {
            for n in 0..2 {
                let (world, functions) = (&world, &functions);
                scope.spawn(move || {
                    for f in [&functions[n], &functions[2]] {
                        match f.acquire(1) {
                            Ok(lease) => _ = world.serve(lease, 1),
                            Err(AcquireError::BudgetExceeded(short)) => assert!(short.of_group),
                            Err(error) => panic!("{error}"),
                        }
                        let groups = world.pool.stats().groups;
                        assert!(groups[0].holds(Budget::Memory) <= most);
                    }
                });
            }
        });
        let left = world.pool.stats().idle as u64;
        assert!((1..=2).contains(&left), "{left}");
        world.finish(left);
    });
}
