//! How a function has behaved lately, and when it is refused for that: its quarantine.

use alloc::collections::VecDeque;

use super::entries::EntryId;
use super::functions::FunctionId;
use crate::state::Types;

/// When guests that fail are kept out. Times are in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuarantineRule {
    /// So many failures, at least 1, …
    pub failures: u32,
    /// … none of which is older than this, begin a quarantine.
    pub within: u64,
    /// How long the first lasts.
    pub first: u64,
    /// Each that follows lasts twice as long as the one before, and no longer than this.
    pub longest: u64,
    /// Whether each group's instances of a function are judged by themselves.
    pub by_group: bool,
}

/// Who is judged.
#[derive(Debug)]
pub enum Judged<H: Types> {
    /// A function, in all groups together.
    Function(FunctionId<H>),
    /// A function in one group.
    Entry(EntryId<H>),
}

impl<H: Types> Judged<H> {
    fn key(&self) -> (Option<FunctionId<H>>, Option<EntryId<H>>) {
        match self {
            Self::Function(id) => (Some(*id), None),
            Self::Entry(id) => (None, Some(*id)),
        }
    }
}

impl<H: Types> PartialEq for Judged<H> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<H: Types> Eq for Judged<H> {}

impl<H: Types> core::hash::Hash for Judged<H> {
    fn hash<S: core::hash::Hasher>(&self, hasher: &mut S) {
        self.key().hash(hasher);
    }
}

/// How one function, or one function in one group, has behaved: there is a record of it from its first failure on.
///
/// When a quarantine is over, the next failure begins another, unless there was none for as long as failures count: so what
/// always fails runs once in each. After such a time without failure, all is forgotten.
#[derive(Clone, Debug, Default)]
pub struct Conduct {
    /// When it failed, the last `failures` times since the last quarantine.
    failed_at: VecDeque<u64>,
    /// Its last quarantine: how long that was, and when it ends.
    last: Option<(u64, u64)>,
}

impl Conduct {
    /// It has failed now. Whether that begins a quarantine.
    pub fn fails(&mut self, rule: &QuarantineRule, now: u64) -> bool {
        if self.is_quarantined(now) {
            // Of a lease that began before.
            return false;
        }
        let is_over = |ended: u64| now.saturating_sub(ended) > rule.within;
        self.last.take_if(|(_, ended)| is_over(*ended));
        while self.failed_at.pop_front_if(|at| is_over(*at)).is_some() {}
        self.failed_at.push_back(now);
        let time = match self.last {
            Some((time, _)) => time.saturating_mul(2).min(rule.longest),
            None if self.failed_at.len() >= rule.failures as usize => rule.first,
            None => return false,
        };
        self.failed_at.clear();
        self.last = Some((time, now.saturating_add(time)));
        true
    }

    pub fn is_quarantined(&self, now: u64) -> bool {
        self.ends_at().is_some_and(|end| now < end)
    }

    /// When its last quarantine ends, or has ended.
    pub fn ends_at(&self) -> Option<u64> {
        self.last.map(|(_, end)| end)
    }
}
