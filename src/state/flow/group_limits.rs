//! What the instances of a group may have at most.
//!
//! Asked before the budgets are: a group at its limit first gives up idle instances of its own, and is refused if that
//! is not enough. It never waits for room for that: whoever waits in the one line for room stands before others, and what
//! this one lacks only its own group can give. Evicting for a limit takes nothing of what others hold, so no
//! plan is made; a budget may lack room all the same, and then the instances have gone for nothing but the limit.

use alloc::vec::Vec;

use crate::state::{
    Amounts, Budget, Context, EntryId, InstanceId, PerBudget, RemovalReason, Request, RequestId,
    ShareId, Shortage, Slots, Stamp, State, Types,
};

/// What instances take that belong to one group alone. Code does not.
pub const LIMITABLE: [Budget; 2] = [Budget::Memory, Budget::Stack];

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
        let idle = self.idle_of_share(share, &cx.slots);
        let charges = idle.iter().map(|(_, id)| self.charge_of(*id));
        let evictable = charges.fold(Amounts::ZERO, |all, one| all.saturating_add(&one));
        if LIMITABLE.iter().all(|b| excess[*b] <= evictable.get(*b))
            && self.evict_for_limit(&idle, &excess, cx)
        {
            return Ok(true);
        }
        Err(self.beyond_limit(share, id, target, &evictable))
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

    /// What the group's instances have, and those that its requests make or grow, but for this one.
    fn has_in_share(&self, share: ShareId<H>, but: RequestId<H>) -> Amounts {
        let instances = self.shares.get(share).map(|share| share.instances);
        let requests = self.requests.iter();
        let others = requests
            .filter(|(id, request)| *id != but && self.share_of_request(request) == Some(share));
        others.fold(instances.unwrap_or(Amounts::ZERO), |all, (_, request)| {
            let held = request.held.amounts().saturating_add(&request.expected);
            all.saturating_add(&held)
        })
    }

    fn excess(&self, id: ShareId<H>, request: RequestId<H>, target: &Amounts) -> PerBudget<u64> {
        let Some(share) = self.shares.get(id) else {
            return PerBudget::default();
        };
        if !share.terms.limits_amounts() {
            return PerBudget::default();
        }
        let all = self.has_in_share(id, request).saturating_add(target);
        PerBudget::from_fn(|b| match LIMITABLE.contains(&b) && target.get(b) > 0 {
            true => all.get(b).saturating_sub(share.terms.limits[b]),
            false => 0,
        })
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

    /// Evicts as many as it takes, or none.
    fn evict_for_limit(
        &mut self,
        idle: &[(Stamp, InstanceId<H>)],
        excess: &PerBudget<u64>,
        cx: &mut Context<H, impl Slots<H>>,
    ) -> bool {
        let (mut claimed, mut freed) = (Vec::new(), Amounts::ZERO);
        let lacks = |freed: &Amounts, b: &Budget| freed.get(*b) < excess[*b];
        for (_, id) in idle {
            let frees = self.charge_of(*id);
            let helps = |b: &Budget| lacks(&freed, b) && frees.get(*b) > 0;
            if LIMITABLE.iter().any(helps) && self.claim(*id, &mut cx.slots) {
                freed = freed.saturating_add(&frees);
                claimed.push(*id);
            }
        }
        let is_enough = !LIMITABLE.iter().any(|b| lacks(&freed, b));
        for id in claimed {
            match is_enough {
                true => {
                    self.note_share_seen(id, &cx.slots);
                    self.dismiss(id, RemovalReason::Room, None, cx);
                }
                false => self.restore(id, &mut cx.slots),
            }
        }
        is_enough
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
        let worst = LIMITABLE.into_iter().max_by_key(beyond);
        let budget = worst.unwrap_or(Budget::Memory);
        let share = self.shares.get(id);
        Shortage {
            budget,
            requested: target.get(budget),
            limit: share.map_or(u64::MAX, |share| share.terms.limits[budget]),
            charged: self.has_in_share(id, request).get(budget),
            evictable: evictable.get(budget),
            promised: 0,
            reserved: 0,
            of_group: true,
        }
    }
}
