//! Each thread's own table from (function, group) to entry.
//!
//! A lease by name needs its entry without a lock and without touching a counter that other
//! threads touch too. So each thread keeps a reference to the entries that it used lately; a lease
//! takes the reference along, and leaves it to the thread that it ends on. A reference that is not
//! here is fetched under the lock.
//!
//! Entries that are closed (forgotten, or of a function or a pool that is gone) leave a table when its
//! thread next fetches one, if this was announced since: after every [`ANNOUNCE_EVERY`] forgotten entries, and
//! when a pool goes. A thread that never leases anything again keeps its table until it ends.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::sync::Arc;

use crate::pool::hot::entry::Entry;
use crate::pool::hot::entry_hash::entry_hash;
use crate::state::Group;
use crate::sync::{Ordering, StaticU64, thread_local};

/// Sets of lines; the hash of an entry says in which it may stand.
const SETS: usize = 1024;
/// Lines of a set. With four, a thousand entries in use hardly ever meet.
const WAYS: usize = 4;
/// So many entries are forgotten before threads are told to drop closed ones, which costs each some microseconds.
pub(crate) const ANNOUNCE_EVERY: u64 = 1024;

/// What a line keeps: an [`Entry`] of some pool.
trait Cached: Any + Send + Sync {
    fn is_closed(&self) -> bool;
}

impl<T: Send + 'static> Cached for Entry<T> {
    fn is_closed(&self) -> bool {
        self.is_closed()
    }
}

#[derive(Clone, Default)]
struct Line {
    /// Of (function, group).
    hash: u64,
    /// An `Arc<Entry<T>>`, unless a lease has it.
    entry: Option<Arc<dyn Cached + Send + Sync>>,
}

/// A thread's table: 4,096 entries at most, 96 KiB.
type Table = [[Line; WAYS]; SETS];

/// Raised whenever there may be closed entries in the tables of all threads.
static ANNOUNCED: StaticU64 = StaticU64::new(0);

thread_local! {
    /// `None` before the thread's first lease by name ends.
    static TABLE: RefCell<Option<Box<Table>>> = const { RefCell::new(None) };
    /// What was announced when this thread last looked.
    static SEEN: Cell<u64> = const { Cell::new(0) };
}

/// Entries have been closed, which no thread should keep.
pub(crate) fn announce_closed() {
    ANNOUNCED.fetch_add(1, Ordering::Relaxed);
}

/// Drops this thread's references to closed entries, if any were announced since it last did.
#[cold]
pub(crate) fn drop_closed() {
    let announced = ANNOUNCED.load(Ordering::Relaxed);
    // A thread that is ending has no table any more.
    let news = SEEN.try_with(|seen| seen.replace(announced) != announced);
    if !news.unwrap_or_default() {
        return;
    }
    let closed = TABLE.try_with(|table| {
        let mut table = table.borrow_mut();
        let is_closed = |entry: &mut Arc<dyn Cached + Send + Sync>| entry.is_closed();
        let lines = table.iter_mut().flat_map(|table| table.as_flattened_mut());
        lines
            .filter_map(|line| line.entry.take_if(is_closed))
            .collect::<Vec<_>>()
    });
    // Not while the table is borrowed.
    drop(closed);
}

#[cold]
fn new_table() -> Box<Table> {
    // Not an array first: it would not fit on a small stack.
    let sets = (0..SETS).map(|_| Default::default()).collect::<Box<[_]>>();
    sets.try_into()
        .unwrap_or_else(|_| unreachable!("so many sets were made"))
}

/// Takes this thread's reference to the entry of (function, group), if it has one.
#[inline]
pub(crate) fn take<T: Send + 'static>(uid: u64, group: &Group) -> Option<Arc<Entry<T>>> {
    let take = |table: &RefCell<Option<Box<Table>>>| {
        let hash = entry_hash(uid, group);
        let mut table = table.borrow_mut();
        let set = &mut table.as_mut()?[hash as usize % SETS];
        let line = set
            .iter_mut()
            .find(|line| line.hash == hash && line.entry.is_some())?;
        let entry: Arc<dyn Any + Send + Sync> = line.entry.take()?;
        let entry: Arc<Entry<T>> = entry.downcast().ok()?;
        if entry.uid != uid || entry.group != *group {
            return None;
        }
        Some(entry)
    };
    // A thread that is ending has no table any more.
    TABLE.try_with(take).ok().flatten()
}

/// Leaves a reference that nothing was leased through; not of a closed entry, or it would be found again.
pub(crate) fn put_back<T: Send + 'static>(entry: Arc<Entry<T>>) {
    if !entry.is_closed() {
        put(entry);
    }
}

/// Leaves a reference for this thread's next lease of the same function and group.
#[inline(never)]
pub(crate) fn put<T: Send + 'static>(entry: Arc<Entry<T>>) {
    let evicted = TABLE.try_with(|table| {
        // Dropping an entry runs no foreign code, but may end a thread's table: not while borrowed.
        let mut table = table.borrow_mut();
        let hash = entry.hash;
        let set = &mut table.get_or_insert_with(new_table)[hash as usize % SETS];
        let own = |line: &Line| line.hash == hash;
        let vacant = |line: &Line| line.entry.is_none();
        let way = set.iter().position(own);
        let way = way.or_else(|| set.iter().position(vacant));
        // Any will do; the upper bits have not chosen the set.
        let way = way.unwrap_or((hash >> 32) as usize % WAYS);
        let line = &mut set[way];
        line.hash = hash;
        line.entry.replace(entry)
    });
    // The thread is ending, or the reference in its place was another's: either way it goes.
    drop(evicted);
}

#[cfg(test)]
mod tests {
    use crate::pool::hot::entry_hash::INJECTED;
    use crate::sync::unit_test_of_threads;
    use crate::{Definition, Function, Pool};

    /// Everything is in one set, and found by one hash; each function and each group has its own instances.
    #[test]
    fn a_colliding_hash_hands_out_no_other_entry() {
        unit_test_of_threads(|| {
            INJECTED.with(|hash| hash.set(Some(7)));
            let pool = Pool::builder().no_housekeeper().build().expect("a pool");
            let define = |name: &str, result: i32| -> Function<(), i32> {
                let text =
                    format!(r#"(module (func (export "f") (result i32) i32.const {result}))"#);
                let wasm = wat::parse_str(text).expect("it is valid");
                let definition = Definition::new(name).wasm(wasm).export("f");
                pool.define(definition).expect("it is a module")
            };
            let functions = [define("one", 1), define("two", 2)];
            for round in 0..20 {
                for (function, result) in functions.iter().zip([1, 2]) {
                    for number in 0..3_u64 {
                        let mut lease = function.acquire(number).expect("room");
                        assert_eq!(lease.group().number(), Some(number));
                        assert_eq!(lease.call(()).expect("it returns"), result);
                        assert_eq!(lease.uses(), round + 1);
                    }
                    let mut lease = function.acquire("0").expect("room");
                    assert_eq!(lease.group().name(), Some("0"));
                    assert_eq!(lease.call(()).expect("it returns"), result);
                }
            }
            INJECTED.with(|hash| hash.set(None));
        });
    }
}
