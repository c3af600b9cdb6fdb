//! Definitions that are warmed up: their instances begin where an export has ended that was run once.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pollster::block_on;
use wasm_pool::{
    AcquireError, Artifacts, Budget, DefineError, Definition, ErrorKind, Function, MemoryStore,
    ModuleError, Pool, PoolBuilder, PoolingAllocator, Report, WarmUpError,
};

use crate::common::pools::{one_at_a_time, quiet, quiet_with_clock};
use crate::common::{charged, check, check_empty, in_time, wat};

/// Fills a table in memory that it grows for that, and a global. Then each call returns a square and the number of
/// calls of its instance.
const SQUARES: &str = r#"(module
    (memory (export "memory") 1 64)
    (global $filled (mut i64) (i64.const 0))
    (func (export "fill") (local $n i32)
        (drop (memory.grow (i32.const 2)))
        (loop $next
            (i32.store (i32.add (i32.const 65536) (i32.shl (local.get $n) (i32.const 2)))
                (i32.mul (local.get $n) (local.get $n)))
            (local.set $n (i32.add (local.get $n) (i32.const 1)))
            (br_if $next (i32.lt_u (local.get $n) (i32.const 32768))))
        (global.set $filled (i64.add (global.get $filled) (i64.const 1))))
    (func (export "refill") (i32.store (i32.const 65540) (i32.const 77)))
    (func (export "square") (param $n i32) (result i32)
        (i32.load (i32.add (i32.const 65536) (i32.shl (local.get $n) (i32.const 2)))))
    (func (export "calls") (result i64)
        (global.set $filled (i64.add (global.get $filled) (i64.const 1)))
        (i64.store (i32.const 0) (i64.add (i64.load (i32.const 0)) (i64.const 1)))
        (i64.add (global.get $filled) (i64.mul (i64.load (i32.const 0)) (i64.const 100)))))"#;

fn squares(name: &str) -> Definition {
    Definition::new(name)
        .wasm(wat(SQUARES))
        .export("square")
        .warm_up("fill")
}

/// A function that is warmed up by its export `warm`.
fn define(pool: &Pool, module: &str) -> Function<(), ()> {
    let definition = Definition::new("f").wasm(wat(module)).warm_up("warm");
    pool.define(definition).unwrap()
}

/// Why its first acquire fails, and its second; both fail alike, and all that was charged is given back.
#[track_caller]
fn refused(builder: PoolBuilder, module: &str) -> (WarmUpError, ErrorKind) {
    let pool = builder.build().unwrap();
    let f = define(&pool, module);
    let error = f.acquire(1).unwrap_err();
    let again = f.acquire(2).unwrap_err();
    assert_eq!(
        Report(&error).to_string(),
        Report(&again).to_string().replace("group 2", "group 1")
    );
    let kind = error.kind();
    drop(f);
    check_empty(&pool);
    let stats = check(&pool);
    assert_eq!(
        (stats.warm_ups, stats.module_failures, stats.loads),
        (0, 1, 0)
    );
    drop((again, pool));
    let AcquireError::Module { source, .. } = error else {
        panic!("{error:?}");
    };
    match std::sync::Arc::into_inner(source) {
        // The module remembers it as long as it lasts: the pool has to go first.
        None => panic!("it is shared"),
        Some(ModuleError::WarmUp { export, source }) => {
            assert_eq!(&*export, "warm");
            (source, kind)
        }
        Some(other) => panic!("{other:?}"),
    }
}

#[test]
fn c_b10_the_only_place_serves_the_warm_up_and_then_its_instances() {
    let allocator = PoolingAllocator::for_instances(1);
    let pool = quiet().pooling_allocator(allocator).build().unwrap();
    let f: Function<i32, i32> = pool.define(squares("f")).unwrap();
    for group in 1..4 {
        assert_eq!(f.call(group, 12).unwrap(), 144);
    }
    let stats = check(&pool);
    assert_eq!((stats.warm_ups, stats.evictions), (1, 2));
    assert_eq!(stats.budget(Budget::Instances).peak, 1);
}

#[test]
fn each_instance_begins_where_the_warm_up_has_ended_with_a_copy_of_its_own() {
    let pool = quiet().build().unwrap();
    let square: Function<i32, i32> = pool.define(squares("square")).unwrap();
    let calls: Function<(), i64> = pool.define(squares("calls").export("calls")).unwrap();
    assert_eq!(pool.stats().warm_ups, 0, "not when it is defined");
    for group in 0..3 {
        assert_eq!(square.call(group, 1000).unwrap(), 1_000_000);
    }
    for group in 0..3 {
        // One call of its own, after the one of the warm-up; not others'.
        assert_eq!(calls.call(group, ()).unwrap(), 102);
        assert_eq!(calls.call(group, ()).unwrap(), 203);
    }
    let stats = check(&pool);
    assert_eq!((stats.warm_ups, stats.compilations, stats.loads), (1, 1, 1));
    assert_eq!(stats.modules_known, 1, "the same bytes, the same export");
    pool.close();
    check_empty(&pool);
}

#[test]
fn another_warm_up_is_another_module() {
    let pool = quiet().build().unwrap();
    let define = |name: &str, set: fn(Definition) -> Definition| {
        let definition = Definition::new(name).wasm(wat(SQUARES)).export("square");
        pool.define::<i32, i32>(set(definition)).unwrap()
    };
    let filled = define("filled", |d| d.warm_up("fill"));
    let refilled = define("refilled", |d| d.warm_up("refill"));
    let error = refilled.acquire(1).map(drop).unwrap_err();
    // It writes where no memory is yet: so it traps.
    assert_eq!(error.kind(), ErrorKind::Guest, "{error}");
    let cold = define("cold", |d| d);
    assert_eq!(filled.call(1, 3).unwrap(), 9);
    assert!(cold.call(1, 3).is_err(), "that memory is not there");
    let stats = check(&pool);
    assert_eq!((stats.warm_ups, stats.compilations), (1, 2));
    assert_eq!(stats.modules_known, 3);
}

/// An export may have no name at all; a definition that runs that one is another than one that runs none.
#[test]
fn an_export_without_a_name_is_warmed_up_too() {
    let module = r#"(module (global $ran (mut i32) (i32.const 0))
        (func (export "") (global.set $ran (i32.add (global.get $ran) (i32.const 1))))
        (func (export "ran") (result i32) (global.get $ran)))"#;
    let pool = quiet().build().unwrap();
    let define = |name: &str, set: fn(Definition) -> Definition| {
        let definition = Definition::new(name).wasm(wat(module)).export("ran");
        pool.define::<(), i32>(set(definition)).unwrap()
    };
    let (cold, warm) = (define("cold", |d| d), define("warm", |d| d.warm_up("")));
    assert_eq!(
        (cold.call(1, ()).unwrap(), warm.call(1, ()).unwrap()),
        (0, 1)
    );
    let stats = check(&pool);
    assert_eq!((stats.warm_ups, stats.modules_known), (1, 2));
}

#[test]
fn any_number_of_first_users_warm_up_once() {
    const USERS: u64 = 6;
    let pool = quiet().build().unwrap();
    let square: Function<i32, i32> = pool.define(squares("square")).unwrap();
    let barrier = Barrier::new(USERS as usize);
    std::thread::scope(|scope| {
        for user in 0..USERS {
            let (square, barrier) = (&square, &barrier);
            scope.spawn(move || {
                barrier.wait();
                let called = match user % 2 {
                    0 => square.call(user, 5),
                    _ => block_on(square.call_async(user, 5)),
                };
                assert_eq!(called.unwrap(), 25);
            });
        }
    });
    let stats = check(&pool);
    assert_eq!((stats.warm_ups, stats.compilations), (1, 1));
}

#[test]
fn tasks_warm_up_aside_with_the_stack_that_guests_need() {
    // More than a thread of the pool's own has.
    let builder = quiet().max_wasm_stack(6 << 20).async_stack_size(8 << 20);
    let pool = builder.build().unwrap();
    let deep = r#"(module (memory 1)
        (func $deep (param i32) (result i32)
            (if (result i32) (local.get 0)
                (then (i32.add (i32.const 1) (call $deep (i32.sub (local.get 0) (i32.const 1)))))
                (else (i32.const 0))))
        (func (export "warm") (i32.store (i32.const 0) (call $deep (i32.const 60000))))
        (func (export "f") (result i32) (i32.load (i32.const 0))))"#;
    let definition = Definition::new("f").wasm(wat(deep)).warm_up("warm");
    let f: Function<(), i32> = pool.define(definition).unwrap();
    assert_eq!(block_on(f.call_async(1, ())).unwrap(), 60_000);
    pool.close();
    check_empty(&pool);
}

#[test]
fn replaced_and_removed_definitions_take_their_snapshots_along() {
    let pool = quiet().build().unwrap();
    let square: Function<i32, i32> = pool.define(squares("square")).unwrap();
    assert_eq!(square.call(1, 4).unwrap(), 16);
    let cubes = SQUARES.replacen(
        "(i32.mul (local.get $n) (local.get $n))",
        "(i32.mul (local.get $n) (i32.mul (local.get $n) (local.get $n)))",
        1,
    );
    pool.replace::<i32, i32>(squares("square").wasm(wat(&cubes)))
        .unwrap();
    assert_eq!(square.call(1, 4).unwrap(), 64);
    assert_eq!(check(&pool).warm_ups, 2);
    pool.remove("square").unwrap();
    check_empty(&pool);
}

#[test]
fn code_that_was_evicted_is_warmed_up_anew() {
    let pool = quiet().build().unwrap();
    let square: Function<i32, i32> = pool.define(squares("square")).unwrap();
    assert_eq!(square.call(1, 4).unwrap(), 16);
    let limits = pool.limits();
    pool.set_limits(limits.code(1 << 10)).unwrap();
    assert_eq!(charged(&pool, Budget::Code), 0);
    pool.set_limits(limits).unwrap();
    assert_eq!(square.call(1, 5).unwrap(), 25);
    let stats = check(&pool);
    assert_eq!((stats.warm_ups, stats.compilations, stats.loads), (2, 2, 2));
}

#[test]
fn start_functions_and_initializers_run_before_the_warm_up_and_not_again() {
    let module = r#"(module (memory 1)
        (func $digit (param i32) (i32.store (i32.const 0)
            (i32.add (i32.mul (i32.load (i32.const 0)) (i32.const 10)) (local.get 0))))
        (func $start (call $digit (i32.const 1)))
        (func (export "_initialize") (call $digit (i32.const 2)))
        (func (export "warm") (call $digit (i32.const 3)))
        (func (export "f") (result i32) (call $digit (i32.const 4)) (i32.load (i32.const 0)))
        (start $start))"#;
    static HOOKS: AtomicU32 = AtomicU32::new(0);
    let pool = quiet()
        .on_create(|store, instance| {
            HOOKS.fetch_add(1, Ordering::Relaxed);
            assert!(instance.get_func(&mut *store, "_initialize").is_none());
            assert!(instance.get_func(&mut *store, "warm").is_some());
            Ok(())
        })
        .build()
        .unwrap();
    let by = |name: &str, export: &str| {
        let definition = Definition::new(name).wasm(wat(module)).export("f");
        pool.define::<(), i32>(definition.warm_up(export)).unwrap()
    };
    let f = by("f", "warm");
    assert_eq!(f.call(1, ()).unwrap(), 1234);
    assert_eq!(f.call(2, ()).unwrap(), 1234);
    assert_eq!(HOOKS.load(Ordering::Relaxed), 2, "not in the throwaway one");
    // Asked for by name, it is run once.
    let g = by("g", "_initialize");
    assert_eq!(g.call(1, ()).unwrap(), 124);
}

#[test]
fn imports_are_linked_and_must_not_be_called_meanwhile() {
    let module = |call: &str| {
        format!(
            r#"(module (import "env" "now" (func $now (result i32)))
                (memory 1)
                (func (export "warm") (i32.store (i32.const 0) {call}))
                (func (export "f") (result i32)
                    (i32.add (i32.load (i32.const 0)) (call $now))))"#
        )
    };
    let builder = || {
        quiet().imports(|linker| {
            linker.func_wrap("env", "now", || 7)?;
            Ok(())
        })
    };
    let pool = builder().build().unwrap();
    let definition = Definition::new("f").wasm(wat(&module("(i32.const 100)")));
    let f: Function<(), i32> = pool.define(definition.warm_up("warm")).unwrap();
    assert_eq!(f.call(1, ()).unwrap(), 107);

    let pool = builder().build().unwrap();
    let definition = Definition::new("f").wasm(wat(&module("(call $now)")));
    let f: Function<(), i32> = pool.define(definition.warm_up("warm")).unwrap();
    let error = f.call(1, ()).unwrap_err();
    assert_eq!(
        Report(&error).to_string(),
        "f() in group 1: its module's code could not be had: the module could not be warmed up by its \
         export \"warm\": it called the import \"env\" \"now\""
    );
    assert_eq!(error.kind(), ErrorKind::Invalid);
    check_empty(&pool);
}

#[test]
fn what_no_snapshot_can_hold_is_refused_with_the_reason() {
    let with = |more: &str| {
        format!(
            r#"(module {more} (memory 1) (table $t 2 funcref) (elem declare func $w)
            (data $passive "abc") (func $w (export "warm")) (func (export "f")))"#
        )
    };
    for (instruction, part) in [
        ("table.set", "(table.set $t (i32.const 0) (ref.func $w))"),
        ("data.drop", "(data.drop $passive)"),
        (
            "table.grow",
            "(drop (table.grow $t (ref.null func) (i32.const 1)))",
        ),
    ] {
        let (error, kind) = refused(quiet(), &with(&format!("(func {part})")));
        let reason = Report(&error).to_string();
        let expected =
            format!("the module cannot be snapshotted: unsupported `{instruction}` instruction");
        assert_eq!((reason, kind), (expected, ErrorKind::Invalid));
    }
    let global = "(global (mut funcref) (ref.null func))";
    let (error, _) = refused(quiet(), &with(global));
    let reason = Report(&error).to_string();
    assert!(
        reason.ends_with("mutable global containing a reference type"),
        "{reason}"
    );
    // What is left as it is, is snapshotted as it is.
    let pool = quiet().build().unwrap();
    let copies = "(func (memory.init $passive (i32.const 0) (i32.const 0) (i32.const 3)))";
    define(&pool, &with(copies)).call(1, ()).unwrap();
}

#[test]
fn guests_that_fail_in_their_warm_up_are_told_apart() {
    let warm = |body: &str| {
        format!(r#"(module (memory 1) (func (export "warm") {body}) (func (export "f")))"#)
    };
    let spin = warm("(loop $again (br $again))");
    let (error, kind) = refused(quiet(), &warm("unreachable"));
    assert!(matches!(error, WarmUpError::Trapped(_)), "{error:?}");
    assert_eq!(kind, ErrorKind::Guest);
    let (error, kind) = refused(quiet().fuel(100_000), &spin);
    assert_eq!(error.to_string(), "it ran out of fuel (100000 units)");
    assert_eq!(kind, ErrorKind::Limit);
    let grow = warm("(drop (memory.grow (i32.const 2000)))");
    let (error, kind) = refused(quiet().max_instance_memory(1 << 20), &grow);
    assert!(matches!(error, WarmUpError::Memory(_)), "{error:?}");
    assert_eq!(kind, ErrorKind::TooLarge);
    // What no budget can hold is not waited for.
    let (error, kind) = refused(
        quiet()
            .limits(wasm_pool::Limits::new().memory(4 << 20))
            .max_instance_memory(3 << 20),
        &warm("(drop (memory.grow (i32.const 20))) (drop (memory.grow (i32.const 40)))"),
    );
    assert!(matches!(error, WarmUpError::Memory(_)), "{error:?}");
    assert_eq!(kind, ErrorKind::TooLarge);
}

#[test]
fn an_endless_warm_up_ends() {
    in_time(|| {
        let builder = Pool::builder().call_timeout(Duration::from_millis(50));
        let spin = r#"(module (func (export "warm") (loop $again (br $again)))
            (func (export "f")))"#;
        for task in [false, true] {
            let pool = Pool::builder()
                .call_timeout(Duration::from_millis(50))
                .build()
                .unwrap();
            let f = define(&pool, spin);
            let error = match task {
                false => f.call(1, ()).unwrap_err(),
                true => block_on(f.call_async(1, ())).unwrap_err(),
            };
            let text = Report(&error).to_string();
            assert!(text.ends_with("it ran out of time (50ms)"), "{text}");
            assert_eq!(error.kind(), ErrorKind::Limit);
            check_empty(&pool);
        }
        drop(builder);
    });
}

#[test]
fn limits_are_tried_again_after_the_cool_down_and_faults_of_the_module_are_not() {
    let (builder, clock) = quiet_with_clock();
    let cooldown = Duration::from_secs(3);
    let pool = builder
        .fuel(100_000)
        .compile_cooldown(cooldown)
        .build()
        .unwrap();
    let module = |body: &str| {
        let text = format!(r#"(module (func (export "warm") {body}) (func (export "f")))"#);
        wat(&text)
    };
    let spin = module(
        "(local i32) (loop $again (br_if $again (i32.ne (i32.const 200000) (local.tee 0 (i32.add (i32.const 1) (local.get 0))))))",
    );
    let define = |name: &str, wasm: &[u8]| {
        let definition = Definition::new(name).wasm(wasm.to_vec()).export("f");
        definition.warm_up("warm")
    };
    let trap: Function<(), ()> = pool.define(define("trap", &module("unreachable"))).unwrap();
    let poor: Function<(), ()> = pool.define(define("poor", &spin)).unwrap();
    let rich: Function<(), ()> = pool
        .define(define("rich", &spin).fuel(100_000_000))
        .unwrap();
    assert_eq!(trap.call(1, ()).unwrap_err().kind(), ErrorKind::Guest);
    assert_eq!(poor.call(1, ()).unwrap_err().kind(), ErrorKind::Limit);
    assert_eq!(
        rich.call(1, ()).unwrap_err().kind(),
        ErrorKind::Limit,
        "it is one module"
    );
    assert_eq!(pool.stats().module_failures, 2);
    clock.advance(cooldown);
    rich.call(1, ()).unwrap();
    poor.call(1, ()).unwrap();
    assert_eq!(trap.call(1, ()).unwrap_err().kind(), ErrorKind::Guest);
    let stats = check(&pool);
    assert_eq!((stats.module_failures, stats.warm_ups), (2, 1));
}

#[test]
fn definitions_that_can_never_be_warmed_up_are_refused_at_once() {
    let module = r#"(module (memory (export "m") 1)
        (func (export "_initialize"))
        (func (export "takes") (param i32)) (func (export "gives") (result i32) i32.const 1)
        (func (export "warm")) (func (export "f")))"#;
    let pool = quiet().build().unwrap();
    let define = |export: &str, by: &str| {
        let definition = Definition::new("f").wasm(wat(module)).export(export);
        pool.define::<(), ()>(definition.warm_up(by)).unwrap_err()
    };
    for missing in ["nothing", "m"] {
        let error = define("f", missing);
        assert!(
            matches!(error, DefineError::MissingExport { .. }),
            "{error}"
        );
    }
    assert_eq!(
        define("f", "takes").to_string(),
        "f() cannot be warmed up: export \"takes\" is (i32) -> (), and must be () -> ()"
    );
    for (export, by) in [("f", "gives"), ("_initialize", "warm")] {
        let error = define(export, by);
        assert!(matches!(error, DefineError::WarmUp { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
    let imports = pool.imports().memory("env", "memory").build().unwrap();
    let importing = wat(r#"(module (import "env" "memory" (memory 1))
        (func (export "warm")) (func (export "f")))"#);
    let definition = Definition::new("f").wasm(importing).imports(&imports);
    let error = pool
        .define::<(), ()>(definition.warm_up("warm"))
        .unwrap_err();
    assert!(matches!(error, DefineError::WarmUp { .. }), "{error}");
}

#[test]
fn a_module_that_does_not_compile_says_so_and_not_that_it_could_not_be_warmed_up() {
    let pool = quiet().build().unwrap();
    let mut wasm =
        wat(r#"(module (func (export "warm")) (func (export "f") (drop (i32.const 1))))"#);
    // The `drop` becomes an addition, for which there is too little.
    let at = wasm.iter().rposition(|byte| *byte == 0x1a).unwrap();
    wasm[at] = 0x6a;
    let definition = Definition::new("f").wasm(wasm).warm_up("warm");
    let f: Function<(), ()> = pool.define(definition).unwrap();
    let AcquireError::Module { source, .. } = f.acquire(1).unwrap_err() else {
        panic!("another error");
    };
    assert!(matches!(*source, ModuleError::Compile(_)), "{source:?}");
}

#[test]
fn a_snapshot_is_an_artifact_and_so_is_its_code() {
    let artifacts = Artifacts::builder()
        .store(MemoryStore::new(64 << 20))
        .build();
    let first = quiet().artifacts(&artifacts).build().unwrap();
    let square: Function<i32, i32> = first.define(squares("square")).unwrap();
    assert_eq!(square.call(1, 9).unwrap(), 81);
    let stats = check(&first);
    assert_eq!((stats.warm_ups, stats.compilations), (1, 1));
    assert_eq!(artifacts.stats().saved, 2);
    // What was evicted comes back without either, and so it is for another pool, and for a task.
    let limits = first.limits();
    first.set_limits(limits.code(1 << 10)).unwrap();
    first.set_limits(limits).unwrap();
    assert_eq!(square.call(1, 9).unwrap(), 81);
    let stats = check(&first);
    assert_eq!((stats.warm_ups, stats.compilations, stats.loads), (1, 1, 2));
    let second = quiet().artifacts(&artifacts).build().unwrap();
    let square: Function<i32, i32> = second.define(squares("square")).unwrap();
    let calls: Function<(), i64> = second.define(squares("calls").export("calls")).unwrap();
    assert_eq!(block_on(square.call_async(1, 9)).unwrap(), 81);
    assert_eq!(calls.call(1, ()).unwrap(), 102);
    let stats = check(&second);
    assert_eq!((stats.warm_ups, stats.compilations, stats.loads), (0, 0, 1));
    second.close();
    check_empty(&second);
    // Cold, it is another module with an artifact of its own.
    let cold = Definition::new("cold").wasm(wat(SQUARES)).export("square");
    let cold: Function<i32, i32> = first.define(cold).unwrap();
    assert!(cold.call(1, 9).is_err());
    assert_eq!(artifacts.stats().saved, 3);
}

#[test]
fn a_snapshot_that_is_larger_than_an_instance_may_be_is_not_loaded() {
    let artifacts = Artifacts::builder()
        .store(MemoryStore::new(64 << 20))
        .build();
    let large = quiet().artifacts(&artifacts).build().unwrap();
    let square: Function<i32, i32> = large.define(squares("square")).unwrap();
    assert_eq!(square.call(1, 9).unwrap(), 81);
    let small = quiet()
        .artifacts(&artifacts)
        .max_instance_memory(2 * 65_536);
    let small = small.build().unwrap();
    let square: Function<i32, i32> = small.define(squares("square")).unwrap();
    let error = square.call(1, 9).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    check_empty(&small);
}

#[test]
fn two_pools_that_share_their_artifacts_warm_up_once() {
    let artifacts = Artifacts::builder()
        .store(MemoryStore::new(64 << 20))
        .build();
    let pools: Vec<Pool> = (0..3)
        .map(|_| quiet().artifacts(&artifacts).build().unwrap())
        .collect();
    let barrier = Barrier::new(pools.len());
    std::thread::scope(|scope| {
        for pool in &pools {
            let barrier = &barrier;
            scope.spawn(move || {
                let square: Function<i32, i32> = pool.define(squares("square")).unwrap();
                barrier.wait();
                assert_eq!(square.call(1, 6).unwrap(), 36);
            });
        }
    });
    let warm_ups: u64 = pools.iter().map(|pool| check(pool).warm_ups).sum();
    assert_eq!(warm_ups, 1);
}

#[test]
fn prepared_code_is_warmed_up_and_an_upload_handler_is_told_why_it_cannot_be() {
    let pool = quiet().build().unwrap();
    let square: Function<i32, i32> = pool.define(squares("square")).unwrap();
    square.prepare().unwrap();
    let stats = check(&pool);
    assert_eq!((stats.warm_ups, stats.compilations, stats.idle), (1, 1, 0));
    assert_eq!(
        charged(&pool, Budget::Memory),
        0,
        "the throwaway instance is gone"
    );
    assert_eq!(square.call(1, 9).unwrap(), 81);
    assert_eq!(check(&pool).warm_ups, 1);
    let trap = r#"(module (func (export "warm") unreachable) (func (export "f")))"#;
    let error = define(&pool, trap).prepare().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Guest, "{error}");
}

#[test]
fn what_a_warm_up_takes_is_reserved_before() {
    let module = r#"(module (memory 16) (func (export "warm")) (func (export "f")))"#;
    let needed = {
        let pool = one_at_a_time().build().unwrap();
        define(&pool, module).call(1, ()).unwrap();
        pool.stats()
    };
    for budget in [Budget::Memory, Budget::Code, Budget::Compile] {
        let peak = needed.budget(budget).peak;
        let limits = wasm_pool::Limits::new().with(budget, Some(peak - 1));
        let builder = one_at_a_time().max_instance_memory(1 << 20).limits(limits);
        let Ok(pool) = builder.build() else {
            // An instance may grow to no more than there is.
            continue;
        };
        let error = define(&pool, module).acquire(1).map(drop).unwrap_err();
        let AcquireError::BudgetExceeded(exceeded) = error else {
            panic!("{budget}: {error:?}");
        };
        assert_eq!(exceeded.budget, budget);
        check_empty(&pool);
    }
}
