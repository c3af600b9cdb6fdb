//! 10, 11: no recursion through guests and host functions ends the process, on whatever stack.

use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use pollster::block_on;
use wasm_pool::{
    AcquireError, CallError, Definition, Function, Lease, Limits, Pool, PoolBuilder,
    PoolingAllocator,
};

use crate::common::child::is_child;
use crate::common::*;

/// `f(frames)` recurses so often (some 40 bytes each), then asks the host to go on; `deep(frames)`
/// only recurses.
fn nesting() -> Vec<u8> {
    wat(r#"(module
        (import "env" "again" (func $again))
        (memory (export "memory") 1)
        (func $f (export "f") (param $frames i32) (result i32)
            (if (local.get $frames)
                (then (drop (call $f (i32.sub (local.get $frames) (i32.const 1)))))
                (else (call $again)))
            (local.get $frames))
        (func $deep (export "deep") (param $frames i32) (result i32)
            (if (local.get $frames)
                (then (drop (call $deep (i32.sub (local.get $frames) (i32.const 1))))))
            (local.get $frames))
        (func (export "alloc") (param i32) (result i32) (drop (call $deep (i32.const 9000))) (i32.const 8))
        (func (export "dealloc") (param i32 i32)))"#)
}

/// A module whose start function recurses deeply.
fn starting() -> Vec<u8> {
    wat(r#"(module
        (func $deep (param $frames i32) (result i32)
            (if (local.get $frames)
                (then (drop (call $deep (i32.sub (local.get $frames) (i32.const 1))))))
            (local.get $frames))
        (func $start (drop (call $deep (i32.const 9000))))
        (start $start)
        (func (export "f") (result i32) (i32.const 1)))"#)
}

/// Stacks of tasks that are made on demand, and such that were made ahead.
const BUILDERS: [fn() -> PoolBuilder; 2] = [one_at_a_time, || {
    one_at_a_time().pooling_allocator(PoolingAllocator::for_instances(300))
}];

/// Nearly as many frames as `max_wasm_stack` has room for.
const DEEP: i32 = 9_000;

type Nested = Function<i32, i32>;

fn is_about_stack(error: &(dyn std::error::Error + 'static)) -> bool {
    let too_small = match error.downcast_ref::<CallError>() {
        Some(CallError::StackTooSmall { .. }) => true,
        Some(CallError::Acquire(error)) => return is_about_stack(error),
        _ => matches!(
            error.downcast_ref::<AcquireError>(),
            Some(AcquireError::StackTooSmall { .. })
        ),
    };
    too_small || error.source().is_some_and(is_about_stack)
}

/// A pool whose guests, when they ask the host to go on, have it do `again`.
struct Scene {
    pool: Pool,
    f: Nested,
    /// How often the host was asked to go on.
    levels: Arc<AtomicUsize>,
    /// What refused in the end.
    refusals: Arc<Mutex<Vec<String>>>,
}

type Again = dyn Fn(&Nested, u64) -> Result<(), CallError> + Send + Sync;

fn scene(builder: PoolBuilder, again: Box<Again>) -> Scene {
    let levels: Arc<AtomicUsize> = Arc::default();
    let refusals: Arc<Mutex<Vec<String>>> = Arc::default();
    let own: Arc<OnceLock<Nested>> = Arc::default();
    let (count, refused, f) = (levels.clone(), refusals.clone(), own.clone());
    let host = move || {
        let level = count.fetch_add(1, Ordering::SeqCst) as u64;
        match again(f.get().unwrap(), level) {
            Ok(()) => {}
            Err(error) if is_about_stack(&error) => refused.lock().unwrap().push(error.to_string()),
            Err(error) => panic!("{error}"),
        }
    };
    let builder = builder.imports(move |linker| {
        linker.func_wrap("env", "again", host)?;
        Ok(())
    });
    let pool = builder.build().unwrap();
    let definition = Definition::new("f").wasm(nesting());
    let f: Nested = pool.define(definition).unwrap();
    own.set(f.clone()).unwrap();
    Scene {
        pool,
        f,
        levels,
        refusals,
    }
}

impl Scene {
    /// It was refused, somewhere, and everything is as it was.
    #[track_caller]
    fn was_refused(&self) {
        let refusals = self.refusals.lock().unwrap();
        assert!(!refusals.is_empty(), "nothing was refused");
        assert!(self.levels.load(Ordering::SeqCst) > 0);
        check(&self.pool);
    }
}

#[test]
fn promise_10_guests_and_hosts_call_each_other_in_a_task_as_deep_as_they_like() {
    if !is_child(
        "promises::stacks::promise_10_guests_and_hosts_call_each_other_in_a_task_as_deep_as_they_like",
        "",
    ) {
        return;
    }
    for builder in BUILDERS {
        for frames in [0, 300, 3_000, DEEP] {
            let again = Box::new(move |f: &Nested, level| f.call(level, frames).map(drop));
            let scene = scene(builder(), again);
            block_on(scene.f.call_async("task", frames)).unwrap();
            scene.was_refused();
            // Again, with what is warm now.
            block_on(scene.f.call_async("task", frames)).unwrap();
        }
    }
}

#[test]
fn promise_10_every_way_into_a_guest_looks_at_the_stack_of_a_task() {
    if !is_child(
        "promises::stacks::promise_10_every_way_into_a_guest_looks_at_the_stack_of_a_task",
        "",
    ) {
        return;
    }
    for builder in BUILDERS {
        type Way = fn(&mut Lease<'static, i32, i32>) -> Result<(), CallError>;
        let ways: [Way; 3] = [
            |lease| lease.call(DEEP).map(drop),
            |lease| {
                let deep = lease.export::<i32, i32>("deep")?;
                deep.call(lease, DEEP).map(drop)
            },
            |lease| lease.pass_bytes(b"text").map(drop),
        ];
        for way in ways {
            // Leased beforehand: what refuses is the call itself.
            let held: Arc<Mutex<Vec<Lease<'static, i32, i32>>>> = Arc::default();
            let leases = held.clone();
            let again = Box::new(move |_: &Nested, _| {
                let mut lease = leases.lock().unwrap().pop().unwrap();
                way(&mut lease)
            });
            let scene = scene(builder(), again);
            for group in 0..9_u64 {
                held.lock().unwrap().push(scene.f.acquire(group).unwrap());
            }
            block_on(scene.f.call_async("task", DEEP)).unwrap();
            scene.was_refused();
            held.lock().unwrap().clear();
        }
    }
}

#[test]
fn promise_10_start_functions_and_hooks_look_at_the_stack_of_a_task() {
    if !is_child(
        "promises::stacks::promise_10_start_functions_and_hooks_look_at_the_stack_of_a_task",
        "",
    ) {
        return;
    }
    for builder in BUILDERS {
        // A start function.
        let other: Arc<OnceLock<Function<(), i32>>> = Arc::default();
        let starts = other.clone();
        let again = move |_: &Nested, level| {
            let started = starts.get().unwrap().acquire(level);
            started.map(drop).map_err(CallError::from)
        };
        let started = scene(builder(), Box::new(again));
        let definition = Definition::new("starting").wasm(starting()).export("f");
        other.set(started.pool.define(definition).unwrap()).unwrap();
        block_on(started.f.call_async("task", DEEP)).unwrap();
        started.was_refused();

        // A create hook: of a thread's acquire, and of a task's.
        for is_async in [false, true] {
            let hooked = builder().on_create(|store, instance| {
                let deep = instance.get_typed_func::<i32, i32>(&mut *store, "deep")?;
                deep.call(store, DEEP).map(drop)
            });
            let again = move |f: &Nested, level| match is_async {
                false => f.acquire(level).map(drop).map_err(CallError::from),
                true => {
                    let leased = block_on(f.acquire_async(level));
                    leased.map(drop).map_err(CallError::from)
                }
            };
            let created = scene(hooked, Box::new(again));
            block_on(created.f.call_async("task", DEEP)).unwrap();
            created.was_refused();
        }
    }
}

#[test]
fn promise_10_a_hook_for_which_there_is_no_stack_costs_its_instance() {
    if !is_child(
        "promises::stacks::promise_10_a_hook_for_which_there_is_no_stack_costs_its_instance",
        "",
    ) {
        return;
    }
    for builder in BUILDERS {
        let recycled = builder().on_recycle(|store, instance| {
            let deep = instance.get_typed_func::<i32, i32>(&mut *store, "deep")?;
            deep.call(store, DEEP).map(drop)
        });
        let held: Arc<Mutex<Option<Lease<'static, i32, i32>>>> = Arc::default();
        let lease = held.clone();
        let again = move |_: &Nested, _| {
            // The lease ends here, half way down the fiber.
            drop(lease.lock().unwrap().take());
            Ok(())
        };
        let scene = scene(recycled, Box::new(again));
        *held.lock().unwrap() = Some(scene.f.acquire(1).unwrap());
        let mut task = block_on(scene.f.acquire_async("task")).unwrap();
        block_on(task.call_async(DEEP)).unwrap();
        let stats = check(&scene.pool);
        assert_eq!((stats.idle, stats.leased), (0, 1));
        drop(task);
        assert_eq!(check(&scene.pool).idle, 1, "on a whole stack");
    }
}

#[test]
fn promise_10_tasks_within_tasks_have_a_stack_each() {
    if !is_child(
        "promises::stacks::promise_10_tasks_within_tasks_have_a_stack_each",
        "",
    ) {
        return;
    }
    for builder in BUILDERS {
        // Every second level is a task of its own, on a stack of its own; then the one goes on on the
        // stack of the other.
        let levels = 12;
        let again = move |f: &Nested, level: u64| {
            if level < levels {
                block_on(f.call_async(level, DEEP)).map(drop)
            } else {
                f.call(level, DEEP).map(drop)
            }
        };
        let scene = scene(builder(), Box::new(again));
        block_on(scene.f.call_async("task", DEEP)).unwrap();
        assert_eq!(scene.levels.load(Ordering::SeqCst) as u64, levels + 1);
        scene.was_refused();
    }
}

#[test]
fn promise_10_a_task_that_goes_between_threads_is_known_on_each() {
    if !is_child(
        "promises::stacks::promise_10_a_task_that_goes_between_threads_is_known_on_each",
        "",
    ) {
        return;
    }
    for builder in BUILDERS {
        let again = Box::new(move |f: &Nested, level| f.call(level, DEEP).map(drop));
        let Scene {
            f, refusals, pool, ..
        } = scene(builder(), again);
        let mut lease = block_on(f.acquire_async("task")).unwrap();
        for _ in 0..5 {
            let thread = thread::spawn(move || {
                // What this thread calls on its own stack is no matter of the fiber's.
                block_on(lease.call_async(DEEP)).unwrap();
                lease
            });
            lease = thread.join().unwrap();
        }
        assert_eq!(refusals.lock().unwrap().len(), 5);
        drop(lease);
        check(&pool);
    }
}

#[test]
fn promise_10_a_stack_budget_bounds_tasks_within_tasks() {
    if !is_child(
        "promises::stacks::promise_10_a_stack_budget_bounds_tasks_within_tasks",
        "",
    ) {
        return;
    }
    for builder in BUILDERS {
        let again = move |f: &Nested, level| match block_on(f.call_async(level, DEEP)) {
            Err(CallError::Acquire(AcquireError::BudgetExceeded(_))) => Ok(()),
            other => other.map(drop),
        };
        let limits = Limits::new().stack(4 << 20);
        let scene = scene(builder().limits(limits), Box::new(again));
        block_on(scene.f.call_async("task", DEEP)).unwrap();
        assert_eq!(scene.levels.load(Ordering::SeqCst), 4);
        check(&scene.pool);
    }
}

// Threads ────────────────────────────────────────────────────────────────────────────────────────

/// Calls a deep guest from ever deeper frames of the host, until it is refused; how many levels.
fn recurse(lease: &mut Lease<'_, i32, i32>, level: usize) -> usize {
    assert!(level < 10_000, "it has no end");
    let frame = black_box([0_u8; 32 << 10]);
    let levels = match lease.call(DEEP) {
        Ok(_) => recurse(lease, level + 1),
        Err(CallError::StackTooSmall { .. }) => level,
        Err(error) => panic!("{error}"),
    };
    black_box(&frame);
    levels
}

const SMALL: usize = 1 << 20;
const LARGE: usize = 16 << 20;

/// A pool, and a lease of a guest that goes as deep as asked.
fn deep() -> (Pool, Function<i32, i32>) {
    let pool = one_at_a_time().build().unwrap();
    let wasm = wat(
        r#"(module (func $deep (export "deep") (param $frames i32) (result i32)
        (if (local.get $frames)
            (then (drop (call $deep (i32.sub (local.get $frames) (i32.const 1))))))
        (local.get $frames)))"#,
    );
    let f = pool.define(Definition::new("deep").wasm(wasm)).unwrap();
    (pool, f)
}

fn on_a_thread(work: impl FnOnce(&mut Lease<'_, i32, i32>) + Send) {
    let (_pool, f) = deep();
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(2 << 20);
        let run = || work(&mut f.acquire("tenant").unwrap());
        let run = thread.spawn_scoped(scope, run).unwrap();
        run.join().unwrap();
    });
}

#[test]
fn promise_11_bounds_of_a_grown_stack_are_not_kept_for_the_thread() {
    if !is_child(
        "promises::stacks::promise_11_bounds_of_a_grown_stack_are_not_kept_for_the_thread",
        "",
    ) {
        return;
    }
    for segment in [SMALL, LARGE] {
        let (_pool, f) = deep();
        let run = move || {
            // The thread's first look at any stack.
            let mut lease = stacker::grow(segment, || f.acquire("tenant").unwrap());
            stacker::grow(segment, || lease.call(DEEP).unwrap());
            let own = recurse(&mut lease, 0);
            assert!((20..64).contains(&own), "{own} levels on 2 MiB");
        };
        let thread = thread::Builder::new().stack_size(2 << 20);
        thread.spawn(run).unwrap().join().unwrap();
    }
}

#[test]
fn promise_11_bounds_of_the_thread_are_not_kept_for_a_grown_stack() {
    if !is_child(
        "promises::stacks::promise_11_bounds_of_the_thread_are_not_kept_for_a_grown_stack",
        "",
    ) {
        return;
    }
    on_a_thread(|lease| {
        let own = recurse(lease, 0);
        assert!((20..64).contains(&own), "{own} levels on 2 MiB");
        let grown = stacker::grow(LARGE, || recurse(lease, 0));
        assert!((300..512).contains(&grown), "{grown} levels on 16 MiB");
        assert_eq!(recurse(lease, 0), own);
    });
}

#[test]
fn promise_11_a_grown_stack_in_the_place_of_another_is_another() {
    if !is_child(
        "promises::stacks::promise_11_a_grown_stack_in_the_place_of_another_is_another",
        "",
    ) {
        return;
    }
    on_a_thread(|lease| {
        // The kernel puts the small one where the upper end of the large one was.
        for segment in [LARGE, SMALL, LARGE, SMALL] {
            let levels = stacker::grow(segment, || recurse(lease, 0));
            assert!(levels < segment >> 15, "{levels} levels on {segment} bytes");
        }
        // One within the other, and back.
        stacker::grow(LARGE, || {
            assert!(stacker::grow(SMALL, || recurse(lease, 0)) < SMALL >> 15);
            assert!(recurse(lease, 0) > 300);
        });
    });
}

#[test]
fn promise_11_a_grown_stack_within_a_task_is_known_too() {
    if !is_child(
        "promises::stacks::promise_11_a_grown_stack_within_a_task_is_known_too",
        "",
    ) {
        return;
    }
    let again = |f: &Nested, level: u64| match level % 3 {
        0 => stacker::grow(LARGE, || f.call(level, DEEP).map(drop)),
        1 => stacker::grow(SMALL, || f.call(level, DEEP).map(drop)),
        _ => f.call(level, DEEP).map(drop),
    };
    let scene = scene(one_at_a_time(), Box::new(again));
    block_on(scene.f.call_async("task", DEEP)).unwrap();
    scene.was_refused();
}

/// Begins tasks from ever deeper frames of the host, until it is refused; how many levels.
fn recurse_as_tasks(f: &Function<i32, i32>, lease: &mut Lease<'_, i32, i32>, level: u64) -> u64 {
    assert!(level < 10_000, "it has no end");
    let frame = black_box([0_u8; 8 << 10]);
    // In a lease that there is; and in a new one, whose instance is made here.
    let called = block_on(lease.call_async(DEEP)).map(drop);
    let made = block_on(f.acquire_async(level)).map(drop);
    let levels = match (called, made) {
        (Ok(()), Ok(())) => recurse_as_tasks(f, lease, level + 1),
        (Ok(()), Err(error)) if is_about_stack(&error) => level,
        (Err(error), _) if is_about_stack(&error) => level,
        errors => panic!("{errors:?}"),
    };
    black_box(&frame);
    levels
}

#[test]
fn promise_10_tasks_begin_only_where_there_is_stack_to_begin_them() {
    if !is_child(
        "promises::stacks::promise_10_tasks_begin_only_where_there_is_stack_to_begin_them",
        "",
    ) {
        return;
    }
    let (_pool, f) = deep();
    let mut lease = block_on(f.acquire_async("tenant")).unwrap();
    let run = move || {
        let levels = recurse_as_tasks(&f, &mut lease, 0);
        assert!((64..250).contains(&levels), "{levels} levels on 2 MiB");
        // It is as good as before.
        assert_eq!(block_on(lease.call_async(1)).unwrap(), 1);
    };
    let thread = thread::Builder::new().stack_size(2 << 20);
    thread.spawn(run).unwrap().join().unwrap();
}
