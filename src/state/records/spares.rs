//! Instances made ahead of their leases, for functions whose instances are leased once.

use alloc::collections::{BTreeMap, BTreeSet};

use super::entries::EntryId;
use crate::state::Types;

/// How many spares an entry should have: as many as its leases have used up at once, lately.
///
/// It doubles when a lease finds none, and what lay unused for a whole period is too many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spares {
    /// So many are kept ready; at least 1.
    pub wanted: usize,
    /// The fewest that have been ready at once since then, as far as anybody looked.
    pub fewest: usize,
    pub since: u64,
}

/// The spares of all entries.
///
/// Invariants:
/// - **P1** what is kept here is of an entry that is there, and whose function's instances are leased once; of 1 to
///   `max_spares` instances.
/// - **P2** an entry that is to be refilled is kept here.
/// - **P3** a request for a spare waits for nothing.
pub struct SpareTable<H: Types> {
    of: BTreeMap<EntryId<H>, Spares>,
    /// Those that may have fewer than they should.
    to_refill: BTreeSet<EntryId<H>>,
    /// The one that was refilled last.
    refilled: Option<EntryId<H>>,
    /// Instances that were made so.
    pub made: u64,
}

impl<H: Types> SpareTable<H> {
    pub const fn new() -> Self {
        Self {
            of: BTreeMap::new(),
            to_refill: BTreeSet::new(),
            refilled: None,
            made: 0,
        }
    }

    pub fn get(&self, entry: EntryId<H>) -> Option<Spares> {
        self.of.get(&entry).copied()
    }

    pub fn iter(&self) -> impl Iterator<Item = (EntryId<H>, Spares)> + '_ {
        self.of.iter().map(|(entry, spares)| (*entry, *spares))
    }

    /// The first behind `after`.
    pub fn next(&self, after: Option<EntryId<H>>) -> Option<EntryId<H>> {
        use core::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.of.range((from, Unbounded)).next().map(|(id, _)| *id)
    }

    /// A lease has found none: twice as many, up to so many.
    pub fn raise(&mut self, entry: EntryId<H>, most: usize, now: u64) {
        if most == 0 {
            return;
        }
        let fresh = Spares {
            since: now,
            ..Spares::default()
        };
        let spares = self.of.entry(entry).or_insert(fresh);
        spares.wanted = spares.wanted.saturating_mul(2).clamp(1, most);
        spares.fewest = 0;
    }

    /// So many are too many; with none left to want, nothing is kept.
    pub fn lower(&mut self, entry: EntryId<H>, by: usize) {
        if let Some(spares) = self.of.get_mut(&entry) {
            spares.wanted = spares.wanted.saturating_sub(by);
            if spares.wanted == 0 {
                self.forget(entry);
            }
        }
    }

    pub fn forget(&mut self, entry: EntryId<H>) {
        self.of.remove(&entry);
        self.to_refill.remove(&entry);
    }

    /// So many were seen ready.
    pub fn note_ready(&mut self, entry: EntryId<H>, ready: usize) {
        if let Some(spares) = self.of.get_mut(&entry) {
            spares.fewest = spares.fewest.min(ready);
        }
    }

    /// A new period begins, with so many.
    pub fn begin_period(&mut self, entry: EntryId<H>, ready: usize, now: u64) {
        if let Some(spares) = self.of.get_mut(&entry) {
            spares.fewest = ready;
            spares.since = now;
        }
    }

    /// It may have fewer than it should.
    pub fn ask_to_refill(&mut self, entry: EntryId<H>) {
        if self.of.contains_key(&entry) {
            self.to_refill.insert(entry);
        }
    }

    pub fn end_refill(&mut self, entry: EntryId<H>) {
        self.to_refill.remove(&entry);
    }

    /// The next to be refilled, in turn: one that uses its spares as fast as they are made takes none from others.
    pub fn next_to_refill(&mut self) -> Option<EntryId<H>> {
        use core::ops::Bound::{Excluded, Unbounded};
        let from = self.refilled.map_or(Unbounded, Excluded);
        let behind = self.to_refill.range((from, Unbounded)).next();
        self.refilled = behind.or(self.to_refill.first()).copied();
        self.refilled
    }

    pub fn to_refill(&self) -> &BTreeSet<EntryId<H>> {
        &self.to_refill
    }
}
