//! First come, first served; but what is past its deadline gets nothing.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::amounts::Amounts;
use super::requests::RequestId;
use super::{Effects, Signal, State, Types};

/// What a waiter keeps to leave the queue again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

/// Somebody who waits.
pub struct Sleeper<H: Types> {
    pub waiter: H::Waiter,
    /// Nanoseconds since the clock's origin; `u64::MAX` for never.
    pub until: u64,
    /// The request that waits; none for those who wait for an instance.
    pub request: Option<RequestId<H>>,
}

/// Sleepers in the order in which they came.
pub struct Queue<H: Types> {
    waiting: VecDeque<(Ticket, Sleeper<H>)>,
    next: u64,
}

impl<H: Types> Queue<H> {
    pub const fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            next: 0,
        }
    }

    pub fn join(&mut self, sleeper: Sleeper<H>) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        self.waiting.push_back((ticket, sleeper));
        ticket
    }

    /// A waiter that was woken and must wait again keeps its place: tickets stay in order.
    pub fn rejoin(&mut self, ticket: Ticket, sleeper: Sleeper<H>) {
        let position = self.waiting.partition_point(|(t, _)| t.0 < ticket.0);
        self.waiting.insert(position, (ticket, sleeper));
    }

    fn position(&self, ticket: Ticket) -> Option<usize> {
        let found = self.waiting.binary_search_by_key(&ticket.0, |(t, _)| t.0);
        found.ok()
    }

    /// Whether the waiter was still waiting.
    pub fn leave(&mut self, ticket: Ticket) -> bool {
        let position = self.position(ticket);
        position.is_some_and(|position| self.waiting.remove(position).is_some())
    }

    /// From now on it has this deadline.
    pub fn set_deadline(&mut self, ticket: Ticket, until: u64) {
        if let Some(position) = self.position(ticket) {
            self.waiting[position].1.until = until;
        }
    }

    /// The first whose deadline has not come; those before it are `late`.
    pub fn pop(&mut self, now: u64, late: &mut Vec<Sleeper<H>>) -> Option<(Ticket, Sleeper<H>)> {
        while let Some((ticket, sleeper)) = self.waiting.pop_front() {
            if sleeper.until > now {
                return Some((ticket, sleeper));
            }
            late.push(sleeper);
        }
        None
    }

    /// Takes out all whose deadline has come.
    pub fn drop_late(&mut self, now: u64, late: &mut Vec<Sleeper<H>>) {
        if self.waiting.iter().all(|(_, sleeper)| sleeper.until > now) {
            return;
        }
        for (ticket, sleeper) in core::mem::take(&mut self.waiting) {
            match sleeper.until > now {
                true => self.waiting.push_back((ticket, sleeper)),
                false => late.push(sleeper),
            }
        }
    }

    /// Everybody, late or not.
    pub fn drain(&mut self) -> impl Iterator<Item = H::Waiter> + '_ {
        self.waiting.drain(..).map(|(_, sleeper)| sleeper.waiter)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Sleeper<H>> {
        self.waiting.iter().map(|(_, sleeper)| sleeper)
    }

    /// The place of the first.
    pub fn first(&self) -> Option<Ticket> {
        self.waiting.front().map(|(ticket, _)| *ticket)
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }
}

impl<H: Types> State<H> {
    /// They left their queues because their deadlines have come. Their requests end with them, or with the next
    /// `expire`.
    pub(super) fn notify_late(&mut self, late: Vec<Sleeper<H>>, out: &mut Effects<H>) {
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

    /// The sleeper has been woken: from here on its request looks after itself.
    pub(super) fn wake(&mut self, sleeper: Sleeper<H>, out: &mut Effects<H>) {
        if let Some(request) = sleeper.request.and_then(|id| self.requests.get_mut(id)) {
            request.asleep_until = None;
        }
        out.wake.push((sleeper.waiter, Signal::Retry));
    }

    /// Ends the requests that sleep and whose deadlines have come. Most end by themselves; but nobody may
    /// poll a task's any more, and then its seat, its place and its charge would be lost.
    pub fn expire(&mut self, out: &mut Effects<H>) {
        let now = self.now;
        let is_late = |request: &super::Request<H>| request.asleep_until.is_some_and(|t| t <= now);
        let requests = self.requests.iter();
        let late: Vec<_> = requests
            .filter(|(_, request)| is_late(request))
            .map(|(id, request)| (id, request.module))
            .collect();
        let mut sleepers = Vec::new();
        for queue in [
            &mut self.room_queue,
            &mut self.awaiting_frees,
            &mut self.compilers,
        ] {
            queue.drop_late(now, &mut sleepers);
        }
        let mut modules: alloc::collections::BTreeSet<_> =
            late.iter().filter_map(|(_, m)| *m).collect();
        if self.collecting.is_some() && !late.is_empty() {
            // Who waits for a module to leave does not pin it.
            let leaving = self.modules.iter().filter(|(_, m)| m.leaving.is_some());
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
