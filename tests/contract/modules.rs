//! Modules: one compilation for everybody who needs it, shared by all functions of the same
//! bytes, under budgets of its own; kept, dropped and refused as the builder says.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::Duration;

use crate::common::*;
use wasm_pool::{
    AcquireError, Budget, Definition, Function, Limits, ManualClock, ModuleError, Policy, Pool,
    WaitingFor,
};

const SECOND: Duration = Duration::from_secs(1);

fn broken() -> Vec<u8> {
    wat(r#"(module (func (export "f") (result i32) i64.const 1))"#)
}

/// The answer of `f`, or why there is none.
type Answer = Result<i32, AcquireError>;

fn answer(function: &Function<(), i32>, group: u64) -> Answer {
    function
        .acquire(group)
        .map(|mut lease| lease.call(()).unwrap())
}

/// Eight threads want the function's first instance, each for a group of its own; one of them is
/// stopped as it begins to compile, until the other seven wait for it.
fn herd(pool: &Pool, function: &Function<(), i32>) -> Vec<Answer> {
    let compiling = spans::hold("compile", function.signature());
    thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|group| scope.spawn(move || answer(function, group)))
            .collect();
        compiling.wait_until_reached();
        until(|| pool.stats().waiting == 7);
        assert_eq!(check(pool).compiling, 1);
        drop(compiling);
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

#[test]
fn eight_first_users_compile_once() {
    let pool = quiet().build().unwrap();
    let function = define(&pool, "herd", answering(5));
    for answer in herd(&pool, &function) {
        assert_eq!(answer.unwrap(), 5);
    }
    assert_eq!(spans::begun("compile", "herd()"), 1);
    let stats = check(&pool);
    assert_eq!((stats.compilations, stats.loads, stats.misses), (1, 1, 8));
    assert_eq!((stats.compiling, stats.waiting), (0, 0));
}

#[test]
fn eight_threads_that_start_together_compile_once() {
    spans::watch();
    let pool = quiet().build().unwrap();
    let function = define(&pool, "together", answering(5));
    let start = Barrier::new(8);
    thread::scope(|scope| {
        for group in 0..8 {
            let (function, start) = (&function, &start);
            scope.spawn(move || {
                start.wait();
                assert_eq!(function.call(group, ()).unwrap(), 5);
            });
        }
    });
    assert_eq!(spans::begun("compile", "together()"), 1);
    assert_eq!(check(&pool).compilations, 1);
}

fn module_error(error: AcquireError) -> Arc<ModuleError> {
    match error {
        AcquireError::Module { source, .. } => source,
        other => panic!("{other:?}"),
    }
}

/// All eight get the one failure of one compilation.
#[track_caller]
fn check_failed_once(pool: &Pool, function: &Function<(), i32>) {
    let before = charges(pool);
    let errors: Vec<_> = herd(pool, function)
        .into_iter()
        .map(|answer| module_error(answer.unwrap_err()))
        .collect();
    assert_eq!(spans::begun("compile", function.signature()), 1);
    assert!(matches!(*errors[0], ModuleError::Compile(_)));
    assert!(errors.iter().all(|error| Arc::ptr_eq(error, &errors[0])));
    assert_eq!(charges(pool), before);
    assert_eq!(check(pool).waiting, 0);
}

#[test]
fn a_failure_reaches_all_eight() {
    let pool = quiet().build().unwrap();
    check_failed_once(&pool, &define(&pool, "broken.herd", broken()));
}

#[test]
fn a_failure_reaches_all_eight_without_a_cooldown_too() {
    let pool = quiet().compile_cooldown(Duration::ZERO).build().unwrap();
    let function = define(&pool, "hot", broken());
    check_failed_once(&pool, &function);
    // Later ones try again.
    answer(&function, 1).unwrap_err();
    assert_eq!(spans::begun("compile", "hot()"), 2);
}

#[test]
fn a_leader_that_panics_while_it_compiles_is_followed_by_another() {
    let pool = quiet().build().unwrap();
    let function = define(&pool, "doomed", answering(5));
    spans::panic_at("compile", "doomed()");
    let compiling = spans::hold("load", "doomed()");
    thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|group| {
                let function = &function;
                scope.spawn(move || answer(function, group))
            })
            .collect();
        compiling.wait_until_reached();
        drop(compiling);
        let results = threads.into_iter().map(ScopedJoinHandle::join);
        let (fine, panicked): (Vec<_>, Vec<_>) = results.partition(Result::is_ok);
        assert_eq!((fine.len(), panicked.len()), (7, 1));
        for answer in fine {
            assert_eq!(answer.unwrap().unwrap(), 5);
        }
    });
    assert_eq!(spans::begun("compile", "doomed()"), 2);
    let stats = check(&pool);
    assert_eq!(
        (stats.compilations, stats.waiting, stats.compiling),
        (1, 0, 0)
    );
    assert_eq!(stats.budget(Budget::Compile).charged, 0);
}

#[test]
fn a_panic_while_the_first_instance_is_made_harms_only_its_own_call() {
    let panics = AtomicBool::new(true);
    let make = move |_: &str, _: &wasm_pool::Group| {
        assert!(!panics.swap(false, Ordering::Relaxed), "no data today");
        7u8
    };
    let pool = Pool::builder_with(make)
        .clock(ManualClock::new())
        .no_housekeeper()
        .max_instances_per_entry(1)
        .build()
        .unwrap();
    let function: Function<(), i32, u8> = pool
        .define(Definition::new("f").wasm(answering(5)))
        .unwrap();
    let before = pool.stats().budget(Budget::Memory).charged;
    assert!(catch_unwind(AssertUnwindSafe(|| function.acquire(1).map(drop))).is_err());
    let stats = check(&pool);
    assert_eq!(stats.budget(Budget::Memory).charged, before);
    assert_eq!((stats.leased, stats.idle, stats.waiting), (0, 0, 0));
    // The only place of the entry is free.
    assert_eq!(*function.try_acquire(1).unwrap().data(), 7);
    assert_eq!(function.call(1, ()).unwrap(), 5);
    assert_eq!(pool.stats().compilations, 1);
    pool.close();
    check_empty(&pool);
}

#[test]
fn a_create_hook_that_panics_lets_the_next_waiter_in() {
    let calls = AtomicUsize::new(0);
    let pool = quiet()
        .max_instances_per_entry(1)
        .on_create(move |_, _| {
            assert!(calls.fetch_add(1, Ordering::Relaxed) > 0, "not the first");
            Ok(())
        })
        .build()
        .unwrap();
    let function = define(&pool, "hooked", answering(5));
    let making = spans::hold("instantiate", "hooked()");
    thread::scope(|scope| {
        let first = scope.spawn(|| function.acquire(1).map(drop));
        making.wait_until_reached();
        let second = scope.spawn(|| answer(&function, 1));
        until(|| pool.stats().waiting == 1);
        drop(making);
        assert!(first.join().is_err());
        assert_eq!(second.join().unwrap().unwrap(), 5);
    });
    assert_eq!(check(&pool).idle, 1);
}

#[test]
fn the_same_bytes_are_one_module() {
    let pool = quiet().build().unwrap();
    let wasm = guest("text_soundex");
    let code = || pool.stats().budget(Budget::Code).charged;
    let soundex = |name: &str| {
        let definition = Definition::new(name).wasm(wasm.clone()).export("soundex");
        pool.define::<(i32, i32), i64>(definition).unwrap()
    };
    let one = soundex("one");
    drop(one.acquire(1).unwrap());
    let charged = code();
    assert!(charged > 0);
    drop(soundex("two").acquire(2).unwrap());
    let stats = check(&pool);
    assert_eq!(
        (
            stats.compilations,
            stats.modules_known,
            stats.modules_loaded
        ),
        (1, 1, 1)
    );
    assert_eq!(code(), charged);
    let other = define(&pool, "other", answering(1));
    assert_eq!(other.call(1, ()).unwrap(), 1);
    assert_eq!(check(&pool).modules_known, 2);
    assert!(code() > charged);
    pool.remove("other").unwrap();
    // It goes with the last function that has these bytes.
    pool.remove("one").unwrap();
    assert_eq!(code(), charged);
    pool.remove("two").unwrap();
    check_empty(&pool);
    assert_eq!(check(&pool).modules_known, 0);
}

#[test]
fn compile_and_code_are_reserved_before_a_compilation_and_settled_after() {
    let pool = quiet().build().unwrap();
    let wasm = guest("text_soundex");
    let definition = Definition::new("reserving").wasm(wasm.clone());
    let function: Function = pool.define(definition.export("soundex")).unwrap();
    let charged = |budget| pool.stats().budget(budget).charged;
    let compiling = spans::hold("compile", "reserving()");
    thread::scope(|scope| {
        let lease = scope.spawn(|| function.acquire(1).unwrap());
        compiling.wait_until_reached();
        assert_eq!(charged(Budget::Compile), compile_need(&wasm, "soundex"));
        assert!(charged(Budget::Code) > wasm.len() as u64);
        assert!(charged(Budget::Memory) >= wasm_pool::INSTANCE_OVERHEAD);
        let loading = spans::hold("load", "reserving()");
        drop(compiling);
        loading.wait_until_reached();
        let reserved = charged(Budget::Code);
        drop(loading);
        drop(lease.join().unwrap());
        let code = charged(Budget::Code);
        assert!(code <= reserved, "{code} of {reserved}");
        assert_eq!(pool.stats().function("reserving").unwrap().code_bytes, code);
    });
    assert_eq!(charged(Budget::Compile), 0);
    check(&pool);
}

#[test]
fn too_little_compile_budget_fails_at_once() {
    let wasm = [answering(1), answering(2)];
    let limits = Limits::new().compile(compile_need(&wasm[0], "f"));
    let pool = quiet().max_compilations(4).limits(limits).build().unwrap();
    let [one, two] = ["taker", "loser"]
        .map(|name| (name, wasm[usize::from(name == "loser")].clone()))
        .map(|(name, wasm)| define(&pool, name, wasm));
    let compiling = spans::hold("compile", "taker()");
    thread::scope(|scope| {
        let first = scope.spawn(|| answer(&one, 1));
        compiling.wait_until_reached();
        let error = two.acquire(1).unwrap_err();
        let AcquireError::BudgetExceeded(exceeded) = &error else {
            panic!("{error:?}")
        };
        assert_eq!(exceeded.budget, Budget::Compile);
        assert_eq!(exceeded.charged, compile_need(&wasm[0], "f"));
        assert!(
            wasm_pool::Report(&error)
                .to_string()
                .contains("are in use: try again later"),
            "{error}"
        );
        assert_eq!(check(&pool).waiting, 0);
        drop(compiling);
        assert_eq!(first.join().unwrap().unwrap(), 1);
    });
    assert_eq!(answer(&two, 1).unwrap(), 2);
    check(&pool);
}

#[test]
fn with_a_deadline_it_waits_for_the_budget_of_a_running_compilation() {
    let wasm = [answering(3), answering(4)];
    let limits = Limits::new().compile(compile_need(&wasm[0], "f"));
    let pool = quiet().max_compilations(4).limits(limits).build().unwrap();
    let [one, two] =
        [("runner", 0), ("patient", 1)].map(|(name, n)| define(&pool, name, wasm[n].clone()));
    let compiling = spans::hold("compile", "runner()");
    thread::scope(|scope| {
        let first = scope.spawn(|| answer(&one, 1));
        compiling.wait_until_reached();
        let second = scope.spawn(|| two.acquire_with(1, room_within(SECOND)).map(drop));
        until(|| pool.stats().waiting == 1);
        assert_eq!(spans::begun("compile", "patient()"), 0);
        drop(compiling);
        assert_eq!(first.join().unwrap().unwrap(), 3);
        second.join().unwrap().unwrap();
    });
    let stats = check(&pool);
    assert_eq!((stats.compilations, stats.refusals), (2, 0));
}

/// While `first` compiles, a second thread asks for `second`; returns its join handle once it
/// waits.
fn ask_behind<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    pool: &Pool,
    second: &'env Function<(), i32>,
) -> ScopedJoinHandle<'scope, Answer> {
    let asking = scope.spawn(move || answer(second, 1));
    until(|| pool.stats().waiting == 1);
    asking
}

#[test]
fn one_compilation_at_a_time() {
    let pool = quiet().max_compilations(1).build().unwrap();
    let one = define(&pool, "serial.one", answering(1));
    let two = define(&pool, "serial.two", answering(2));
    let compiling = spans::hold("compile", "serial.one()");
    thread::scope(|scope| {
        let first = scope.spawn(|| answer(&one, 1));
        compiling.wait_until_reached();
        let second = ask_behind(scope, &pool, &two);
        assert_eq!(check(&pool).compiling, 1);
        assert_eq!(spans::begun("compile", "serial.two()"), 0);
        let error = two.try_acquire(2).unwrap_err();
        let waiting_for = WaitingFor::Compiler;
        assert!(
            matches!(error, AcquireError::WouldBlock { waiting_for: w, .. } if w == waiting_for),
            "{error:?}"
        );
        drop(compiling);
        assert_eq!(first.join().unwrap().unwrap(), 1);
        assert_eq!(second.join().unwrap().unwrap(), 2);
    });
    assert_eq!(check(&pool).compilations, 2);
}

#[test]
fn two_compilations_at_a_time() {
    let pool = quiet().max_compilations(2).build().unwrap();
    let one = define(&pool, "parallel.one", answering(1));
    let two = define(&pool, "parallel.two", answering(2));
    let held = [
        spans::hold("compile", "parallel.one()"),
        spans::hold("compile", "parallel.two()"),
    ];
    thread::scope(|scope| {
        let threads = [&one, &two].map(|function| scope.spawn(move || answer(function, 1)));
        held.iter().for_each(spans::Held::wait_until_reached);
        assert_eq!(check(&pool).compiling, 2);
        drop(held);
        assert_eq!(threads.map(|t| t.join().unwrap().unwrap()), [1, 2]);
    });
}

#[test]
fn who_waits_for_a_compilation_may_lose_patience() {
    let clock = ManualClock::new();
    let pool = quiet().clock(clock.clone()).build().unwrap();
    let function = define(&pool, "slow.first", answering(1));
    let compiling = spans::hold("compile", "slow.first()");
    thread::scope(|scope| {
        let first = scope.spawn(|| answer(&function, 1));
        compiling.wait_until_reached();
        let error = function.try_acquire(2).unwrap_err();
        assert_eq!(
            error.to_string(),
            "slow.first() in group 2 would have to wait for the compilation of its module"
        );
        let second = scope.spawn(|| function.acquire_with(2, room_within(SECOND)).map(drop));
        until(|| pool.stats().waiting == 1);
        clock.advance(SECOND);
        let error = second.join().unwrap().unwrap_err();
        let AcquireError::Timeout {
            waited,
            waiting_for,
            ..
        } = error
        else {
            panic!("{error:?}")
        };
        assert_eq!((waited, waiting_for), (SECOND, WaitingFor::Compilation));
        assert_eq!(check(&pool).waiting, 0);
        drop(compiling);
        assert_eq!(first.join().unwrap().unwrap(), 1);
    });
}

#[test]
fn code_outlives_its_last_instance() {
    for policy in [Policy::default(), Policy::ModuleLru] {
        let pool = quiet().policy(policy).build().unwrap();
        let function = define(&pool, "kept", answering(1));
        function.acquire(1).unwrap().discard();
        let stats = check(&pool);
        assert_eq!(
            (stats.idle, stats.modules_loaded, stats.code_dropped),
            (0, 1, 0)
        );
        assert_eq!(answer(&function, 1).unwrap(), 1);
        assert_eq!(pool.stats().compilations, 1);
    }
}

#[test]
fn under_lru_code_goes_with_its_last_instance() {
    let pool = quiet().policy(Policy::Lru).build().unwrap();
    let function = define(&pool, "dropped", answering(1));
    let leases = [function.acquire(1).unwrap(), function.acquire(2).unwrap()];
    let [one, two] = leases;
    one.discard();
    assert_eq!(check(&pool).modules_loaded, 1, "one instance is left");
    two.discard();
    let stats = check(&pool);
    assert_eq!((stats.modules_loaded, stats.code_dropped), (0, 1));
    check_empty(&pool);
    assert_eq!(answer(&function, 1).unwrap(), 1);
    assert_eq!(pool.stats().compilations, 2);
}

fn forgetful() -> (ManualClock, Pool) {
    let clock = ManualClock::new();
    let pool = quiet()
        .clock(clock.clone())
        .idle_timeout(None)
        .code_idle_timeout(60 * SECOND)
        .build()
        .unwrap();
    (clock, pool)
}

#[test]
fn unused_code_goes_after_its_timeout() {
    let (clock, pool) = forgetful();
    let function = define(&pool, "idle", answering(1));
    function.acquire(1).unwrap().discard();
    clock.advance(59 * SECOND);
    pool.sweep();
    assert_eq!(check(&pool).modules_loaded, 1);
    clock.advance(SECOND);
    pool.sweep();
    let stats = check(&pool);
    assert_eq!((stats.modules_loaded, stats.code_dropped), (0, 1));
    check_empty(&pool);
    assert_eq!(answer(&function, 1).unwrap(), 1);
}

#[test]
fn code_with_an_instance_stays() {
    let (clock, pool) = forgetful();
    let function = define(&pool, "staying", answering(1));
    assert_eq!(answer(&function, 1).unwrap(), 1);
    clock.advance(600 * SECOND);
    pool.sweep();
    let stats = check(&pool);
    assert_eq!((stats.idle, stats.modules_loaded), (1, 1));
}

#[test]
fn the_timeout_counts_from_the_last_lease() {
    let (clock, pool) = forgetful();
    let function = define(&pool, "recent", answering(1));
    let lease = function.acquire(1).unwrap();
    clock.advance(600 * SECOND);
    lease.discard();
    pool.sweep();
    assert_eq!(check(&pool).modules_loaded, 1, "it was in use a moment ago");
}

#[test]
fn the_timeout_counts_from_the_last_use_of_a_warm_instance() {
    let (clock, pool) = forgetful();
    let function = define(&pool, "warm", answering(1));
    assert_eq!(answer(&function, 1).unwrap(), 1);
    clock.advance(600 * SECOND);
    assert_eq!(answer(&function, 1).unwrap(), 1);
    assert_eq!(pool.retain(|_| false), 1);
    pool.sweep();
    assert_eq!(check(&pool).modules_loaded, 1, "it was in use a moment ago");
}

#[test]
fn a_broken_module_is_refused_for_a_while_without_another_try() {
    let clock = ManualClock::new();
    spans::watch();
    let builder = quiet().clock(clock.clone());
    let pool = builder.compile_cooldown(10 * SECOND).build().unwrap();
    let function = define(&pool, "cooling", broken());
    let failure = || module_error(answer(&function, 1).unwrap_err());
    let tries = || spans::begun("compile", "cooling()");
    let first = failure();
    clock.advance(10 * SECOND - Duration::from_nanos(1));
    assert!(Arc::ptr_eq(&failure(), &first));
    // Another function of the same bytes is refused as well.
    let other = define(&pool, "cooling.other", broken());
    assert!(Arc::ptr_eq(
        &module_error(answer(&other, 1).unwrap_err()),
        &first
    ));
    assert_eq!(
        (tries(), spans::begun("compile", "cooling.other()")),
        (1, 0)
    );

    clock.advance(Duration::from_nanos(1));
    let again = failure();
    assert!(!Arc::ptr_eq(&again, &first));
    assert_eq!(tries(), 2);
    check(&pool);
}

#[test]
fn a_replaced_module_is_tried_at_once() {
    spans::watch();
    let pool = quiet().build().unwrap();
    let function = define(&pool, "mended", broken());
    answer(&function, 1).unwrap_err();
    // The same bytes again: the host says that it wants another try.
    let definition = |wasm| Definition::new("mended").wasm(wasm).export("f");
    pool.replace::<(), i32>(definition(broken())).unwrap();
    answer(&function, 1).unwrap_err();
    assert_eq!(spans::begun("compile", "mended()"), 2);
    pool.replace::<(), i32>(definition(answering(3))).unwrap();
    assert_eq!(answer(&function, 1).unwrap(), 3);
    check(&pool);
}
