//! Whose turn it is to compile. The algorithm is compared with a model in `tests/state_model/turns.rs`.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use wasm_pool::{
    AcquireError, Artifacts, Function, ManualClock, MemoryStore, Pool, PrecompileOutcome,
    WaitingFor,
};

use crate::common::{answering, check, define, quiet, quiet_with_clock, spans, until, wat};

type Order = Arc<Mutex<Vec<String>>>;

/// One compiles at a time; the names of what was compiled, in order.
fn one_at_a_time() -> (Pool, ManualClock, Order) {
    let (builder, clock) = quiet_with_clock();
    let order = Order::default();
    let list = order.clone();
    let builder = builder
        .max_compilations(1)
        .on_compiled(move |compiled| list.lock().unwrap().push(compiled.name().to_owned()));
    (builder.build().unwrap(), clock, order)
}

/// Takes longer to compile than `answering`, the more the more of them there are.
fn large(answer: i32, drops: usize) -> Vec<u8> {
    let drops = "i32.const 7 drop ".repeat(drops);
    wat(&format!(
        r#"(module (func (export "f") (result i32) {drops} i32.const {answer}))"#
    ))
}

/// While `first` compiles for its group, the others ask one after another, each for its own; the order in which they
/// are served.
fn served(
    (pool, clock, order): (Pool, ManualClock, Order),
    first: (Function<(), i32>, u64),
    others: Vec<(Function<(), i32>, u64)>,
) -> Vec<String> {
    let held = spans::hold("compile", first.0.signature());
    thread::scope(|scope| {
        scope.spawn(|| first.0.call(first.1, ()).unwrap());
        held.wait_until_reached();
        for (waiting, (function, group)) in others.iter().enumerate() {
            scope.spawn(|| function.call(*group, ()).unwrap());
            until(|| pool.stats().waiting == waiting + 1);
        }
        clock.advance(Duration::from_millis(10));
        drop(held);
    });
    check(&pool);
    order.lock().unwrap().clone()
}

#[test]
fn a_group_that_asks_for_many_does_not_hold_up_anothers_one() {
    let all = one_at_a_time();
    let flood = |n: i32| (define(&all.0, &format!("flood{n}"), answering(n)), 1);
    let quiet = (define(&all.0, "quiet", large(99, 100)), 2);
    let (first, others) = (flood(0), (1..=5).map(flood).chain([quiet]).collect());
    let order = served(all, first, others);
    assert_eq!(order[..2], ["flood0", "quiet"], "{order:?}");
    assert_eq!(
        order[2..],
        ["flood1", "flood2", "flood3", "flood4", "flood5"]
    );
}

#[test]
fn of_one_group_the_small_are_compiled_before_the_large() {
    let all = one_at_a_time();
    let module = |name: &str, drops| (define(&all.0, name, large(1, drops)), 1);
    let first = module("before", 0);
    let others = vec![
        module("largest", 3_000),
        module("large", 1_000),
        module("small", 10),
    ];
    let order = served(all, first, others);
    assert_eq!(order, ["before", "small", "large", "largest"]);
}

#[test]
fn precompiling_has_a_turn_like_everybody_else() {
    let artifacts = Artifacts::builder()
        .store(MemoryStore::new(16 << 20))
        .build();
    let builder = quiet().artifacts(&artifacts).max_compilations(1);
    let pool = builder.build().unwrap();
    let function = define(&pool, "compiled.beside", answering(1));
    let precompile = |name: &str, wasm: Vec<u8>| {
        let done = pool.precompile([(name, wasm)]).next().unwrap();
        assert_eq!(done.outcome.unwrap(), PrecompileOutcome::Compiled);
    };
    thread::scope(|scope| {
        let held = spans::hold("compile", "compiled.beside()");
        scope.spawn(|| function.call(1, ()).unwrap());
        held.wait_until_reached();
        scope.spawn(|| precompile("precompiled.second", answering(2)));
        until(|| pool.stats().waiting == 1);
        assert_eq!(pool.stats().compiling, 1);
        assert_eq!(spans::begun("compile", "precompiled.second"), 0);
        drop(held);
    });
    check(&pool);

    let function = define(&pool, "behind.it", answering(4));
    thread::scope(|scope| {
        let held = spans::hold("compile", "precompiled.first");
        scope.spawn(|| precompile("precompiled.first", answering(3)));
        held.wait_until_reached();
        assert_eq!(pool.stats().compiling, 1);
        let error = function.try_acquire(1).unwrap_err();
        let expected = WaitingFor::Compiler;
        assert!(
            matches!(error, AcquireError::WouldBlock { waiting_for, .. } if waiting_for == expected),
            "{error:?}"
        );
        let behind = scope.spawn(|| function.call(1, ()).unwrap());
        until(|| pool.stats().waiting == 1);
        drop(held);
        assert_eq!(behind.join().unwrap(), 4);
    });
    assert_eq!(check(&pool).compiling, 0);
}
