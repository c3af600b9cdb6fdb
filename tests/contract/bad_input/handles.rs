//! Names, handles and settings that are wrong, and engines of the host's own that lack something.

use super::*;

#[test]
fn unknown_functions_are_named() {
    let pool = quiet().build().unwrap();
    let name = || "no.such".to_owned();
    assert_eq!(
        pool.function::<(), i32>("no.such").unwrap_err(),
        LookupError::Unknown { target: name() }
    );
    assert_eq!(
        pool.remove("no.such"),
        Err(UnknownFunction { target: name() })
    );
    let definition = Definition::new("no.such").args(["int"]).wasm(answering(1));
    let error = pool.replace::<(), i32>(definition).unwrap_err();
    assert_eq!(
        error,
        DefineError::NotDefined {
            target: "no.such(int)".into()
        }
    );
    assert_eq!(
        error.to_string(),
        "no.such(int) is not defined, so it cannot be replaced"
    );
    assert_eq!(check(&pool).modules_known, 0);
}

#[test]
fn an_ambiguous_name_comes_with_its_overloads() {
    let pool = quiet().build().unwrap();
    for args in [&["int"][..], &["text", "int"]] {
        let definition = Definition::new("f").args(args).wasm(answering(1));
        pool.define::<(), i32>(definition).unwrap();
    }
    let error = pool.function::<(), i32>("f").unwrap_err();
    let overloads = ["f(int)", "f(text, int)"].map(String::from).to_vec();
    assert_eq!(
        error,
        LookupError::Ambiguous {
            target: "f".into(),
            overloads
        }
    );
    assert!(
        wasm_pool::Report(&error)
            .to_string()
            .contains("f(int); f(text, int)"),
        "{error}"
    );
    let one = pool.function::<(), i32>("f(text, int)").unwrap();
    assert_eq!(one.signature(), "f(text, int)");
    for unknown in ["f()", "f(text)", "f(", "f)", "(int)", ""] {
        let error = pool.function::<(), i32>(unknown).unwrap_err();
        assert!(
            matches!(error, LookupError::Unknown { .. }),
            "{unknown}: {error:?}"
        );
    }
    pool.remove("f").unwrap();
    assert!(pool.function::<(), i32>("f(int)").is_err());
}

#[test]
fn a_lookup_with_other_types_is_refused_with_both() {
    let pool = quiet().build().unwrap();
    pool.define::<(), i32>(f(answering(1))).unwrap();
    let error = pool.function::<i64, i32>("f").unwrap_err();
    assert_eq!(
        error.to_string(),
        "f() is () -> i32, and the handle expects i64 -> i32"
    );
    assert!(matches!(error, LookupError::WrongType { .. }));
    pool.function::<Dynamic, Dynamic>("f").unwrap();
}

#[test]
fn a_removed_function_is_gone_for_every_handle() {
    let pool = quiet().build().unwrap();
    let old: Function<(), i32> = pool.define(f(answering(1))).unwrap();
    let in_group = old.in_group(1);
    assert_eq!(
        (old.call(1, ()).unwrap(), in_group.call(()).unwrap()),
        (1, 1)
    );
    pool.remove("f").unwrap();
    check_empty(&pool);
    let new: Function<(), i32> = pool.define(f(answering(2))).unwrap();
    let gone = |error: AcquireError| {
        assert_eq!(error.to_string(), "function f() was removed");
        assert!(matches!(error, AcquireError::Removed { .. }), "{error:?}");
    };
    gone(old.acquire(1).unwrap_err());
    gone(old.acquire(2).unwrap_err());
    gone(old.try_acquire(1).unwrap_err());
    gone(in_group.acquire().unwrap_err());
    gone(old.in_group(3).acquire().unwrap_err());
    assert_eq!(new.call(1, ()).unwrap(), 2);
    check(&pool);
}

#[test]
fn a_name_is_taken_only_with_the_same_arguments() {
    let pool = quiet().build().unwrap();
    pool.define::<(), i32>(f(answering(1))).unwrap();
    let error = pool.define::<(), i32>(f(answering(2))).unwrap_err();
    assert_eq!(
        error,
        DefineError::AlreadyDefined {
            target: "f()".into()
        }
    );
    assert!(
        wasm_pool::Report(&error)
            .to_string()
            .contains("use replace"),
        "{error}"
    );
    let overload = f(answering(2)).args(["int"]);
    pool.define::<(), i32>(overload).unwrap();
    let kept: Function<(), i32> = pool.function("f()").unwrap();
    assert_eq!(kept.call(1, ()).unwrap(), 1);
    check(&pool);
}

#[test]
fn a_closed_pool_says_so_to_everybody() {
    let pool = quiet().max_instances_per_entry(1).build().unwrap();
    let function: Function<(), i32> = pool.define(f(answering(1))).unwrap();
    let in_group = function.in_group(1);
    let mut lease = function.acquire(1).unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| function.acquire(1).map(drop).unwrap_err());
        until(|| pool.stats().waiting == 1);
        pool.close();
        let error = waiter.join().unwrap();
        assert!(matches!(error, AcquireError::Closed { .. }), "{error:?}");
        assert_eq!(error.to_string(), "f() in group 1: the pool is closed");
    });
    for error in [
        function.acquire(1).unwrap_err(),
        function.try_acquire(2).unwrap_err(),
        in_group.acquire().unwrap_err(),
    ] {
        assert!(matches!(error, AcquireError::Closed { .. }), "{error:?}");
    }
    let error = pool
        .define::<(), i32>(f(answering(2)).args(["int"]))
        .unwrap_err();
    assert_eq!(
        error,
        DefineError::Closed {
            target: "f(int)".into()
        }
    );
    let error = pool.replace::<(), i32>(f(answering(2))).unwrap_err();
    assert_eq!(
        error,
        DefineError::Closed {
            target: "f()".into()
        }
    );

    assert_eq!(lease.call(()).unwrap(), 1, "leases end as they please");
    drop(lease);
    assert!(check(&pool).closed && pool.is_closed());
    check_empty(&pool);
    pool.close();
}

#[test]
fn limits_that_make_no_sense_name_their_field() {
    let limits = |builder: PoolBuilder| match builder.build().unwrap_err() {
        BuildError::Limits(error) => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        limits(quiet().limits(Limits::new().code(0))),
        LimitsError::Zero { field: "code" }
    );
    assert_eq!(
        limits(quiet().max_instances_per_entry(0)),
        LimitsError::Zero {
            field: "max_instances_per_entry"
        }
    );
    let huge = limits(quiet().limits(Limits::new().memory(u64::MAX - 1)));
    assert!(
        matches!(
            huge,
            LimitsError::TooLarge {
                field: "memory",
                ..
            }
        ),
        "{huge:?}"
    );
    let small = limits(
        quiet()
            .limits(Limits::new().memory(MIB))
            .max_instance_memory(MIB),
    );
    assert!(
        matches!(
            small,
            LimitsError::NeverFits {
                field: "memory",
                ..
            }
        ),
        "{small:?}"
    );
}

#[test]
fn a_linker_of_another_engine_is_refused() {
    let mut config = Config::new();
    config.epoch_interruption(true);
    let [ours, theirs] = [(); 2].map(|()| Engine::new(&config).unwrap());
    let error = quiet()
        .engine(ours.clone())
        .linker(Linker::new(&theirs))
        .build()
        .unwrap_err();
    assert!(matches!(error, BuildError::ForeignLinker), "{error:?}");
    let error = quiet().linker(Linker::new(&theirs)).build().unwrap_err();
    assert!(matches!(error, BuildError::ForeignLinker), "{error:?}");
    quiet()
        .engine(ours.clone())
        .linker(Linker::new(&ours))
        .build()
        .unwrap();
}

#[test]
fn imports_that_cannot_be_added_fail_the_build() {
    let twice = |linker: &mut Linker<StoreData<()>>| {
        linker.func_wrap("env", "log", |_: i32| {})?;
        linker.func_wrap("env", "log", |_: i32| {})?;
        Ok(())
    };
    let error = quiet().imports(twice).build().unwrap_err();
    assert!(matches!(error, BuildError::Engine(_)), "{error:?}");
    assert!(
        wasm_pool::Report(&error)
            .to_string()
            .contains("defined twice"),
        "{error}"
    );
}

#[test]
fn an_engine_that_lacks_what_a_setting_needs_is_refused() {
    let plain = Engine::default();
    let lacks = |builder: PoolBuilder| match builder.engine(plain.clone()).build().unwrap_err() {
        BuildError::EngineLacks { setting, needs } => (setting, needs),
        other => panic!("{other:?}"),
    };
    assert_eq!(lacks(quiet()), ("call_timeout", "epoch_interruption"));
    assert_eq!(
        lacks(quiet().fuel(1).call_timeout(None)),
        ("fuel", "consume_fuel")
    );
    let pool = quiet().call_timeout(None).build().unwrap();
    let fuel = pool.define::<(), i32>(f(answering(1)).fuel(5)).unwrap_err();
    let (target, setting, needs) = ("f()".into(), "fuel", "consume_fuel");
    assert_eq!(
        fuel,
        DefineError::EngineLacks {
            target,
            setting,
            needs
        }
    );
    let timeout = f(answering(1)).call_timeout(Duration::from_secs(1));
    let timeout = pool.define::<(), i32>(timeout).unwrap_err();
    let (target, setting, needs) = ("f()".into(), "call_timeout", "epoch_interruption");
    assert_eq!(
        timeout,
        DefineError::EngineLacks {
            target,
            setting,
            needs
        }
    );
}

/// Calls guests in a pool with the host's engine; it did not compile them, so it may be thrown
/// away with nothing of the compiler's.
fn check_host_engine(engine: &Engine, builder: PoolBuilder) {
    let pool = builder.engine(engine.clone()).build().unwrap();
    assert!(Engine::same(pool.engine(), engine));
    let definition = Definition::new("math.add").wasm(guest("math_add"));
    let add: Function<(i64, i64), i64> = pool.define(definition).unwrap();
    for n in 0..3 {
        assert_eq!(add.call(1, (n, 40)).unwrap(), n + 40);
    }
    assert_eq!(check(&pool).hits, 2);
    pool.close();
    check_empty(&pool);
}

#[test]
fn a_plain_engine_of_the_hosts_works() {
    let engine = Engine::default();
    check_host_engine(&engine, quiet().call_timeout(None));
}

#[test]
fn an_engine_of_the_hosts_with_fuel_and_epochs_works() {
    let mut config = Config::new();
    config.epoch_interruption(true).consume_fuel(true);
    check_host_engine(&Engine::new(&config).unwrap(), quiet().fuel(1_000_000));
}

#[test]
fn an_engine_that_counts_fuel_works_without_a_limit() {
    let mut config = Config::new();
    config.consume_fuel(true);
    check_host_engine(&Engine::new(&config).unwrap(), quiet().call_timeout(None));
}

#[test]
fn an_engine_with_epochs_works_without_a_timeout() {
    let mut config = Config::new();
    config.epoch_interruption(true);
    check_host_engine(&Engine::new(&config).unwrap(), quiet().call_timeout(None));
}

#[test]
fn a_closed_pool_fails_a_call_too() {
    let pool = quiet().build().unwrap();
    let function: Function<(), i32> = pool.define(f(answering(1))).unwrap();
    pool.close();
    let error = function.call(1, ()).unwrap_err();
    assert!(
        matches!(error, CallError::Acquire(AcquireError::Closed { .. })),
        "{error:?}"
    );
}
