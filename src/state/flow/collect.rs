//! Collecting: what is done for whoever has waited for room for long.
//!
//! Whoever waits for room is passed by others: by acquires that do not wait, and by leases that begin
//! again and again, so that what it needs is never idle at once. After `max_overtakes` of that, the first of
//! those who wait **collects**:
//!
//! - it keeps what it holds while it waits, and what is destroyed for nobody else goes to it;
//! - what it still lacks is not for others: their reservations are refused, or wait behind it;
//! - idle instances and unused code that it lacks are evicted for it, although they are not enough yet, and
//!   leased instances as their leases end;
//! - nobody makes instances of a module whose code it lacks, until that code is gone.
//!
//! Only the first in the queue collects: so nobody waits for what another waiter keeps. When it is served
//! or gives up, what it has left goes back, and the next is looked at.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::room::sum;
use crate::state::{
    Amounts, Budget, Candidate, Context, Effects, InstanceId, ModuleId, ModuleKey, OF_CODE,
    PerBudget, Phase, RemovalReason, RequestId, ReserveOutcome, Shortage, Slots, State, Types,
};

impl<H: Types> State<H> {
    pub fn collecting(&self) -> Option<RequestId<H>> {
        self.collecting
    }

    /// How often somebody got what those who wait for room might have had.
    pub fn overtakes(&self) -> u64 {
        self.overtakes
    }

    /// The modules whose code is collected.
    pub fn collected_modules(&self) -> impl Iterator<Item = &ModuleKey> {
        let all = self.modules.iter().map(|(_, module)| module);
        all.filter(|m| m.collected_for.is_some()).map(|m| &m.key)
    }

    /// Somebody got what the first of those who wait for room might have had.
    pub(crate) fn note_overtaken(&mut self) {
        if self.is_room_awaited() {
            self.overtakes += 1;
        }
    }

    pub(crate) fn is_first_for_room(&self, id: RequestId<H>) -> bool {
        let place = self.requests[id].room_ticket;
        place.is_some() && place == self.turn.or_else(|| self.room_queue.first())
    }

    /// Whether the request has been passed so often that it collects if it finds no room.
    pub(crate) fn may_collect(&self, id: RequestId<H>) -> bool {
        let since = self.requests[id].since;
        let passed = since.is_some_and(|since| self.overtakes - since >= self.config.max_overtakes);
        passed && self.is_first_for_room(id)
    }

    /// Takes what there is, and sees to it that the rest comes to this request.
    pub(crate) fn collect(
        &mut self,
        id: RequestId<H>,
        target: Amounts,
        cx: &mut Context<H, impl Slots<H>>,
    ) -> ReserveOutcome {
        let need = target.beyond(&self.requests[id].held.amounts());
        self.collecting = Some(id);
        self.inherit(id);
        let (earmarked, _) = self.awaited();
        let lacks = self.lacks(id, &need, &earmarked);
        let by = self.claimant(id, &target, &lacks);
        let mut plan = self.plan(lacks, by, &mut cx.slots);
        let enough = plan.is_enough();
        let short = PerBudget::from_fn(|b| lacks[b].saturating_sub(plan.freed.get(b)));
        let missing = self.ledger.missing(&need, &earmarked);
        let why = if enough { &missing } else { &short };
        let shortage = self.ledger.shortage(&need, why, &plan.freed);
        if !enough {
            // Nobody goes who does not help.
            plan.missing = PerBudget::from_fn(|b| lacks[b].min(plan.freed.get(b)));
            self.spare(&mut plan, &mut cx.slots);
        }
        let now = self.ledger.headroom(&need, &earmarked);
        let charge = (self.ledger.reserve(&now)).expect("L2: headroom can be reserved");
        let request = &mut self.requests[id];
        request.held.merge(charge);
        request.expected = need.beyond(&now);
        let before = cx.out.destroy.len();
        self.execute(plan, Some(id), cx);
        self.collect_modules(id, &short, &lacks, cx);
        if cx.out.destroy.len() > before {
            ReserveOutcome::Evicting
        } else if enough {
            ReserveOutcome::AwaitFrees(shortage)
        } else {
            ReserveOutcome::Refused(shortage)
        }
    }

    /// What is being destroyed for nobody is for this request.
    fn inherit(&mut self, id: RequestId<H>) {
        for dying in self.dying.ids() {
            let heir = self.dying[dying].heir;
            if heir.is_none_or(|heir| self.requests.get(heir).is_none()) {
                self.dying[dying].heir = Some(id);
            }
        }
    }

    /// What the request that collects is to hold in the end.
    fn target_of(&self, id: RequestId<H>) -> Amounts {
        let request = &self.requests[id];
        sum(&request.held.amounts(), &request.expected)
    }

    /// What is missing beyond what is being destroyed for this request.
    fn lacks(
        &self,
        id: RequestId<H>,
        need: &Amounts,
        earmarked: &PerBudget<u64>,
    ) -> PerBudget<u64> {
        let missing = self.ledger.missing(need, earmarked);
        let bring = self.brought_to(id);
        PerBudget::from_fn(|b| missing[b].saturating_sub(bring.get(b)))
    }

    /// Whether an instance whose lease has ended must go for the request that collects.
    pub(crate) fn is_collected(&self, id: InstanceId<H>) -> bool {
        let Some(by) = self.collecting else {
            return false;
        };
        let (earmarked, _) = self.awaited_by_others(Some(by));
        let lacks = self.lacks(by, &self.requests[by].expected, &earmarked);
        let instance = &self.instances[id];
        let leaves = self.modules[instance.module].collected_for.is_some();
        let helps = |b: Budget| instance.charge.amounts().get(b) > 0 || leaves && is_of_code(b);
        let by = self.claimant(by, &self.target_of(by), &lacks).at_last();
        let stays = self.is_protected(&by, id) || self.is_kept(&by, id, &BTreeSet::new());
        lacks.iter().any(|(b, lacks)| lacks > 0 && helps(b)) && !stays
    }

    /// Modules whose code is needed still when all else has been given up: nobody begins to use them any
    /// more, and their instances go as leases end. The least worthy first, though somebody uses them.
    fn collect_modules(
        &mut self,
        id: RequestId<H>,
        short: &PerBudget<u64>,
        lacks: &PerBudget<u64>,
        cx: &mut Context<H, impl Slots<H>>,
    ) {
        let mut by = self.claimant(id, &self.target_of(id), lacks).at_last();
        let all = self.instances.iter().map(|(_, i)| i.charge.amounts());
        let live = all.fold(Amounts::ZERO, |total, part| sum(&total, &part));
        // Instances bring their part as their leases end; code brings the rest.
        let mut wanted = PerBudget::from_fn(|b| match b {
            Budget::Code => short[b],
            _ if is_of_code(b) => short[b].saturating_sub(live.get(b)),
            _ => 0,
        });
        let own = self.requests[id].module;
        let mut candidates = self.loaded_by_worth(&cx.slots);
        // Those that leave already are the first.
        candidates.sort_by_key(|module| self.modules[*module].collected_for.is_none());
        for module in candidates {
            let Phase::Loaded { charge, .. } = &self.modules[module].phase else {
                continue;
            };
            let frees = charge.amounts();
            let helps = |b: Budget| wanted[b] > 0 && frees.get(b) > 0;
            let is_useless = Some(module) == own || !Budget::ALL.into_iter().any(helps);
            let stays = self.is_code_kept(&by, module);
            if is_useless || stays || self.is_module_protected(&by, module, |_| false) {
                self.open_module(module, &mut cx.out);
                continue;
            }
            self.note_module_taken(&mut by, module, |_| false);
            wanted = PerBudget::from_fn(|b| wanted[b].saturating_sub(frees.get(b)));
            self.modules[module].collected_for = Some(id);
            let live: Vec<_> = self.modules[module].live.iter().copied().collect();
            for instance in live {
                if self.claim(instance, &mut cx.slots) {
                    self.note_share_seen(instance, &cx.slots);
                    self.dismiss(instance, RemovalReason::Room, Some(id), cx);
                }
            }
            self.drop_out_if_unused(module, &mut cx.out);
        }
    }

    /// All loaded modules, the least worthy first.
    fn loaded_by_worth(&mut self, slots: &impl Slots<H>) -> Vec<ModuleId<H>> {
        let loaded = self.modules.iter().filter(|(_, m)| m.is_loaded());
        let mut loaded: Vec<_> = loaded.map(|(id, _)| id).collect();
        for id in &loaded {
            self.refresh_module(*id, slots);
        }
        let worth = |id: &ModuleId<H>| {
            Candidate::of(*id, &self.modules[*id]).worth(self.config.policy, self.now)
        };
        loaded.sort_by(|a, b| worth(a).total_cmp(&worth(b)).then(a.cmp(b)));
        loaded
    }

    /// Why nobody else may begin to use a module that leaves.
    pub(crate) fn collected_code(&self, id: ModuleId<H>) -> Shortage {
        let by = self.collecting.and_then(|by| self.requests.get(by));
        let promised = by.map_or(Amounts::ZERO, |by| sum(&by.held.amounts(), &by.expected));
        let of_code = Budget::ALL.into_iter().filter(|b| is_of_code(*b));
        let mut wanted = of_code.filter(|b| by.is_some_and(|by| by.expected.get(*b) > 0));
        let budget = wanted.next().unwrap_or(Budget::Code);
        let code = match &self.modules[id].phase {
            Phase::Loaded { charge, .. } => charge.amounts(),
            _ => Amounts::ZERO,
        };
        Shortage {
            budget,
            requested: code.get(budget),
            limit: self.ledger.limits()[budget],
            charged: self.ledger.charged().get(budget),
            evictable: 0,
            promised: promised.get(budget),
            reserved: 0,
            of_group: false,
        }
    }

    /// Others may use the module again.
    pub(crate) fn open_module(&mut self, id: ModuleId<H>, out: &mut Effects<H>) {
        let module = &mut self.modules[id];
        if module.collected_for.take().is_some() {
            let (now, mut late) = (self.now, Vec::new());
            while let Some((_, sleeper)) = self.modules[id].followers.pop(now, &mut late) {
                self.wake(sleeper, out);
            }
            self.notify_late(late, out);
        }
    }

    /// The request is served, or gives up.
    pub(crate) fn end_collecting(&mut self, id: RequestId<H>, out: &mut Effects<H>) {
        if self.collecting.take_if(|by| *by == id).is_some() {
            for module in self.modules.ids() {
                self.open_module(module, out);
            }
        }
    }
}

/// Whether code counts in this budget.
fn is_of_code(budget: Budget) -> bool {
    OF_CODE.contains(&budget)
}
