//! Each thread's own table from (function, group) to entry.
//!
//! A lease by name needs its entry without a lock and without touching a counter that other
//! threads touch too. So each thread keeps a reference to the entries that it used lately; a lease
//! takes the reference along, and leaves it to the thread that it ends on. A reference that is not
//! here is fetched under the lock.

use std::any::Any;
use std::cell::RefCell;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::DefaultHashBuilder;

use super::entry::Entry;
use crate::state::Group;
use crate::sync::thread_local;

/// Lines of a thread's table: 1,000 functions in use fit with few collisions. 64 KiB a thread.
const LINES: usize = 1024;

#[derive(Default)]
struct Line {
    uid: u64,
    group: Group,
    /// An `Arc<Entry<T>>`, unless a lease has it.
    entry: Option<Arc<dyn Any + Send + Sync>>,
}

struct Table {
    lines: Vec<Line>,
    hasher: DefaultHashBuilder,
}

thread_local! {
    static TABLE: RefCell<Table> = RefCell::new(Table {
        lines: Vec::new(),
        hasher: DefaultHashBuilder::default(),
    });
}

impl Table {
    #[inline]
    fn place(&self, uid: u64, group: &Group) -> usize {
        self.hasher.hash_one((uid, group)) as usize % LINES
    }
}

/// Takes this thread's reference to the entry of (function, group), if it has one.
#[inline]
pub(crate) fn take<T: Send + 'static>(uid: u64, group: &Group) -> Option<Arc<Entry<T>>> {
    let take = |table: &RefCell<Table>| {
        let mut table = table.borrow_mut();
        let place = table.place(uid, group);
        let line = table.lines.get_mut(place)?;
        if line.uid != uid || line.group != *group {
            return None;
        }
        line.entry.take()?.downcast().ok()
    };
    // A thread that is ending has no table any more.
    TABLE.try_with(take).ok().flatten()
}

/// Leaves a reference for this thread's next lease of the same function and group.
#[inline]
pub(crate) fn put<T: Send + 'static>(entry: Arc<Entry<T>>) {
    let evicted = TABLE.try_with(|table| {
        // Dropping an entry runs no foreign code, but may end a thread's table: not while borrowed.
        let mut table = table.borrow_mut();
        if table.lines.is_empty() {
            table.lines.resize_with(LINES, Line::default);
        }
        let place = table.place(entry.uid, &entry.asker.group);
        let line = &mut table.lines[place];
        if line.uid != entry.uid || line.group != entry.asker.group {
            line.uid = entry.uid;
            line.group = entry.asker.group.clone();
        }
        line.entry.replace(entry)
    });
    // The thread is ending, or the reference in its place was another's: either way it goes.
    drop(evicted);
}
