//! What an entry is found by in the threads' tables.

use std::hash::BuildHasher;

use hashbrown::DefaultHashBuilder;

use crate::state::Group;
use crate::sync::OnceLock;

/// The hash that (function, group) is found by in every thread's table.
#[inline]
pub(crate) fn entry_hash(uid: u64, group: &Group) -> u64 {
    static HASHER: OnceLock<DefaultHashBuilder> = OnceLock::new();
    let hasher = HASHER.get_or_init(DefaultHashBuilder::default);
    hasher.hash_one((uid, group))
}
