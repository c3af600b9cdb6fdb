//! Many functions, many idle instances, many keys.

use std::sync::Mutex;
use std::time::Duration;

use wasm_pool::{Definition, InGroup, Pool};

use super::threads::two;
use super::{ADD, Add, Subject, by_hand, pool_of, sums};

/// Instances that nobody evicts for idleness.
fn patient() -> (Pool, Add) {
    pool_of(
        Pool::builder()
            .idle_timeout(None)
            .max_instances_per_entry(2),
    )
}

/// Defines functions until there are so many; the module is the same.
fn define(pool: &Pool, count: usize) {
    let wasm: std::sync::Arc<[u8]> = ADD.into();
    for n in 1..count {
        let definition = Definition::new(format!("schema.add_{n:06}"))
            .wasm(wasm.clone())
            .export("add");
        (pool.define::<(i64, i64), i64>(definition)).expect("a good guest");
    }
}

/// Calls by function and group, among so many functions and idle instances.
pub fn crowd(name: &'static str, functions: usize, idle: usize) -> Subject {
    let (pool, add) = patient();
    define(&pool, functions);
    for group in 1..idle as u64 {
        assert_eq!(add.call(group + 1, (1, 2)).expect("room"), 3);
    }
    Subject::calls(name, move |a, b| add.call(1, (a, b)).expect("adds"))
}

const KEYS: usize = 1000;

/// Which key comes next, as often as a power of two: Zipf with exponent 0.99.
fn zipf(seed: u64) -> Vec<usize> {
    let weights: Vec<f64> = (1..=KEYS).map(|rank| (rank as f64).powf(-0.99)).collect();
    let total: f64 = weights.iter().sum();
    let mut sum = 0.0;
    let until: Vec<f64> = weights
        .iter()
        .map(|weight| {
            sum += weight / total;
            sum
        })
        .collect();
    let mut state = seed;
    let mut uniform = move || {
        // xorshift64*: any generator will do.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1u64 << 53) as f64
    };
    (0..1 << 16)
        .map(|_| {
            let drawn = uniform();
            until.partition_point(|until| *until < drawn).min(KEYS - 1)
        })
        .collect()
}

fn in_order(n: u64, order: &[usize], mut call: impl FnMut(usize, i64, i64) -> i64) -> Duration {
    let mut at = 0;
    sums(n, &mut |a, b| {
        at = (at + 1) & (order.len() - 1);
        call(order[at], a, b)
    })
}

/// The baseline: an array of instances, and nothing else.
pub fn zipf_array() -> Subject {
    let mut array: Vec<_> = by_hand::instances(KEYS).collect();
    let order = zipf(1);
    Subject::new("Zipf: an array of instances", move |n| {
        in_order(n, &order, |key, a, b| array[key].call(a, b))
    })
}

pub fn zipf_map() -> Subject {
    let map = by_hand::LockedMap::new((0..KEYS as u64).map(|key| ("math.add", key)));
    let order = zipf(1);
    Subject::new("Zipf: RwLock<HashMap<_, Arc<Mutex>>>", move |n| {
        in_order(n, &order, |key, a, b| {
            map.call(("math.add", key as u64), a, b)
        })
    })
}

pub fn zipf_keyed() -> Subject {
    let (_, add) = patient();
    let order = zipf(1);
    Subject::new("Zipf: by function and group", move |n| {
        in_order(n, &order, |key, a, b| {
            add.call(key as u64, (a, b)).expect("adds")
        })
    })
}

pub fn zipf_resolved() -> Subject {
    let (_, add) = patient();
    let groups: Vec<InGroup<_, _>> = (0..KEYS as u64).map(|key| add.in_group(key)).collect();
    let order = zipf(1);
    Subject::new("Zipf: resolved entries", move |n| {
        in_order(n, &order, |key, a, b| {
            groups[key].call((a, b)).expect("adds")
        })
    })
}

/// Two threads on the same keys, each with its own array or one pool for both.
pub fn zipf_on_two() -> Vec<Subject> {
    let arrays = [(); 2].map(|()| Mutex::new(by_hand::instances(KEYS).collect::<Vec<_>>()));
    let orders = [zipf(1), zipf(2)];
    let pool_orders = orders.clone();
    let (_, add) = patient();
    vec![
        two(
            "Zipf on 2 threads: arrays of instances",
            move |thread, n| {
                let mut array = arrays[thread].lock().expect("no panic");
                in_order(n, &orders[thread], |key, a, b| array[key].call(a, b))
            },
        ),
        two(
            "Zipf on 2 threads: by function and group",
            move |thread, n| {
                in_order(n, &pool_orders[thread], |key, a, b| {
                    add.call(key as u64, (a, b)).expect("adds")
                })
            },
        ),
    ]
}
