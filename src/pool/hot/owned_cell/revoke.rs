//! The revoker's side of an [`OwnedCell`], under the pool's lock.

use std::ptr::{from_ref, null_mut};
use std::sync::Arc;

use super::{OwnedCell, REVOKED};
use crate::pool::hot::thread::{Owner, owner_tag};
use crate::sync::{Ordering, heavy_fence};

impl<P: Send> OwnedCell<P> {
    /// Needs no lock; a hint to all but those who have put or taken last.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.own.load(Ordering::Relaxed).is_null() && self.shared.load(Ordering::Relaxed).is_null()
    }

    pub fn has_owner(&self) -> bool {
        self.owner.load(Ordering::Relaxed) != 0
    }

    /// Whether it has one that has not ended: a hint.
    pub fn has_living_owner(&self) -> bool {
        let record = self.record.lock();
        record.as_ref().is_some_and(|owner| !owner.has_ended())
    }

    /// The caller has the value in hand, and the cell has no owner.
    pub fn lend(&self, to: Arc<Owner>) {
        let tag = to.tag;
        *self.record.lock() = Some(to);
        self.owner.store(tag, Ordering::Release);
    }

    /// With one heavy fence for all, they have no owner any more, and their values lie in `shared`. But a cell that
    /// its owner is just taking from still has one, and all have where the fence is refused.
    /// The iterator must give the same cells each time.
    pub fn revoke<'a>(cells: impl Iterator<Item = &'a Self> + Clone)
    where
        P: 'a,
    {
        let mut of_others = false;
        for cell in cells.clone().filter(|cell| cell.has_owner()) {
            let owner = cell.owner.fetch_or(REVOKED, Ordering::Relaxed);
            // This thread is taking from nothing at the moment.
            of_others |= owner & !REVOKED != owner_tag();
        }
        if !of_others || heavy_fence() {
            cells.for_each(Self::settle);
        }
    }

    /// Its owner, if it has one, was revoked before a heavy fence, or is this thread.
    fn settle(&self) {
        let mut record = self.record.lock();
        let takes = |owner: &Arc<Owner>| owner.taking.load(Ordering::Acquire) == self.address();
        if record.as_ref().is_some_and(takes) {
            return;
        }
        *record = None;
        drop(record);
        let owner = self.owner.load(Ordering::Relaxed);
        debug_assert!(owner == 0 || owner & REVOKED != 0, "it was revoked");
        let value = self.own.swap(null_mut(), Ordering::AcqRel);
        if !value.is_null() {
            self.shared.swap(value, Ordering::AcqRel);
        }
        self.owner.store(0, Ordering::Release);
    }

    pub(super) fn address(&self) -> *mut () {
        from_ref(self).cast_mut().cast()
    }
}
