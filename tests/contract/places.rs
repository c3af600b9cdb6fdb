//! C-B10: instances in places that wasmtime's pooling allocator has made ahead.

use std::thread;

use crate::common::*;
use pollster::block_on;
use wasm_pool::{
    AcquireError, Budget, BuildError, CallError, DefineError, Definition, ErrorKind, Function,
    Limits, LimitsError, Policy, Pool, PoolBuilder, PoolingAllocator, Reuse, Share, ShareError,
};
use wasmtime::{Enabled, Engine, Linker, Memory, MemoryType, PoolingAllocationConfig, Store};

const PLACE: PoolingAllocator = PoolingAllocator::for_instances(3);
const PAGE: u64 = 4096;
/// Beyond those of instances.
const MORE: u64 = 8;

fn with(allocator: PoolingAllocator) -> PoolBuilder {
    quiet().pooling_allocator(allocator)
}

fn functions<const N: usize>(pool: &Pool) -> [Function<(), i32>; N] {
    std::array::from_fn(|n| define(pool, &format!("f{n}"), memory_module(1, n as u32)))
}

#[track_caller]
fn limits_error(builder: PoolBuilder) -> LimitsError {
    match builder.build().map(drop) {
        Err(BuildError::Limits(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn c_b10_places_are_charged_from_the_start_until_the_pool_is_gone() {
    let pool = with(PLACE.memories(2).keep_resident(PAGE + 1))
        .build()
        .unwrap();
    let of_places = |pool: &Pool| {
        let stats = check(pool);
        let charged = |budget| stats.budget(budget).charged;
        assert_eq!(charged(Budget::Memory), (3 * 2 + MORE) * 2 * PAGE);
        let mappings = (3 * 2 + MORE) * 4 + (3 + MORE) * 2 + 3;
        assert_eq!(charged(Budget::Mappings), mappings);
        assert_eq!(charged(Budget::Total), charged(Budget::Memory));
        let others = [Budget::Code, Budget::Stack, Budget::Instances];
        assert!(others.into_iter().all(|budget| charged(budget) == 0));
    };
    of_places(&pool);
    let before = check(&pool);
    let [f] = functions(&pool);
    let lease = f.acquire(1).unwrap();
    let stats = check(&pool);
    let more = |budget| stats.budget(budget).charged - before.budget(budget).charged;
    // As on demand, but for mappings, which were there: those of the module are new.
    assert_eq!(more(Budget::Memory), instance_bytes(1));
    assert_eq!(more(Budget::Mappings), 3);
    assert_eq!(stats.budget(Budget::Instances).charged, 1);
    drop(lease);
    pool.close();
    of_places(&pool);
    assert!(pool.close_and_drain(std::time::Duration::from_secs(60)));
}

#[test]
fn c_b10_there_are_no_more_instances_than_places() {
    let pool = with(PLACE)
        .limits(Limits::new().instances(9))
        .build()
        .unwrap();
    assert_eq!(pool.limits().get(Budget::Instances), Some(3));
    let f: [_; 4] = functions(&pool);
    for _ in 0..3 {
        for f in &f {
            assert_eq!(f.call(1, ()).unwrap(), 1);
        }
    }
    let leases: Vec<_> = f[..3].iter().map(|f| f.acquire(1).unwrap()).collect();
    let refused = f[3].acquire(1).map(drop).unwrap_err();
    let AcquireError::BudgetExceeded(short) = &refused else {
        panic!("{refused}");
    };
    assert_eq!((short.budget, short.limit), (Budget::Instances, 3));
    drop(leases);
    f[3].call(1, ()).unwrap();
    assert_eq!(check(&pool).budget(Budget::Instances).peak, 3);
    // Not by limits that are set later, either.
    pool.set_limits(Limits::new()).unwrap();
    assert_eq!(pool.limits().get(Budget::Instances), Some(3));
    pool.set_limits(Limits::new().instances(1)).unwrap();
    pool.recount().unwrap();
    assert_eq!(pool.stats().idle, 1);
}

/// Threads and tasks, instances that are broken, replaced and grown: whatever is refused is so by a budget.
#[test]
fn c_b10_places_never_run_out_for_who_is_within_the_budgets() {
    let pool = with(PLACE.keep_resident(3 * PAGE))
        .wait_for_room(true)
        .max_instance_memory(1 << 20)
        .build()
        .unwrap();
    let f: [_; 6] = functions(&pool);
    thread::scope(|scope| {
        for thread in 0..3u64 {
            let (pool, f) = (&pool, &f);
            scope.spawn(move || {
                for step in 0..400u64 {
                    let at = (step * 7 + thread) as usize % f.len();
                    let group = step % 2;
                    if step % 4 == thread {
                        let lease = block_on(f[at].acquire_async(group));
                        let mut lease = lease.unwrap();
                        assert_eq!(block_on(lease.call_async(())).unwrap(), 1);
                        continue;
                    }
                    let mut lease = f[at].acquire(group).unwrap();
                    let grow = lease.export::<i32, i32>("grow").unwrap();
                    assert!([1, -1].contains(&grow.call(&mut lease, 15).unwrap()));
                    assert_eq!(lease.call(()).unwrap(), 1);
                    if step % 5 == 0 {
                        lease.discard();
                    }
                    if step % 50 == 0 {
                        let wasm = memory_module(1, 100 + step as u32);
                        let definition = Definition::new(format!("f{at}")).export("f");
                        pool.replace::<(), i32>(definition.wasm(wasm)).unwrap();
                    }
                }
            });
        }
    });
    let stats = check(&pool);
    assert_eq!(stats.budget(Budget::Instances).peak, 3);
    assert_eq!(stats.module_failures, 0);
}

#[test]
fn c_b10_a_module_that_fits_in_no_place_is_refused_when_it_is_defined() {
    let pool = with(PLACE)
        .max_instance_memory(1 << 20)
        .max_table_elements(100)
        .build()
        .unwrap();
    let refused = |text: &str| {
        let definition = Definition::new("f").wasm(wat(text));
        pool.define::<(), ()>(definition).map(drop).unwrap_err()
    };
    let too_many = |text: &str, what: &str| match refused(text) {
        DefineError::NoPlace {
            what: said,
            needed: 2,
            there: 1,
            ..
        } => assert!(said.contains(what), "{said}"),
        other => panic!("{other:?}"),
    };
    let f = r#"(func (export "f"))"#;
    too_many(&format!("(module (memory 1) (memory 0) {f})"), "memories");
    too_many(
        &format!("(module (table 0 funcref) (table 1 funcref) {f})"),
        "tables",
    );
    // A GC heap takes the place of a memory.
    let collects =
        format!("(module (type $s (struct)) (memory 1) (global (ref $s) (struct.new $s)) {f})");
    too_many(&collects, "memories");
    let error = refused(&format!("(module (memory 17) {f})"));
    assert!(
        matches!(error, DefineError::MemoryTooLarge { .. }),
        "{error}"
    );
    let error = refused(&format!("(module (table 101 funcref) {f})"));
    assert!(
        matches!(error, DefineError::TableTooLarge { .. }),
        "{error}"
    );
    let shared = refused(&format!("(module (memory 1 2 shared) {f})"));
    assert!(matches!(shared, DefineError::Module { .. }), "{shared}");
    check(&pool);
    // Where places are larger, each has what it asks for.
    let pool = with(PLACE.memories(2).tables(2)).build().unwrap();
    let all = [
        collects,
        format!("(module (memory 1) (memory 2) (table 3 funcref) (table 4 funcref) {f})"),
        format!("(module {f})"),
        format!("(module (memory 1) (memory 1) {f} (data (memory 1) (i32.const 9) \"x\"))"),
    ];
    for (n, text) in all.iter().enumerate() {
        let definition = Definition::new(format!("f{n}")).export("f").wasm(wat(text));
        let f: Function<(), ()> = pool.define(definition).unwrap();
        let leases = [(); 3].map(|()| f.acquire(n as u64).unwrap());
        assert!(f.acquire(n as u64).is_err());
        drop(leases);
        f.call(9, ()).unwrap();
    }
    check(&pool);
}

#[test]
fn c_b10_an_instance_grows_as_far_as_its_place_reaches() {
    let pool = with(PLACE).max_instance_memory(4 << 16).build().unwrap();
    let [f] = functions(&pool);
    let mut lease = f.acquire(1).unwrap();
    let grow = lease.export::<i32, i32>("grow").unwrap();
    assert_eq!(grow.call(&mut lease, 3).unwrap(), 1);
    assert_eq!(grow.call(&mut lease, 1).unwrap(), -1);
    assert_eq!(lease.memory_bytes(), 4 << 16);
    drop(lease);
    let stats = check(&pool);
    assert_eq!(stats.budget(Budget::Memory).charged, instance_bytes(4));
    assert_eq!(stats.growth_refusals, 1);
}

#[test]
fn c_b10_what_is_made_for_an_instance_to_import_lies_elsewhere() {
    let pool = with(PLACE).build().unwrap();
    let imports = (pool.imports().memory("env", "memory").build()).unwrap();
    let text = r#"(module (import "env" "memory" (memory 1)) (memory 1)
        (func (export "f") (result i32) (i32.load (i32.const 0))))"#;
    let definition = Definition::new("f").wasm(wat(text)).imports(&imports);
    let f: Function<(), i32> = pool.define(definition).unwrap();
    let before = check(&pool).budget(Budget::Mappings).charged;
    let leases = [(); 3].map(|()| f.acquire(1).unwrap());
    let mappings = check(&pool).budget(Budget::Mappings).charged - before;
    assert_eq!(mappings, 3 + 3 * 3);
    drop(leases);
}

/// Others than the pool may make instances in its engine: those that are idle go first, then it is an error that says so.
#[test]
fn c_b10_places_that_others_occupy_are_refused_like_memory_that_the_system_does_not_have() {
    let pool = with(PLACE).build().unwrap();
    let [f, g] = functions(&pool);
    f.call(1, ()).unwrap();
    let engine = pool.engine().clone();
    let module = wasmtime::Module::new(&engine, wat("(module (memory 1))")).unwrap();
    let occupy = || {
        let mut store = Store::new(&engine, ());
        let made = wasmtime::Instance::new(&mut store, &module, &[]);
        made.map(|_| store)
    };
    let mut others: Vec<_> = (0..2 + MORE).map(|_| occupy().unwrap()).collect();
    assert!(occupy().is_err());
    // Its own idle one makes room.
    g.call(1, ()).unwrap();
    let stats = check(&pool);
    assert_eq!((stats.idle, stats.evictions), (1, 1));
    let lease = g.acquire(1).unwrap();
    let error = f.acquire(1).map(drop).unwrap_err();
    assert!(matches!(error, AcquireError::System { .. }), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::System);
    let chain = wasm_pool::Report(&error).to_string();
    assert!(chain.contains("concurrent limit of 11"), "{chain}");
    others.pop();
    f.call(1, ()).unwrap();
    drop(lease);
    check(&pool);
}

#[test]
fn c_b10_a_host_s_engine_has_its_own_allocator() {
    let builder = with(PLACE).engine(Engine::default());
    let error = builder.call_timeout(None).build().map(drop).unwrap_err();
    assert!(matches!(error, BuildError::EngineHasAllocator), "{error}");
    assert_eq!(error.kind(), ErrorKind::Misuse);
}

#[test]
fn c_b10_numbers_that_make_no_sense_are_named() {
    let zero = |field| LimitsError::Zero { field };
    let too_large = |field, value, max| LimitsError::TooLarge { field, value, max };
    let instances = "pooling_allocator.instances";
    let many = PoolingAllocator::for_instances;
    for (allocator, error) in [
        (many(0), zero(instances)),
        (many(32_001), too_large(instances, 32_001, 32_000)),
        (
            many(u32::MAX),
            too_large(instances, u32::MAX.into(), 32_000),
        ),
        (PLACE.memories(0), zero("pooling_allocator.memories")),
        (
            PLACE.memories(101),
            too_large("pooling_allocator.memories", 101, 100),
        ),
        (
            PLACE.tables(101),
            too_large("pooling_allocator.tables", 101, 100),
        ),
    ] {
        assert_eq!(limits_error(with(allocator)), error);
    }
    // No tables, any number of bytes, and none at all.
    for allocator in [PLACE.tables(0), PLACE.keep_resident(u64::MAX), many(1)] {
        let pool = with(allocator)
            .max_instance_memory(1 << 20)
            .build()
            .unwrap();
        let [f] = functions(&pool);
        f.call(1, ()).unwrap();
        check(&pool);
    }
    let kept = PLACE.keep_resident(PAGE);
    for (limits, field, needed) in [
        (
            Limits::new().memory(20_000),
            "memory",
            (3 + MORE) * PAGE + 8192,
        ),
        (
            Limits::new().total(20_000),
            "total",
            (3 + MORE) * PAGE + 8192,
        ),
        (Limits::new().mappings(20), "mappings", 72),
    ] {
        let error = limits_error(with(kept).limits(limits));
        let LimitsError::NeverFits {
            field: named,
            needed: said,
            ..
        } = &error
        else {
            panic!("{error}");
        };
        assert_eq!((*named, *said), (field, needed), "{error}");
        assert_eq!(
            error.to_string().contains("bytes"),
            field != "mappings",
            "{error}"
        );
    }
    // More address space than there is.
    let huge = with(many(32_000).memories(100)).limits(Limits::new().with(Budget::Mappings, None));
    let error = huge.build().map(drop).unwrap_err();
    assert!(matches!(error, BuildError::Engine(_)), "{error:?}");
}

#[test]
fn c_b10_a_trap_a_start_function_and_a_hook_that_fail_leave_their_places() {
    let pool = with(PoolingAllocator::for_instances(1))
        .on_create(|store, instance| match instance.get_func(store, "hooked") {
            Some(_) => Err(wasmtime::Error::msg("it fails")),
            None => Ok(()),
        })
        .compile_cooldown(std::time::Duration::from_nanos(1))
        .build()
        .unwrap();
    let traps = r#"(module (memory 1) (func (export "f") unreachable))"#;
    let starts = r#"(module (memory 1) (func $f unreachable) (start $f) (func (export "f")))"#;
    let data = r#"(module (memory 1) (data (i32.const 65536) "x") (func (export "f")))"#;
    let hooked = r#"(module (memory 1) (func (export "hooked") (export "f")))"#;
    for (n, text) in [traps, starts, data, hooked].into_iter().enumerate() {
        let definition = Definition::new(format!("bad{n}"))
            .export("f")
            .wasm(wat(text));
        let f: Function<(), ()> = pool.define(definition).unwrap();
        for _ in 0..5 {
            let error = f.call(1, ()).unwrap_err();
            let fits = matches!(
                error,
                CallError::Trap { .. }
                    | CallError::Acquire(
                        AcquireError::StartTrapped { .. } | AcquireError::Instantiate { .. }
                    )
            );
            assert!(fits, "{error:?}");
        }
    }
    let [f] = functions(&pool);
    f.call(1, ()).unwrap();
    assert_eq!(check(&pool).budget(Budget::Instances).peak, 1);
}

/// A task's host function that calls its guest again takes a second stack, from the same places.
#[test]
fn c_b10_a_task_within_a_task_has_a_stack_while_there_is_one() {
    let builder = Pool::builder_with(|_, _| ()).no_housekeeper();
    let again = |linker: &mut Linker<wasm_pool::StoreData<()>>| {
        linker.func_wrap_async("host", "again", |mut caller, (left,): (i32,)| {
            Box::new(async move {
                if left == 0 {
                    return Ok(0);
                }
                let f = caller.get_export("f").and_then(|f| f.into_func());
                let f = f.unwrap().typed::<i32, i32>(&caller)?;
                Ok(1 + f.call_async(&mut caller, left - 1).await?)
            })
        })?;
        Ok(())
    };
    let pool = (builder.pooling_allocator(PLACE).imports(again).build()).unwrap();
    let text = r#"(module (import "host" "again" (func $again (param i32) (result i32)))
        (func (export "f") (param i32) (result i32) (call $again (local.get 0))))"#;
    let f: Function<i32, i32> = pool.define(Definition::new("f").wasm(wat(text))).unwrap();
    assert_eq!(block_on(f.call_async(1, 10)).unwrap(), 10);
    let error = block_on(f.call_async(1, 11)).unwrap_err();
    assert!(matches!(error, CallError::Host { .. }), "{error:?}");
    assert_eq!(block_on(f.call_async(1, 1)).unwrap(), 1);
    check(&pool);
}

/// An engine of the host's with a pooling allocator for two instances.
fn pooling_engine(set: impl FnOnce(&mut PoolingAllocationConfig)) -> Engine {
    let mut config = wasmtime::Config::new();
    let mut pooling = PoolingAllocationConfig::new();
    pooling.total_memories(2).total_tables(3).total_stacks(4);
    set(&mut pooling);
    config
        .allocation_strategy(pooling)
        .async_stack_zeroing(true);
    Engine::new(&config).unwrap()
}

fn with_engine(engine: Engine) -> PoolBuilder {
    quiet().call_timeout(None).engine(engine)
}

#[test]
fn c_b10_the_places_of_a_host_s_engine_are_charged_as_well() {
    let engine = pooling_engine(|pooling| {
        pooling
            .linear_memory_keep_resident(2 * PAGE as usize)
            .table_keep_resident(PAGE as usize)
            .async_stack_keep_resident(3 * PAGE as usize)
            .max_memory_size(1 << 20);
    });
    let pool = with_engine(engine).build().unwrap();
    let stats = check(&pool);
    let charged = |budget| stats.budget(budget).charged;
    assert_eq!(charged(Budget::Memory), 2 * 2 * PAGE + 3 * PAGE);
    assert_eq!(charged(Budget::Stack), 4 * 3 * PAGE);
    assert_eq!(charged(Budget::Mappings), 2 * 4 + 4 * 2 + 3);
    assert_eq!(stats.budget(Budget::Instances).limit, None);
    // What its places have no room for is known beforehand.
    let large = Definition::new("large").wasm(memory_module(17, 0));
    let error = pool
        .define::<(), i32>(large.export("f"))
        .map(drop)
        .unwrap_err();
    assert!(
        matches!(error, DefineError::NoPlace { needed, .. } if needed == 17 << 16),
        "{error}"
    );
    // A GC heap is one memory more, which there is.
    let collects = r#"(module (type $s (struct)) (memory 1) (global (ref $s) (struct.new $s))
        (func (export "f")))"#;
    let collects = Definition::new("collects").export("f").wasm(wat(collects));
    pool.define::<(), ()>(collects)
        .unwrap()
        .call(1, ())
        .unwrap();
    let two = r#"(module (memory 1) (memory 1) (func (export "f")))"#;
    let two = Definition::new("two").export("f").wasm(wat(two));
    let error = pool.define::<(), ()>(two).map(drop).unwrap_err();
    assert!(matches!(error, DefineError::NoPlace { .. }), "{error}");
}

#[test]
fn c_b10_an_engine_under_which_no_promise_could_be_kept_is_refused() {
    type Set = fn(&mut PoolingAllocationConfig);
    let unfit: [(Set, &str); 3] = [
        (
            |pooling| _ = pooling.pagemap_scan(Enabled::Yes),
            "pagemap_scan",
        ),
        (
            |pooling| _ = pooling.pagemap_scan(Enabled::Auto),
            "pagemap_scan",
        ),
        (
            |pooling| _ = pooling.decommit_batch_size(2),
            "decommit_batch_size",
        ),
    ];
    for (set, setting) in unfit {
        if setting == "pagemap_scan" && !PoolingAllocationConfig::is_pagemap_scan_available() {
            continue;
        }
        let error = with_engine(pooling_engine(set))
            .build()
            .map(drop)
            .unwrap_err();
        let BuildError::UnfitAllocator { setting: said, .. } = &error else {
            panic!("{error:?}");
        };
        assert_eq!((*said, error.kind()), (setting, ErrorKind::Misuse));
    }
}

#[test]
fn c_b10_what_is_set_aside_is_in_no_reservation_and_under_no_limit() {
    let pool = with(PLACE.keep_resident(4 * PAGE))
        .limits(Limits::new().memory(300_000))
        .build()
        .unwrap();
    let aside = (3 + MORE) * 4 * PAGE;
    let left = 300_000 - aside;
    let reserve = |bytes| Share::new().reserve(Budget::Memory, bytes);
    let error = pool.set_group("a", reserve(left + 1)).unwrap_err();
    let ShareError::Overcommitted { limit, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(limit, left);
    pool.set_group("a", reserve(left)).unwrap();
    let error = pool.set_limits(Limits::new().memory(aside)).unwrap_err();
    assert!(matches!(error, LimitsError::NeverFits { .. }), "{error}");
    assert_eq!(pool.limits().get(Budget::Memory), Some(300_000));
    // An instance as large as it may get has to fit beside them.
    let builder = with(PLACE.keep_resident(1 << 20)).max_instance_memory(2 << 20);
    let error = limits_error(builder.limits(Limits::new().memory(12 << 20)));
    assert!(
        matches!(
            error,
            LimitsError::NeverFits {
                field: "memory",
                ..
            }
        ),
        "{error}"
    );
}

/// Two hundred places, as many instances, code that comes and goes: no instance is evicted but for the budget.
#[test]
fn c_b10_the_last_place_is_found_while_others_come_and_go() {
    const MANY: u32 = 200;
    let pool = quiet()
        .pooling_allocator(PoolingAllocator::for_instances(MANY))
        .max_instances_per_entry(MANY as usize)
        .policy(Policy::Lru)
        .wait_for_room(true)
        .build()
        .unwrap();
    let f: [_; 7] = functions(&pool);
    let held: Vec<_> = (0..MANY - 2).map(|_| f[0].acquire(1).unwrap()).collect();
    thread::scope(|scope| {
        for f in &f[1..] {
            // Its code goes with each instance.
            scope.spawn(move || {
                for _ in 0..60 {
                    f.acquire(1).unwrap().discard();
                }
            });
        }
    });
    let stats = check(&pool);
    assert_eq!(
        (stats.evictions, stats.budget(Budget::Instances).peak),
        (0, MANY.into())
    );
    drop(held);
}

#[test]
fn c_b10_a_host_s_pooling_engine_that_is_full_is_relieved_as_well() {
    let pool = with_engine(pooling_engine(|_| ())).build().unwrap();
    let f: [_; 4] = functions(&pool);
    for _ in 0..2 {
        for f in &f {
            f.call(1, ()).unwrap();
        }
    }
    let held = [f[0].acquire(1).unwrap(), f[1].acquire(1).unwrap()];
    let error = f[2].acquire(1).map(drop).unwrap_err();
    assert!(matches!(error, AcquireError::System { .. }), "{error:?}");
    drop(held);
    check(&pool);
}

/// Memories that a host makes itself in a lease's store are on demand, too.
#[test]
fn c_b10_a_host_s_own_memory_takes_no_place() {
    let pool = with(PoolingAllocator::for_instances(1)).build().unwrap();
    let [f] = functions(&pool);
    let mut lease = f.acquire(1).unwrap();
    for _ in 0..4 {
        Memory::new(lease.store_mut(), MemoryType::new(1, Some(1))).unwrap();
    }
    assert_eq!(lease.call(()).unwrap(), 1);
    drop(lease);
}

#[test]
fn c_b10_spares_are_made_in_places() {
    let pool = with(PLACE).reuse(Reuse::Pristine).build().unwrap();
    let [f, g] = functions(&pool);
    for _ in 0..20 {
        f.call(1, ()).unwrap();
        g.call(1, ()).unwrap();
        pool.sweep();
    }
    let stats = check(&pool);
    assert!(stats.spares_made > 10, "{}", stats.spares_made);
    assert!(stats.budget(Budget::Instances).peak <= 3);
}
