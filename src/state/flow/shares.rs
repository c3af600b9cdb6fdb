//! What groups have reserved: set, counted, and kept from others when room is made.
//!
//! A victim is protected while evicting it would leave any of its users with less than that has reserved. When what is
//! not protected is not enough, a request takes what its own group has reserved; and when that is not enough either, and
//! it stays within its group's reservation with all that it asks for, what others have. Victims are tried one by one, the
//! least recently used first: where that leaves too little, another choice of a protected group's instances might
//! have been enough. Nothing else asks: idle timeouts, lowered limits and a
//! system without room take from everybody.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::plan::Plan;
use crate::state::{
    Amounts, Budget, Context, Effects, EntryId, FunctionId, Group, InstanceId, ModuleId, PerBudget,
    Phase, RequestId, Share, ShareId, ShareTerms, Slots, State, Types,
};

/// More would be reserved of a budget than it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overcommitted {
    pub budget: Budget,
    pub requested: u64,
    /// What others have reserved of it.
    pub reserved: u64,
    pub limit: u64,
}

/// Of what groups have reserved, how much a plan may take. One after the other is tried, until there is enough.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Nothing: what groups hold beyond it, and what others hold.
    Surplus,
    /// That of whoever needs the room.
    Own,
    /// Everything.
    All,
}

/// For whom a plan makes room, and what it has taken from groups so far.
pub(crate) struct Claimant<H: Types> {
    /// Its own group's.
    share: Option<ShareId<H>>,
    /// Whether it stays within what its own group has reserved.
    is_within: bool,
    reach: Reach,
    /// Whether it takes what is pinned.
    takes_pinned: bool,
    /// The function that needs the room, which may take its own.
    function: Option<FunctionId<H>>,
    taken: BTreeMap<ShareId<H>, Amounts>,
}

impl<H: Types> Claimant<H> {
    /// It takes from everybody.
    pub(crate) const fn unbound() -> Self {
        Self {
            share: None,
            is_within: true,
            reach: Reach::All,
            takes_pinned: false,
            function: None,
            taken: BTreeMap::new(),
        }
    }

    /// From now on it takes what it has left so far, if it may.
    pub(crate) fn reach_further(&mut self) -> bool {
        self.reach = match self.reach {
            Reach::Surplus => Reach::Own,
            Reach::Own if self.is_within => Reach::All,
            Reach::All if self.is_within && !self.takes_pinned => {
                self.takes_pinned = true;
                Reach::All
            }
            Reach::Own | Reach::All => return false,
        };
        true
    }

    /// As far as it may reach.
    pub(crate) fn at_last(mut self) -> Self {
        while self.reach_further() {}
        self
    }

    /// Whether it takes what is pinned.
    pub(crate) fn takes_pinned(&self) -> bool {
        self.takes_pinned
    }

    /// Whether it is for this function.
    pub(crate) fn is_for(&self, function: FunctionId<H>) -> bool {
        self.function == Some(function)
    }

    fn spares(&self, share: ShareId<H>) -> bool {
        match self.reach {
            Reach::Surplus => true,
            Reach::Own => self.share != Some(share),
            Reach::All => false,
        }
    }

    fn note_taken(&mut self, share: ShareId<H>, amounts: &Amounts) {
        let taken = self.taken.entry(share).or_default();
        *taken = taken.saturating_add(amounts);
    }
}

impl<H: Types> State<H> {
    /// Reserves so much for a group from now on, and limits it, in place of what was said before. What it has beyond a
    /// limit stays until it asks for more, or is evicted. Takes a look at every entry.
    ///
    /// # Errors
    /// More would be reserved in all than there is.
    pub fn set_share(
        &mut self,
        group: &Group,
        terms: ShareTerms,
        cx: &mut Context<H, impl Slots<H>>,
    ) -> Result<(), Overcommitted> {
        let known = self.shares.find(group);
        let others = self.shares.iter().filter(|(id, _)| Some(*id) != known);
        let reserved = others.fold(PerBudget::<u64>::default(), |sum, (_, share)| {
            PerBudget::from_fn(|b| sum[b].saturating_add(share.terms.reserved[b]))
        });
        for (budget, requested) in terms.reserved.iter() {
            // What is set aside can be nobody's.
            let limit = self.ledger.limits()[budget];
            let limit = limit.saturating_sub(self.always_held().get(budget));
            if requested > 0 && requested.saturating_add(reserved[budget]) > limit {
                return Err(Overcommitted {
                    budget,
                    requested,
                    reserved: reserved[budget],
                    limit,
                });
            }
        }
        let now = self.now;
        match known.and_then(|id| Some((id, self.shares.get_mut(id)?))) {
            Some((_, share)) if share.is_named && !terms.say_nothing() => {
                share.terms = terms;
                share.lapsed = false;
                share.note_use(now);
            }
            Some((id, share)) if share.is_named || !terms.say_nothing() => {
                self.end_share(id);
                self.begin_share(group, terms);
            }
            Some(_) => {}
            None => self.begin_share(group, terms),
        }
        self.shares.note_weights();
        // What was protected may not be any more, and who waited for a limit may be served.
        self.serve_group(group, cx);
        let own = (!terms.say_nothing()).then(|| terms.counts.most_compilations());
        self.compile_turns.set_most_of(group, own);
        self.wake_compiler(&mut cx.out);
        self.wake_room(&mut cx.out);
        Ok(())
    }

    /// On these terms, or those of all groups, if they say nothing and it has an entry.
    fn begin_share(&mut self, group: &Group, terms: ShareTerms) {
        let is_named = !terms.say_nothing();
        let entries = self.entries.iter();
        let own = entries.map(|(id, _)| id);
        let own: Vec<_> = own.filter(|id| self.share_group(*id) == group).collect();
        let terms = match is_named {
            true => terms,
            false => self.config.group_terms,
        };
        if is_named || (terms.limits_anything() && !own.is_empty()) {
            let share = Share::new(group.clone(), terms, is_named, self.now);
            let id = self.shares.insert(share);
            own.into_iter().for_each(|entry| self.join_share(entry, id));
        }
    }

    /// The entry is of the group that has this share.
    fn join_share(&mut self, entry: EntryId<H>, id: ShareId<H>) {
        let live: Vec<_> = self.entries[entry]
            .taken()
            .map(|(_, instance)| instance)
            .collect();
        if let Some(share) = self.shares.get_mut(id) {
            share.entries.insert(entry);
            share.seats += self.entries[entry].occupied();
        }
        for instance in live {
            let (module, charge) = {
                let instance = &self.instances[instance];
                (instance.module, instance.charge.amounts())
            };
            self.note_held(entry, &charge);
            self.note_user(entry, module);
        }
    }

    fn end_share(&mut self, id: ShareId<H>) {
        self.shares.remove(id);
        for module in self.modules.ids() {
            self.modules[module].users.remove(&id);
        }
    }

    /// A new entry has its group's share, if that has one; one of its own, if all groups have limits.
    pub(crate) fn find_share(&mut self, entry: EntryId<H>) {
        if let Some(id) = self.share_of(entry) {
            return self.join_share(entry, id);
        }
        let terms = self.config.group_terms;
        if terms.limits_anything() {
            let group = self.share_group(entry).clone();
            let id = (self.shares).insert(Share::new(group, terms, false, self.now));
            self.join_share(entry, id);
        }
    }

    /// The entry has gone, which was of this group.
    pub(crate) fn leave_share(&mut self, entry: EntryId<H>, group: &Group) {
        let Some(id) = self.shares.find(group) else {
            return;
        };
        if let Some(share) = self.shares.get_mut(id) {
            share.entries.remove(&entry);
            if share.entries.is_empty() && !share.is_named {
                match share.counts_code() {
                    true => self.end_share(id),
                    false => drop(self.shares.remove(id)),
                }
            }
        }
    }

    pub(crate) fn share_of(&self, entry: EntryId<H>) -> Option<ShareId<H>> {
        // Most pools have none.
        match self.shares.is_empty() {
            true => None,
            false => {
                self.entries.get(entry)?;
                self.shares.find(self.share_group(entry))
            }
        }
    }

    /// The group in whose share an entry counts: its own, or who answers for its function.
    pub(crate) fn share_group(&self, entry: EntryId<H>) -> &Group {
        let answerable = self.shares.answerable(entry);
        answerable.unwrap_or_else(|| &self.entries[entry].group)
    }

    fn share_mut(&mut self, entry: EntryId<H>) -> Option<&mut Share<H>> {
        let share = self.share_of(entry)?;
        self.shares.get_mut(share)
    }

    /// Somebody asks for an instance of the entry, or has ended a lease.
    pub(crate) fn note_share_used(&mut self, entry: EntryId<H>) {
        let now = self.now;
        if let Some(share) = self.share_mut(entry) {
            share.note_use(now);
            share.lapsed = false;
        }
    }

    /// An idle instance that is about to go was last used when its slot says.
    pub(crate) fn note_share_seen(&mut self, id: InstanceId<H>, slots: &impl Slots<H>) {
        let entry = self.instances[id].entry;
        if self.share_of(entry).is_some() {
            let at = self.last_used(id, slots).at;
            if let Some(share) = self.share_mut(entry) {
                share.note_use(at);
            }
        }
    }

    /// An instance of the entry is charged so much more.
    pub(crate) fn note_held(&mut self, entry: EntryId<H>, more: &Amounts) {
        if let Some(share) = self.share_mut(entry) {
            share.instances = share.instances.saturating_add(more);
        }
    }

    /// An instance of the entry is charged so much less, and was last used then.
    pub(crate) fn note_lost(&mut self, entry: EntryId<H>, less: &Amounts, used_at: u64) {
        if let Some(share) = self.share_mut(entry) {
            share.instances = share.instances.beyond(less);
            share.note_use(used_at);
        }
    }

    /// The entry's group has an instance of the module.
    pub(crate) fn note_user(&mut self, entry: EntryId<H>, module: ModuleId<H>) {
        let Some(id) = self.share_of(entry) else {
            return;
        };
        let module = &mut self.modules[module];
        if let Phase::Loaded { charge, .. } = &module.phase
            && let Some(share) = self.shares.get_mut(id)
            && share.counts_code()
        {
            let charge = charge.amounts();
            if module.users.insert(id) {
                share.code = share.code.saturating_add(&charge);
            }
        }
    }

    /// The entry's group holds more than before, and so more beyond what is reserved for it, or its function more than the
    /// one instance that is pinned: that may be what somebody waits for.
    pub(crate) fn wake_room_beyond_share(&mut self, entry: EntryId<H>, out: &mut Effects<H>) {
        let is_pinned = self.pinned.contains_key(&self.entries[entry].function);
        if is_pinned || self.share_of(entry).is_some() {
            self.wake_room(out);
        }
    }

    /// The module's code has gone, which was charged so much.
    pub(crate) fn end_users(&mut self, module: ModuleId<H>, charge: &Amounts) {
        for id in core::mem::take(&mut self.modules[module].users) {
            if let Some(share) = self.shares.get_mut(id) {
                share.code = share.code.beyond(charge);
            }
        }
    }

    /// The group answers for the module's code no more, until it has an instance of it again.
    pub(crate) fn end_use(&mut self, id: ShareId<H>, module: ModuleId<H>, out: &mut Effects<H>) {
        let record = &mut self.modules[module];
        if let Phase::Loaded { charge, .. } = &record.phase
            && let Some(share) = self.shares.get_mut(id)
        {
            let charge = charge.amounts();
            if record.users.remove(&id) {
                share.code = share.code.beyond(&charge);
                // Nobody protects it, unless others use it.
                self.wake_room(out);
            }
        }
    }

    /// What has not been used for long enough is not reserved until it is used again.
    pub(crate) fn review_shares(&mut self, cx: &mut Context<H, impl Slots<H>>) {
        let named = self.shares.iter().filter(|(_, share)| share.is_named);
        let ids: Vec<_> = named.map(|(id, _)| id).collect();
        let mut freed = false;
        for id in ids {
            let Some(share) = self.shares.get(id) else {
                continue;
            };
            let after = share.terms.lapses_after.unwrap_or(u64::MAX);
            let is_over = |used_at: u64| self.now.saturating_sub(used_at) >= after;
            let mut used_at = share.used_at;
            if is_over(used_at) {
                // Warm leases do not tell the core.
                used_at = used_at.max(self.last_use_of(share, &cx.slots));
            }
            let lapses = is_over(used_at);
            freed |= lapses && !share.lapsed;
            if let Some(share) = self.shares.get_mut(id) {
                share.note_use(used_at);
                share.lapsed = lapses;
            }
        }
        if freed {
            self.wake_room(&mut cx.out);
        }
    }

    /// By a look at each of its instances.
    fn last_use_of(&self, share: &Share<H>, slots: &impl Slots<H>) -> u64 {
        let entries = share.entries.iter().map(|id| &self.entries[*id]);
        let seats = entries.flat_map(|entry| entry.taken().map(move |(seat, _)| (entry, seat)));
        let used = seats.map(
            |(entry, seat)| match slots.seems_idle(&entry.handle, seat) {
                true => slots.last_used(&entry.handle, seat).at,
                false => self.now,
            },
        );
        used.max().unwrap_or(0)
    }

    /// Groups of which something was said.
    pub fn shares(&self) -> impl Iterator<Item = (ShareId<H>, &Share<H>)> {
        self.shares.iter().filter(|(_, share)| share.is_named)
    }

    /// For whom this request needs room, which lacks `missing` of what it is to hold.
    pub(crate) fn claimant(
        &self,
        id: RequestId<H>,
        target: &Amounts,
        missing: &PerBudget<u64>,
    ) -> Claimant<H> {
        let request = &self.requests[id];
        let entry = request.seat.map(|(entry, _)| entry).or(request.grows);
        let share = entry.and_then(|entry| self.share_of(entry));
        let own = share.and_then(|share| self.shares.get(share));
        let is_within = |own: &Share<H>| {
            let all = own.holds().saturating_add(target);
            let is_within =
                |(b, lacks): (Budget, u64)| lacks == 0 || all.get(b) <= own.terms.reserved[b];
            missing.iter().all(is_within)
        };
        Claimant {
            share,
            is_within: own.is_some_and(is_within),
            reach: match own {
                _ if self.shares.is_empty() => Reach::All,
                Some(_) => Reach::Surplus,
                None => Reach::Own,
            },
            takes_pinned: false,
            function: entry
                .and_then(|entry| self.entries.get(entry))
                .map(|entry| entry.function),
            taken: BTreeMap::new(),
        }
    }

    /// Whether this instance must stay, whoever else makes room.
    pub(crate) fn is_protected(&self, by: &Claimant<H>, id: InstanceId<H>) -> bool {
        if by.reach == Reach::All {
            return false;
        }
        let instance = &self.instances[id];
        let share = self.share_of(instance.entry);
        share.is_some_and(|share| self.protects(by, share, &instance.charge.amounts()))
    }

    fn protects(&self, by: &Claimant<H>, id: ShareId<H>, victim: &Amounts) -> bool {
        let taken = by.taken.get(&id).copied().unwrap_or_default();
        let share = self.shares.get(id);
        by.spares(id) && share.is_some_and(|share| share.protects(victim, &taken))
    }

    /// What each share would lose with a module and all its instances but those that go anyway.
    fn losses(
        &self,
        id: ModuleId<H>,
        goes_anyway: impl Fn(&InstanceId<H>) -> bool,
    ) -> BTreeMap<ShareId<H>, Amounts> {
        let module = &self.modules[id];
        let code = match &module.phase {
            Phase::Loaded { charge, .. } => charge.amounts(),
            _ => Amounts::ZERO,
        };
        let mut losses: BTreeMap<_, _> = module.users.iter().map(|user| (*user, code)).collect();
        for instance in module.live.iter().filter(|id| !goes_anyway(id)) {
            let instance = &self.instances[*instance];
            if let Some(share) = self.share_of(instance.entry) {
                let loss = losses.entry(share).or_default();
                *loss = loss.saturating_add(&instance.charge.amounts());
            }
        }
        losses
    }

    /// Whether a module must stay, since evicting it with its instances would take too much from one of its users.
    pub(crate) fn is_module_protected(
        &self,
        by: &Claimant<H>,
        id: ModuleId<H>,
        goes_anyway: impl Fn(&InstanceId<H>) -> bool,
    ) -> bool {
        by.reach != Reach::All
            && (self.losses(id, goes_anyway).iter())
                .any(|(share, loss)| self.protects(by, *share, loss))
    }

    /// The plan takes an instance.
    pub(crate) fn note_instance_taken(&self, by: &mut Claimant<H>, id: InstanceId<H>) {
        let instance = &self.instances[id];
        if let Some(share) = self.share_of(instance.entry) {
            by.note_taken(share, &instance.charge.amounts());
        }
    }

    /// The plan takes a module with its instances.
    pub(crate) fn note_module_taken(
        &self,
        by: &mut Claimant<H>,
        id: ModuleId<H>,
        goes_anyway: impl Fn(&InstanceId<H>) -> bool,
    ) {
        if !self.shares.is_empty() {
            for (share, loss) in self.losses(id, goes_anyway) {
                by.note_taken(share, &loss);
            }
        }
    }

    /// What a plan that was not enough has left because it is reserved for others, or pinned.
    pub(crate) fn left_to_others(&self, plan: &Plan<H>, slots: &impl Slots<H>) -> Amounts {
        let has_pinned = !self.pinned.is_empty() && !plan.by.takes_pinned();
        let leaves = plan.by.reach != Reach::All || has_pinned;
        match leaves && plan.in_vain.is_none() {
            true => self.idle(plan, slots).all.beyond(&plan.freed),
            false => Amounts::ZERO,
        }
    }
}
