//! What an entry is found by in the threads' tables.
//!
//! Hashes are seeded once in a process: whoever makes names up cannot choose which ones meet in one set of a table.
//! Should two collide, they are told apart by what they are hashes of.

use std::hash::BuildHasher;

use hashbrown::DefaultHashBuilder;

use crate::state::GroupView;
use crate::sync::OnceLock;
#[cfg(test)]
use crate::sync::thread_local;

#[cfg(test)]
thread_local! {
    /// The hash of everything, to see what becomes of two that collide.
    pub(crate) static INJECTED: std::cell::Cell<Option<u64>> = const { std::cell::Cell::new(None) };
}

struct Seeded {
    hasher: DefaultHashBuilder,
    seeds: [u64; 2],
}

#[inline]
fn seeded() -> &'static Seeded {
    static SEEDED: OnceLock<Seeded> = OnceLock::new();
    SEEDED.get_or_init(|| {
        let hasher = DefaultHashBuilder::default();
        let seeds = [0, 1].map(|number: u64| hasher.hash_one(number));
        Seeded { hasher, seeds }
    })
}

/// A function with its hash.
#[derive(Clone, Copy)]
pub(crate) struct FunctionKey {
    /// Names it among all functions of all pools.
    pub uid: u64,
    hash: u64,
}

impl FunctionKey {
    pub fn new(uid: u64) -> Self {
        let hash = seeded().hasher.hash_one(uid);
        Self { uid, hash }
    }
}

/// The hash of a group. That of a number is the number: [`entry_hash`] mixes it.
#[inline(always)]
pub(crate) fn group_hash(group: GroupView<'_>) -> u64 {
    match group {
        GroupView::Id(id) => id,
        GroupView::Short([first, second, last]) => {
            let [a, b] = seeded().seeds;
            mix(mix(first ^ a, second ^ b) ^ last, b)
        }
        GroupView::Long(name) => seeded().hasher.hash_one(name),
        GroupView::Nobody => 0,
    }
}

/// The hash that (function, group) is found by in every thread's table, the latter by its hash. Others may have the
/// same one.
#[inline]
pub(crate) fn entry_hash(function: FunctionKey, group: u64) -> u64 {
    #[cfg(test)]
    if let Some(hash) = INJECTED.with(std::cell::Cell::get) {
        return hash;
    }
    // The golden ratio, odd: numbers in a row come into different sets.
    mix(function.hash ^ group, 0x9e37_79b9_7f4a_7c15)
}

/// Both halves of the product, one upon the other: each bit depends on bits above it and on bits below.
#[inline(always)]
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}
