//! Who waits for room, who is told when there may be some, and who is too late.

use alloc::vec::Vec;

use super::room::bit;
use crate::state::{
    Amounts, Budget, Effects, EntryId, Group, InstanceId, Request, RequestId, Signal, Sleeper,
    Slots, State, Ticket, Types,
};

impl<H: Types> State<H> {
    /// Queues for room, in its old place if it has one; every lease is asked to report its end.
    /// `None` when one had ended just now: then look again at once.
    pub fn wait_for_room(
        &mut self,
        id: RequestId<H>,
        waiter: H::Waiter,
        slots: &mut impl Slots<H>,
    ) -> Option<Ticket> {
        if !self.notify_on_all_releases(slots) {
            return None;
        }
        // It has no deadline before it sleeps.
        let waiter = Sleeper {
            waiter,
            until: u64::MAX,
            request: Some(id),
        };
        let ticket = match self.requests[id].room_ticket {
            Some(ticket) => {
                self.room_queue.leave(ticket);
                self.room_queue.rejoin(ticket, waiter);
                self.turn.take_if(|turn| *turn == ticket);
                ticket
            }
            None => {
                self.bill_room_wait(id);
                let tag = self.room_tag(id);
                self.room_queue.join_at(tag, waiter)
            }
        };
        let request = &mut self.requests[id];
        request.room_ticket = Some(ticket);
        request.since.get_or_insert(self.overtakes);
        Some(ticket)
    }

    /// Where the request joins those who wait for room: last, or by the weights of their groups.
    fn room_tag(&mut self, id: RequestId<H>) -> u64 {
        // The clock has reached whose turn it is, and for whom room is collected: nobody joins before them.
        if !self.shares.has_weights {
            return self.fair.now().max(self.room_queue.last_tag());
        }
        let group = self.beneficiary(&self.requests[id]).clone();
        self.take_place(&group)
    }

    /// The group in whose share a request counts.
    pub fn share_group_of(&self, id: RequestId<H>) -> &Group {
        self.beneficiary(&self.requests[id])
    }

    /// The group in whose share an instance counts that a request makes, or makes grow.
    fn beneficiary(&self, request: &Request<H>) -> &Group {
        let entry = request.seat.map(|(entry, _)| entry).or(request.grows);
        let entry = entry.filter(|entry| self.entries.get(*entry).is_some());
        entry.map_or(&Group::NOBODY, |entry| self.share_group(entry))
    }

    /// The next place of this group, by its weight.
    fn take_place(&mut self, group: &Group) -> u64 {
        let share = self.shares.find(group).and_then(|id| self.shares.get(id));
        let weight = share.map_or(1, |share| share.terms.weight.max(1));
        let waiting = self.room_queue.len();
        self.fair.join(group, weight, waiting)
    }

    /// Where groups have weights, an instance that is handed on in its entry is a turn of that group. Whether it is another
    /// group's turn, of those who wait for room that this one takes: then it is to go, and whoever waits for it joins them.
    pub(crate) fn is_turn_of_another(&self, id: InstanceId<H>) -> bool {
        let instance = &self.instances[id];
        let entry = &self.entries[instance.entry];
        let is_fair = self.shares.has_weights && self.is_room_awaited();
        if !is_fair || entry.queue.first_in_time(self.now).is_none() {
            return false;
        }
        let brings = instance.charge.amounts();
        let group = self.share_group(instance.entry);
        let others = self.requests.iter().filter_map(|(_, request)| {
            let ticket = request.room_ticket?;
            let is_late = request.asleep_until.is_some_and(|until| until <= self.now);
            let is_other = self.beneficiary(request) != group;
            let helps = |b: Budget| brings.get(b) > 0 && request.lacks & bit(b) != 0;
            let is_helped = Budget::ALL.into_iter().any(helps);
            (is_other && !is_late && is_helped).then_some(ticket.tag)
        });
        let own = self.fair.next(group);
        others.min().is_some_and(|other| other <= own)
    }

    /// An instance of the entry is handed on.
    pub(crate) fn note_handed_on(&mut self, home: EntryId<H>) {
        if self.shares.has_weights && self.is_room_awaited() {
            let group = self.share_group(home).clone();
            self.take_place(&group);
        }
    }

    /// The request that has queued for room sleeps from now on.
    pub fn sleep_for_room(&mut self, id: RequestId<H>, until: u64) {
        let request = &mut self.requests[id];
        if let Some(ticket) = request.room_ticket {
            request.asleep_until = Some(until);
            self.room_queue.set_deadline(ticket, until);
        }
    }

    /// Asks every lease to report its end. False when one had ended just now.
    pub(crate) fn notify_on_all_releases(&mut self, slots: &mut impl Slots<H>) -> bool {
        let mut all = true;
        for id in self.instances.ids() {
            all &= self.is_idle(id, slots) || self.notify_on_release(id, slots);
        }
        all
    }

    fn is_idle(&self, id: InstanceId<H>, slots: &mut impl Slots<H>) -> bool {
        let idle = self.claim(id, slots);
        if idle {
            self.restore(id, slots);
        }
        idle
    }

    /// The request sleeps until something has been destroyed. Nobody waits behind it.
    pub fn wait_for_frees(&mut self, id: RequestId<H>, waiter: H::Waiter, until: u64) -> Ticket {
        self.requests[id].asleep_until = Some(until);
        self.awaiting_frees.join(Sleeper {
            waiter,
            until,
            request: Some(id),
        })
    }

    pub fn leave_frees_queue(&mut self, ticket: Ticket) {
        let sleeper = self.awaiting_frees.leave(ticket);
        self.has_left(sleeper);
    }

    /// The sleeper waits no more, and its request has no deadline in the core; whether there was one.
    pub(crate) fn has_left(&mut self, sleeper: Option<Sleeper<H>>) -> bool {
        let request = sleeper.as_ref().and_then(|sleeper| sleeper.request);
        if let Some(request) = request.and_then(|id| self.requests.get_mut(id)) {
            request.asleep_until = None;
        }
        sleeper.is_some()
    }

    /// The request does not wait for room any more: it has it, or gives up.
    pub fn leave_room(&mut self, id: RequestId<H>, out: &mut Effects<H>) {
        self.end_collecting(id, out);
        let Some(request) = self.requests.get_mut(id) else {
            return;
        };
        request.asleep_until = None;
        if let Some(ticket) = request.room_ticket.take() {
            self.leave_room_queue(ticket, out);
        }
    }

    pub(crate) fn leave_room_queue(&mut self, ticket: Ticket, out: &mut Effects<H>) {
        self.room_queue.leave(ticket);
        self.turn.take_if(|turn| *turn == ticket);
        if !self.is_room_awaited() {
            self.fair.clear();
        }
        // It may have been in the way of smaller ones.
        self.wake_room(out);
    }

    /// There may be room now for the first who waits for it; served, that one wakes the next.
    pub fn wake_room(&mut self, out: &mut Effects<H>) {
        if self.turn.is_some() {
            return;
        }
        let mut late = Vec::new();
        let first = self.room_queue.pop(self.now, &mut late);
        self.notify_late(late, out);
        if let Some((ticket, sleeper)) = first {
            self.turn = Some(ticket);
            self.fair.serve(ticket.tag);
            self.wake(sleeper, out);
        }
    }

    /// They left their queues because their deadlines have come. Their requests end with them, or with the next
    /// `expire`.
    pub(crate) fn notify_late(&mut self, late: Vec<Sleeper<H>>, out: &mut Effects<H>) {
        for sleeper in late {
            if let Some(id) = sleeper.request {
                // Nothing more comes to it: it is out of its queue.
                self.end_collecting(id, out);
                if let Some(request) = self.requests.get_mut(id) {
                    request.expected = Amounts::ZERO;
                }
            }
            out.wake.push((sleeper.waiter, Signal::Late));
        }
    }

    /// The sleeper has been woken: its request has no deadline in the core any more.
    pub(crate) fn wake(&mut self, sleeper: Sleeper<H>, out: &mut Effects<H>) {
        if let Some(request) = sleeper.request.and_then(|id| self.requests.get_mut(id)) {
            request.asleep_until = None;
        }
        out.wake.push((sleeper.waiter, Signal::Retry));
    }

    /// Ends the requests that sleep and whose deadlines have come. Most end by themselves; but nobody may
    /// poll a task's any more, and then its seat, its place and its charge would be lost.
    pub fn expire(&mut self, out: &mut Effects<H>) {
        let now = self.now;
        let is_late = |request: &Request<H>| request.asleep_until.is_some_and(|t| t <= now);
        let requests = self.requests.iter();
        let late: Vec<_> = requests
            .filter(|(_, request)| is_late(request))
            .map(|(id, request)| (id, request.module))
            .collect();
        let mut sleepers = Vec::new();
        for queue in [&mut self.room_queue, &mut self.awaiting_frees] {
            queue.drop_late(now, &mut sleepers);
        }
        self.compile_turns.drop_late(now, &mut sleepers);
        let mut modules: alloc::collections::BTreeSet<_> =
            late.iter().filter_map(|(_, m)| *m).collect();
        if self.collecting.is_some() && !late.is_empty() {
            // Who waits for a module to leave does not pin it.
            let leaving = self
                .modules
                .iter()
                .filter(|(_, m)| m.collected_for.is_some());
            modules.extend(leaving.map(|(id, _)| id));
        }
        for id in modules {
            if let Some(module) = self.modules.get_mut(id) {
                module.followers.drop_late(now, &mut sleepers);
            }
        }
        self.notify_late(sleepers, out);
        for (id, _) in late {
            self.abandon(id, out);
        }
    }
}
