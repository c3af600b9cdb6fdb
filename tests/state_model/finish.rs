//! The end of every run: everybody is served, or everything is given up; then nothing is left.

use crate::acquire::GOOD;
use crate::model::{Nap, Sleep};
use crate::state::Amounts;
use crate::world::World;

/// Far more rounds than any run takes.
const ROUNDS: usize = 400;

impl World {
    pub fn finish(&mut self, serve: bool) {
        self.finish_race();
        self.reap();
        if serve && !self.model.closed {
            self.serve_all();
        } else {
            self.give_all_up();
        }
        self.close();
        self.end_leases();
        self.give_all_up();
        self.free_all();
        self.check();
        assert_eq!(self.model.charged(), [0; 8], "C-B6: nothing is left");
        assert!(*self.state.ledger().charged() == Amounts::ZERO);
        assert!(self.model.instances.is_empty() && self.model.dying.is_empty());
    }

    /// With patience and without failures, every request ends, and nobody waits for a seat for
    /// ever.
    fn serve_all(&mut self) {
        for _ in 0..ROUNDS {
            self.reap();
            self.free_all();
            let requests: Vec<_> = self.model.requests.keys().copied().collect();
            for id in requests {
                if self.model.requests.contains_key(&id) {
                    self.step(id, GOOD);
                    self.check();
                }
            }
            self.end_leases();
            self.check();
            let queues_are_empty = self.model.entries.iter().all(|e| e.queue.is_empty());
            if self.model.requests.is_empty() && queues_are_empty {
                return;
            }
            self.end_hopeless();
        }
        panic!("livelock: {:#?}", self.model.requests);
    }

    /// When nothing else is under way, the first who waits for room can never be served.
    fn end_hopeless(&mut self) {
        let model = &self.model;
        let is_awake = |nap: Nap| nap.woken || nap.late;
        let awake = (model.requests.values()).any(|r| r.nap.is_none_or(is_awake));
        let leased = model.leases().into_iter().any(|id| !self.is_growing(id));
        if awake || leased || !model.dying.is_empty() {
            return;
        }
        let id = model.first_for_room();
        let id = id.expect("all are asleep, and nobody will wake them");
        let nap = model.requests[&id].nap.expect("it waits");
        assert!(matches!(nap.sleep, Sleep::Room(_)));
        self.give_up(id);
        self.check();
    }

    fn free_all(&mut self) {
        while !self.model.dying.is_empty() {
            self.free(0);
            self.check();
        }
    }

    /// Every lease ends, and every report is heard.
    fn end_leases(&mut self) {
        self.finish_race();
        for id in self.model.leases() {
            if !self.is_growing(id) {
                self.release_fast(id, false);
                self.check();
            }
        }
        while !self.model.reports.is_empty() {
            self.report(0);
            self.check();
        }
    }

    fn give_all_up(&mut self) {
        let waiting: usize = self.model.entries.iter().map(|e| e.queue.len()).sum();
        for _ in 0..waiting {
            self.reap();
            self.leave_seat(0);
            self.check();
        }
        self.reap();
        while let Some(id) = self.model.requests.keys().next().copied() {
            self.give_up(id);
            self.check();
        }
        for id in self.model.leases() {
            if self.cx.slots.race.is_some_and(|race| race.instance == id) {
                self.finish_race();
            } else {
                self.trap(id);
            }
            self.check();
        }
        self.free_all();
    }
}
