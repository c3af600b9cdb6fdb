//! One thread, one function: what a lease costs beside the call that it serves.

use std::hint::black_box;

use wasm_pool::{GroupKey, Lease};

use super::{Add, Subject, by_hand, pool};

pub fn bare() -> Subject {
    let mut bare = by_hand::instance();
    Subject::calls("bare call", move |a, b| bare.bare(a, b))
}

/// What a host would write itself.
pub fn by_hand() -> Vec<Subject> {
    let mut fresh = by_hand::instance();
    let swap = by_hand::Swap::new();
    let vec = by_hand::MutexVec::new(1);
    let queue = by_hand::Queue::new(1);
    let map = by_hand::LockedMap::new([("math.add", 1)]);
    vec![
        Subject::calls("bare call, fresh deadline", move |a, b| fresh.call(a, b)),
        Subject::calls("AtomicCell, swapped", move |a, b| swap.call(a, b)),
        Subject::calls("ArrayQueue", move |a, b| queue.call(a, b)),
        Subject::calls("Mutex<Vec>", move |a, b| vec.call(a, b)),
        Subject::calls("RwLock<HashMap<_, Arc<Mutex>>>", move |a, b| {
            map.call(("math.add", 1), a, b)
        }),
    ]
}

/// A lease that is held for all calls: what the call itself costs more than bare.
pub fn held(add: &Add) -> Subject {
    let group: &'static _ = Box::leak(Box::new(add.in_group("held")));
    let mut lease: Lease<'static, _, _> = group.acquire().expect("room");
    Subject::calls("lease held", move |a, b| lease.call((a, b)).expect("adds"))
}

/// Acquire, call, release.
pub fn resolved(add: &Add) -> Subject {
    let group = add.in_group(1);
    Subject::calls("resolved entry", move |a, b| {
        group.call((a, b)).expect("adds")
    })
}

/// The same, of a pool that keeps bills.
pub fn billed(add: &Add) -> Subject {
    Subject {
        name: "resolved entry, billed",
        ..resolved(add)
    }
}

/// Acquire, call, release, by function and group.
pub fn keyed(add: &Add) -> Subject {
    let add = add.clone();
    Subject::calls("function and group", move |a, b| {
        add.call(1, (a, b)).expect("adds")
    })
}

/// Acquire, call, release, by function and a group whose hash is known.
pub fn keyed_by_key(add: &Add) -> Subject {
    let add = add.clone();
    let reports = black_box(GroupKey::from("reports"));
    Subject::calls("function and group's key", move |a, b| {
        add.call(reports, (a, b)).expect("adds")
    })
}

/// Acquire, call, release, by function and a group with a name.
pub fn keyed_by_name(add: &Add) -> Subject {
    let add = add.clone();
    Subject::calls("function and group's name", move |a, b| {
        add.call(black_box("reports"), (a, b)).expect("adds")
    })
}

/// Looks the function up by its name, too.
pub fn by_name() -> Subject {
    let (pool, _) = pool();
    Subject::calls("name and group", move |a, b| {
        let add: Add = pool.function("math.add").expect("defined");
        add.call(1, (a, b)).expect("adds")
    })
}

/// Acquire and release, without a call.
pub fn leases() -> Vec<Subject> {
    let (_, add) = pool();
    let group = add.in_group(1);
    vec![
        Subject::repeats("no call: resolved entry", move || {
            drop(black_box(group.acquire().expect("room")));
        }),
        Subject::repeats("no call: function and group", move || {
            drop(black_box(add.acquire(1).expect("room")));
        }),
    ]
}

/// The paths whose instructions are counted.
pub fn counted(add: &Add) -> Vec<Subject> {
    vec![
        bare(),
        held(add),
        resolved(add),
        keyed(add),
        keyed_by_key(add),
        keyed_by_name(add),
    ]
}
