//! All modules, with an index of those whose code may go: whoever makes room or sweeps looks at no others.
//!
//! A module changes in many places, and each may end or begin a use of its code. So none of them keeps the
//! index: whoever gets a module to change it marks it as touched, and [`ModuleTable::settle`] compares what
//! was touched with what is listed. That is before each look at the index, and before each step of the core,
//! so that few are touched at once.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::ops::{Index, IndexMut};

use super::arena::{Arena, Id};
use super::modules::{Module, ModuleId};
use super::policy::{History, Policy, Worth};
use super::recency::Stamp;
use crate::state::Types;

/// Where the index lists a module.
#[derive(Clone, Copy, Default)]
pub struct Listed {
    /// Changed, perhaps, since the index was compared with it.
    touched: bool,
    /// Among the candidates.
    place: Option<usize>,
    /// In the order of unused code, under this stamp.
    unused: Option<Stamp>,
}

/// What a choice of modules needs of each, side by side: looking at some hundred of them touches few cache
/// lines.
pub struct Candidate<H: Types> {
    pub module: ModuleId<H>,
    /// Bytes of its code.
    bytes: u64,
    history: History,
}

impl<H: Types> Candidate<H> {
    pub fn of(id: ModuleId<H>, module: &Module<H>) -> Self {
        Self {
            module: id,
            bytes: module.code_bytes.unwrap_or(0),
            history: module.history,
        }
    }

    pub fn worth(&self, policy: Policy, now: u64) -> Worth {
        self.history.worth(policy, self.bytes, now)
    }

    fn is_of(&self, module: &Module<H>) -> bool {
        self.history == module.history && self.bytes == module.code_bytes.unwrap_or(0)
    }
}

/// Every module, by its id.
///
/// Invariants, but for modules that are touched:
/// - **M8** `candidates` holds each module once whose code is loaded, and that no request has pinned and no
///   dying instance runs; with its history.
/// - **M9** `unused` holds each loaded module once that nobody uses, under its last use.
pub struct ModuleTable<H: Types> {
    records: Arena<Module<H>>,
    touched: Vec<ModuleId<H>>,
    candidates: Vec<Candidate<H>>,
    unused: BTreeSet<(Stamp, ModuleId<H>)>,
}

impl<H: Types> ModuleTable<H> {
    pub const fn new() -> Self {
        Self {
            records: Arena::new(),
            touched: Vec::new(),
            candidates: Vec::new(),
            unused: BTreeSet::new(),
        }
    }

    pub fn insert(&mut self, module: Module<H>) -> ModuleId<H> {
        self.records.insert(module)
    }

    pub fn remove(&mut self, id: ModuleId<H>) -> Option<Module<H>> {
        let module = self.records.remove(id)?;
        self.list(id, module.listed, None, None);
        Some(module)
    }

    pub fn get(&self, id: ModuleId<H>) -> Option<&Module<H>> {
        self.records.get(id)
    }

    pub fn get_mut(&mut self, id: ModuleId<H>) -> Option<&mut Module<H>> {
        let module = self.records.get_mut(id)?;
        if !module.listed.touched {
            module.listed.touched = true;
            self.touched.push(id);
        }
        Some(module)
    }

    pub fn iter(&self) -> impl Iterator<Item = (ModuleId<H>, &Module<H>)> {
        self.records.iter()
    }

    pub fn ids(&self) -> Vec<ModuleId<H>> {
        self.records.ids()
    }

    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Brings the index up to date.
    pub fn settle(&mut self) {
        while let Some(id) = self.touched.pop() {
            let Some(module) = self.records.get(id) else {
                continue;
            };
            let candidate = is_candidate(module).then(|| Candidate::of(id, module));
            let unused = is_unused_code(module).then_some(module.history.last_used);
            let listed = self.list(id, module.listed, candidate, unused);
            if let Some(module) = self.records.get_mut(id) {
                module.listed = listed;
            }
        }
    }

    /// Lists a module as it is now, instead of as it `was` listed.
    fn list(
        &mut self,
        id: ModuleId<H>,
        was: Listed,
        candidate: Option<Candidate<H>>,
        unused: Option<Stamp>,
    ) -> Listed {
        if was.unused != unused {
            was.unused.map(|stamp| self.unused.remove(&(stamp, id)));
            unused.map(|stamp| self.unused.insert((stamp, id)));
        }
        let place = match (was.place, candidate) {
            (Some(place), Some(candidate)) => {
                self.candidates[place] = candidate;
                Some(place)
            }
            (None, Some(candidate)) => {
                self.candidates.push(candidate);
                Some(self.candidates.len() - 1)
            }
            (Some(place), None) => {
                self.candidates.swap_remove(place);
                let moved = self.candidates.get(place).map(|c| c.module);
                if let Some(moved) = moved.and_then(|id| self.records.get_mut(id)) {
                    moved.listed.place = Some(place);
                }
                None
            }
            (None, None) => None,
        };
        Listed {
            touched: false,
            place,
            unused,
        }
    }

    /// Whose code may go, as far as requests and what is dying say; in no order. Settle first.
    pub fn candidates(&self) -> &[Candidate<H>] {
        &self.candidates
    }

    /// Loaded modules that nobody uses, the least recently used first. Settle first.
    pub fn unused(&self) -> impl Iterator<Item = (Stamp, ModuleId<H>)> {
        self.unused.iter().copied()
    }

    /// The first module, if any, that the index has wrong, by the invariant's code; for `State::recount`.
    pub fn misplaced(&self) -> Option<(&'static str, ModuleId<H>)> {
        let settled = |module: &Module<H>| !module.listed.touched;
        let wrong = |(id, module): (ModuleId<H>, &Module<H>)| {
            let place = module.listed.place;
            let listed = place.and_then(|place| self.candidates.get(place));
            let is_right = match listed {
                Some(listed) => listed.module == id && listed.is_of(module),
                None => place.is_none(),
            };
            let unused = is_unused_code(module).then_some(module.history.last_used);
            if !is_right || place.is_some() != is_candidate(module) {
                Some(("M8", id))
            } else if module.listed.unused != unused
                || unused.is_some_and(|stamp| !self.unused.contains(&(stamp, id)))
            {
                Some(("M9", id))
            } else {
                None
            }
        };
        self.iter().filter(|(_, m)| settled(m)).find_map(wrong)
    }

    /// How many the index lists beyond those that say so themselves; for `State::recount`.
    pub fn surplus(&self) -> (usize, usize) {
        let listed = |is: fn(&Listed) -> bool| self.iter().filter(|(_, m)| is(&m.listed)).count();
        (
            self.candidates.len() - listed(|l| l.place.is_some()),
            self.unused.len() - listed(|l| l.unused.is_some()),
        )
    }
}

fn is_candidate<H: Types>(module: &Module<H>) -> bool {
    module.is_loaded() && module.pins == 0 && module.dying == 0
}

fn is_unused_code<H: Types>(module: &Module<H>) -> bool {
    module.is_loaded() && module.is_unused()
}

/// For ids that a numbered invariant says are alive.
impl<H: Types> Index<Id<Module<H>>> for ModuleTable<H> {
    type Output = Module<H>;

    fn index(&self, id: ModuleId<H>) -> &Module<H> {
        &self.records[id]
    }
}

impl<H: Types> IndexMut<Id<Module<H>>> for ModuleTable<H> {
    fn index_mut(&mut self, id: ModuleId<H>) -> &mut Module<H> {
        self.get_mut(id)
            .expect("S1: ids kept in the state are alive")
    }
}
