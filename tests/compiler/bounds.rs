//! What a process that compiles may take.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use wasm_pool::{
    AcquireError, Budget, BuildError, CallError, Compiled, ErrorKind, Function, LimitsError,
    ModuleError,
};

use crate::common::*;
use crate::{alone, builder, define_bomb, helper};

/// What is wrong with the module.
#[track_caller]
fn module_error<R: std::fmt::Debug>(called: Result<R, CallError>) -> Arc<ModuleError> {
    match called {
        Err(CallError::Acquire(AcquireError::Module { source, .. })) => source,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_module_is_compiled_and_answers() {
    let _alone = alone();
    let pool = builder(256 << 20, helper()).build().unwrap();
    let before = charges(&pool);
    let f = define(&pool, "f", answering(42));
    assert_eq!(f.call(1, ()).unwrap(), 42);
    let stats = check(&pool);
    assert_eq!(
        (
            stats.compilations,
            stats.loads,
            stats.compiler_kills.total()
        ),
        (1, 1, 0)
    );
    pool.remove("f").unwrap();
    pool.sweep();
    assert_eq!(
        charges(&pool),
        before,
        "what stands is the processes that wait"
    );
    pool.close();
    check_empty(&pool);
}

#[test]
fn what_takes_more_than_there_can_be_is_too_expensive_and_that_is_remembered() {
    let _alone = alone();
    let pool = builder(48 << 20, helper().first_cap(4 << 20))
        .build()
        .unwrap();
    let before = charges(&pool);
    let f = define_bomb(&pool);
    let error = module_error(f.call(1, ()));
    let ModuleError::TooExpensive {
        needed_at_least,
        cap,
    } = *error
    else {
        panic!("{error}");
    };
    assert!(needed_at_least > 40 << 20 && cap <= 48 << 20, "{error}");
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    let tries = check(&pool).compiler_kills.cap;
    assert!(tries >= 3, "4, 8, 16, and what is left: {tries}");
    assert!(check(&pool).budget(Budget::Compile).peak <= 48 << 20);
    assert_eq!(charges(&pool), before);
    // At once, and without another try.
    let again = module_error(f.call(1, ()));
    assert!(
        matches!(*again, ModuleError::TooExpensive { .. }),
        "{again}"
    );
    assert_eq!(check(&pool).compiler_kills.cap, tries);
    // With other limits it is tried again, with more than was too little.
    pool.set_limits(pool.limits().compile(64 << 20)).unwrap();
    let again = module_error(f.call(1, ()));
    assert!(
        matches!(*again, ModuleError::TooExpensive { .. }),
        "{again}"
    );
    assert_eq!(check(&pool).compiler_kills.cap, tries + 1);
}

#[test]
fn a_cap_that_is_too_low_is_raised_and_what_is_enough_is_remembered() {
    let _alone = alone();
    let told = Arc::new(Mutex::new(Vec::<Compiled>::new()));
    let heard = told.clone();
    let pool = builder(512 << 20, helper().first_cap(1 << 20))
        .on_compiled(move |compiled| heard.lock().unwrap().push(compiled.clone()))
        .build()
        .unwrap();
    let f: Function = pool
        .define(
            wasm_pool::Definition::new("f")
                .wasm(guest("text_regex_match"))
                .export("regex_match"),
        )
        .unwrap();
    let _ = f.prepare().unwrap();
    let kills = check(&pool).compiler_kills;
    assert!(kills.cap > 0, "{kills:?}");
    assert_eq!((kills.total(), check(&pool).compilations), (kills.cap, 1));
    // The host is told of each try.
    let mut tries = std::mem::take(&mut *told.lock().unwrap());
    let last = tries.pop().unwrap();
    assert!(last.succeeded && last.name() == "f", "{last:?}");
    let heap = last.heap_bytes.unwrap();
    assert!(heap > 1 << 20 && heap <= last.reserved_bytes, "{last:?}");
    assert_eq!(tries.len() as u64, kills.cap);
    let failed = |compiled: &Compiled| !compiled.succeeded && compiled.heap_bytes.is_none();
    assert!(tries.iter().all(failed), "{tries:?}");
    // It leaves, and comes back without a try that fails.
    pool.set_limits(pool.limits().code(1)).unwrap();
    assert_eq!(pool.stats().modules_loaded, 0);
    pool.set_limits(pool.limits().code(64 << 20)).unwrap();
    let _ = f.prepare().unwrap();
    assert_eq!(
        (check(&pool).compilations, check(&pool).compiler_kills),
        (2, kills)
    );
    // It reserved what was enough, and an eighth more, where it had reserved all of its last cap.
    let again = told.lock().unwrap().pop().unwrap();
    let last_cap = (1 << 20) << kills.cap;
    assert!(heap + heap / 8 < last_cap, "{last:?}");
    let saved = last.reserved_bytes - again.reserved_bytes;
    assert_eq!(saved, last_cap - (heap + heap / 8), "{again:?}");
}

#[test]
fn no_module_takes_more_than_each_may_and_there_is_room_beside_it() {
    let _alone = alone();
    let each = 24 << 20;
    let process = helper().first_cap(4 << 20).max_cap(each).warm(2);
    let pool = builder(256 << 20, process)
        .max_compilations(2)
        .build()
        .unwrap();
    let f = define_bomb(&pool);
    let error = module_error(f.call(1, ()));
    let ModuleError::TooExpensive {
        needed_at_least,
        cap,
    } = *error
    else {
        panic!("{error}");
    };
    // With its files, and the process as it is before it works.
    assert!((each..each + (8 << 20)).contains(&cap), "{error}");
    assert!(needed_at_least > cap - 2, "{error}");
    assert_eq!(check(&pool).compiler_kills.cap, 4, "4, 8, 16, 24");
    assert!(check(&pool).budget(Budget::Compile).peak < 48 << 20);
    // The first try is within it, too.
    let process = helper().first_cap(64 << 20).max_cap(each);
    let pool = builder(256 << 20, process).build().unwrap();
    let f = define(&pool, "small", answering(3));
    assert_eq!(f.call(1, ()).unwrap(), 3);
    assert!(check(&pool).budget(Budget::Compile).peak < 48 << 20);
}

#[test]
fn what_takes_too_long_is_killed_in_time() {
    let _alone = alone();
    let limit = Duration::from_millis(300);
    let process = helper().time_limit(limit).first_cap(1 << 30);
    let pool = builder(8 << 30, process).build().unwrap();
    let before = charges(&pool);
    let f = define_bomb(&pool);
    let error = module_error(f.call(1, ()));
    assert!(
        matches!(*error, ModuleError::TooSlow { limit: l } if l == limit),
        "{error}"
    );
    assert_eq!(check(&pool).compiler_kills.time, 1);
    assert_eq!(charges(&pool), before);
    // For a while.
    assert!(matches!(
        *module_error(f.call(1, ())),
        ModuleError::TooSlow { .. }
    ));
    assert_eq!(check(&pool).compiler_kills.time, 1);
}

#[test]
fn the_processors_time_is_limited_by_the_kernel() {
    let _alone = alone();
    let process = helper().cpu_time(Duration::from_secs(1)).first_cap(1 << 30);
    let pool = builder(8 << 30, process).build().unwrap();
    let f = define_bomb(&pool);
    let error = module_error(f.call(1, ()));
    assert!(matches!(*error, ModuleError::TooSlow { .. }), "{error}");
}

#[test]
fn a_budget_that_no_process_fits_in_is_refused_when_the_pool_is_built() {
    let _alone = alone();
    let error = builder(1 << 20, helper()).build().map(drop).unwrap_err();
    let field = "compile";
    assert!(
        matches!(error, BuildError::Limits(LimitsError::NeverFits { field: f, .. }) if f == field),
        "{error}"
    );
}

#[test]
fn a_module_that_is_wrong_is_its_definers_affair() {
    let _alone = alone();
    let pool = builder(256 << 20, helper()).build().unwrap();
    // The section of code is well formed, and its instructions are not.
    let mut wasm = answering(1);
    let end = wasm.len();
    let at = wasm.windows(2).rposition(|w| w == [0x41, 1]).unwrap();
    assert!(at < end);
    wasm[at] = 0xff;
    let f = define(&pool, "f", wasm.clone());
    let there = wasm_pool::Report(&*module_error(f.call(1, ()))).to_string();
    let here = one_at_a_time().build().unwrap();
    let f = define(&here, "f", wasm);
    let here = wasm_pool::Report(&*module_error(f.call(1, ()))).to_string();
    assert_eq!(there, here, "it is told as it is in this process");
}
