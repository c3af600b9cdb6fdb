//! What a thread is to the pool: a number, and the order of its releases.

use std::cell::{Cell, OnceCell};
use std::ptr::null_mut;
use std::sync::Arc;

use crate::sync::{AtomicPtr, Ordering, StaticCounter, StaticU64, thread_local};

/// Numbers threads.
static THREADS: StaticCounter = StaticCounter::new();

thread_local! {
    static THREAD: ThreadState = const {
        ThreadState { number: Cell::new(0), sequence: Cell::new(0), owner_tag: Cell::new(NO_OWNER) }
    };
    static OWNER: OnceCell<Living> = const { OnceCell::new() };
}

/// A thread as an owner of cells: see `owned_cell.rs`.
pub(crate) struct Owner {
    /// What its cells say: even, not 0, and no other thread's ever.
    pub tag: u64,
    /// The cell that it is about to take from. Written by this thread alone.
    pub taking: AtomicPtr<()>,
    /// 1 when the thread has ended, or is about to.
    ended: StaticU64,
}

impl Owner {
    /// A hint.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed) == 1
    }
}

struct Living(Arc<Owner>);

impl Drop for Living {
    fn drop(&mut self) {
        self.0.ended.store(1, Ordering::Relaxed);
    }
}

/// What no cell says.
const NO_OWNER: u64 = 1;

struct ThreadState {
    /// 0 until it is first asked for; never used twice.
    number: Cell<u64>,
    /// Orders this thread's releases within one reading of a coarse clock.
    sequence: Cell<u64>,
    owner_tag: Cell<u64>,
}

/// This thread's number, from 1.
#[inline]
pub(crate) fn thread_number() -> u64 {
    THREAD.with(|thread| {
        if thread.number.get() == 0 {
            thread.number.set(THREADS.next());
        }
        thread.number.get()
    })
}

/// This thread's tag, or one that no cell has, if it never owned any.
#[inline(always)]
pub(crate) fn owner_tag() -> u64 {
    THREAD.with(|thread| thread.owner_tag.get())
}

/// This thread as an owner; `None` if it never owned a cell, or is ending.
#[inline(always)]
pub(crate) fn with_owner<R>(use_it: impl FnOnce(&Owner) -> R) -> Option<R> {
    let found = OWNER.try_with(|owner| owner.get().map(|living| use_it(&living.0)));
    found.ok().flatten()
}

/// This thread, which is to own something; `None` if it is ending.
#[cold]
pub(crate) fn become_owner() -> Option<Arc<Owner>> {
    let make = || {
        let tag = thread_number() << 1;
        THREAD.with(|thread| thread.owner_tag.set(tag));
        let taking = AtomicPtr::new(null_mut());
        let ended = StaticU64::new(0);
        Living(Arc::new(Owner { tag, taking, ended }))
    };
    let owner = OWNER.try_with(|owner| owner.get_or_init(make).0.clone());
    owner.ok()
}

#[inline]
pub(crate) fn next_sequence() -> u64 {
    THREAD.with(|thread| {
        let next = thread.sequence.get() + 1;
        thread.sequence.set(next);
        next
    })
}

/// Through the lock, all threads agree on what came first.
pub(crate) fn agree_on_sequence(seen: &mut u64) {
    THREAD.with(|thread| {
        *seen = thread.sequence.get().max(*seen) + 1;
        thread.sequence.set(*seen);
    });
}
