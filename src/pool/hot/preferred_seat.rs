//! Which of an entry's slots a thread tries first.
//!
//! The one where it last found an instance; or else one that depends on its lane. Threads that live
//! at the same time have different lanes, from 0 on, so that as many threads as there are seats
//! do not even meet once.

use std::cell::Cell;
use std::collections::BTreeSet;

use crate::sync::{StaticMutex, thread_local};

/// Entries whose seats a thread remembers apart. Two bytes each, in every thread.
const HINTS: usize = 1024;

thread_local! {
    /// By an entry's hash: eight other bits of the hash, and the seat.
    static SEATS: [Cell<u16>; HINTS] = const { [const { Cell::new(u16::MAX) }; HINTS] };
    static LANE: Lane = Lane::take();
}

/// The seat that this thread prefers among `count` of the entry with this hash.
#[inline(always)]
pub(crate) fn of(hash: u64, count: usize) -> usize {
    let hint = SEATS.with(|seats| seats[hash as usize % HINTS].get());
    let seat = usize::from(hint & 0xff);
    if hint >> 8 == tag(hash) && seat < count {
        return seat;
    }
    first(hash, count)
}

#[cold]
fn first(hash: u64, count: usize) -> usize {
    // A thread that is ending has no lane any more.
    let lane = LANE.try_with(|lane| lane.0).unwrap_or_default();
    let seat = lane % count.max(1);
    remember(hash, seat);
    seat
}

/// This thread has found an instance there.
#[cold]
pub(crate) fn remember(hash: u64, seat: usize) {
    // Entries of more than 256 seats forget the upper ones: they are found all the same.
    if let Ok(seat) = u8::try_from(seat) {
        let hint = tag(hash) << 8 | u16::from(seat);
        SEATS.with(|seats| seats[hash as usize % HINTS].set(hint));
    }
}

#[inline(always)]
fn tag(hash: u64) -> u16 {
    (hash >> 56) as u16
}

/// A small number that no other living thread has.
struct Lane(usize);

/// Lanes that threads have left, below the first that none ever had.
static LEFT: StaticMutex<(BTreeSet<usize>, usize)> = StaticMutex::new((BTreeSet::new(), 0));

impl Lane {
    fn take() -> Self {
        let mut left = LEFT.lock();
        Self(left.0.pop_first().unwrap_or_else(|| {
            left.1 += 1;
            left.1 - 1
        }))
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        LEFT.lock().0.insert(self.0);
    }
}
