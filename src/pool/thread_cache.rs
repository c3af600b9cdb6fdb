//! Each thread's own table from (function, group) to entry.
//!
//! A lease by name needs its entry without a lock and without touching a counter that other
//! threads touch too. So each thread keeps a reference to the entries that it used lately; a lease
//! takes the reference along, and leaves it to the thread that it ends on. A reference that is not
//! here is fetched under the lock.

use std::any::Any;
use std::cell::RefCell;
use std::hash::BuildHasher;
use std::sync::{Arc, OnceLock};

use hashbrown::DefaultHashBuilder;

use super::entry::Entry;
use crate::state::Group;
use crate::sync::thread_local;

/// Lines of a thread's table: 1,000 functions in use fit with few collisions. 24 KiB a thread.
const LINES: usize = 1024;

#[derive(Clone, Default)]
struct Line {
    uid: u64,
    /// An `Arc<Entry<T>>`, unless a lease has it.
    entry: Option<Arc<dyn Any + Send + Sync>>,
}

thread_local! {
    static TABLE: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// The place of (function, group) in every thread's table.
#[inline]
pub(crate) fn place(uid: u64, group: &Group) -> usize {
    static HASHER: OnceLock<DefaultHashBuilder> = OnceLock::new();
    let hasher = HASHER.get_or_init(DefaultHashBuilder::default);
    hasher.hash_one((uid, group)) as usize % LINES
}

/// Takes this thread's reference to the entry of (function, group), if it has one.
#[inline]
pub(crate) fn take<T: Send + 'static>(uid: u64, group: &Group) -> Option<Arc<Entry<T>>> {
    let take = |table: &RefCell<Vec<Line>>| {
        let mut table = table.borrow_mut();
        let line = table.get_mut(place(uid, group))?;
        if line.uid != uid {
            return None;
        }
        let entry: Arc<Entry<T>> = line.entry.take()?.downcast().ok()?;
        if entry.asker.group != *group {
            line.entry = Some(entry);
            return None;
        }
        Some(entry)
    };
    // A thread that is ending has no table any more.
    TABLE.try_with(take).ok().flatten()
}

/// Leaves a reference for this thread's next lease of the same function and group.
#[inline(never)]
pub(crate) fn put<T: Send + 'static>(entry: Arc<Entry<T>>) {
    let evicted = TABLE.try_with(|table| {
        // Dropping an entry runs no foreign code, but may end a thread's table: not while borrowed.
        let mut table = table.borrow_mut();
        if table.is_empty() {
            table.resize(LINES, Line::default());
        }
        let line = &mut table[entry.place];
        line.uid = entry.uid;
        line.entry.replace(entry)
    });
    // The thread is ending, or the reference in its place was another's: either way it goes.
    drop(evicted);
}
