//! How many requests of a group may wait at once, for whatever they wait for.

use crate::state::{EntryId, Request, RequestId, State, Types};

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
        let in_queues = share.entries.iter().map(|id| self.entries[*id].queue.len());
        let waits = |r: &Request<H>| r.asleep_until.is_some() && r.seat.is_some();
        let requests = self.requests.iter().map(|(_, request)| request);
        let asleep = requests.filter(|r| waits(r) && self.share_of_request(r) == Some(id));
        let waiting = in_queues.sum::<usize>() + asleep.count();
        (waiting >= most as usize).then_some(TooManyWait(most))
    }
}
