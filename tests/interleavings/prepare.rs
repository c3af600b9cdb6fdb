//! Code is prepared in the middle of everything else: one compiles for all, and nothing stale is reported.

use shuttle::thread;

use crate::explore::explore;
use crate::runtime::attempts;
use crate::tasks::give_up;
use crate::world::{FOR_EVER, Guest, World, broken_module, definition, room_for, room_within};
use crate::{AcquireError, CodeOrigin, Definition, Limits, Policy, Prepared};

/// It has come to something that a host may see.
fn is_right(world: &World, outcome: Result<Prepared, AcquireError>) -> Prepared {
    let prepared = outcome.expect("nothing is in its way");
    assert_eq!(prepared.code_bytes, *crate::world::CODE);
    world.pool.recount().expect("the books are right");
    prepared
}

#[test]
fn two_prepare_and_two_lease_and_one_compiles() {
    explore(|| {
        let before = attempts();
        let world = World::new(1, |builder| builder);
        let f = world.define("f", 1);
        let origins: Vec<_> = thread::scope(|scope| {
            let (world, f) = (&world, &f);
            let threads = [(); 2].map(|()| scope.spawn(move || is_right(world, f.prepare())));
            for group in 1..3 {
                scope.spawn(move || world.serve(f.acquire(group).unwrap(), group));
            }
            let prepared = threads.map(|thread| thread.join().unwrap());
            prepared.iter().map(|prepared| prepared.origin).collect()
        });
        assert_eq!(attempts() - before, 1);
        let compiled = origins.iter().filter(|o| **o == CodeOrigin::Compiled);
        assert!(compiled.count() <= 1);
        let stats = world.pool.stats();
        assert_eq!((stats.compilations, stats.misses), (1, 2));
        world.finish(2);
    });
}

#[test]
fn one_failure_for_who_prepares_and_who_leases() {
    explore(|| {
        let before = attempts();
        let world = World::new(1, |builder| builder);
        let broken = Definition::new("f").wasm(broken_module()).export("f");
        let f = world.pool.define::<i32, i32>(broken).unwrap();
        let failed = |error| assert!(matches!(error, AcquireError::Module { .. }));
        thread::scope(|scope| {
            scope.spawn(|| failed(f.prepare().unwrap_err()));
            scope.spawn(|| failed(f.prepare().unwrap_err()));
            failed(f.acquire(1).map(drop).unwrap_err());
        });
        assert_eq!(attempts() - before, 1);
        world.finish(0);
    });
}

#[test]
fn code_is_prepared_beside_a_lease_that_has_the_only_seat() {
    explore(|| {
        let world = World::new(1, |builder| builder);
        let f = world.define("f", 1);
        let lease = f.acquire(1).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| drop(lease));
            scope.spawn(|| world.serve(f.acquire(1).unwrap(), 1));
            let prepared = is_right(&world, f.prepare());
            assert_eq!(prepared.origin, CodeOrigin::Present);
        });
        world.finish(1);
    });
}

/// Once it has been replaced, only the new code is prepared.
#[test]
fn a_function_is_replaced_while_it_is_prepared() {
    explore(|| {
        let world = World::new(1, |builder| builder);
        let f = world.define("f", 1);
        thread::scope(|scope| {
            scope.spawn(|| is_right(&world, f.prepare()));
            scope.spawn(|| world.serve(f.acquire(1).unwrap(), 1));
            drop(world.pool.replace::<i32, i32>(definition("f", 2)).unwrap());
            is_right(&world, f.prepare());
            assert_eq!(world.serve(f.acquire(1).unwrap(), 1), 2);
        });
        let stats = world.pool.stats();
        assert_eq!((stats.modules_loaded, stats.modules_known), (1, 1));
        world.finish(1);
    });
}

#[test]
fn a_function_is_removed_while_it_is_prepared() {
    explore(|| {
        let world = World::new(1, |builder| builder);
        let f = world.define("f", 1);
        let prepare = |f: &Guest| match f.prepare() {
            Ok(_) => {}
            Err(error) => assert!(matches!(error, AcquireError::Removed { .. })),
        };
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| prepare(&f));
            }
            world.pool.remove("f").unwrap();
            assert!(matches!(f.prepare(), Err(AcquireError::Removed { .. })));
        });
        let stats = world.pool.stats();
        assert_eq!((stats.modules_loaded, stats.modules_known), (0, 0));
        world.finish(0);
    });
}

#[test]
fn the_pool_closes_over_code_that_is_prepared() {
    explore(|| {
        let world = World::new(1, |builder| builder);
        let f = world.define("f", 1);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| match f.prepare() {
                    Ok(_) => {}
                    Err(error) => assert!(matches!(error, AcquireError::Closed { .. })),
                });
            }
            scope.spawn(|| match f.acquire(1) {
                Ok(lease) => _ = world.serve(lease, 1),
                Err(error) => assert!(matches!(error, AcquireError::Closed { .. })),
            });
            world.pool.close();
            assert!(matches!(f.prepare(), Err(AcquireError::Closed { .. })));
        });
        world.close();
    });
}

/// Whoever leases meanwhile may keep the code; when nobody does any more, it goes.
#[test]
fn code_that_is_not_kept_goes_with_who_has_prepared_it() {
    explore(|| {
        let world = World::new(1, |builder| builder.policy(Policy::Lru));
        let f = world.define("f", 1);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| is_right(&world, f.prepare()));
            }
            scope.spawn(|| world.serve(f.acquire(1).unwrap(), 1));
        });
        assert!(f.prepare().unwrap().stays, "an instance keeps it");
        world.check(1);
        assert_eq!(world.pool.retain(|_| false), 1);
        assert_eq!(world.pool.stats().modules_loaded, 0);
        world.finish(0);
    });
}

/// There is room for the code of one module: each in its turn.
#[test]
fn three_prepare_and_lease_in_turn_without_room_for_two() {
    explore(|| {
        let code = *crate::world::CODE;
        let limits = Limits::new().code(code + code / 2);
        let world = World::new(1, |builder| builder.limits(limits));
        let functions = [world.define("f", 1), world.define("g", 2)];
        let patient = room_within(FOR_EVER);
        thread::scope(|scope| {
            for f in &functions {
                let world = &world;
                scope.spawn(move || is_right(world, f.prepare_with(patient)));
            }
            let lease = functions[0].acquire_with(1, patient).unwrap();
            world.serve(lease, 1);
        });
        let idle = world.pool.stats().idle as u64;
        world.finish(idle);
    });
}

/// A wait that is dropped leaves nothing behind. The threads that compile for tasks are not the model's, so a
/// thread leads.
#[test]
fn who_waits_for_code_that_another_prepares_gives_up() {
    explore(|| {
        let code = *crate::world::CODE;
        let limits = room_for(1).code(code + code / 2);
        let world = World::new(1, |builder| builder.limits(limits));
        let functions = [world.define("f", 1), world.define("g", 2)];
        let held = functions[0].acquire(1).unwrap();
        let patient = room_within(FOR_EVER);
        thread::scope(|scope| {
            scope.spawn(|| is_right(&world, functions[1].prepare_with(patient)));
            world.await_waiters(1);
            scope.spawn(|| {
                let prepared = functions[1].prepare_async_with(patient);
                give_up(prepared).map(|outcome| is_right(&world, outcome))
            });
            drop(held);
        });
        world.finish(0);
    });
}
