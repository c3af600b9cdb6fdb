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
use std::cell::{Cell, OnceCell};
use std::sync::Arc;

use crate::pool::api::group_key::GroupKey;
use crate::pool::hot::entry::Entry;
use crate::pool::hot::entry_hash::{FunctionKey, entry_hash};
use crate::sync::{Ordering, StaticU64, thread_local};

/// Sets of lines; the hash of an entry says in which it may stand.
const SETS: usize = 1024;
/// Lines of a set. With four, a thousand entries in use hardly ever meet.
const WAYS: usize = 4;
/// So many entries are forgotten before threads are told to drop closed ones, which costs each some microseconds.
pub(crate) const ANNOUNCE_EVERY: u64 = 128;

/// What a line keeps: an [`Entry`] of some pool.
trait Cached: Any + Send + Sync {
    fn is_closed(&self) -> bool;
}

impl<T: Send + 'static> Cached for Entry<T> {
    fn is_closed(&self) -> bool {
        self.is_closed()
    }
}

type Reference = Arc<dyn Cached>;

/// In cells of its own: what is dropped when a line changes may use the table.
#[derive(Default)]
struct Line {
    /// Of (function, group). One line of a set at most has it.
    hash: Cell<u64>,
    /// An `Arc<Entry<T>>`, unless a lease has it.
    entry: Cell<Option<Reference>>,
}

impl Line {
    fn take_if(&self, condition: impl FnOnce(&Reference) -> bool) -> Option<Reference> {
        let entry = self.entry.take()?;
        if condition(&entry) {
            return Some(entry);
        }
        self.entry.set(Some(entry));
        None
    }

    fn is_vacant(&self) -> bool {
        let entry = self.entry.take();
        let is_vacant = entry.is_none();
        self.entry.set(entry);
        is_vacant
    }
}

/// A thread's table: 4,096 entries at most, 96 KiB.
type Table = [[Line; WAYS]; SETS];

/// Raised whenever there may be closed entries in the tables of all threads.
static ANNOUNCED: StaticU64 = StaticU64::new(0);

thread_local! {
    /// Made when the thread's first lease by name ends.
    static TABLE: OnceCell<Box<Table>> = const { OnceCell::new() };
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
        let lines = table.get().into_iter();
        let lines = lines.flat_map(|table| table.as_flattened());
        lines
            .filter_map(|line| line.take_if(|entry| entry.is_closed()))
            .collect::<Vec<_>>()
    });
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
#[inline(always)]
pub(crate) fn take<T: Send + 'static>(
    function: FunctionKey,
    group: GroupKey<'_>,
) -> Option<Arc<Entry<T>>> {
    let reference = take_by_hash(entry_hash(function, group.hash))?;
    let Ok(entry) = (reference as Arc<dyn Any + Send + Sync>).downcast::<Entry<T>>() else {
        return None;
    };
    // Another may have the same hash.
    (entry.uid == function.uid && entry.group.is(group.view)).then_some(entry)
}

#[inline(always)]
fn take_by_hash(hash: u64) -> Option<Reference> {
    let take = |table: &OnceCell<Box<Table>>| {
        let set = &table.get()?[hash as usize % SETS];
        set.iter()
            .find(|line| line.hash.get() == hash)?
            .entry
            .take()
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
        let hash = entry.hash;
        let set = &table.get_or_init(new_table)[hash as usize % SETS];
        let known = set.iter().find(|line| line.hash.get() == hash);
        let line = known.unwrap_or_else(|| line_for_another(set, hash));
        line.hash.set(hash);
        line.entry.replace(Some(entry))
    });
    // The thread is ending, or the reference in its place was another's: either way it goes.
    drop(evicted);
}

/// Where a hash comes to stand that no line of the set has.
#[cold]
fn line_for_another(set: &[Line; WAYS], hash: u64) -> &Line {
    // Any will do if none is vacant; the upper bits have not chosen the set.
    let any = &set[(hash >> 32) as usize % WAYS];
    set.iter().find(|line| line.is_vacant()).unwrap_or(any)
}

#[cfg(test)]
mod tests {
    use crate::pool::hot::entry_hash::INJECTED;
    use crate::sync::unit_test_of_threads;
    use crate::{AsGroup, Definition, Function, Group, Pool};

    /// Everything has one hash. Each function and each group has its own instances all the same: numbers, names, and
    /// keys, whose groups are compared too.
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
            let lease = |(function, result): (&Function<(), i32>, i32), group: &dyn AsGroup| {
                let key = group.key();
                let mut lease = function.acquire(key).expect("room");
                assert_eq!(*lease.group(), key.to_group());
                assert_eq!(lease.call(()).expect("it returns"), result);
                lease.uses()
            };
            let [one, two] = [define("one", 1), define("two", 2)];
            let long = "a name that is longer than what is kept in place, ";
            let long = [format!("{long}1"), format!("{long}2")];
            let groups: [&dyn AsGroup; _] = [
                &0_u64,
                &1_u64,
                &"0",
                &"1",
                &"",
                &long[0],
                &long[1],
                &pool.group(3),
                &pool.group("3"),
                &Group::NOBODY,
            ];
            for round in 0..20 {
                // Next to each other: two groups of one function, and then two functions in one group.
                for function in [(&one, 1), (&two, 2)] {
                    for group in groups {
                        assert_eq!(lease(function, group), 2 * round + 1);
                    }
                }
                for group in groups {
                    for function in [(&one, 1), (&two, 2)] {
                        assert_eq!(lease(function, group), 2 * round + 2);
                    }
                }
            }
            INJECTED.with(|hash| hash.set(None));
        });
    }
}
