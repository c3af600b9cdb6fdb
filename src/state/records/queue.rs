//! First come, first served, or by tags; but what is past its deadline gets nothing.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::amounts::Amounts;
use super::requests::RequestId;
use crate::state::Types;

/// What a waiter keeps to leave the queue again. The least is first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    /// Of those who wait for room, see `FairTags`; the same for all where nobody has a weight. Of those who wait for an instance, when
    /// they came.
    pub tag: u64,
    number: u64,
}

/// Somebody who waits.
pub struct Sleeper<H: Types> {
    pub waiter: H::Waiter,
    /// Nanoseconds since the clock's origin; `u64::MAX` for never.
    pub until: u64,
    /// The request that waits; none for those who wait for an instance.
    pub request: Option<RequestId<H>>,
}

/// Sleepers in the order of their tickets: that in which they came, but for tags.
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
        self.join_at(self.last_tag(), sleeper)
    }

    /// Behind all who have no greater tag.
    pub fn join_at(&mut self, tag: u64, sleeper: Sleeper<H>) -> Ticket {
        let number = self.next;
        let ticket = Ticket { tag, number };
        self.next += 1;
        self.rejoin(ticket, sleeper);
        ticket
    }

    /// That of the last.
    pub fn last_tag(&self) -> u64 {
        self.waiting.back().map_or(0, |(ticket, _)| ticket.tag)
    }

    /// A waiter that was woken and must wait again keeps its place: tickets stay in order.
    pub fn rejoin(&mut self, ticket: Ticket, sleeper: Sleeper<H>) {
        let position = self.waiting.partition_point(|(t, _)| *t < ticket);
        self.waiting.insert(position, (ticket, sleeper));
    }

    /// Whether somebody waits with this ticket.
    pub fn holds(&self, ticket: Ticket) -> bool {
        self.position(ticket).is_some()
    }

    fn position(&self, ticket: Ticket) -> Option<usize> {
        let found = self.waiting.binary_search_by_key(&ticket, |(t, _)| *t);
        found.ok()
    }

    /// The waiter, if it was still waiting.
    pub fn leave(&mut self, ticket: Ticket) -> Option<Sleeper<H>> {
        let (_, sleeper) = self.waiting.remove(self.position(ticket)?)?;
        Some(sleeper)
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

    /// The place of the first whose deadline has not come.
    pub fn first_in_time(&self, now: u64) -> Option<Ticket> {
        let mut waiting = self.waiting.iter();
        let in_time = waiting.find(|(_, sleeper)| sleeper.until > now);
        in_time.map(|(ticket, _)| *ticket)
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
