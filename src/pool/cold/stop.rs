//! Ending leases from outside: telling them to stop, and waiting until they have ended.

use std::sync::{Arc, Weak};

use crate::pool::hot::entry::Entry;
use crate::pool::roll::Roll;
use crate::pool::shared::{Drain, EntryId, Shared};
use crate::pool::time::deadline::Deadline;
use crate::pool::wakeup::Waiter;

impl<T: Send + 'static> Shared<T> {
    /// Tells the leases of these entries to stop; how many there were.
    pub fn stop_leases(&self, of: impl Fn(&Entry<T>) -> bool) -> usize {
        let mut roll = Roll::default();
        self.call_the_roll(&mut roll);
        let entries = roll.entries.iter().filter_map(Weak::upgrade);
        let entries = entries.filter(|entry| of(entry));
        entries.map(|entry| self.stop_leases_of(&entry)).sum()
    }

    fn stop_leases_of(&self, entry: &Entry<T>) -> usize {
        // Under the lock, where every lease begins that is no hit.
        let stopped: Vec<_> = self.with_state(|locked, _| {
            let seats = locked.state.taken_seats(entry.id);
            let slots = seats.map(|seat| entry.slot(seat));
            slots.filter(|slot| slot.stop()).collect()
        });
        for slot in &stopped {
            self.suspended.wake(slot.address());
        }
        stopped.len()
    }

    /// Waits until nothing is left of these entries, or of the closed pool; whether that was in time. Dropped before it is
    /// ready, it waits no more.
    pub async fn drain(&self, entries: Option<Vec<EntryId<T>>>, deadline: Deadline) -> bool {
        let waiter = Waiter::new();
        let drain = Drain {
            entries,
            waiter: waiter.clone(),
        };
        self.with_state(|locked, _| locked.drains.push(drain));
        let place = InDrains { pool: self, waiter };
        let drained = place.waiter.next(Some(deadline), &self.timekeeper);
        drained.await.is_some()
    }
}

/// A place among those who wait until leases have ended.
struct InDrains<'a, T: Send + 'static> {
    pool: &'a Shared<T>,
    waiter: Arc<Waiter<T>>,
}

impl<T: Send + 'static> Drop for InDrains<'_, T> {
    fn drop(&mut self) {
        let is_another = |drain: &Drain<T>| !Arc::ptr_eq(&drain.waiter, &self.waiter);
        self.pool.lock().drains.retain(is_another);
    }
}
