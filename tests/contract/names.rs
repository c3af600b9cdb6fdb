//! Names come and go while calls run: what is removed ends in peace, what is replaced never runs
//! again, and handles stay valid.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::common::*;
use wasm_pool::{AcquireError, CallError, DefineError, Definition, Function, Pool};

fn replace(pool: &Pool, name: &str, wasm: Vec<u8>) -> Function<(), i32> {
    pool.replace(definition(name, wasm)).unwrap()
}

#[test]
fn a_function_removed_during_a_call_lets_it_finish() {
    let (builder, stop) = stopping(quiet());
    let pool = builder.build().unwrap();
    let function = define(&pool, "removed", stopping_module(9));
    thread::scope(|scope| {
        let call = scope.spawn(|| function.call(1, ()));
        stop.wait_until_stopped();
        pool.remove("removed").unwrap();
        let stats = check(&pool);
        assert_eq!((stats.leased, stats.functions.len()), (1, 0));
        // The name is free at once, for the same code or other.
        let next = define(&pool, "removed", answering(10));
        assert_eq!(next.call(1, ()).unwrap(), 10);
        stop.go();
        assert_eq!(call.join().unwrap().unwrap(), 9);
        pool.remove("removed").unwrap();
    });
    let stats = check(&pool);
    assert_eq!((stats.idle, stats.leased, stats.modules_known), (0, 0, 0));
    check_empty(&pool);
}

#[test]
fn a_removed_functions_lease_can_be_called_until_it_ends() {
    let pool = quiet().build().unwrap();
    let function = define(&pool, "leased", answering(9));
    let mut lease = function.acquire(1).unwrap();
    drop(function.acquire(2).unwrap());
    pool.remove("leased").unwrap();
    assert_eq!(check(&pool).idle, 0, "the idle one has gone at once");
    for _ in 0..3 {
        assert_eq!(lease.call(()).unwrap(), 9);
    }
    drop(lease);
    check(&pool);
    check_empty(&pool);
}

#[test]
fn who_waits_for_a_function_that_is_removed_is_told() {
    let pool = quiet().max_instances_per_entry(1).build().unwrap();
    let function = define(&pool, "awaited", answering(9));
    let lease = function.acquire(1).unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| function.acquire(1).map(drop).unwrap_err());
        until(|| pool.stats().waiting == 1);
        pool.remove("awaited").unwrap();
        let error = waiter.join().unwrap();
        assert!(matches!(error, AcquireError::Removed { .. }), "{error:?}");
    });
    drop(lease);
    check_empty(&pool);
}

#[test]
fn a_function_removed_while_it_compiles_fails_the_lease() {
    let pool = quiet().build().unwrap();
    let function = define(&pool, "early", answering(9));
    for span in ["compile", "load", "instantiate"] {
        let held = spans::hold(span, "early()");
        thread::scope(|scope| {
            let function = if span == "compile" {
                function.clone()
            } else {
                define(&pool, "early", answering(9))
            };
            let call = scope.spawn(move || function.acquire(1).map(drop));
            held.wait_until_reached();
            pool.remove("early").unwrap();
            check(&pool);
            drop(held);
            let error = call.join().unwrap().unwrap_err();
            assert!(
                matches!(error, AcquireError::Removed { .. }),
                "{span}: {error:?}"
            );
        });
        assert_eq!(check(&pool).modules_known, 0);
        check_empty(&pool);
    }
}

#[test]
fn overloads_are_removed_together_or_one_by_one() {
    let pool = quiet().build().unwrap();
    for args in ["int", "text", "bytea"] {
        let overload = definition("over", answering(1)).args([args]);
        pool.define::<(), i32>(overload)
            .unwrap()
            .call(1, ())
            .unwrap();
    }
    pool.remove("over(text)").unwrap();
    assert!(pool.function::<(), i32>("over(text)").is_err());
    assert_eq!(check(&pool).functions.len(), 2);
    pool.remove("over").unwrap();
    assert_eq!(check(&pool).functions.len(), 0);
    assert!(pool.remove("over").is_err());
    check_empty(&pool);
}

#[test]
fn a_function_replaced_while_leased_goes_on_with_the_old_code_in_that_lease_only() {
    let pool = quiet().build().unwrap();
    let function = define(&pool, "swap", answering(1));
    let mut old = function.acquire(1).unwrap();
    drop(function.acquire(2).unwrap());
    replace(&pool, "swap", answering(2));
    let stats = check(&pool);
    assert_eq!(
        (stats.idle, stats.leased),
        (0, 1),
        "the idle old one has gone"
    );
    assert_eq!(old.call(()).unwrap(), 1);
    assert_eq!(function.call(1, ()).unwrap(), 2);
    drop(old);
    let stats = check(&pool);
    assert_eq!(
        (stats.idle, stats.modules_known, stats.modules_loaded),
        (1, 1, 1)
    );
    assert_eq!(function.call(1, ()).unwrap(), 2);
}

#[test]
fn a_waiter_gets_new_code_when_an_old_lease_ends() {
    let pool = quiet().max_instances_per_entry(1).build().unwrap();
    let function = define(&pool, "handed", answering(1));
    let old = function.acquire(1).unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| function.call(1, ()));
        until(|| pool.stats().waiting == 1);
        replace(&pool, "handed", answering(2));
        drop(old);
        assert_eq!(waiter.join().unwrap().unwrap(), 2);
    });
    check(&pool);
}

/// A replace lands while a thread is stopped at `span`, making an instance of the old code.
fn replace_while_it_is_made(span: &'static str, name: &str) {
    let pool = quiet().build().unwrap();
    let function = define(&pool, name, answering(1));
    let in_group = function.in_group(1);
    let held = spans::hold(span, &format!("{name}()"));
    thread::scope(|scope| {
        let racing = scope.spawn(|| in_group.call(()));
        held.wait_until_reached();
        replace(&pool, name, answering(2));
        check(&pool);
        drop(held);
        // It began before the replace returned, but is not to bring the old code back.
        assert_eq!(racing.join().unwrap().unwrap(), 2, "{span}");
        for _ in 0..3 {
            assert_eq!(in_group.call(()).unwrap(), 2, "{span}");
        }
    });
    let stats = check(&pool);
    assert_eq!(
        (stats.idle, stats.modules_known, stats.modules_loaded),
        (1, 1, 1)
    );
    assert_eq!(stats.budget(wasm_pool::Budget::Compile).charged, 0);
}

#[test]
fn a_replace_that_races_the_compilation_wins() {
    replace_while_it_is_made("compile", "racing.compile");
}

#[test]
fn a_replace_that_races_the_load_wins() {
    replace_while_it_is_made("load", "racing.load");
}

#[test]
fn a_replace_that_races_the_instantiation_wins() {
    replace_while_it_is_made("instantiate", "racing.instantiate");
}

#[test]
fn a_call_that_starts_after_the_replace_does_not_wait_for_the_old_compilation() {
    let pool = quiet().max_compilations(2).build().unwrap();
    let old = guest("text_soundex");
    let definition_of_old = Definition::new("late").wasm(old).export("soundex");
    let function: Function = pool.define(definition_of_old).unwrap();
    let held = spans::hold("compile", "late()");
    thread::scope(|scope| {
        let racing = scope.spawn(|| function.acquire(1).map(drop));
        held.wait_until_reached();
        let new: Function<(), i32> = pool
            .replace(definition("late", answering(2)).allow_type_change())
            .unwrap();
        let call = scope.spawn(move || new.call(1, ()));
        // It leads a compilation of its own, which is held up as well.
        until(|| spans::begun("compile", "late()") == 2);
        assert_eq!(check(&pool).compiling, 2);
        drop(held);
        assert_eq!(call.join().unwrap().unwrap(), 2);
        racing.join().unwrap().unwrap();
    });
    let stats = check(&pool);
    assert_eq!((stats.modules_known, stats.modules_loaded), (1, 1));
}

#[test]
fn a_create_hook_may_replace_the_very_function() {
    let once = AtomicBool::new(true);
    let pool = Arc::new(std::sync::OnceLock::<Pool>::new());
    let own = pool.clone();
    let builder = quiet().on_create(move |_, _| {
        if once.swap(false, Ordering::Relaxed) {
            let pool = own.get().expect("it was built");
            replace(pool, "replaced.hooked", answering(2));
        }
        Ok(())
    });
    let pool = pool.get_or_init(|| builder.build().unwrap());
    let function = define(pool, "replaced.hooked", answering(1));
    assert_eq!(function.call(1, ()).unwrap(), 2);
    assert_eq!(check(pool).idle, 1);
}

#[test]
fn handles_stay_valid_through_replace() {
    let pool = quiet().build().unwrap();
    let function = define(&pool, "kept", answering(0));
    let in_group = function.in_group(1);
    for answer in 1..20 {
        let newest = replace(&pool, "kept", answering(answer));
        assert_eq!(function.call(1, ()).unwrap(), answer);
        assert_eq!(in_group.call(()).unwrap(), answer);
        assert_eq!(newest.call(1, ()).unwrap(), answer);
        assert_eq!(function.clone().call(2, ()).unwrap(), answer);
    }
    let stats = check(&pool);
    assert_eq!(
        (stats.idle, stats.modules_known, stats.functions.len()),
        (2, 1, 1)
    );
    let kept = stats.function("kept").unwrap();
    assert_eq!((kept.hits, kept.misses), (2 * 19, 2 * 19));
}

#[test]
fn no_call_that_starts_after_a_replace_runs_old_code() {
    let pool = quiet().build().unwrap();
    let function = define(&pool, "busy", answering(0));
    let newest = std::sync::atomic::AtomicI32::new(0);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for group in 0..3 {
            let (function, newest, done) = (&function, &newest, &done);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let least = newest.load(Ordering::SeqCst);
                    let answer = function.call(group % 2, ()).unwrap();
                    assert!(answer >= least, "{answer} after the replace by {least}");
                }
            });
        }
        for answer in 1..100 {
            replace(&pool, "busy", answering(answer));
            newest.store(answer, Ordering::SeqCst);
            if answer % 10 == 0 {
                check(&pool);
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(function.call(1, ()).unwrap(), 99);
    let stats = check(&pool);
    assert_eq!((stats.modules_known, stats.leased), (1, 0));
    pool.close();
    check_empty(&pool);
}

#[test]
fn a_replace_with_bad_code_keeps_the_old() {
    let pool = quiet().max_instance_memory(1 << 20).build().unwrap();
    let function = define(&pool, "solid", answering(1));
    assert_eq!(function.call(1, ()).unwrap(), 1);
    let too_large = wat(r#"(module (memory 17) (func (export "f") (result i32) i32.const 2))"#);
    let bad: [(Vec<u8>, &str); 4] = [
        (b"junk".to_vec(), "not WebAssembly"),
        (answering(2)[..20].to_vec(), "malformed"),
        (wat("(module)"), "no function"),
        (too_large, "bytes of memory"),
    ];
    for (wasm, text) in bad {
        let error = (pool.replace::<(), i32>(definition("solid", wasm))).unwrap_err();
        assert!(
            wasm_pool::Report(&error).to_string().contains(text),
            "{error}"
        );
        assert_eq!(function.call(1, ()).unwrap(), 1);
    }
    let error = (pool.replace::<i64, i64>(definition("solid", answering(2)))).unwrap_err();
    assert!(matches!(error, DefineError::WrongType { .. }), "{error:?}");
    let stats = check(&pool);
    assert_eq!((stats.misses, stats.hits, stats.modules_known), (1, 4, 1));
}

#[test]
fn an_old_handle_of_another_type_is_an_error() {
    let pool = quiet().build().unwrap();
    let function = define(&pool, "typed", answering(1));
    assert_eq!(function.call(1, ()).unwrap(), 1);
    let wasm = wat(r#"(module (func (export "f") (param i64) (result i64) local.get 0))"#);
    let other = definition("typed", wasm).allow_type_change();
    let new: Function<i64, i64> = pool.replace(other).unwrap();
    let error = function.call(1, ()).unwrap_err();
    let expected = |error| matches!(error, AcquireError::TypeChanged { .. });
    assert!(
        matches!(&error, CallError::Acquire(error) if expected(error.clone())),
        "{error:?}"
    );
    assert_eq!(new.call(1, 5).unwrap(), 5);
    check(&pool);
}

/// A module that takes a while to read and to hash, and none to compile.
fn padded(answer: i32) -> Vec<u8> {
    let mut wasm = answering(answer);
    // A custom section without a name, of a mebibyte.
    wasm.extend([0, 0x80, 0x80, 0x40]);
    wasm.extend(vec![0; 1 << 20]);
    wasm
}

#[test]
fn a_replace_that_races_a_new_definition_of_the_name_leaves_a_function_that_works() {
    let pool = quiet().build().unwrap();
    let wasm: Arc<[u8]> = padded(2).into();
    define(&pool, "renewed", answering(1));
    for _ in 0..30 {
        let before: Function<(), i32> = pool.function("renewed").unwrap();
        before.call(1, ()).unwrap();
        let start = std::sync::Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                // If it comes between the two below, there is nothing to replace.
                let _ = pool.replace::<(), i32>(definition("renewed", wasm.clone()));
            });
            start.wait();
            pool.remove("renewed").unwrap();
            define(&pool, "renewed", answering(1));
        });
        let after: Function<(), i32> = pool.function("renewed").unwrap();
        let answer = after.call(1, ()).unwrap();
        assert!(answer == 1 || answer == 2);
    }
    check(&pool);
}
