//! One thread, one function: what a lease costs beside the call that it serves.

use std::hint::black_box;

use wasm_pool::{Builder, Definition, Function, Pool};

use super::{ADD, Subject, by_hand};

pub type Add = Function<(i64, i64), i64>;

/// A pool as its builder makes it, with the guest defined.
pub fn pool() -> (Pool, Add) {
    pool_of(Pool::builder())
}

fn pool_of(builder: Builder) -> (Pool, Add) {
    let pool = builder.build().expect("a plain pool");
    let definition = Definition::new("math.add").wasm(ADD);
    let add = pool.define(definition).expect("a good guest");
    (pool, add)
}

/// The bare call, the pool's three ways, and what a host would write itself.
pub fn calls() -> Vec<Subject<'static>> {
    let (pool, add) = pool();
    let resolved = add.in_group(1);
    let held_in = add.in_group(2);
    let mut lease = Box::leak(Box::new(held_in)).acquire().expect("room");
    let mut bare = by_hand::instance();
    let mut fresh = by_hand::instance();
    let (vec, queue, swap) = (
        by_hand::MutexVec::new(1),
        by_hand::Queue::new(1),
        by_hand::Swap::new(),
    );
    let map = by_hand::LockedMap::new([("math.add", 1)]);
    vec![
        Subject::calls("bare", move |a, b| bare.bare(a, b)),
        Subject::calls("bare, deadline set afresh", move |a, b| fresh.call(a, b)),
        Subject::calls("AtomicCell swap", move |a, b| swap.call(a, b)),
        Subject::calls("Mutex<Vec>", move |a, b| vec.call(a, b)),
        Subject::calls("ArrayQueue", move |a, b| queue.call(a, b)),
        Subject::calls("RwLock<HashMap<_, Arc<Mutex>>>", move |a, b| {
            map.call(("math.add", 1), a, b)
        }),
        Subject::calls("lease held", move |a, b| lease.call((a, b)).expect("adds")),
        Subject::calls("resolved", move |a, b| resolved.call((a, b)).expect("adds")),
        Subject::calls("Function", {
            let add = add.clone();
            move |a, b| add.call(1, (a, b)).expect("adds")
        }),
        Subject::calls("by name", move |a, b| {
            let add: Add = pool.function("math.add").expect("defined");
            add.call(1, (a, b)).expect("adds")
        }),
    ]
}

/// Acquire and release, without a call.
pub fn leases() -> Vec<Subject<'static>> {
    let (_pool, add) = pool();
    let resolved = add.in_group(1);
    vec![
        Subject::repeats("lease, resolved", move || {
            drop(black_box(resolved.acquire().expect("room")))
        }),
        Subject::repeats("lease, Function", move || {
            drop(black_box(add.acquire(1).expect("room")))
        }),
    ]
}

/// The paths whose instructions are counted.
pub fn counted(builder: Builder) -> Vec<Subject<'static>> {
    let (_, add) = pool_of(builder);
    let resolved = add.in_group(1);
    let held_in = Box::leak(Box::new(add.in_group(2)));
    let mut lease = held_in.acquire().expect("room");
    let mut bare = by_hand::instance();
    vec![
        Subject::calls("bare", move |a, b| bare.bare(a, b)),
        Subject::calls("lease held", move |a, b| lease.call((a, b)).expect("adds")),
        Subject::calls("resolved", move |a, b| resolved.call((a, b)).expect("adds")),
        Subject::calls("Function", move |a, b| add.call(1, (a, b)).expect("adds")),
    ]
}
