//! Functions whose guests fail again and again are refused for a while, and then tried once.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::state::{
    Conduct, Context, Entry, EntryId, FunctionId, Group, Signal, Slots, State, Types,
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
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        let Some(function) = self.functions.get_mut(entry.function) else {
            return;
        };
        let conduct = match rule.by_group {
            true => &mut entry.conduct,
            false => &mut function.conduct,
        };
        if !conduct.get_or_insert_default().fails(&rule, now) {
            return;
        }
        let closed: Vec<_> = match rule.by_group {
            true => alloc::vec![id],
            false => function.entries.values().copied().collect(),
        };
        self.quarantines += 1;
        for id in closed {
            let entry = &mut self.entries[id];
            // Every acquire and release takes the lock from now on.
            cx.slots.set_waited(&entry.handle, true);
            let waiting = entry.queue.drain().map(|waiter| (waiter, Signal::Retry));
            cx.out.wake.extend(waiting);
        }
    }

    /// When the entry's quarantine ends, if it is in one.
    pub(crate) fn quarantined_until(&self, entry: &Entry<H>) -> Option<u64> {
        self.config.quarantine?;
        let function = self.functions.get(entry.function);
        let of_all = function.and_then(|function| function.conduct.as_deref());
        let conduct = entry.conduct.as_deref().or(of_all)?;
        let until = conduct.ends_at()?;
        conduct.is_quarantined(self.now).then_some(until)
    }

    /// Whether an acquire or a release of this entry must take the lock.
    pub(crate) fn stays_closed(&self, entry: &Entry<H>) -> bool {
        !entry.queue.is_empty() || self.quarantined_until(entry).is_some()
    }

    /// All that is held against a function is forgotten, in all groups.
    pub fn lift_quarantine(&mut self, id: FunctionId<H>) {
        let Some(function) = self.functions.get_mut(id) else {
            return;
        };
        function.conduct = None;
        for entry in function.entries.values() {
            self.entries[*entry].conduct = None;
        }
    }

    /// Functions, or functions in groups, that are refused now. Looks at all of them.
    pub fn quarantined(&self) -> Vec<Quarantined<H>> {
        let until = |conduct: &Option<Box<Conduct>>| {
            let conduct = conduct.as_deref()?;
            let until = conduct.ends_at()?;
            conduct.is_quarantined(self.now).then_some(until)
        };
        let functions = self.functions.iter().filter_map(|(function, record)| {
            Some(Quarantined {
                function,
                group: None,
                until: until(&record.conduct)?,
            })
        });
        let entries = self.entries.iter().filter_map(|(_, entry)| {
            self.functions.get(entry.function)?;
            Some(Quarantined {
                function: entry.function,
                group: Some(entry.group.clone()),
                until: until(&entry.conduct)?,
            })
        });
        match self.config.quarantine {
            Some(_) => functions.chain(entries).collect(),
            None => Vec::new(),
        }
    }

    /// Quarantines so far.
    pub fn quarantines(&self) -> u64 {
        self.quarantines
    }
}
