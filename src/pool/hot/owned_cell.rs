//! A place for one boxed value, which a thread may own: its owner takes and puts with plain stores, where all
//! others exchange. With `runtime/raw.rs`, the only file with `unsafe`.
//!
//! The value lies in `shared`, where anybody exchanges it, or in `own`, where only its owner puts it. Whoever has
//! it in hand is the only one to put it. Two may want to take it from `own`: the owner, and a **revoker**, which
//! holds the pool's lock. As in Dekker's algorithm, each writes (1), then reads (2):
//!
//! | | the owner takes | the owner puts | a revoker |
//! |---|---|---|---|
//! | 1 | `taking` = this cell | `own` = the value | `owner` = revoked |
//! | | light fence | light fence | heavy fence |
//! | 2 | reads `owner`: itself still? | reads `owner`: itself still? | reads `taking`, then `own` |
//! | 3 | takes from `own`; `taking` = none | | moves the value to `shared` |
//!
//! The heavy fence (`membarrier`) makes each running thread of the process execute a full fence between two of its
//! instructions; threads that do not run executed one when they stopped. The light fence keeps the compiler from
//! exchanging 1 and 2. So the owner's 1 is **before** its full fence, and the revoker sees it; or its 2 is
//! **after**, and sees the revoker's 1.
//!
//! - *Takes, before*: the revoker reads `taking` = this cell, leaves `own` alone, and counts the value as leased. The
//!   owner takes it, or finds that it was revoked and reports that ([`Found::Revoked`]). If it is done already,
//!   `taking` is another, and the revoker sees also what was done to `own` (release, acquire).
//! - *Takes, after*: the owner finds that it was revoked, and touches nothing. What lies in `own` is the revoker's.
//! - *Puts, before*: the revoker finds the value. The owner may find that it was revoked, and asks under the lock.
//! - *Puts, after*: the revoker finds nothing. The owner finds that it was revoked, and takes the lock.
//!
//! `taking` is the thread's and not the cell's: a thread that is stopped between its 1 and its 3, for however
//! long, never writes into a cell that is another's by now. A thread that has ended takes nothing any more.
//!
//! All accesses are atomic: nothing here is a data race, whatever the fences do. That they order what they order is
//! not part of the language's memory model yet (rust-lang/unsafe-code-guidelines#362; for C++, P1202). It rests
//! on membarrier(2); where that is refused, no cell ever has an owner.
#![allow(unsafe_code)]

mod revoke;

use std::ptr::null_mut;
use std::sync::Arc;

use crate::pool::hot::thread::{Owner, owner_tag, with_owner};
use crate::sync::{AtomicPtr, AtomicU64, Mutex, Ordering, light_fence};

/// In `OwnedCell::owner`: the owner takes and puts as all others do.
const REVOKED: u64 = 1;

pub(crate) struct OwnedCell<P: Send> {
    /// 0, or an owner's tag, with or without [`REVOKED`]. Written under the pool's lock alone, as `record`.
    owner: AtomicU64,
    own: AtomicPtr<P>,
    shared: AtomicPtr<P>,
    record: Mutex<Option<Arc<Owner>>>,
}

pub(crate) enum Found<P> {
    /// As the cell's owner.
    Own(Box<P>),
    Shared(Box<P>),
    Nothing,
    /// This thread was about to take when it was revoked. The revoker may have counted that as a lease.
    Revoked,
}

impl<P: Send> OwnedCell<P> {
    pub fn new() -> Self {
        Self {
            owner: AtomicU64::new(0),
            own: AtomicPtr::new(null_mut()),
            shared: AtomicPtr::new(null_mut()),
            record: Mutex::new(None),
        }
    }

    #[inline(always)]
    pub fn take(&self) -> Found<P> {
        if self.is_own()
            && let Some(found) = with_owner(|me| self.take_own(me))
            && !matches!(found, Found::Nothing)
        {
            return found;
        }
        if self.shared.load(Ordering::Relaxed).is_null() {
            return Found::Nothing;
        }
        self.take_shared().map_or(Found::Nothing, Found::Shared)
    }

    #[inline(always)]
    fn take_own(&self, me: &Owner) -> Found<P> {
        me.taking.store(self.address(), Ordering::Release);
        light_fence();
        let owner = self.owner.load(Ordering::Acquire);
        let mut value = null_mut();
        if owner == me.tag {
            value = self.own.load(Ordering::Relaxed);
            self.own.store(null_mut(), Ordering::Relaxed);
        }
        me.taking.store(null_mut(), Ordering::Release);
        // SAFETY: this thread put it there, and was not revoked yet when it had said that it takes: see above.
        match unsafe { unique(value) } {
            Some(value) => Found::Own(value),
            None if owner == me.tag | REVOKED => Found::Revoked,
            None => Found::Nothing,
        }
    }

    /// False: it was put as its owner, who was revoked meanwhile.
    #[inline(always)]
    pub fn put(&self, value: Box<P>) -> bool {
        if !self.is_own() {
            self.put_shared(value);
            return true;
        }
        self.own.store(Box::into_raw(value), Ordering::Release);
        light_fence();
        self.is_own()
    }

    /// Whether this thread is the owner.
    #[inline(always)]
    pub fn is_own(&self) -> bool {
        self.owner.load(Ordering::Relaxed) == owner_tag()
    }

    /// Exchanges even if there is nothing: whoever puts later sees all that was written before.
    pub fn take_shared(&self) -> Option<Box<P>> {
        // SAFETY: it was put here by one thread, and the exchange gives it to one.
        unsafe { unique(self.shared.swap(null_mut(), Ordering::AcqRel)) }
    }

    pub fn put_shared(&self, value: Box<P>) {
        self.shared.swap(Box::into_raw(value), Ordering::AcqRel);
    }
}

/// # Safety
/// It is null, or of `Box::into_raw`, and nobody else has it.
#[inline(always)]
unsafe fn unique<P>(value: *mut P) -> Option<Box<P>> {
    // SAFETY: as the caller says.
    (!value.is_null()).then(|| unsafe { Box::from_raw(value) })
}

impl<P: Send> Drop for OwnedCell<P> {
    fn drop(&mut self) {
        for place in [&self.own, &self.shared] {
            // SAFETY: nobody else has the cell.
            drop(unsafe { unique(place.swap(null_mut(), Ordering::AcqRel)) });
        }
    }
}
