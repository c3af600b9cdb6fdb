//! First come, first served.

use alloc::collections::VecDeque;

/// What a waiter keeps to leave the queue again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

/// Waiters in the order in which they came.
#[derive(Debug)]
pub struct Queue<W> {
    waiting: VecDeque<(Ticket, W)>,
    next: u64,
}

impl<W> Queue<W> {
    pub const fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            next: 0,
        }
    }

    pub fn join(&mut self, waiter: W) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        self.waiting.push_back((ticket, waiter));
        ticket
    }

    /// A waiter that was woken and must wait again keeps its place: tickets stay in order.
    pub fn rejoin(&mut self, ticket: Ticket, waiter: W) {
        let place = self.waiting.partition_point(|(t, _)| t.0 < ticket.0);
        self.waiting.insert(place, (ticket, waiter));
    }

    /// Whether the waiter was still waiting.
    pub fn leave(&mut self, ticket: Ticket) -> bool {
        match self.waiting.binary_search_by_key(&ticket.0, |(t, _)| t.0) {
            Ok(place) => self.waiting.remove(place).is_some(),
            Err(_) => false,
        }
    }

    pub fn pop(&mut self) -> Option<W> {
        self.pop_first().map(|(_, waiter)| waiter)
    }

    pub fn pop_first(&mut self) -> Option<(Ticket, W)> {
        self.waiting.pop_front()
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
