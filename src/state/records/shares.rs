//! What groups have reserved, what they may have, and what they hold.

use alloc::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;

use super::amounts::{Amounts, Budget, OF_CODE, PerBudget};
use super::arena::{Arena, Id};
use super::entries::EntryId;
use super::group::Group;
use crate::state::Types;

pub type ShareId<H> = Id<Share<H>>;

/// How many of something a group may have at once at most; `u32::MAX` for any number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountLimits {
    /// Instances: leased, idle and in the making.
    pub instances: u32,
    /// Requests that wait.
    pub waiting: u32,
    /// Turns to compile.
    pub compilations: u32,
    /// Functions that are defined on its behalf.
    pub definitions: u32,
}

impl CountLimits {
    pub const NONE: Self = Self {
        definitions: u32::MAX,
        instances: u32::MAX,
        waiting: u32::MAX,
        compilations: u32::MAX,
    };
}

impl CountLimits {
    pub fn most_compilations(&self) -> usize {
        usize_of(self.compilations)
    }
}

/// `u32::MAX` is any number.
fn usize_of(count: u32) -> usize {
    match count {
        u32::MAX => usize::MAX,
        count => usize::try_from(count).unwrap_or(usize::MAX),
    }
}

/// What a host sets for a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareTerms {
    /// So much of what the group holds is not evicted for others.
    pub reserved: PerBudget<u64>,
    /// So much it may have at most; `u64::MAX` for any amount. Where nothing is said of a group, of code and of what code counts
    /// in there is no limit: which it uses is not known.
    pub limits: PerBudget<u64>,
    pub counts: CountLimits,
    /// Of those who wait for room, as against 1 of groups of which nothing is said; 0 if it has none of its own.
    pub weight: u32,
    /// Nanoseconds without a use, after which it is. `None`: it never is.
    pub lapses_after: Option<u64>,
}

impl ShareTerms {
    /// Whether a group has the same without them.
    pub fn say_nothing(&self) -> bool {
        let reserves_nothing = self.reserved.iter().all(|(_, reserved)| reserved == 0);
        reserves_nothing && !self.limits_anything() && self.weight == 0
    }

    pub fn limits_anything(&self) -> bool {
        self.limits_amounts() || self.counts != CountLimits::NONE
    }

    pub fn limits_amounts(&self) -> bool {
        self.limits.iter().any(|(_, limit)| limit < u64::MAX)
    }

    /// Whether it has to be known which code a group uses.
    fn limits_code(&self) -> bool {
        OF_CODE.iter().any(|b| self.limits[*b] < u64::MAX)
    }
}

impl Default for ShareTerms {
    fn default() -> Self {
        Self {
            reserved: PerBudget::of(0),
            limits: PerBudget::of(u64::MAX),
            counts: CountLimits::NONE,
            weight: 0,
            lapses_after: None,
        }
    }
}

/// A group that has something reserved or limited, and what it holds: its instances, and the code that it uses.
///
/// Code is shared, and each of its users answers for all of it, as each process does for the pages of a shared
/// library. So what all groups hold may add up to more than is charged.
///
/// Invariants:
/// - **G1** `entries` holds exactly the entries of this group.
/// - **G2** `instances` is what their live instances are charged.
/// - **G3** `code` is what the modules are charged whose users this is among: those that it has made an instance of
///   since their code was loaded.
pub struct Share<H: Types> {
    pub group: Group,
    pub terms: ShareTerms,
    /// Whether they were said of this group. Otherwise they are those of all groups, nothing is reserved, and unless code is limited, nobody
    /// asks which of it the group uses.
    ///
    /// **G5** It is, or the group has an entry; and each entry's group has a share, where all are limited.
    pub is_named: bool,
    pub entries: BTreeSet<EntryId<H>>,
    /// **G6** The number of their seats that are taken or promised.
    pub seats: usize,
    pub instances: Amounts,
    pub code: Amounts,
    /// Its last use, as far as the core knows; nanoseconds since the clock's origin.
    pub used_at: u64,
    /// Nobody has used it for too long, as of the last sweep: it is as if nothing were reserved.
    pub lapsed: bool,
}

impl<H: Types> Share<H> {
    pub fn new(group: Group, terms: ShareTerms, is_named: bool, now: u64) -> Self {
        Self {
            group,
            terms,
            is_named,
            entries: BTreeSet::new(),
            seats: 0,
            instances: Amounts::ZERO,
            code: Amounts::ZERO,
            used_at: now,
            lapsed: false,
        }
    }

    /// How many more seats than it may have it would have with another `more`.
    pub fn excess_seats(&self, more: usize) -> usize {
        self.seats
            .saturating_add(more)
            .saturating_sub(self.most_seats())
    }

    pub fn limits_seats(&self) -> bool {
        self.terms.counts.instances < u32::MAX
    }

    pub fn most_seats(&self) -> usize {
        usize_of(self.terms.counts.instances)
    }

    /// Whether its code is counted.
    pub fn counts_code(&self) -> bool {
        self.is_named || self.terms.limits_code()
    }

    pub fn holds(&self) -> Amounts {
        self.instances.saturating_add(&self.code)
    }

    /// Whether a victim must stay: with it, and what was taken before, less would be left than is reserved of
    /// something that it holds.
    pub fn protects(&self, victim: &Amounts, taken: &Amounts) -> bool {
        let left = self.holds().beyond(taken).beyond(victim);
        let falls_below = |b: Budget| victim.get(b) > 0 && left.get(b) < self.terms.reserved[b];
        !self.lapsed && Budget::ALL.into_iter().any(falls_below)
    }

    pub fn note_use(&mut self, at: u64) {
        self.used_at = self.used_at.max(at);
    }
}

/// All of them.
pub struct Shares<H: Types> {
    all: Arena<Share<H>>,
    /// **G4** Names every share by its group, once.
    index: HashMap<Group, ShareId<H>>,
    /// Entries that count in another group's share than their own: in that of who answers for their function.
    ///
    /// **G7** Each of them is there.
    answerable: BTreeMap<EntryId<H>, Group>,
    /// Whether any group has a weight.
    pub has_weights: bool,
}

impl<H: Types> Shares<H> {
    pub fn new() -> Self {
        Self {
            all: Arena::new(),
            index: HashMap::new(),
            answerable: BTreeMap::new(),
            has_weights: false,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The entry counts in this group's share.
    pub fn set_answerable(&mut self, entry: EntryId<H>, group: Group) {
        self.answerable.insert(entry, group);
    }

    /// In which group's share an entry counts, if not in its own group's.
    pub fn answerable(&self, entry: EntryId<H>) -> Option<&Group> {
        self.answerable.get(&entry)
    }

    pub fn forget_answerable(&mut self, entry: EntryId<H>) -> Option<Group> {
        self.answerable.remove(&entry)
    }

    /// The entries that count in another group's share.
    pub fn answered_for(&self) -> impl Iterator<Item = EntryId<H>> {
        self.answerable.keys().copied()
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn find(&self, group: &Group) -> Option<ShareId<H>> {
        self.index.get(group).copied()
    }

    pub fn insert(&mut self, share: Share<H>) -> ShareId<H> {
        let group = share.group.clone();
        let id = self.all.insert(share);
        self.index.insert(group, id);
        id
    }

    pub fn remove(&mut self, id: ShareId<H>) -> Option<Share<H>> {
        let share = self.all.remove(id)?;
        self.index.remove(&share.group);
        Some(share)
    }

    pub fn get(&self, id: ShareId<H>) -> Option<&Share<H>> {
        self.all.get(id)
    }

    pub fn get_mut(&mut self, id: ShareId<H>) -> Option<&mut Share<H>> {
        self.all.get_mut(id)
    }

    pub fn iter(&self) -> impl Iterator<Item = (ShareId<H>, &Share<H>)> {
        self.all.iter()
    }

    /// Weights have changed.
    pub fn note_weights(&mut self) {
        let has_weights = self.iter().any(|(_, share)| share.terms.weight > 0);
        self.has_weights = has_weights;
    }

    /// Whether each is named once, and it is known whether any has a weight.
    pub fn is_indexed(&self) -> bool {
        let named =
            |(id, share): (ShareId<H>, &Share<H>)| self.index.get(&share.group) == Some(&id);
        let has_weights = self.iter().any(|(_, share)| share.terms.weight > 0);
        self.index.len() == self.len() && self.iter().all(named) && self.has_weights == has_weights
    }
}
