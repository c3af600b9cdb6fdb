//! How many requests of a group may wait at once, for whatever they wait for.

use alloc::collections::BTreeMap;

use crate::state::{EntryId, Group, Queue, RequestId, Share, ShareId, State, Types};

/// As many requests of the group wait as may: so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyWait(pub u32);

impl<H: Types> State<H> {
    /// The request is about to wait, for anything but a seat. One that has waited before may wait again.
    ///
    /// # Errors
    /// As many of its group wait as may.
    pub fn begin_to_wait(&mut self, id: RequestId<H>) -> Result<(), TooManyWait> {
        let Some(request) = self.requests.get(id).filter(|r| !r.has_waited) else {
            return Ok(());
        };
        let entry = request.seat.map(|(entry, _)| entry);
        if let Some(too_many) = entry.and_then(|entry| self.too_many_wait(entry)) {
            return Err(too_many);
        }
        self.requests[id].has_waited = true;
        Ok(())
    }

    /// Whether nobody may wait who comes anew for an instance of this entry. Where the group has a limit, takes a look at all
    /// requests.
    pub(crate) fn too_many_wait(&self, id: EntryId<H>) -> Option<TooManyWait> {
        let id = self.share_of(id)?;
        let share = self.shares.get(id)?;
        let most = share.terms.counts.waiting;
        if most == u32::MAX {
            return None;
        }
        let in_queues = self.in_queues_of(share);
        let others = || self.asleep().filter(|group| **group == share.group);
        let is_too_many =
            in_queues >= most as usize || in_queues + others().count() >= most as usize;
        is_too_many.then_some(TooManyWait(most))
    }

    /// How many of each group wait of which something was said.
    pub fn waiting_of_groups(&self) -> BTreeMap<ShareId<H>, usize> {
        let named = self.shares.iter().filter(|(_, share)| share.is_named);
        let in_queues = named.map(|(id, share)| (id, self.in_queues_of(share)));
        let mut all: BTreeMap<_, _> = in_queues.collect();
        for group in self.asleep() {
            let share = self.shares.find(group);
            if let Some(waiting) = share.and_then(|share| all.get_mut(&share)) {
                *waiting += 1;
            }
        }
        all
    }

    /// Those who wait for a seat, and are not late.
    fn in_queues_of(&self, share: &Share<H>) -> usize {
        let queues = share.entries.iter().map(|id| &self.entries[*id].queue);
        let in_time = |queue: &Queue<H>| queue.iter().filter(|s| s.until > self.now).count();
        queues.map(in_time).sum()
    }

    /// The groups of those who have a seat, and wait for something else.
    fn asleep(&self) -> impl Iterator<Item = &Group> + '_ {
        let requests = self.requests.iter().map(|(_, request)| request);
        let asleep = requests.filter(|r| r.asleep_until.is_some_and(|until| until > self.now));
        let entries = asleep.filter_map(|request| request.seat.map(|(entry, _)| entry));
        entries.map(|entry| self.share_group(entry))
    }
}
