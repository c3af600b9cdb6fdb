//! A future that is dropped, wherever it is, leaves nothing behind: no charge, no seat, no turn. What
//! was under way to it goes to the next.

use std::cell::RefCell;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use crate::common::polling::{ByHand, MINUTE, Work};
use crate::common::scene::*;
use crate::common::*;
use wasm_pool::{AcquireError, Budget, CallError, Definition, Function};

// The points of an acquire ───────────────────────────────────────────────────────────────────────

#[test]
fn what_fits_is_dropped_unpolled() {
    let scene = || Scene::new("f", memory_module(1, 0), one).hold(2);
    assert_eq!(drop_everywhere(scene, Scene::acquire, nothing), 0);
    assert_eq!(drop_everywhere(scene, Scene::call, nothing), 0);
}

#[test]
fn what_evicts_is_dropped_unpolled() {
    let scene = || {
        let scene = Scene::new("f", memory_module(1, 0), room_for_one).hold(2);
        scene.let_go();
        scene
    };
    assert_eq!(drop_everywhere(scene, Scene::acquire, nothing), 0);
}

/// The instance that is to be evicted is being destroyed already, by another thread.
fn while_another_evicts(point: Point) -> bool {
    let name = fresh_name();
    let scene = Scene::new(&name, memory_module(1, 0), room_for_one).hold(2);
    scene.let_go();
    let held = spans::hold("destroy", &format!("{name}()"));
    let held = RefCell::new(Some(held));
    let pool = scene.pool.clone();
    let evicting = thread::spawn(move || pool.retain(|_| false));
    held.borrow().as_ref().unwrap().wait_until_reached();
    let step = |_: &Scene, poll| {
        assert_eq!(poll, 1, "it waits once");
        held.take();
    };
    let came = drop_at(point, &scene, Scene::acquire, step);
    held.take();
    assert_eq!(evicting.join().unwrap(), 1);
    scene.check();
    came
}

#[test]
fn what_waits_until_something_is_destroyed() {
    assert_eq!(count_points(while_another_evicts), 1);
}

#[test]
fn what_waits_for_a_lease_to_end() {
    let scene = || Scene::new("f", memory_module(1, 0), one).hold(1);
    let step = |scene: &Scene, _| scene.let_go();
    assert_eq!(drop_everywhere(scene, Scene::acquire, step), 1);
    assert_eq!(drop_everywhere(scene, Scene::call, step), 1);
}

#[test]
fn what_waits_for_a_seat() {
    let scene = || Scene::new("f", memory_module(1, 0), one).hold(1);
    let step = |scene: &Scene, _| {
        let lease = scene.held.borrow_mut().pop();
        lease.unwrap().discard();
    };
    assert_eq!(drop_everywhere(scene, Scene::acquire, step), 1);
}

#[test]
fn what_waits_for_room() {
    let scene = || Scene::new("f", memory_module(1, 0), room_for_one).hold(2);
    let step = |scene: &Scene, _| scene.let_go();
    assert_eq!(drop_everywhere(scene, Scene::acquire, step), 1);
}

#[test]
fn what_waits_for_room_for_its_stack() {
    let scene = || {
        let scene = Scene::new("f", memory_module(1, 0), one_stack);
        // An idle instance without a stack, and a lease with the only stack there may be.
        scene.function.call(1, ()).unwrap();
        let lease = ByHand::new({
            let function = scene.function.clone();
            async move { function.acquire_async(2).await }
        });
        scene.held.borrow_mut().push(lease.finish().unwrap());
        scene
    };
    let step = |scene: &Scene, _| scene.let_go();
    assert_eq!(drop_everywhere(scene, Scene::acquire, step), 1);
}

#[test]
fn what_compiles_and_loads() {
    let scene = || {
        let name = fresh_name();
        let scene = Scene::new(&name, memory_module(1, 0), one);
        scene.hold_up(&name);
        scene
    };
    let step = |scene: &Scene, _| scene.go_on();
    let points = drop_everywhere(scene, Scene::acquire, step);
    assert_eq!(points, 1, "compiled and loaded in one go");
}

#[test]
fn what_fails_to_link() {
    let scene = || {
        let wasm = wat(
            // A function type of a group is another than the same one that stands alone.
            r#"(module (rec (type $gate (func)) (type (func)))
            (import "env" "gate" (func (type $gate)))
            (func (export "f") (result i32) i32.const 1))"#,
        );
        Scene::new(&fresh_name(), wasm, one)
    };
    let is_link = |error: CallError| {
        let CallError::Acquire(AcquireError::Module { source, .. }) = error else {
            panic!("{error}");
        };
        let said = wasm_pool::Report(&*source).to_string();
        assert!(said.contains("gate"), "{said}");
    };
    let work = |scene: &Scene| -> Work {
        let call = scene.call();
        Box::pin(async move {
            is_link(call.await.unwrap_err());
            Ok(())
        })
    };
    for (polls, woken) in [(0, false), (1, false), (1, true)] {
        let scene = scene();
        scene.hold_up(&scene.name());
        let step = |scene: &Scene, _| scene.go_on();
        let point = Point { polls, woken };
        assert!(drop_at(point, &scene, work, step), "{point:?}");
        scene.holds.borrow_mut().clear();
        until(|| scene.pool.stats().compiling == 0);
        is_link(ByHand::new(scene.call()).finish().unwrap_err());
        is_link(scene.function.call(1, ()).unwrap_err());
        scene.check_nothing_is_left();
    }
}

/// A thread compiles `f`, held up in the compiler, of which there is one.
fn while_another_compiles(
    point: Point,
    step: impl Fn(&Scene, usize),
    other: impl FnOnce(&mut Scene),
) -> bool {
    let name = fresh_name();
    let mut scene = Scene::new(&name, memory_module(1, 0), |b| b.max_compilations(1));
    let held = spans::hold("compile", &format!("{name}()"));
    let leader = thread::spawn({
        let function = scene.function.clone();
        move || function.call(7, ())
    });
    held.wait_until_reached();
    scene.holds.borrow_mut().push_back(held);
    other(&mut scene);
    let came = drop_at(point, &scene, Scene::acquire, step);
    if came && point.polls <= 1 && !point.woken {
        assert_eq!(scene.pool.stats().waiting, 0, "{point:?}");
    }
    scene.holds.borrow_mut().clear();
    assert_eq!(leader.join().unwrap().unwrap(), 1);
    scene.check();
    came
}

#[test]
fn what_follows_a_compilation() {
    let step = |scene: &Scene, _| scene.go_on();
    let points = count_points(|point| while_another_compiles(point, step, |_| {}));
    assert_eq!(points, 1);
}

#[test]
fn what_queues_for_the_compiler() {
    let other = |scene: &mut Scene| {
        let name = fresh_name();
        let definition = Definition::new(&*name).wasm(memory_module(1, 1));
        scene.function = scene.pool.define(definition.export("f")).unwrap();
        scene.hold_up(&name);
    };
    let step = |scene: &Scene, _| scene.go_on();
    let points = count_points(|point| while_another_compiles(point, step, other));
    assert_eq!(points, 2, "for its turn, and for its code");
}

// The points of a call ───────────────────────────────────────────────────────────────────────────

#[test]
fn what_runs_the_start_function() {
    let wasm = wat(
        r#"(module (import "env" "pause" (func $pause (param i32))) (memory 1)
            (func $start i32.const 3 call $pause) (start $start)
            (func (export "f") (result i32) i32.const 1))"#,
    );
    let scene = || Scene::new("f", wasm.clone(), one).with_code();
    assert_eq!(drop_everywhere(scene, Scene::acquire, nothing), 3);
}

#[test]
fn what_waits_for_a_host_function() {
    let wasm = doing("i32.const 2 call $pause i32.const 1 call $pause");
    let scene = || Scene::new("f", wasm.clone(), one).with_code();
    assert_eq!(drop_everywhere(scene, Scene::call, nothing), 3);
}

#[test]
fn a_host_function_is_dropped_with_its_call() {
    let scene = Scene::new("f", doing("call $gate"), one);
    let mut call = ByHand::new(scene.call());
    while scene.gate.came() == 0 {
        assert!(call.poll().is_none());
    }
    assert_eq!((scene.gate.left(), scene.pool.stats().leased), (0, 1));
    drop(call);
    assert_eq!((scene.gate.left(), scene.pool.stats().leased), (1, 0));
    assert_eq!(scene.pool.stats().idle, 0, "nobody ever sees it again");
    scene.check();
}

#[test]
fn a_guest_that_runs_is_dropped_between_two_ticks() {
    let wasm =
        wat(r#"(module (memory 1) (func (export "f") (result i32) (loop br 0) unreachable))"#);
    for polls in 1..6 {
        // Ticks come as fast as they can: its time is not to end before it has been polled.
        let endless = |builder| one(builder).call_timeout(Duration::from_secs(1 << 30));
        let scene = Scene::new("f", wasm.clone(), endless);
        let mut call = ByHand::new(scene.call());
        with_ticks(&scene.pool, || {
            for _ in 0..polls {
                assert!(call.poll().is_none());
                call.wait_until_woken();
            }
        });
        drop(call);
        ByHand::new(scene.acquire()).finish().unwrap();
        scene.check_nothing_is_left();
    }
}

#[test]
fn a_lease_whose_call_was_dropped_is_broken() {
    let scene = Scene::new("f", doing("call $gate"), one);
    let function = scene.function.clone();
    let mut lease = pollster::block_on(function.acquire_async(1)).unwrap();
    {
        let mut call = Box::pin(lease.call_async(()));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(call.as_mut().poll(&mut context).is_pending());
    }
    assert!(lease.is_broken());
    let again = pollster::block_on(lease.call_async(()));
    assert!(matches!(again, Err(CallError::Broken { .. })), "{again:?}");
    assert!(matches!(lease.call(()), Err(CallError::Broken { .. })));
    drop((lease, function));
    assert_eq!(scene.pool.stats().idle, 0);
    scene.check();
}

/// `f` has an async host function that leases `inner` for group 9 and calls it.
fn nesting(inner_seats: usize) -> (Scene, Function<(), i32>) {
    let inner_name = fresh_name();
    let inner: Arc<OnceLock<Function<(), i32>>> = Arc::default();
    let import = inner.clone();
    let wasm = wat(r#"(module (import "env" "inner" (func $inner (result i32)))
            (func (export "f") (result i32) call $inner))"#);
    let scene = Scene::new("outer", wasm, |builder| {
        let builder = builder.max_instances_per_entry(inner_seats);
        builder.imports(move |linker| {
            linker.func_wrap_async("env", "inner", move |_, (): ()| {
                let inner = import.get().unwrap().clone();
                Box::new(async move { Ok(inner.call_async(9, ()).await?) })
            })?;
            Ok(())
        })
    });
    let definition = Definition::new(&*inner_name).wasm(answering(1)).export("f");
    let function: Function<(), i32> = scene.pool.define(definition).unwrap();
    assert!(inner.set(function.clone()).is_ok());
    (scene, function)
}

#[test]
fn what_waits_in_a_nested_acquire() {
    let scene = || {
        let (scene, inner) = nesting(1);
        let lease = inner.acquire(9).unwrap();
        scene.held.borrow_mut().push(lease);
        scene.with_code()
    };
    let step = |scene: &Scene, _| scene.let_go();
    assert_eq!(drop_everywhere(scene, Scene::call, step), 1);
}

#[test]
fn what_compiles_in_a_nested_acquire() {
    let scene = || {
        let (scene, inner) = nesting(1);
        let scene = scene.with_code();
        scene.hold_up(inner.signature().trim_end_matches("()"));
        scene
    };
    let step = |scene: &Scene, _| scene.go_on();
    assert_eq!(drop_everywhere(scene, Scene::call, step), 1);
}

// Mail under way, and those behind ───────────────────────────────────────────────────────────────

/// The first of three who wait for the only seat, dropped at `point`; the others are a task and a
/// thread.
fn those_behind_are_served(woken: bool, retired: bool) {
    let scene = Scene::new("f", memory_module(1, 0), one).hold(1);
    let mut first = ByHand::new(scene.acquire());
    assert!(first.poll().is_none());
    let mut second = ByHand::new(scene.acquire());
    assert!(second.poll().is_none());
    let third = thread::spawn({
        let function = scene.function.clone();
        move || function.call(1, ())
    });
    wait_for_waiters(&scene.pool, 3);
    let end = || {
        let lease = scene.held.borrow_mut().pop().unwrap();
        if retired {
            lease.discard();
        } else {
            drop(lease);
        }
    };
    if woken {
        end();
        first.wait_until_woken();
        assert!(!second.is_woken(), "first come, first served");
        drop(first);
    } else {
        drop(first);
        assert_eq!(scene.pool.stats().waiting, 2);
        end();
    }
    second.wait_until_woken();
    second.finish().unwrap();
    assert_eq!(third.join().unwrap().unwrap(), 1);
    scene.check();
}

#[test]
fn c_i1_an_instance_under_way_goes_to_the_next() {
    those_behind_are_served(true, false);
    those_behind_are_served(false, false);
}

#[test]
fn c_i1_a_seat_under_way_goes_to_the_next() {
    those_behind_are_served(true, true);
    those_behind_are_served(false, true);
}

#[test]
fn c_i1_room_under_way_goes_to_the_next() {
    for woken in [true, false] {
        let scene = Scene::new("f", memory_module(1, 0), room_for_one).hold(2);
        let mut first = ByHand::new(scene.acquire());
        assert!(first.poll().is_none());
        let second = thread::spawn({
            let function = scene.function.clone();
            move || function.acquire_with(3, room_within(MINUTE)).map(drop)
        });
        wait_for_waiters(&scene.pool, 2);
        let mut third = ByHand::new(scene.acquire());
        assert!(third.poll().is_none());
        if woken {
            scene.let_go();
            first.wait_until_woken();
        }
        drop(first);
        scene.let_go();
        second.join().unwrap().unwrap();
        third.finish().unwrap();
        scene.check();
    }
}

#[test]
fn c_i1_an_instance_goes_through_many_who_are_dropped() {
    let scene = Scene::new("f", memory_module(1, 0), one).hold(1);
    let mut waiting: Vec<_> = (0..20).map(|_| ByHand::new(scene.acquire())).collect();
    waiting.iter_mut().for_each(|w| assert!(w.poll().is_none()));
    scene.let_go();
    let last = waiting.pop().unwrap();
    for dropped in waiting {
        dropped.wait_until_woken();
        assert!(!last.is_woken());
        drop(dropped);
    }
    last.wait_until_woken();
    last.finish().unwrap();
    assert_eq!(scene.pool.stats().misses, 1, "one instance for all of them");
    scene.check();
}

#[test]
fn a_leader_that_is_dropped_leaves_the_compilation_to_its_followers() {
    spans::watch();
    let scene = Scene::new("orphaned", memory_module(1, 0), |b| b.max_compilations(1));
    let held = spans::hold("compile", "orphaned()");
    let mut leader = ByHand::new(scene.acquire());
    assert!(leader.poll().is_none());
    held.wait_until_reached();
    let mut task = ByHand::new(scene.call());
    assert!(task.poll().is_none());
    let thread = thread::spawn({
        let function = scene.function.clone();
        move || function.call(2, ())
    });
    wait_for_waiters(&scene.pool, 2);
    drop(leader);
    assert!(
        scene.pool.stats().budget(Budget::Compile).charged > 0,
        "it still compiles"
    );
    scene.pool.recount().unwrap();
    drop(held);
    task.finish().unwrap();
    assert_eq!(thread.join().unwrap().unwrap(), 1);
    scene.check();
}

#[test]
fn a_compilation_that_nobody_waits_for_is_not_begun() {
    spans::watch();
    let scene = Scene::new("begun", memory_module(1, 0), |b| b.max_compilations(1));
    let never = Definition::new("never_begun")
        .wasm(memory_module(1, 1))
        .export("f");
    let never: Function<(), i32> = scene.pool.define(never).unwrap();
    let held = spans::hold("compile", "begun()");
    let mut leader = ByHand::new(scene.acquire());
    assert!(leader.poll().is_none());
    held.wait_until_reached();
    let mut queued = ByHand::new(async move { never.call_async(1, ()).await });
    assert!(queued.poll().is_none());
    drop(queued);
    drop(held);
    leader.finish().unwrap();
    assert_eq!(spans::begun("compile", "never_begun()"), 0);
    assert_eq!(scene.pool.stats().compilations, 1);
    scene.check();
}

#[test]
fn closing_ends_every_wait_and_drops_still_cost_nothing() {
    for served in [false, true] {
        let scene = Scene::new("f", memory_module(1, 0), one).hold(1);
        let mut waiting = ByHand::new(scene.acquire());
        assert!(waiting.poll().is_none());
        if served {
            scene.let_go();
            waiting.wait_until_woken();
        }
        scene.pool.close();
        waiting.wait_until_woken();
        if served {
            drop(waiting);
        } else {
            let error = waiting.finish().unwrap_err();
            assert!(matches!(
                error,
                CallError::Acquire(AcquireError::Closed { .. })
            ));
        }
        scene.let_go();
        check(&scene.pool);
        check_empty(&scene.pool);
    }
}
