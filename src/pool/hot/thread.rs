//! What a thread is to the pool: a number, and the order of its releases.

use std::cell::Cell;

use crate::sync::{StaticCounter, thread_local};

/// Numbers threads.
static THREADS: StaticCounter = StaticCounter::new();

thread_local! {
    static THREAD: ThreadState = const { ThreadState { number: Cell::new(0), sequence: Cell::new(0) } };
}

struct ThreadState {
    /// 0 until it is first asked for; never used twice.
    number: Cell<u64>,
    /// Orders this thread's releases within one reading of a coarse clock.
    sequence: Cell<u64>,
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
