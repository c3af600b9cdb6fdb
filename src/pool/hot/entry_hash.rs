//! What an entry is found by in the threads' tables.

use std::hash::BuildHasher;

use hashbrown::DefaultHashBuilder;

use crate::state::Group;
use crate::sync::OnceLock;
#[cfg(test)]
use crate::sync::thread_local;

#[cfg(test)]
thread_local! {
    /// The hash of everything, to see what becomes of two that collide.
    pub(crate) static INJECTED: std::cell::Cell<Option<u64>> = const { std::cell::Cell::new(None) };
}

/// The hash that (function, group) is found by in every thread's table. Others may have the same one.
#[inline]
pub(crate) fn entry_hash(uid: u64, group: &Group) -> u64 {
    #[cfg(test)]
    if let Some(hash) = INJECTED.with(std::cell::Cell::get) {
        return hash;
    }
    static HASHER: OnceLock<DefaultHashBuilder> = OnceLock::new();
    let hasher = HASHER.get_or_init(DefaultHashBuilder::default);
    hasher.hash_one((uid, group))
}
