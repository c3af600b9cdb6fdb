//! First uses: one compiles for all.

use shuttle::thread;

use crate::explore::explore;
use crate::runtime::attempts;
use crate::world::{FOR_EVER, World, broken_module, room_for, room_within};
use crate::{AcquireError, Definition, ModuleError};

#[test]
fn three_first_users_and_one_compilation() {
    explore(|| {
        let before = attempts();
        let world = World::new(1, |builder| builder);
        let f = world.define("f", 1);
        thread::scope(|scope| {
            for group in 1..4 {
                let (world, f) = (&world, &f);
                scope.spawn(move || world.serve(f.acquire(group).unwrap(), group));
            }
        });
        assert_eq!(attempts() - before, 1);
        assert_eq!(world.pool.stats().compilations, 1);
        world.finish(3);
    });
}

#[test]
fn three_first_users_and_one_failure() {
    explore(|| {
        let before = attempts();
        let world = World::new(1, |builder| builder);
        let broken = Definition::new("f").wasm(broken_module()).export("f");
        let f = world.pool.define::<i32, i32>(broken).unwrap();
        thread::scope(|scope| {
            for group in [1, 1, 2] {
                let f = &f;
                scope.spawn(move || match f.acquire(group) {
                    Err(AcquireError::Module { source, .. }) => {
                        assert!(matches!(*source, ModuleError::Compile(_)));
                    }
                    _ => panic!("it does not compile"),
                });
            }
        });
        assert_eq!(attempts() - before, 1);
        world.finish(0);
    });
}

#[test]
fn two_modules_and_one_compiler() {
    explore(|| {
        let world = World::new(1, |builder| builder.max_compilations(1));
        let functions = [world.define("f", 1), world.define("g", 2)];
        thread::scope(|scope| {
            for (function, group) in [(0, 1), (1, 1), (1, 2)] {
                let (world, f) = (&world, &functions[function]);
                scope.spawn(move || {
                    let version = world.serve(f.acquire(group).unwrap(), group);
                    assert_eq!(version as usize, function + 1);
                });
            }
        });
        assert_eq!(world.pool.stats().compilations, 2);
        world.finish(3);
    });
}

#[test]
fn first_users_without_room_for_all() {
    explore(|| {
        let world = World::new(1, |builder| builder.limits(room_for(1)));
        let f = world.define("f", 1);
        thread::scope(|scope| {
            for group in 1..4 {
                let (world, f) = (&world, &f);
                scope.spawn(move || {
                    world.serve(f.acquire_with(group, room_within(FOR_EVER)).unwrap(), group);
                });
            }
        });
        world.finish(1);
    });
}
