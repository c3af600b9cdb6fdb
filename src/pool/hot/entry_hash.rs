//! What an entry is found by in the threads' tables.

use std::hash::BuildHasher;

use hashbrown::DefaultHashBuilder;

use crate::state::Group;
use crate::sync::OnceLock;

/// The hash that (function, group) is found by in every thread's table. Others may have the same one.
#[inline]
pub(crate) fn entry_hash(uid: u64, group: &Group) -> u64 {
    #[cfg(test)]
    if let Some(hash) = injected::HASH.with(std::cell::Cell::get) {
        return hash;
    }
    static HASHER: OnceLock<DefaultHashBuilder> = OnceLock::new();
    let hasher = HASHER.get_or_init(DefaultHashBuilder::default);
    hasher.hash_one((uid, group))
}

#[cfg(test)]
pub(crate) mod injected {
    use std::cell::Cell;

    use crate::sync::thread_local;

    thread_local! {
        /// The hash of everything.
        pub static HASH: Cell<Option<u64>> = const { Cell::new(None) };
    }
}
