//! How many bytes and mappings a group may have at most.
//!
//! Asked before the budgets are: a group at its limit first gives up idle instances of its own, and code that only such
//! instances use of it, and is refused if that is not enough. It never waits for room for that: whoever waits in the one line for room
//! stands before others, and what this one lacks only its own group can give. What goes for a limit is nothing that others hold,
//! so no plan is made; a budget may lack room all the same, and then it has gone for nothing but the limit.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use crate::state::{
    Amounts, Budget, Context, EntryId, InstanceId, ModuleId, OF_CODE, PerBudget, Phase,
    RemovalReason, Request, RequestId, ShareId, Shortage, Slots, Stamp, State, Types,
};

/// What a group gives up of its own.
struct Own<H: Types> {
    instances: Vec<InstanceId<H>>,
    /// Code that it does not answer for any more when its instances are gone. Others may use it, and it stays as the policy says.
    module: Option<ModuleId<H>>,
    frees: Amounts,
}

impl<H: Types> State<H> {
    /// Sees to it that this request's group stays within its limits when it holds so much; whether instances were evicted
    /// for that, which must be destroyed first.
    pub(crate) fn keep_within_share(
        &mut self,
        id: RequestId<H>,
        target: &Amounts,
        cx: &mut Context<H, impl Slots<H>>,
    ) -> Result<bool, Shortage> {
        let Some(share) = self.share_of_request(&self.requests[id]) else {
            return Ok(false);
        };
        let excess = self.excess(share, id, target);
        if excess.iter().all(|(_, excess)| excess == 0) {
            return Ok(false);
        }
        // A look before anything is claimed: what is taken out of its slots in vain is a miss to others.
        let most = self.at_most_own(share, &cx.slots);
        if excess.iter().any(|(b, excess)| excess > most.get(b)) {
            return Err(self.beyond_limit(share, id, target, &most));
        }
        let (victims, frees) = self.victims_of_share(share, &excess, &mut cx.slots);
        if excess.iter().all(|(b, excess)| excess <= frees.get(b)) {
            return Ok(self.give_up(share, victims, cx));
        }
        for instance in victims.into_iter().flat_map(|own| own.instances) {
            self.restore(instance, &mut cx.slots);
        }
        Err(self.beyond_limit(share, id, target, &frees))
    }

    /// Whether this request's group would be beyond its limits if it held so much.
    pub(crate) fn exceeds_share(&self, id: RequestId<H>, target: &Amounts) -> bool {
        let share = self.share_of_request(&self.requests[id]);
        share.is_some_and(|share| {
            let excess = self.excess(share, id, target);
            excess.iter().any(|(_, excess)| excess > 0)
        })
    }

    pub(crate) fn share_of_request(&self, request: &Request<H>) -> Option<ShareId<H>> {
        let entry = request.seat.map(|(entry, _)| entry).or(request.grows);
        self.share_of(entry?)
    }

    /// What the group's instances have, and those that its requests make or grow, but for this one; and the code that it
    /// answers for, or is about to.
    fn has_in_share(&self, id: ShareId<H>, but: RequestId<H>) -> Amounts {
        let requests = self.requests.iter();
        let others: Vec<_> = requests
            .filter(|(id, _)| *id != but)
            .filter(|(_, request)| self.share_of_request(request) == Some(id))
            .collect();
        let holds = self.shares.get(id).map(|share| share.holds());
        let all = others
            .iter()
            .fold(holds.unwrap_or(Amounts::ZERO), |all, (_, request)| {
                let held = request.held.amounts().saturating_add(&request.expected);
                all.saturating_add(&held)
            });
        let own = self.requests[but].module;
        // Who has been granted nothing yet may be refused.
        let granted = others.iter().filter(|(_, request)| {
            request.held.amounts() != Amounts::ZERO || request.expected != Amounts::ZERO
        });
        let pinned = granted.filter_map(|(_, request)| request.module);
        let pinned: BTreeSet<_> = pinned.filter(|module| Some(*module) != own).collect();
        let codes = pinned.into_iter().map(|module| self.new_code(id, module));
        codes.fold(all, |all, code| all.saturating_add(&code))
    }

    /// What the group's part of the code grows by when it has an instance of this module.
    fn new_code(&self, share: ShareId<H>, module: ModuleId<H>) -> Amounts {
        let module = &self.modules[module];
        match &module.phase {
            Phase::Loaded { charge, .. } if !module.users.contains(&share) => charge.amounts(),
            _ => Amounts::ZERO,
        }
    }

    /// What a request is to hold, with the code that its instance will run.
    fn asked_for(&self, share: ShareId<H>, id: RequestId<H>, target: &Amounts) -> Amounts {
        let module = self.requests[id].module;
        let code = module.map_or(Amounts::ZERO, |module| self.new_code(share, module));
        target.saturating_add(&code)
    }

    fn excess(&self, id: ShareId<H>, request: RequestId<H>, target: &Amounts) -> PerBudget<u64> {
        let Some(share) = self.shares.get(id) else {
            return PerBudget::default();
        };
        if !share.terms.limits_amounts() {
            return PerBudget::default();
        }
        let asked_for = self.asked_for(id, request, target);
        let all = self.has_in_share(id, request).saturating_add(&asked_for);
        PerBudget::from_fn(|b| match asked_for.get(b) > 0 {
            true => all.get(b).saturating_sub(share.terms.limits[b]),
            false => 0,
        })
    }

    /// What a group could give up, by what seems to be idle.
    fn at_most_own(&self, share: ShareId<H>, slots: &impl Slots<H>) -> Amounts {
        let idle = self.idle_of_share(share, slots);
        let charges = idle.iter().map(|(_, id)| self.charge_of(*id));
        let idle: BTreeSet<_> = idle.iter().map(|(_, id)| *id).collect();
        let codes = self.own_code(share, slots).into_iter();
        let unused = codes.filter(|module| {
            let own = self.own_instances(share, *module);
            own.iter().all(|instance| idle.contains(instance))
        });
        let all = charges.chain(unused.map(|module| self.code_charge(module)));
        all.fold(Amounts::ZERO, |all, one| all.saturating_add(&one))
    }

    /// What goes for a limit, claimed: code that the group has not used for longest, if it has too much of that, with the group's
    /// instances of it; then its instances, the longest idle first; then code again, for the sums that it counts in. What they bring,
    /// which may not be enough. Takes a look at each of the group's instances.
    fn victims_of_share(
        &self,
        share: ShareId<H>,
        excess: &PerBudget<u64>,
        slots: &mut impl Slots<H>,
    ) -> (Vec<Own<H>>, Amounts) {
        let (mut victims, mut frees) = (Vec::new(), Amounts::ZERO);
        let mut given_up = BTreeSet::new();
        let helps = |own: &Amounts, frees: &Amounts, budgets: &[Budget]| {
            let lacks = |b: &Budget| frees.get(*b) < excess[*b] && own.get(*b) > 0;
            budgets.iter().any(lacks)
        };
        let mut claimed = BTreeSet::new();
        let mut add = |own: Own<H>, claimed: &mut BTreeSet<_>, frees: &mut Amounts| {
            *frees = frees.saturating_add(&own.frees);
            claimed.extend(own.instances.iter().copied());
            victims.push(own);
        };
        let codes = match OF_CODE.iter().any(|b| excess[*b] > 0) {
            true => self.own_code(share, slots),
            false => Vec::new(),
        };
        for module in &codes {
            let code = self.code_charge(*module);
            if helps(&code, &frees, &[Budget::Code])
                && let Some(own) = self.claim_own_code(share, *module, &claimed, slots)
            {
                given_up.insert(*module);
                add(own, &mut claimed, &mut frees);
            }
        }
        for (_, instance) in self.idle_of_share(share, slots) {
            let charge = self.charge_of(instance);
            if helps(&charge, &frees, &Budget::ALL)
                && !claimed.contains(&instance)
                && self.claim(instance, slots)
            {
                let own = Own {
                    instances: Vec::from([instance]),
                    module: None,
                    frees: charge,
                };
                add(own, &mut claimed, &mut frees);
            }
        }
        for module in codes {
            // Its idle instances are claimed already, if they help.
            if !given_up.contains(&module)
                && helps(&self.code_charge(module), &frees, &OF_CODE)
                && let Some(own) = self.claim_own_code(share, module, &claimed, slots)
            {
                add(own, &mut claimed, &mut frees);
            }
        }
        (victims, frees)
    }

    fn code_charge(&self, id: ModuleId<H>) -> Amounts {
        match &self.modules[id].phase {
            Phase::Loaded { charge, .. } => charge.amounts(),
            _ => Amounts::ZERO,
        }
    }

    /// The group's instances of a module.
    fn own_instances(&self, share: ShareId<H>, module: ModuleId<H>) -> Vec<InstanceId<H>> {
        let live = self.modules[module].live.iter().copied();
        let of_it = |id: &InstanceId<H>| self.share_of(self.instances[*id].entry) == Some(share);
        live.filter(of_it).collect()
    }

    /// The code that a group may give up, but for what its requests need: the longest unused by it first.
    fn own_code(&self, share: ShareId<H>, slots: &impl Slots<H>) -> Vec<ModuleId<H>> {
        let requests = self.requests.iter().map(|(_, request)| request);
        let of_it = requests.filter(|r| self.share_of_request(r) == Some(share));
        let needed: BTreeSet<_> = of_it.filter_map(|r| r.module).collect();
        let used = self
            .modules
            .iter()
            .filter(|(_, m)| m.users.contains(&share));
        let used = used.map(|(id, _)| id).filter(|id| !needed.contains(id));
        let mut codes: Vec<_> = used
            .map(|module| {
                let instances = self.own_instances(share, module);
                let seen = instances.iter().map(|id| self.last_used(*id, slots));
                let last = seen.max();
                (last.unwrap_or(Stamp::NEVER), module)
            })
            .collect();
        codes.sort_unstable();
        codes.into_iter().map(|(_, module)| module).collect()
    }

    /// All of the group's instances of a module that are not claimed yet; none, if one is leased.
    fn claim_own_code(
        &self,
        share: ShareId<H>,
        module: ModuleId<H>,
        claimed: &BTreeSet<InstanceId<H>>,
        slots: &mut impl Slots<H>,
    ) -> Option<Own<H>> {
        let mut own = Own {
            instances: Vec::new(),
            module: Some(module),
            frees: self.code_charge(module),
        };
        for instance in self.own_instances(share, module) {
            if claimed.contains(&instance) {
                continue;
            }
            if !self.claim(instance, slots) {
                for instance in own.instances {
                    self.restore(instance, slots);
                }
                return None;
            }
            own.frees = own.frees.saturating_add(&self.charge_of(instance));
            own.instances.push(instance);
        }
        Some(own)
    }

    /// Its instances that seem to be idle, the longest idle first. Takes a look at each of the group's.
    pub(crate) fn idle_of_share(
        &self,
        id: ShareId<H>,
        slots: &impl Slots<H>,
    ) -> Vec<(Stamp, InstanceId<H>)> {
        let mut idle = Vec::new();
        let entries: &mut dyn Iterator<Item = &EntryId<H>> = match self.shares.get(id) {
            Some(share) => &mut share.entries.iter(),
            None => &mut core::iter::empty(),
        };
        for entry in entries.map(|id| &self.entries[*id]) {
            let taken = entry.taken();
            let seems_idle = taken.filter(|(seat, _)| slots.seems_idle(&entry.handle, *seat));
            idle.extend(seems_idle.map(|(seat, id)| (slots.last_used(&entry.handle, seat), id)));
        }
        idle.sort_unstable();
        idle
    }

    fn charge_of(&self, id: InstanceId<H>) -> Amounts {
        self.instances[id].charge.amounts()
    }

    /// What was claimed goes. Whether anything must be destroyed: code that others use is given up at once.
    fn give_up(
        &mut self,
        share: ShareId<H>,
        victims: Vec<Own<H>>,
        cx: &mut Context<H, impl Slots<H>>,
    ) -> bool {
        let mut destroys = false;
        let mut modules = Vec::new();
        for own in victims {
            for instance in own.instances {
                self.note_share_seen(instance, &cx.slots);
                self.dismiss(instance, RemovalReason::Room, None, cx);
                destroys = true;
            }
            modules.extend(own.module);
        }
        for module in modules {
            self.end_use(share, module, &mut cx.out);
        }
        destroys
    }

    fn beyond_limit(
        &self,
        id: ShareId<H>,
        request: RequestId<H>,
        target: &Amounts,
        evictable: &Amounts,
    ) -> Shortage {
        let excess = self.excess(id, request, target);
        let beyond = |b: &Budget| excess[*b].saturating_sub(evictable.get(*b));
        let worst = Budget::ALL.into_iter().max_by_key(beyond);
        let budget = worst.unwrap_or(Budget::Memory);
        let share = self.shares.get(id);
        Shortage {
            budget,
            requested: self.asked_for(id, request, target).get(budget),
            limit: share.map_or(u64::MAX, |share| share.terms.limits[budget]),
            charged: self.has_in_share(id, request).get(budget),
            evictable: evictable.get(budget),
            promised: 0,
            reserved: 0,
            of_group: true,
        }
    }
}
