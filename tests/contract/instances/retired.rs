//! C-I4: instances that are never leased again.

use super::*;

// C-I4 ─────────────────────────────────────────────────────────────────────────────────────────────

/// Counts its calls, and fails in every way.
const FAILING: &str = r#"(module
    (import "host" "fail" (func $fail)) (import "host" "panic" (func $panic))
    (memory (export "memory") 1)
    (global $calls (mut i32) (i32.const 0))
    (func (export "count") (result i32)
        (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
        (global.get $calls))
    (func (export "trap") unreachable)
    (func (export "divide") (result i32) (i32.div_u (i32.const 1) (i32.const 0)))
    (func (export "recurse") (call 5))
    (func (export "endless") (loop (br 0)))
    (func (export "fail") (call $fail))
    (func (export "panic") (call $panic)))"#;

struct Failing {
    pool: Pool,
    count: Function<(), i32>,
    reasons: Reasons,
}

fn failing() -> Failing {
    let reasons = Reasons::default();
    let pool = quiet_with_clock()
        .0
        .fuel(1 << 20)
        .removal_listener(reasons.listen())
        .imports(|linker| {
            linker.func_wrap("host", "fail", || -> wasmtime::Result<()> {
                Err(Error::msg("the disk is full"))
            })?;
            linker.func_wrap("host", "panic", || -> () {
                panic!("a host function panics")
            })?;
            Ok(())
        })
        .build()
        .unwrap();
    let definition = Definition::new("count").wasm(wat(FAILING));
    let count = pool.define(definition).unwrap();
    Failing {
        pool,
        count,
        reasons,
    }
}

/// Whatever happens with a lease of an instance that has counted to 1: it is never leased again.
#[track_caller]
fn is_retired(with: impl FnOnce(Lease<'static, (), i32>)) {
    let Failing {
        pool,
        count,
        reasons,
    } = failing();
    assert_eq!(count.call(1, ()).unwrap(), 1);
    let before = charges(&pool);
    let lease = count.acquire(1).unwrap();
    assert_eq!(lease.uses(), 2);
    with(lease);
    let stats = check(&pool);
    assert_eq!((stats.idle, stats.leased, stats.dying), (0, 0, 0));
    assert_eq!(
        (stats.functions[0].retirements, stats.functions[0].evictions),
        (1, 0)
    );
    assert_eq!(reasons.take(), [RemovalReason::Failed]);
    assert_eq!(
        count.call(1, ()).unwrap(),
        1,
        "a new instance counts from the start"
    );
    assert_eq!(charges(&pool), before);
}

/// As [`is_retired`], after a failed call of this export. Returns what it said.
#[track_caller]
fn export_retires(export: &str) -> String {
    let mut said = String::new();
    is_retired(|mut lease| {
        let export = lease.export::<(), ()>(export).unwrap();
        let error = export.call(&mut lease, ()).unwrap_err();
        assert!(lease.is_broken());
        assert!(matches!(lease.call(()), Err(CallError::Broken { .. })));
        assert!(matches!(
            export.call(&mut lease, ()),
            Err(CallError::Broken { .. })
        ));
        said = wasm_pool::Report(&error).to_string();
    });
    said
}

#[test]
fn c_i4_a_trap_retires() {
    let said = export_retires("trap");
    assert!(said.starts_with("count() in group 1 trapped: "), "{said}");
}

#[test]
fn c_i4_a_stack_overflow_retires() {
    let said = export_retires("recurse");
    assert!(said.contains("trapped"), "{said}");
}

#[test]
fn c_i4_exhausted_fuel_retires() {
    assert_eq!(
        export_retires("endless"),
        "count() in group 1 ran out of fuel (1048576 units)"
    );
}

#[test]
fn c_i4_a_failing_host_function_retires() {
    let said = export_retires("fail");
    assert!(said.starts_with("count() in group 1: "), "{said}");
    assert!(said.contains("the disk is full"), "{said}");
}

#[test]
fn c_i4_a_panicking_host_function_retires() {
    is_retired(|mut lease| {
        let panic = lease.export::<(), ()>("panic").unwrap();
        let panicked = catch_unwind(AssertUnwindSafe(|| panic.call(&mut lease, ())));
        assert!(panicked.is_err());
        assert!(lease.is_broken());
        assert!(matches!(lease.call(()), Err(CallError::Broken { .. })));
    });
}

#[test]
fn c_i4_a_panic_that_unwinds_the_lease_retires() {
    is_retired(|mut lease| {
        let panic = lease.export::<(), ()>("panic").unwrap();
        let panicked = catch_unwind(AssertUnwindSafe(move || panic.call(&mut lease, ())));
        assert!(panicked.is_err());
    });
}

#[test]
fn c_i4_a_panic_of_the_holder_between_calls_retires() {
    is_retired(|lease| {
        let panicked = catch_unwind(AssertUnwindSafe(move || {
            let _held = lease;
            panic!("between two writes");
        }));
        assert!(panicked.is_err());
    });
}

#[test]
fn c_i4_an_exhausted_deadline_retires() {
    let (pool, f) = ticking();
    f.call(1, 1).unwrap();
    let error = f.call(1, 1000).unwrap_err();
    assert!(
        matches!(
            error,
            CallError::Limit {
                limit: CallLimit::Time(_),
                ..
            }
        ),
        "{error}"
    );
    let stats = check(&pool);
    assert_eq!((stats.idle, stats.functions[0].retirements), (0, 1));
    assert_eq!(f.acquire(1).unwrap().uses(), 1);
}

#[test]
fn c_i4_a_call_that_fails_at_once_through_the_function_retires() {
    let pool = quiet_with_clock().0.build().unwrap();
    let definition = Definition::new("trap_if").wasm(guest("rogue_trap"));
    let trap: Function<i32, i32> = pool.define(definition).unwrap();
    assert_eq!(trap.call(1, 0).unwrap(), 7);
    assert!(matches!(trap.call(1, 1), Err(CallError::Trap { .. })));
    assert_eq!(check(&pool).idle, 0);
    let tenant = trap.in_group(1);
    assert_eq!(tenant.call(0).unwrap(), 7);
    assert!(tenant.call(1).is_err());
    assert_eq!(tenant.acquire().unwrap().uses(), 1);
}

#[test]
fn c_i4_a_discarded_instance_is_gone() {
    let Failing {
        pool,
        count,
        reasons,
    } = failing();
    assert_eq!(count.call(1, ()).unwrap(), 1);
    count.acquire(1).unwrap().discard();
    assert_eq!(reasons.take(), [RemovalReason::Discarded]);
    assert_eq!(count.call(1, ()).unwrap(), 1);
    check(&pool);
}

#[test]
fn c_i4_a_thread_with_too_little_stack_harms_nothing() {
    let Failing { pool, count, .. } = failing();
    let mut lease = count.acquire(1).unwrap();
    let (error, lease) = thread::Builder::new()
        .stack_size(256 << 10)
        .spawn(move || (lease.call(()).unwrap_err(), lease))
        .unwrap()
        .join()
        .unwrap();
    assert!(matches!(error, CallError::StackTooSmall { .. }), "{error}");
    assert!(!lease.is_broken());
    drop(lease);
    assert_eq!(count.call(1, ()).unwrap(), 1, "the guest has never run");
    assert_eq!(check(&pool).idle, 1);
}

#[test]
fn c_i4_an_instance_that_a_create_hook_refused_is_never_leased() {
    let made = Arc::new(AtomicUsize::new(0));
    let hook = {
        let made = made.clone();
        move |_: &mut wasmtime::Store<StoreData<()>>, _: &wasmtime::Instance| match made
            .fetch_add(1, Ordering::Relaxed)
        {
            0 => Err(Error::msg("refused")),
            1 => panic!("a hook panics"),
            _ => Ok(()),
        }
    };
    let pool = quiet_with_clock()
        .0
        .max_instances_per_entry(1)
        .on_create(hook)
        .build()
        .unwrap();
    let next = counter(&pool);
    assert!(matches!(
        next.acquire(1),
        Err(AcquireError::Instantiate { .. })
    ));
    assert_eq!(charged(&pool, Budget::Memory), 0);
    assert!(catch_unwind(AssertUnwindSafe(|| drop(next.acquire(1)))).is_err());
    assert_eq!(
        (charged(&pool, Budget::Memory), check(&pool).leased),
        (0, 0)
    );
    assert_eq!(next.call(1, ()).unwrap(), 1, "its only seat is free");
    assert_eq!(made.load(Ordering::Relaxed), 3);
}

/// What becomes of an instance that the recycle hook treats so.
#[track_caller]
fn recycled(hook: impl Fn() -> wasmtime::Result<()> + Send + Sync + 'static) {
    let reasons = Reasons::default();
    let pool = quiet_with_clock()
        .0
        .on_recycle(move |_, _| hook())
        .removal_listener(reasons.listen())
        .build()
        .unwrap();
    let next = counter(&pool);
    for _ in 0..3 {
        assert_eq!(next.call(1, ()).unwrap(), 1);
        assert_eq!(reasons.take(), [RemovalReason::Discarded]);
    }
    let stats = check(&pool);
    assert_eq!((stats.idle, stats.misses), (0, 3));
}

#[test]
fn c_i4_an_instance_that_the_recycle_hook_refuses_is_retired() {
    recycled(|| Err(Error::msg("dirty")));
}

#[test]
fn c_i4_an_instance_that_the_recycle_hook_panics_about_is_retired() {
    recycled(|| panic!("a hook panics"));
}

#[test]
fn c_i4_the_recycle_hook_may_mend_an_instance() {
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = calls.clone();
    let pool = quiet_with_clock()
        .0
        .on_recycle(move |store, instance| {
            seen.fetch_add(1, Ordering::Relaxed);
            let next = instance.get_typed_func::<(), i64>(&mut *store, "next")?;
            next.call(store, ()).map(drop)
        })
        .build()
        .unwrap();
    let next = counter(&pool);
    assert_eq!([(); 3].map(|()| next.call(1, ()).unwrap()), [1, 3, 5]);
    next.acquire(1).unwrap().discard();
    assert_eq!(calls.load(Ordering::Relaxed), 3, "not for what is not kept");
}
