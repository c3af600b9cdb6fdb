//! Functions that are pinned: their code stays, and one instance of them, whoever else needs the room.
//!
//! Whoever stays within what its own group has reserved takes them all the same, when nothing else is enough; so do limits
//! that are lowered, and a system without room. An instance also goes for another of its own function, and for its own group at a
//! limit.

use alloc::collections::BTreeSet;

use super::shares::Claimant;
use crate::state::{
    Amounts, EntryId, FunctionId, InstanceId, ModuleId, PerBudget, Phase, RequestId, State, Types,
};

impl<H: Types> State<H> {
    /// The function has come, has other terms, or is about to have another module.
    pub(crate) fn note_pinned(&mut self, id: FunctionId<H>) {
        self.note_unpinned(id);
        let Some(function) = self.functions.get(id).filter(|f| f.terms.pinned) else {
            return;
        };
        let module = function.module;
        let entries = function.entries.values();
        let live = entries.map(|entry| self.entries[*entry].taken().count());
        let live = live.sum();
        self.pinned.insert(id, (module, live));
        self.modules[module].pinned += 1;
    }

    pub(crate) fn note_unpinned(&mut self, id: FunctionId<H>) {
        if let Some((module, _)) = self.pinned.remove(&id) {
            self.modules[module].pinned -= 1;
        }
    }

    /// An instance of the entry has come.
    pub(crate) fn note_live(&mut self, entry: EntryId<H>) {
        if let Some((_, live)) = self.pinned.get_mut(&self.entries[entry].function) {
            *live += 1;
        }
    }

    /// And one has gone.
    pub(crate) fn note_gone(&mut self, entry: EntryId<H>) {
        if let Some((_, live)) = self.pinned.get_mut(&self.entries[entry].function) {
            *live -= 1;
        }
    }

    /// Whether this is the only instance of a function that is pinned, but for those that go anyway.
    pub(crate) fn is_last_pinned(
        &self,
        id: InstanceId<H>,
        go_anyway: &BTreeSet<InstanceId<H>>,
    ) -> bool {
        // Most pools have none.
        if self.pinned.is_empty() {
            return false;
        }
        let function_of = |id: &InstanceId<H>| {
            let instance = self.instances.get(*id)?;
            Some(self.entries[instance.entry].function)
        };
        let function = function_of(&id);
        let Some((_, live)) = function.and_then(|id| self.pinned.get(&id)) else {
            return false;
        };
        let others = go_anyway.iter().filter(|other| **other != id);
        let gone = others.filter(|other| function_of(other) == function);
        live.saturating_sub(gone.count()) <= 1
    }

    /// Whether a plan must leave this instance where it is.
    pub(crate) fn is_kept(
        &self,
        by: &Claimant<H>,
        id: InstanceId<H>,
        claimed: &BTreeSet<InstanceId<H>>,
    ) -> bool {
        let is_own = || {
            let instance = self.instances.get(id);
            instance.is_some_and(|i| by.is_for(self.entries[i.entry].function))
        };
        !by.takes_pinned() && self.is_last_pinned(id, claimed) && !is_own()
    }

    /// Whether a plan must leave this module's code where it is.
    pub(crate) fn is_code_kept(&self, by: &Claimant<H>, id: ModuleId<H>) -> bool {
        self.modules[id].pinned > 0 && !by.takes_pinned()
    }

    /// Whether what is pinned leaves no room for this, however long it waits: unless it may take that.
    pub fn is_kept_out_by_pins(&self, id: RequestId<H>, target: &Amounts) -> bool {
        if self.pinned.is_empty() {
            return false;
        }
        let own = self.requests[id].module;
        let modules: BTreeSet<_> = self.pinned.values().map(|(module, _)| *module).collect();
        let codes = modules.into_iter().filter(|module| Some(*module) != own);
        let codes = codes.map(|module| match &self.modules[module].phase {
            Phase::Loaded { charge, .. } => charge.amounts(),
            _ => Amounts::ZERO,
        });
        let kept = codes.fold(Amounts::ZERO, |all, code| all.saturating_add(&code));
        let kept = kept.saturating_add(&self.always_held());
        let all = target.saturating_add(&kept);
        let limits = self.ledger.limits();
        let missing = PerBudget::from_fn(|b| match target.get(b) {
            0 => 0,
            _ => all.get(b).saturating_sub(limits[b]),
        });
        let lacks = missing.iter().any(|(_, missing)| missing > 0);
        lacks && !self.claimant(id, target, &missing).at_last().takes_pinned()
    }
}
