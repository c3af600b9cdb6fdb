//! Functions whose guests fail again and again are refused for a while, and then tried once.

use alloc::vec::Vec;

use crate::state::{
    Conduct, Context, EntryId, FunctionId, Group, InstanceId, Judged, Signal, Slots, State, Types,
};

/// A function that is refused now.
pub struct Quarantined<H: Types> {
    pub function: FunctionId<H>,
    /// `None` for all groups.
    pub group: Option<Group>,
    /// Nanoseconds since the clock's origin.
    pub until: u64,
}

impl<H: Types> State<H> {
    /// A guest of this entry has failed. If that is once too often, nothing is leased from it, or from its function, until the
    /// quarantine is over: whoever waits there for an instance looks again, and is told.
    pub fn note_failure(&mut self, id: EntryId<H>, cx: &mut Context<H, impl Slots<H>>) {
        let (Some(rule), now) = (self.config.quarantine, self.now) else {
            return;
        };
        let Some(entry) = self.entries.get(id) else {
            return;
        };
        let Some(function) = self.functions.get(entry.function) else {
            return;
        };
        let judged = match rule.by_group {
            true => Judged::Entry(id),
            false => Judged::Function(entry.function),
        };
        if !self.conducts.entry(judged).or_default().fails(&rule, now) {
            return;
        }
        let closed: Vec<_> = match rule.by_group {
            true => alloc::vec![id],
            false => function.entries.values().copied().collect(),
        };
        self.quarantines += 1;
        for id in closed {
            let Some(entry) = self.entries.get_mut(id) else {
                continue;
            };
            // Every acquire and release takes the lock from now on.
            cx.slots.set_waited(&entry.handle, true);
            let waiting = entry.queue.drain().map(|waiter| (waiter, Signal::Retry));
            let before = cx.out.wake.len();
            cx.out.wake.extend(waiting);
            if cx.out.wake.len() > before {
                self.forget_if_unused(id, &mut cx.out);
            }
        }
    }

    /// What the entry's function is now: what older code does is not held against it.
    pub fn definition_of(&self, id: EntryId<H>) -> Option<&H::Definition> {
        let function = self.entries.get(id)?.function;
        Some(&self.functions.get(function)?.definition)
    }

    /// Whether the instance is of the code that its function has now.
    pub fn is_current(&self, id: InstanceId<H>) -> bool {
        let instance = self.instances.get(id);
        instance.is_some_and(|instance| {
            let function = self.functions.get(self.entries[instance.entry].function);
            function.is_some_and(|function| function.version == instance.version)
        })
    }

    /// When the entry's quarantine ends, if it is in one.
    pub(crate) fn quarantined_until(&self, id: EntryId<H>) -> Option<u64> {
        let judged = match self.config.quarantine?.by_group {
            true => Judged::Entry(id),
            false => Judged::Function(self.entries.get(id)?.function),
        };
        self.refused_until(self.conducts.get(&judged)?)
    }

    fn refused_until(&self, conduct: &Conduct) -> Option<u64> {
        let until = conduct.ends_at()?;
        conduct.is_quarantined(self.now).then_some(until)
    }

    /// Whether an acquire or a release of this entry must take the lock.
    pub(crate) fn stays_closed(&self, id: EntryId<H>) -> bool {
        !self.entries[id].queue.is_empty()
            || self.quarantined_until(id).is_some()
            || self.has_surplus(id)
    }

    /// All that is held against a function is forgotten, in all groups.
    pub fn lift_quarantine(&mut self, id: FunctionId<H>) {
        self.conducts.remove(&Judged::Function(id));
        if let Some(function) = self.functions.get(id) {
            for entry in function.entries.values() {
                self.conducts.remove(&Judged::Entry(*entry));
            }
        }
    }

    /// Functions, or functions in groups, that are refused now. Looks at all that have failed.
    pub fn quarantined(&self) -> Vec<Quarantined<H>> {
        let all = self.conducts.iter().filter_map(|(judged, conduct)| {
            let until = self.refused_until(conduct)?;
            let (function, group) = match judged {
                Judged::Function(function) => (*function, None),
                Judged::Entry(entry) => {
                    let entry = self.entries.get(*entry)?;
                    (entry.function, Some(entry.group.clone()))
                }
            };
            // Leases of one that was removed may still end.
            self.functions.get(function)?;
            Some(Quarantined {
                function,
                group,
                until,
            })
        });
        all.collect()
    }

    /// Quarantines so far.
    pub fn quarantines(&self) -> u64 {
        self.quarantines
    }
}
