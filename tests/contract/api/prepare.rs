//! Code is prepared ahead of time: no instance, no seat, no miss; errors as those of an acquire.

use std::thread;
use std::time::Duration;

use pollster::block_on;
use wasm_pool::{
    AcquireError, AcquireOptions, Budget, CodeOrigin, Definition, ErrorKind, Function, Group,
    Limits, ModuleError, Policy, Pool, Prepared, StoreData, WaitingFor,
};
use wasmtime::Linker;

use crate::common::polling::ByHand;
use crate::common::*;

const SECOND: Duration = Duration::from_secs(1);

fn broken() -> Vec<u8> {
    wat(r#"(module (func (export "f") (result i32) i64.const 1))"#)
}

type Outcome = Result<Prepared, AcquireError>;

/// Both ways, one after the other.
fn both_ways(f: &Function<(), i32>) -> [Outcome; 2] {
    [f.prepare(), block_on(f.prepare_async())]
}

#[track_caller]
fn origin(outcome: Outcome) -> CodeOrigin {
    outcome.unwrap().origin
}

#[track_caller]
fn end(pool: &Pool) {
    check(pool);
    pool.close();
    check_empty(pool);
}

#[test]
fn it_compiles_links_and_leases_nothing() {
    let pool = quiet().build().unwrap();
    let f = define(&pool, "ahead", answering(5));
    let prepared = pool.prepare(&f).unwrap();
    assert_eq!(prepared.origin, CodeOrigin::Compiled);
    assert!(prepared.stays);
    let stats = check(&pool);
    assert_eq!(stats.budget(Budget::Code).charged, prepared.code_bytes);
    let function = stats.function("ahead").unwrap();
    assert_eq!(
        (function.code_loaded, function.code_bytes),
        (true, prepared.code_bytes)
    );
    for budget in [Budget::Memory, Budget::Compile, Budget::Stack] {
        assert_eq!(stats.budget(budget).charged, 0, "{budget}");
    }
    assert_eq!((stats.compilations, stats.loads), (1, 1));
    assert_eq!(
        (stats.hits, stats.misses, stats.idle + stats.leased),
        (0, 0, 0)
    );
    assert_eq!(f.call(1, ()).unwrap(), 5);
    let stats = check(&pool);
    assert_eq!((stats.compilations, stats.misses), (1, 1));
    for again in both_ways(&f) {
        let again = again.unwrap();
        assert_eq!(again.origin, CodeOrigin::Present);
        assert_eq!(again.code_bytes, prepared.code_bytes);
    }
    end(&pool);
}

#[test]
fn a_task_prepares_on_a_thread_of_the_pools() {
    let pool = quiet().build().unwrap();
    let f = define(&pool, "ahead.task", answering(5));
    let preparing = f.prepare_async();
    is_send(&preparing);
    assert_eq!(origin(block_on(preparing)), CodeOrigin::Compiled);
    assert_eq!(block_on(f.call_async(1, ())).unwrap(), 5);
    assert_eq!(check(&pool).compilations, 1);
    end(&pool);
}

#[test]
fn it_needs_no_instance_when_all_are_leased() {
    let pool = one_at_a_time().build().unwrap();
    let f = define(&pool, "f", answering(1));
    let held = f.acquire(1).unwrap();
    for outcome in both_ways(&f) {
        assert_eq!(origin(outcome), CodeOrigin::Present);
    }
    // The lease is of the old code: the new one is compiled beside it.
    pool.replace::<(), i32>(definition("f", answering(2)))
        .unwrap();
    assert_eq!(origin(f.prepare()), CodeOrigin::Compiled);
    let stats = check(&pool);
    assert_eq!((stats.blocks, stats.waiting), (0, 0));
    drop(held);
    assert_eq!(f.call(1, ()).unwrap(), 2);
    assert_eq!(check(&pool).compilations, 2);
    end(&pool);
}

#[test]
fn it_takes_no_room_for_an_instance() {
    // Room for one instance, which is leased.
    let limits = Limits::new().memory(instance_bytes(1));
    let pool = quiet().limits(limits).build().unwrap();
    let one = define_with_pages(&pool, "one", 1);
    let other = define_with_pages(&pool, "other", 1);
    let held = one.acquire(1).unwrap();
    let error = other.try_acquire(1).unwrap_err();
    assert!(matches!(error, AcquireError::BudgetExceeded(_)), "{error}");
    assert_eq!(origin(other.prepare()), CodeOrigin::Compiled);
    drop(held);
    end(&pool);
}

#[test]
fn what_does_not_compile_fails_as_in_an_acquire() {
    let (builder, clock) = quiet_with_clock();
    let pool = builder.compile_cooldown(SECOND).build().unwrap();
    let f = define(&pool, "ahead.broken", broken());
    for _ in 0..2 {
        for outcome in both_ways(&f) {
            let error = outcome.unwrap_err();
            assert_eq!(
                (error.kind(), error.is_retryable()),
                (ErrorKind::Invalid, false)
            );
            assert_eq!(error.target().signature(), "ahead.broken()");
            assert_eq!(error.target().group, Group::NOBODY);
            let said = error.to_string();
            let module = "its module's code could not be had";
            assert_eq!(said, format!("ahead.broken(): {module}"));
            let AcquireError::Module { source, .. } = &error else {
                panic!("{error:?}")
            };
            assert!(matches!(**source, ModuleError::Compile(_)), "{source:?}");
            let AcquireError::Module { source: same, .. } = f.acquire(1).unwrap_err() else {
                panic!("it does not compile")
            };
            assert!(
                std::sync::Arc::ptr_eq(source, &same),
                "the failure is remembered"
            );
        }
    }
    assert_eq!(spans::begun("compile", "ahead.broken()"), 1);
    clock.advance(SECOND);
    f.prepare().unwrap_err();
    assert_eq!(spans::begun("compile", "ahead.broken()"), 2);
    assert_eq!(check(&pool).module_failures, 2);
    // Another try after `replace`, at once.
    pool.replace::<(), i32>(definition("ahead.broken", answering(3)))
        .unwrap();
    assert_eq!(origin(f.prepare()), CodeOrigin::Compiled);
    end(&pool);
}

#[test]
fn what_does_not_link_fails_as_in_an_acquire() {
    let go = |linker: &mut Linker<StoreData<()>>| linker.func_wrap("env", "go", || ()).map(drop);
    let pool = quiet().imports(go).build().unwrap();
    // Only the compiler can tell a type of a group from the same one that stands alone.
    let wasm = wat(r#"(module (rec (type $go (func)) (type (func)))
        (import "env" "go" (func (type $go)))
        (func (export "f") (result i32) i32.const 1))"#);
    let f = define(&pool, "f", wasm);
    for outcome in both_ways(&f) {
        let Err(AcquireError::Module { source, .. }) = outcome else {
            panic!("{outcome:?}")
        };
        assert!(matches!(*source, ModuleError::Link(_)), "{source:?}");
    }
    assert_eq!(check(&pool).compilations, 1);
    end(&pool);
}

#[test]
fn a_start_function_that_traps_is_none_of_its_business() {
    let pool = quiet().build().unwrap();
    let wasm = wat(r#"(module (func $start unreachable) (start $start)
        (func (export "f") (result i32) i32.const 1))"#);
    let f = define(&pool, "f", wasm);
    f.prepare().unwrap();
    let error = f.acquire(1).unwrap_err();
    assert!(
        matches!(error, AcquireError::StartTrapped { .. }),
        "{error}"
    );
    end(&pool);
}

#[test]
fn too_small_a_budget_is_said_with_its_numbers() {
    for (limits, budget) in [
        (Limits::new().compile(64 << 10), Budget::Compile),
        (Limits::new().code(4096), Budget::Code),
    ] {
        let pool = quiet().limits(limits).build().unwrap();
        let f = define(&pool, "f", answering(1));
        for outcome in both_ways(&f) {
            let Err(AcquireError::BudgetExceeded(short)) = outcome else {
                panic!("{outcome:?}")
            };
            assert_eq!(short.budget, budget);
            assert!(short.requested > short.limit);
            assert!(short.to_string().starts_with("f() needs "), "{short}");
        }
        assert_eq!(check(&pool).refusals, 2);
        end(&pool);
    }
}

#[test]
fn code_that_others_use_makes_no_room_for_it() {
    let pool = quiet().build().unwrap();
    let code = define(&pool, "f", answering(1))
        .prepare()
        .unwrap()
        .code_bytes;
    pool.close();
    // Room for the code of one module.
    let limits = Limits::new().code(code + code / 2);
    let pool = quiet().limits(limits).build().unwrap();
    let [one, two] =
        [("one", 1), ("two", 2)].map(|(n, answer)| define(&pool, n, answering(answer)));
    let held = one.acquire(1).unwrap();
    let error = two.prepare().unwrap_err();
    assert!(error.is_retryable(), "{error}");
    let AcquireError::BudgetExceeded(short) = error else {
        panic!("{error:?}")
    };
    assert_eq!(short.budget, Budget::Code);
    assert_eq!(short.holders[0].signature(), "one()");
    // With patience, it waits for room as an acquire does.
    let patient = AcquireOptions::new()
        .timeout(60 * SECOND)
        .wait_for_room(true);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| two.prepare_with(patient));
        wait_for_waiters(&pool, 1);
        drop(held);
        assert_eq!(origin(waiting.join().unwrap()), CodeOrigin::Compiled);
    });
    // What was idle has gone for it: code that is prepared is worth as much as any.
    assert!(!check(&pool).function("one").unwrap().code_loaded);
    end(&pool);
}

#[test]
fn what_is_prepared_counts_for_its_function_while_it_is_compiled() {
    let pool = quiet().build().unwrap();
    let f = define(&pool, "ahead.held", answering(1));
    let compiling = spans::hold("compile", "ahead.held()");
    thread::scope(|scope| {
        let preparing = scope.spawn(|| f.prepare());
        compiling.wait_until_reached();
        let stats = check(&pool);
        let held = stats.budget(Budget::Compile).charged;
        let holder = &stats.holders(Budget::Compile)[0];
        assert_eq!((holder.signature(), holder.leased), ("ahead.held()", held));
        assert!(held > 0);
        drop(compiling);
        preparing.join().unwrap().unwrap();
    });
    end(&pool);
}

/// Four threads prepare, four lease; all wait for the first of them.
#[test]
fn eight_who_want_the_code_compile_once() {
    let pool = quiet().build().unwrap();
    let f = define(&pool, "ahead.herd", answering(5));
    let compiling = spans::hold("compile", "ahead.herd()");
    let origins: Vec<_> = thread::scope(|scope| {
        let f = &f;
        let prepare = || scope.spawn(move || f.prepare().unwrap().origin);
        let preparing: Vec<_> = (0..4).map(|_| prepare()).collect();
        let calling: Vec<_> = (0..4u64)
            .map(|group| scope.spawn(move || f.call(group, ()).unwrap()))
            .collect();
        compiling.wait_until_reached();
        wait_for_waiters(&pool, 7);
        drop(compiling);
        assert!(calling.into_iter().all(|call| call.join().unwrap() == 5));
        preparing.into_iter().map(|p| p.join().unwrap()).collect()
    });
    let compiled = origins.iter().filter(|o| **o == CodeOrigin::Compiled);
    assert!(compiled.count() <= 1, "{origins:?}");
    assert!(!origins.contains(&CodeOrigin::Present), "{origins:?}");
    assert_eq!(spans::begun("compile", "ahead.herd()"), 1);
    let stats = check(&pool);
    assert_eq!((stats.compilations, stats.loads, stats.misses), (1, 1, 4));
    end(&pool);
}

#[test]
fn one_failure_reaches_all_who_want_the_code() {
    let pool = quiet().build().unwrap();
    let f = define(&pool, "ahead.doomed", broken());
    let compiling = spans::hold("compile", "ahead.doomed()");
    thread::scope(|scope| {
        let preparing: Vec<_> = (0..3).map(|_| scope.spawn(|| f.prepare())).collect();
        let acquiring = scope.spawn(|| f.acquire(1).map(drop));
        compiling.wait_until_reached();
        wait_for_waiters(&pool, 3);
        drop(compiling);
        for outcome in preparing {
            let error = outcome.join().unwrap().unwrap_err();
            assert!(matches!(error, AcquireError::Module { .. }), "{error}");
        }
        acquiring.join().unwrap().unwrap_err();
    });
    assert_eq!(spans::begun("compile", "ahead.doomed()"), 1);
    end(&pool);
}

#[test]
fn it_waits_for_another_compilation_until_its_deadline() {
    // Somebody must ring the alarm of the task.
    let pool = Pool::builder().build().unwrap();
    let f = define(&pool, "ahead.late", answering(1));
    let compiling = spans::hold("compile", "ahead.late()");
    thread::scope(|scope| {
        let leading = scope.spawn(|| f.prepare());
        compiling.wait_until_reached();
        let short = AcquireOptions::new().timeout(Duration::from_millis(1));
        for outcome in [f.prepare_with(short), block_on(f.prepare_async_with(short))] {
            let error = outcome.unwrap_err();
            assert!(
                matches!(
                    error,
                    AcquireError::Timeout {
                        waiting_for: WaitingFor::Compilation,
                        ..
                    }
                ),
                "{error}"
            );
            let said = error.to_string();
            assert!(said.starts_with("ahead.late() waited "), "{said}");
        }
        drop(compiling);
        leading.join().unwrap().unwrap();
    });
    assert_eq!(check(&pool).waiting, 0);
    end(&pool);
}

#[test]
fn a_closed_pool_and_a_removed_function_refuse() {
    let pool = quiet().build().unwrap();
    let [gone, stays] = ["gone", "stays"].map(|name| define(&pool, name, answering(1)));
    pool.remove("gone").unwrap();
    for outcome in both_ways(&gone) {
        let error = outcome.unwrap_err();
        assert!(matches!(error, AcquireError::Removed { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
    pool.close();
    for outcome in both_ways(&stays) {
        is_closed(outcome);
    }
    check_empty(&pool);
}

#[test]
fn it_ends_with_its_pool_or_its_function_in_the_middle() {
    for closes in [true, false] {
        let pool = quiet().build().unwrap();
        let name = ["ahead.removed", "ahead.closed"][usize::from(closes)];
        let f = define(&pool, name, answering(1));
        let compiling = spans::hold("compile", f.signature());
        thread::scope(|scope| {
            let leading = scope.spawn(|| f.prepare());
            compiling.wait_until_reached();
            let following = scope.spawn(|| f.prepare());
            wait_for_waiters(&pool, 1);
            match closes {
                true => pool.close(),
                false => pool.remove(name).unwrap(),
            }
            drop(compiling);
            for outcome in [leading, following] {
                let error = outcome.join().unwrap().unwrap_err();
                let right = match closes {
                    true => matches!(error, AcquireError::Closed { .. }),
                    false => matches!(error, AcquireError::Removed { .. }),
                };
                assert!(right, "{error:?}");
            }
        });
        // The code of a function that is gone goes too.
        check_empty(&pool);
        end(&pool);
    }
}

#[test]
fn a_function_that_is_replaced_meanwhile_is_prepared_anew() {
    let pool = quiet().build().unwrap();
    let f = define(&pool, "ahead.replaced", answering(1));
    let compiling = spans::hold("compile", "ahead.replaced()");
    thread::scope(|scope| {
        let preparing = scope.spawn(|| f.prepare());
        compiling.wait_until_reached();
        pool.replace::<(), i32>(definition("ahead.replaced", answering(2)))
            .unwrap();
        drop(compiling);
        assert_eq!(origin(preparing.join().unwrap()), CodeOrigin::Compiled);
    });
    let stats = check(&pool);
    assert_eq!((stats.compilations, stats.modules_loaded), (2, 1));
    assert_eq!(f.call(1, ()).unwrap(), 2);
    assert_eq!(check(&pool).compilations, 2);
    end(&pool);
}

#[test]
fn a_handle_of_the_old_type_is_told_so() {
    let pool = quiet().build().unwrap();
    let f = define(&pool, "f", answering(1));
    let wasm = wat(r#"(module (func (export "f") (result i64) i64.const 1))"#);
    let other = definition("f", wasm).allow_type_change();
    let new: Function<(), i64> = pool.replace(other).unwrap();
    for outcome in both_ways(&f) {
        let error = outcome.unwrap_err();
        assert!(matches!(error, AcquireError::TypeChanged { .. }), "{error}");
    }
    assert_eq!(check(&pool).compilations, 0);
    // One with values goes on.
    assert_eq!(new.prepare().unwrap().origin, CodeOrigin::Compiled);
    end(&pool);
}

#[test]
fn under_lru_the_code_stays_only_with_an_instance() {
    let pool = quiet().policy(Policy::Lru).build().unwrap();
    let f = define(&pool, "f", answering(1));
    let prepared = f.prepare().unwrap();
    assert_eq!(
        (prepared.origin, prepared.stays),
        (CodeOrigin::Compiled, false)
    );
    assert!(prepared.code_bytes > 0);
    check_empty(&pool);
    f.call(1, ()).unwrap();
    let prepared = f.prepare().unwrap();
    assert_eq!(
        (prepared.origin, prepared.stays),
        (CodeOrigin::Present, true)
    );
    assert_eq!(check(&pool).compilations, 2);
    end(&pool);
}

/// As an acquire's last use does.
#[test]
fn to_prepare_code_is_a_use_of_it() {
    let (builder, clock) = quiet_with_clock();
    let pool = builder.code_idle_timeout(2 * SECOND).build().unwrap();
    let f = define(&pool, "f", answering(1));
    for _ in 0..4 {
        f.prepare().unwrap();
        clock.advance(SECOND);
        pool.sweep();
    }
    assert_eq!(check(&pool).compilations, 1);
    clock.advance(2 * SECOND);
    pool.sweep();
    check_empty(&pool);
    end(&pool);
}

#[test]
fn a_future_that_is_dropped_leaves_nothing_but_its_compilation() {
    let pool = quiet().build().unwrap();
    let f = define(&pool, "ahead.dropped", answering(1));
    let task = |f: &Function<(), i32>| {
        let f = f.clone();
        ByHand::new(async move { f.prepare_async().await })
    };
    drop(task(&f));
    let mut follower = task(&f);
    {
        let compiling = spans::hold("compile", "ahead.dropped()");
        let mut leader = task(&f);
        assert!(leader.poll().is_none());
        compiling.wait_until_reached();
        assert!(follower.poll().is_none());
        let mut other = task(&f);
        assert!(other.poll().is_none());
        assert_eq!(check(&pool).waiting, 2);
        drop(other);
        drop(leader);
        assert_eq!(check(&pool).waiting, 1);
        drop(compiling);
    }
    // The compilation that had begun is there for the next.
    assert_eq!(origin(follower.finish()), CodeOrigin::Awaited);
    assert_eq!(check(&pool).compilations, 1);
    assert_eq!(spans::begun("compile", "ahead.dropped()"), 1);
    end(&pool);
}

#[test]
fn the_same_bytes_are_prepared_once_for_two_names() {
    let pool = quiet().build().unwrap();
    let [one, two] = ["one", "two"].map(|name| define(&pool, name, answering(1)));
    assert_eq!(origin(one.prepare()), CodeOrigin::Compiled);
    assert_eq!(origin(two.prepare()), CodeOrigin::Present);
    end(&pool);
}

#[test]
fn garbage_does_not_come_so_far() {
    let pool = quiet().build().unwrap();
    let garbage = Definition::new("f").wasm(vec![1, 2, 3]);
    pool.define::<(), i32>(garbage).unwrap_err();
    end(&pool);
}

#[test]
fn nobody_is_no_group_of_a_hosts() {
    for group in [Group::from(0), Group::from(""), Group::from("nobody")] {
        assert_ne!(group, Group::NOBODY);
    }
    assert_eq!(Group::NOBODY.number(), None);
    assert_eq!(Group::NOBODY.name(), None);
    assert_eq!(Group::NOBODY.to_string(), "nobody");
}
