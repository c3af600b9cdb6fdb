//! Who is refused for what its guests have done, the slow way.

use crate::fake::{Fake, Instance};
use crate::model::Model;
use crate::state::{Conduct, FunctionId, QuarantineRule};
use crate::world::{NAMES, World};

pub const RULE: QuarantineRule = QuarantineRule {
    failures: 2,
    within: 8,
    first: 5,
    longest: 12,
    by_group: false,
};

/// A function, or one of its entries.
pub type Judged = (FunctionId<Fake>, Option<usize>);

#[derive(Debug, Default)]
pub struct MConduct {
    /// Since the last quarantine.
    failed_at: Vec<u64>,
    /// The length and the end of the last quarantine.
    last: Option<(u64, u64)>,
}

impl Model {
    fn judged(&self, entry: usize) -> Judged {
        let by_group = self.quarantine.by_group;
        (self.entries[entry].function, by_group.then_some(entry))
    }

    pub fn quarantined_until(&self, entry: usize) -> Option<u64> {
        let (_, end) = self.conducts.get(&self.judged(entry))?.last?;
        (self.now < end).then_some(end)
    }

    /// Whether the failure begins a quarantine.
    fn fails(&mut self, entry: usize) -> bool {
        if self.function_of(entry).is_none() || self.quarantined_until(entry).is_some() {
            return false;
        }
        let (now, rule) = (self.now, self.quarantine);
        let conduct = self.conducts.entry(self.judged(entry)).or_default();
        conduct.failed_at.push(now);
        let recent = conduct
            .failed_at
            .iter()
            .filter(|at| now - **at <= rule.within);
        let is_too_often = recent.count() >= rule.failures as usize;
        let lately = conduct.last.filter(|(_, end)| now - end <= rule.within);
        let time = match lately {
            Some((time, _)) => (2 * time).min(rule.longest),
            None if is_too_often => rule.first,
            None => return false,
        };
        *conduct = MConduct {
            failed_at: Vec::new(),
            last: Some((time, now + time)),
        };
        true
    }

    /// All that is held against a function is forgotten.
    pub fn forgive(&mut self, function: FunctionId<Fake>) {
        self.conducts.retain(|(of, _), _| *of != function);
    }
}

impl World {
    /// The guest of this lease fails.
    pub fn fail(&mut self, id: Instance) {
        let entry = self.model.instances[&id].entry;
        if self.model.fails(entry) {
            self.seen.note("quarantined");
            let judged = self.model.judged(entry);
            for other in 0..self.model.entries.len() {
                if self.model.judged(other) == judged {
                    let expelled = self.model.entries[other].queue.drain(..);
                    self.model
                        .expelled
                        .extend(expelled.map(|queued| queued.waiter));
                }
            }
        }
        let expels = !self.model.expelled.is_empty();
        self.seen.note_if(expels, "expelled by a quarantine");
        let id = self.model.entries[entry].id;
        self.state.note_failure(id, &mut self.cx);
        self.absorb(None);
    }

    pub fn lift(&mut self, name: u8) {
        let function = &self.model.functions[usize::from(name) % NAMES.len()];
        if let Some(function) = function.as_ref().map(|function| function.id) {
            self.state.lift_quarantine(function);
            self.model.forgive(function);
        }
    }

    /// Whatever is in quarantine is closed to those who do not take the lock.
    pub fn check_quarantine(&self) {
        let mut refused = 0;
        for entry in 0..self.model.entries.len() {
            let is_refused = self.model.quarantined_until(entry).is_some();
            let is_known = self.model.function_of(entry).is_some();
            if is_refused && is_known && !self.model.entries[entry].gone {
                let had_instances = self.model.instances.values().any(|i| i.entry == entry);
                let door = &self.cx.slots.doors[entry];
                assert!(door.waited || !had_instances, "{entry} is open");
                assert!(self.model.entries[entry].queue.is_empty());
                refused += 1;
            }
        }
        let said = self.state.quarantined();
        if self.model.quarantine.by_group {
            assert_eq!(said.len(), refused);
        }
        assert!(refused == 0 || !said.is_empty() || self.model.closed);
    }
}

/// The ends of the quarantines that failures at these times begin.
fn ends(rule: QuarantineRule, failures: &[u64]) -> Vec<u64> {
    let mut conduct = Conduct::default();
    let begins = |at: &u64| conduct.fails(&rule, *at).then(|| conduct.ends_at());
    failures.iter().filter_map(begins).flatten().collect()
}

#[test]
fn quarantines_begin_double_and_are_forgotten() {
    let rule = QuarantineRule {
        failures: 3,
        within: 100,
        first: 10,
        longest: 35,
        by_group: false,
    };
    // Three, none older than 100.
    assert_eq!(ends(rule, &[0, 50, 100]), [110]);
    assert_eq!(ends(rule, &[0, 50, 101]), [0; 0]);
    assert_eq!(ends(rule, &[0, 50, 101, 102]), [112]);
    // One is enough while it lasts as long as failures count; those within a quarantine are nobody's.
    assert_eq!(ends(rule, &[0, 0, 0, 5, 10, 30, 65]), [10, 30, 65, 100]);
    assert_eq!(ends(rule, &[0, 0, 0, 110]), [10, 130]);
    // After that, all is as it was.
    assert_eq!(ends(rule, &[0, 0, 0, 111]), [10]);
    assert_eq!(ends(rule, &[0, 0, 0, 111, 112, 113]), [10, 123]);
    // At its ends, time stands still.
    let for_ever = QuarantineRule {
        failures: 1,
        first: u64::MAX,
        longest: u64::MAX,
        ..rule
    };
    assert_eq!(ends(for_ever, &[7, 8]), [u64::MAX]);
}
