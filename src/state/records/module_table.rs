//! All modules, with an index of those whose code may go: whoever makes room or sweeps looks at no others.
//!
//! A module changes in many places, and each may end or begin a use of its code. So none of them keeps the
//! index: whoever gets a module to change it marks it as touched, and [`ModuleTable::settle`] compares what
//! was touched with what is listed. That is before each look at the index, and before each step of the core,
//! so that few are touched at once.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::ops::{Index, IndexMut};

use super::amounts::Amounts;
use super::arena::{Arena, Id};
use super::modules::{Module, ModuleId, Phase};
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
    /// What its code is charged, as a candidate.
    charge: Amounts,
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
///   dying instance runs; with its history. `charged` is what their code is charged.
/// - **M9** `unused` holds each loaded module once that nobody uses and no function pins, under its last use.
pub struct ModuleTable<H: Types> {
    records: Arena<Module<H>>,
    touched: Vec<ModuleId<H>>,
    candidates: Vec<Candidate<H>>,
    charged: Amounts,
    unused: BTreeSet<(Stamp, ModuleId<H>)>,
}

impl<H: Types> ModuleTable<H> {
    pub const fn new() -> Self {
        Self {
            records: Arena::new(),
            touched: Vec::new(),
            candidates: Vec::new(),
            charged: Amounts::ZERO,
            unused: BTreeSet::new(),
        }
    }

    pub fn insert(&mut self, module: Module<H>) -> ModuleId<H> {
        self.records.insert(module)
    }

    pub fn remove(&mut self, id: ModuleId<H>) -> Option<Module<H>> {
        let module = self.records.remove(id)?;
        self.list(id, module.listed, None, Amounts::ZERO, None);
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
            let charge = charge_of(module);
            let listed = self.list(id, module.listed, candidate, charge, unused);
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
        charge: Amounts,
        unused: Option<Stamp>,
    ) -> Listed {
        self.charged = self.charged.beyond(&was.charge).saturating_add(&charge);
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
            charge,
            unused,
        }
    }

    /// Whose code may go, as far as requests and what is dying say; in no order. Settle first.
    pub fn candidates(&self) -> &[Candidate<H>] {
        &self.candidates
    }

    /// What all of their code is charged.
    pub fn charged(&self) -> Amounts {
        self.charged
    }

    /// What this one's code is charged among them: nothing, if it is none of them.
    pub fn charged_for(&self, id: ModuleId<H>) -> Amounts {
        self.records
            .get(id)
            .map_or(Amounts::ZERO, |m| m.listed.charge)
    }

    /// Loaded modules that nobody uses, the least recently used first. Settle first.
    pub fn unused(&self) -> impl Iterator<Item = (Stamp, ModuleId<H>)> {
        self.unused.iter().copied()
    }

    /// A module that is among the candidates wrongly, or not as it is; for `State::recount`.
    pub fn wrong_candidate(&self) -> Option<ModuleId<H>> {
        let wrong = |(id, module): &(ModuleId<H>, &Module<H>)| {
            let listed = module.listed.place.and_then(|at| self.candidates.get(at));
            let is_right = match listed {
                Some(listed) => listed.module == *id && listed.is_of(module),
                None => module.listed.place.is_none(),
            };
            let is_listed = listed.is_some() == is_candidate(module);
            !is_right || !is_listed || module.listed.charge != charge_of(module)
        };
        self.settled().find(wrong).map(|(id, _)| id)
    }

    /// A module that is in the order of unused code wrongly; for `State::recount`.
    pub fn wrong_unused(&self) -> Option<ModuleId<H>> {
        let wrong = |(id, module): &(ModuleId<H>, &Module<H>)| {
            let unused = is_unused_code(module).then_some(module.history.last_used);
            let is_listed = |stamp| self.unused.contains(&(stamp, *id));
            module.listed.unused != unused || !unused.is_none_or(is_listed)
        };
        self.settled().find(wrong).map(|(id, _)| id)
    }

    fn settled(&self) -> impl Iterator<Item = (ModuleId<H>, &Module<H>)> {
        self.iter().filter(|(_, module)| !module.listed.touched)
    }

    /// How many the index lists beyond those that say so themselves, and what it has charged wrongly; for
    /// `State::recount`.
    pub fn surplus(&self) -> (usize, usize, Amounts) {
        let charges = self.iter().map(|(_, m)| m.listed.charge);
        let charged = charges.fold(Amounts::ZERO, |all, one| all.saturating_add(&one));
        let listed = |is: fn(&Listed) -> bool| self.iter().filter(|(_, m)| is(&m.listed)).count();
        (
            self.candidates.len() - listed(|l| l.place.is_some()),
            self.unused.len() - listed(|l| l.unused.is_some()),
            self.charged
                .beyond(&charged)
                .saturating_add(&charged.beyond(&self.charged)),
        )
    }
}

fn is_candidate<H: Types>(module: &Module<H>) -> bool {
    module.is_loaded() && module.pins == 0 && module.dying == 0
}

/// What a candidate's code is charged.
fn charge_of<H: Types>(module: &Module<H>) -> Amounts {
    match &module.phase {
        Phase::Loaded { charge, .. } if is_candidate(module) => charge.amounts(),
        _ => Amounts::ZERO,
    }
}

fn is_unused_code<H: Types>(module: &Module<H>) -> bool {
    module.is_loaded() && module.is_unused() && module.pinned == 0
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
