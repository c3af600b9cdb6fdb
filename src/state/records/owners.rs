//! On whose behalf functions are defined.

use hashbrown::HashMap;

use super::functions::FunctionId;
use super::group::Group;
use crate::state::Types;

/// Functions that somebody owns, and how many each group has; few or none, where the host does not say.
///
/// Invariant:
/// - **F6** each that is owned is defined, and each group's number is that of its own.
pub struct Owners<H: Types> {
    of: HashMap<FunctionId<H>, Group>,
    counts: HashMap<Group, usize>,
}

impl<H: Types> Owners<H> {
    pub fn new() -> Self {
        Self {
            of: HashMap::new(),
            counts: HashMap::new(),
        }
    }

    pub fn of(&self, function: FunctionId<H>) -> Option<&Group> {
        self.of.get(&function)
    }

    /// How many functions a group owns.
    pub fn count(&self, group: &Group) -> usize {
        self.counts.get(group).copied().unwrap_or(0)
    }

    pub fn set(&mut self, function: FunctionId<H>, owner: Group) {
        self.remove(function);
        *self.counts.entry(owner.clone()).or_default() += 1;
        self.of.insert(function, owner);
    }

    /// Whose it was.
    pub fn remove(&mut self, function: FunctionId<H>) -> Option<Group> {
        let owner = self.of.remove(&function)?;
        if let Some(count) = self.counts.get_mut(&owner) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&owner);
            }
        }
        Some(owner)
    }

    pub fn iter(&self) -> impl Iterator<Item = (FunctionId<H>, &Group)> {
        self.of.iter().map(|(id, group)| (*id, group))
    }

    /// Whether the numbers are right.
    pub fn is_counted(&self) -> bool {
        let own = |group: &Group| self.of.values().filter(|owner| *owner == group).count();
        let all: usize = self.counts.values().sum();
        let right = |(group, count): (&Group, &usize)| *count > 0 && own(group) == *count;
        all == self.of.len() && self.counts.iter().all(right)
    }
}
