//! Names come and go: define, replace, remove.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::state::{
    Context, Effects, Entry, EntryId, Function, FunctionCounts, FunctionId, FunctionTerms, Group,
    Judged, Module, ModuleId, ModuleKey, Owner, RemovalReason, Signal, Slots, State, Types,
};

/// What `define` and `replace` are given.
pub struct NewFunction<H: Types> {
    pub name: Arc<str>,
    pub arguments: Arc<str>,
    pub definition: H::Definition,
    pub key: ModuleKey,
    pub source: H::Source,
    pub terms: FunctionTerms,
    /// On whose behalf it is defined; a replacement that says nothing leaves it as it was.
    pub owner: Option<Owner>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefineRefused {
    Closed,
    /// `define` of a name and arguments that are taken.
    Exists,
    /// `replace` of a name and arguments that are not defined.
    Unknown,
    /// As many are defined on the owner's behalf as may be: so many.
    TooMany(u32),
}

impl<H: Types> State<H> {
    pub fn define(&mut self, new: NewFunction<H>) -> Result<FunctionId<H>, DefineRefused> {
        if self.closed {
            return Err(DefineRefused::Closed);
        }
        if self.find(&new.name, &new.arguments).is_some() {
            return Err(DefineRefused::Exists);
        }
        self.may_own(new.owner.as_ref(), None)?;
        let module = self.module_for(new.key, new.source.clone());
        Ok(self.enlist(new, module))
    }

    /// Whether one more may be defined on this group's behalf, in place of another.
    fn may_own(
        &self,
        owner: Option<&Owner>,
        replaced: Option<FunctionId<H>>,
    ) -> Result<(), DefineRefused> {
        let Some(owner) = owner.map(|owner| &owner.group) else {
            return Ok(());
        };
        let before = replaced.and_then(|id| self.owners.of(id));
        let before = before.map(|owner| &owner.group);
        let share = self.shares.find(owner).and_then(|id| self.shares.get(id));
        let terms = share.map_or(&self.config.group_terms, |share| &share.terms);
        let most = terms.counts.definitions;
        if before == Some(owner) || self.owners.count(owner) < most as usize || most == u32::MAX {
            return Ok(());
        }
        Err(DefineRefused::TooMany(most))
    }

    /// Whether another group's share would have what the function takes, once it is replaced on this one's behalf. Its entries stay with the shares that they
    /// are in, so that it is another function then.
    pub fn counts_for_another(&self, id: FunctionId<H>, new: Option<&Owner>) -> bool {
        let old = self.owners.of(id).and_then(Owner::answerable);
        new.is_some_and(|new| new.answerable() != old)
    }

    /// How many functions are defined on this group's behalf.
    pub fn definitions_of(&self, owner: &Group) -> usize {
        self.owners.count(owner)
    }

    fn enlist(&mut self, new: NewFunction<H>, module: ModuleId<H>) -> FunctionId<H> {
        let id = self.functions.insert(Function {
            name: new.name,
            arguments: new.arguments,
            definition: new.definition,
            module,
            version: 0,
            terms: new.terms,
            entries: Default::default(),
            counts: FunctionCounts::default(),
        });
        if let Some(owner) = new.owner {
            self.owners.set(id, owner);
        }
        self.names.insert(&self.functions, id);
        self.note_idle_time(id);
        self.note_pinned(id);
        self.begin_function_bill(id);
        id
    }

    /// Sweeps look by themselves at functions whose instances may be idle for another time than others.
    fn note_idle_time(&mut self, id: FunctionId<H>) {
        let function = self.functions.get(id);
        match function.is_some_and(|function| function.terms.idle.is_own()) {
            true => self.own_idle_times.insert(id),
            false => self.own_idle_times.remove(&id),
        };
    }

    /// As `replace`, by a function of another type: whoever knows the old type is not to reach it. So
    /// the old function is removed, and another one has its name and counts, in one step.
    pub fn replace_by_another(
        &mut self,
        new: NewFunction<H>,
        cx: &mut Context<H, impl Slots<H>>,
    ) -> Result<FunctionId<H>, DefineRefused> {
        if self.closed {
            return Err(DefineRefused::Closed);
        }
        let old = (self.find(&new.name, &new.arguments)).ok_or(DefineRefused::Unknown)?;
        self.may_own(new.owner.as_ref(), Some(old))?;
        let counts = self.functions[old].counts;
        // Named before the old function goes, which may be of the same module.
        let module = self.module_for(new.key, new.source.clone());
        self.forget_failure(module);
        let bill = self.take_function_bill(old);
        let owner = new.owner.clone().or_else(|| self.owners.of(old).cloned());
        self.remove(old, cx);
        let id = self.enlist(NewFunction { owner, ..new }, module);
        self.add_to_function_bill(id, &bill);
        self.functions[id].counts = counts;
        Ok(id)
    }

    /// Gives a function new code. When this returns, no instance of the old code can be leased
    /// again, nor can one that is being made now.
    pub fn replace(
        &mut self,
        new: NewFunction<H>,
        cx: &mut Context<H, impl Slots<H>>,
    ) -> Result<FunctionId<H>, DefineRefused> {
        if self.closed {
            return Err(DefineRefused::Closed);
        }
        let id = (self.find(&new.name, &new.arguments)).ok_or(DefineRefused::Unknown)?;
        if self.counts_for_another(id, new.owner.as_ref()) {
            return self.replace_by_another(new, cx);
        }
        self.may_own(new.owner.as_ref(), Some(id))?;
        if let Some(owner) = new.owner {
            self.owners.set(id, owner);
        }
        let module = self.module_for(new.key, new.source);
        // A replacement deserves a fresh try, whatever happened to the same bytes before.
        self.forget_failure(module);
        let function = &mut self.functions[id];
        let old = core::mem::replace(&mut function.module, module);
        function.definition = new.definition;
        function.version += 1;
        let was_pinned = core::mem::replace(&mut function.terms, new.terms).pinned;
        let version = function.version;
        let entries: Vec<_> = function.entries.values().copied().collect();
        self.note_idle_time(id);
        self.note_pinned(id);
        for &id in &entries {
            // Some are forgotten on the way, when too many are unused.
            if let Some(entry) = self.entries.get(id) {
                cx.slots.set_version(&entry.handle, version);
                self.dismiss_all(id, RemovalReason::Replaced, cx);
            }
        }
        // New code has a record of its own.
        self.lift_quarantine(id);
        for entry in entries {
            self.review_spares(entry);
            self.fit_seats(entry, cx);
        }
        self.release_module_name(old, &mut cx.out);
        if was_pinned {
            self.wake_room(&mut cx.out);
        }
        Ok(id)
    }

    /// Forgets a function. Idle instances go now, leased ones when their lease ends.
    pub fn remove(&mut self, id: FunctionId<H>, cx: &mut Context<H, impl Slots<H>>) -> bool {
        self.note_unpinned(id);
        self.owners.remove(id);
        let Some(function) = self.functions.remove(id) else {
            return false;
        };
        self.names.remove(&function.name, id);
        self.conducts.remove(&Judged::Function(id));
        self.note_idle_time(id);
        for entry in function.entries.into_values() {
            self.review_spares(entry);
            // Some are forgotten on the way, when too many are unused.
            let Some(record) = self.entries.get_mut(entry) else {
                continue;
            };
            cx.slots.set_closed(&record.handle);
            let told = record.queue.drain().map(|waiter| (waiter, Signal::Gone));
            cx.out.wake.extend(told);
            self.dismiss_all(entry, RemovalReason::Removed, cx);
            self.forget_if_unused(entry, &mut cx.out);
        }
        self.end_function_bill(id);
        self.release_module_name(function.module, &mut cx.out);
        if function.terms.pinned {
            self.wake_room(&mut cx.out);
        }
        true
    }

    pub fn find(&self, name: &str, arguments: &str) -> Option<FunctionId<H>> {
        self.names.find(&self.functions, name, arguments)
    }

    /// All overloads of a name.
    pub fn overloads(&self, name: &str) -> Vec<FunctionId<H>> {
        self.names.overloads(&self.functions, name)
    }

    /// The entry of (function, group), made when it is new. It may be forgotten as soon as others are
    /// asked for, unless something uses it: whoever finds it gone asks again.
    pub fn entry(
        &mut self,
        function: FunctionId<H>,
        group: &Group,
        make: impl FnOnce(EntryId<H>, &Function<H>) -> H::Entry,
        out: &mut Effects<H>,
    ) -> Option<EntryId<H>> {
        let record = self.functions.get_mut(function)?;
        if let Some(&entry) = record.entries.get(group) {
            // Whoever asks for it is about to use it.
            self.forget_if_unused(entry, out);
            return Some(entry);
        }
        let seats = self.config.first_seats.min(self.config.seats_per_entry);
        self.entry_changes += 1;
        let entry = self.entries.insert_with(|id| {
            let handle = make(id, record);
            Entry::new(function, group.clone(), handle, seats)
        });
        record.entries.insert(group.clone(), entry);
        let owner = self.owners.of(function);
        let answerable = owner.and_then(Owner::answerable);
        if let Some(other) = answerable.filter(|other| *other != group) {
            self.shares.set_answerable(entry, other.clone());
        }
        self.find_share(entry);
        self.enter_bills(entry);
        self.forget_if_unused(entry, out);
        Some(entry)
    }

    /// A handle of the host's keeps the entry, until it is let go of.
    pub fn keep_entry(&mut self, id: EntryId<H>) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.handles += 1;
            self.note_use(id);
        }
    }

    pub fn let_go_of_entry(&mut self, id: EntryId<H>, out: &mut Effects<H>) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.handles -= 1;
            self.forget_if_unused(id, out);
        }
    }

    /// Something uses the entry now.
    pub(crate) fn note_use(&mut self, id: EntryId<H>) {
        if let Some(rank) = self.entries[id].unused.take() {
            self.unused.leave(rank);
        }
    }

    /// An entry of a removed function goes when it is vacant. An unused one of another function stays
    /// for its next use, as the last to go of those that may stay.
    pub(crate) fn forget_if_unused(&mut self, id: EntryId<H>, out: &mut Effects<H>) {
        let Some(entry) = self.entries.get(id) else {
            return;
        };
        if self.functions.get(entry.function).is_none() {
            if entry.is_vacant() {
                self.forget(id, out);
            }
            return;
        }
        if !entry.is_unused() {
            return;
        }
        self.note_use(id);
        self.entries[id].unused = Some(self.unused.join(id));
        if self.unused.len() > self.config.max_unused_entries
            && let Some(oldest) = self.unused.first()
        {
            self.forget(oldest, out);
        }
    }

    fn forget(&mut self, id: EntryId<H>, out: &mut Effects<H>) {
        self.note_use(id);
        let Some(entry) = self.entries.remove(id) else {
            return;
        };
        self.entry_changes += 1;
        let answerable = self.shares.forget_answerable(id);
        self.leave_share(id, answerable.as_ref().unwrap_or(&entry.group));
        self.conducts.remove(&Judged::Entry(id));
        self.spares.forget(id);
        if let Some(function) = self.functions.get_mut(entry.function) {
            function.entries.remove(&entry.group);
        }
        self.leave_bills(entry.function, &entry.group);
        out.forgotten.push((entry.handle, entry.function));
    }

    pub fn entry_handle(&self, id: EntryId<H>) -> Option<&H::Entry> {
        self.entries.get(id).map(|entry| &entry.handle)
    }

    fn module_for(&mut self, key: ModuleKey, source: H::Source) -> ModuleId<H> {
        let found = match self.module_index.get(&key) {
            Some(id) => *id,
            None => {
                let id = self.modules.insert(Module::new(key, source));
                self.module_index.insert(key, id);
                id
            }
        };
        self.modules[found].functions += 1;
        found
    }

    fn release_module_name(&mut self, id: ModuleId<H>, out: &mut Effects<H>) {
        self.modules[id].functions -= 1;
        self.drop_out_if_unused(id, out);
    }

    /// Idle instances of the entry are dismissed; leases are asked to report when they end.
    pub(crate) fn dismiss_all(
        &mut self,
        entry: EntryId<H>,
        reason: RemovalReason,
        cx: &mut Context<H, impl Slots<H>>,
    ) {
        let taken: Vec<_> = self.entries[entry].taken().collect();
        for (_, instance) in taken {
            let idle = self.claim(instance, &mut cx.slots)
                || (!self.notify_on_release(instance, &mut cx.slots)
                    && self.claim(instance, &mut cx.slots));
            if idle {
                self.observe(instance, self.last_used(instance, &cx.slots), &cx.slots);
                self.dismiss(instance, reason, None, cx);
            }
        }
    }
}
