//! On whose behalf functions are defined.

use hashbrown::HashMap;

use super::functions::FunctionId;
use super::group::Group;
use crate::state::Types;

/// On whose behalf a function is defined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub group: Group,
    /// Whether what the function takes counts in this group's share, whoever calls it.
    pub answers: bool,
}

impl Owner {
    /// In whose share it counts.
    pub fn answerable(&self) -> Option<&Group> {
        Some(&self.group).filter(|_| self.answers)
    }
}

/// Functions that somebody owns, and how many each group has; few or none, where the host does not say.
///
/// Invariant:
/// - **F6** each that is owned is defined, and each group's number is that of its own.
pub struct Owners<H: Types> {
    of: HashMap<FunctionId<H>, Owner>,
    counts: HashMap<Group, usize>,
}

impl<H: Types> Owners<H> {
    pub fn new() -> Self {
        Self {
            of: HashMap::new(),
            counts: HashMap::new(),
        }
    }

    pub fn of(&self, function: FunctionId<H>) -> Option<&Owner> {
        self.of.get(&function)
    }

    /// How many functions a group owns.
    pub fn count(&self, group: &Group) -> usize {
        self.counts.get(group).copied().unwrap_or(0)
    }

    pub fn set(&mut self, function: FunctionId<H>, owner: Owner) {
        self.remove(function);
        *self.counts.entry(owner.group.clone()).or_default() += 1;
        self.of.insert(function, owner);
    }

    /// Whose it was.
    pub fn remove(&mut self, function: FunctionId<H>) -> Option<Owner> {
        let owner = self.of.remove(&function)?;
        if let Some(count) = self.counts.get_mut(&owner.group) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&owner.group);
            }
        }
        Some(owner)
    }

    pub fn iter(&self) -> impl Iterator<Item = (FunctionId<H>, &Group)> {
        self.of.iter().map(|(id, owner)| (*id, &owner.group))
    }

    /// Whether the numbers are right.
    pub fn is_counted(&self) -> bool {
        let is_of = |group: &Group, owner: &Owner| owner.group == *group;
        let own = |group: &Group| self.of.values().filter(|o| is_of(group, o)).count();
        let all: usize = self.counts.values().sum();
        let right = |(group, count): (&Group, &usize)| *count > 0 && own(group) == *count;
        all == self.of.len() && self.counts.iter().all(right)
    }
}
