//! Making room: which idle instances and which unused code to give up for a request.
//!
//! Planned first (`plan.rs`), then executed: until then, nothing is destroyed.

use super::shares::Claimant;
use crate::state::{Amounts, Budget, Context, PerBudget, RequestId, Shortage, Slots, State, Types};

/// What became of a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReserveOutcome {
    /// The request holds all that it asked for.
    Granted,
    /// Victims were evicted for it: destroy them, report each as freed, then ask again.
    Evicting,
    /// Enough is being destroyed for nobody in particular: wait for that, then ask again.
    AwaitFrees(Shortage),
    /// Idle instances and unused code cannot free enough. Nothing was evicted.
    Refused(Shortage),
}

/// Parts of one ledger always add up to less than the ledger.
pub(crate) fn sum(a: &Amounts, b: &Amounts) -> Amounts {
    a.checked_add(b).expect("L1: charges of one ledger add up")
}

/// Of a set of budgets.
pub(crate) const fn bit(budget: Budget) -> u8 {
    1 << budget as u8
}

impl<H: Types> State<H> {
    /// Makes the request hold `target`, evicting what is idle if that is needed and enough.
    pub fn reserve(
        &mut self,
        id: RequestId<H>,
        target: Amounts,
        cx: &mut Context<H, impl Slots<H>>,
    ) -> ReserveOutcome {
        let need = target.beyond(&self.requests[id].held.amounts());
        let overtakes = need != Amounts::ZERO && !self.is_first_for_room(id);
        let expected = self.requests[id].expected;
        let room = self.try_reserve(id, target, cx);
        let has_room = matches!(room, ReserveOutcome::Granted | ReserveOutcome::Evicting);
        if overtakes && has_room {
            self.note_overtaken();
        }
        if !has_room && expected != Amounts::ZERO && self.requests[id].expected == Amounts::ZERO {
            // Nothing is earmarked for it any more.
            self.wake_room(&mut cx.out);
        }
        // What the request holds already is part of what it asks for, and not in its way.
        let own = self.requests[id].held.amounts();
        if room == ReserveOutcome::Granted {
            self.leave_room(id, &mut cx.out);
        }
        match room {
            ReserveOutcome::AwaitFrees(shortage) => {
                ReserveOutcome::AwaitFrees(self.explain(id, shortage, &own))
            }
            ReserveOutcome::Refused(shortage) => {
                ReserveOutcome::Refused(self.explain(id, shortage, &own))
            }
            ReserveOutcome::Granted | ReserveOutcome::Evicting => room,
        }
    }

    fn explain(&self, id: RequestId<H>, shortage: Shortage, own: &Amounts) -> Shortage {
        if shortage.of_group {
            return shortage;
        }
        let other = self.collecting.filter(|by| *by != id);
        let promised = other.map_or(0, |by| {
            let request = &self.requests[by];
            let all = sum(&request.held.amounts(), &request.expected);
            all.get(shortage.budget)
        });
        Shortage {
            promised,
            ..shortage.including(own)
        }
    }

    fn try_reserve(
        &mut self,
        id: RequestId<H>,
        target: Amounts,
        cx: &mut Context<H, impl Slots<H>>,
    ) -> ReserveOutcome {
        self.requests[id].expected = Amounts::ZERO;
        match self.keep_within_share(id, &target, cx) {
            Ok(false) => {}
            Ok(true) => return ReserveOutcome::Evicting,
            Err(beyond) => return self.refuse_or_wait_for_spares(id, beyond),
        }
        let need = target.beyond(&self.requests[id].held.amounts());
        let (earmarked, incoming) = self.awaited();
        let missing = self.ledger.missing(&need, &earmarked);
        if missing.iter().all(|(_, lacks)| lacks == 0)
            && let Some(charge) = self.ledger.reserve(&need)
        {
            self.requests[id].held.merge(charge);
            return ReserveOutcome::Granted;
        }
        if missing.iter().all(|(_, lacks)| lacks == 0) {
            // It fits under every limit, but the sum leaves `u64`: it never will.
            return ReserveOutcome::Refused(self.ledger.shortage(&need, &missing, &Amounts::ZERO));
        }
        let lacking = Budget::ALL.into_iter().filter(|b| missing[*b] > 0);
        self.requests[id].lacks = lacking.fold(0, |bits, b| bits | bit(b));
        if self.may_collect(id) {
            return self.collect(id, target, cx);
        }
        let frees_cover = |missing: &PerBudget<u64>, more: &Amounts| {
            let covered = |(b, m): (Budget, u64)| m <= incoming[b].saturating_add(more.get(b));
            missing.iter().all(covered)
        };
        if frees_cover(&missing, &Amounts::ZERO) {
            return ReserveOutcome::AwaitFrees(self.ledger.shortage(
                &need,
                &missing,
                &Amounts::ZERO,
            ));
        }
        let by = self.claimant(id, &target, &missing);
        let plan = self.plan_all_or_nothing(missing, incoming, by, &mut cx.slots);
        if !plan.is_enough() {
            let evictable = plan.in_vain.map_or(plan.freed, |idle| idle.all);
            let lacking = PerBudget::from_fn(|b| missing[b].saturating_sub(evictable.get(b)));
            let mut shortage = self.ledger.shortage(&need, &lacking, &evictable);
            shortage.reserved = (self.left_to_others(&plan, &cx.slots)).get(shortage.budget);
            let coming = self.held_for_spares(id, None);
            let coming = evictable.saturating_add(&coming);
            let frees_cover = (plan.in_vain.is_none() && frees_cover(&missing, &evictable))
                || frees_cover(&missing, &coming);
            self.undo(plan, &mut cx.slots);
            return if frees_cover {
                ReserveOutcome::AwaitFrees(shortage)
            } else {
                ReserveOutcome::Refused(shortage)
            };
        }
        // What fits already is taken now; the rest comes from the victims as each is freed.
        let now = self.ledger.headroom(&need, &earmarked);
        let charge = (self.ledger.reserve(&now)).expect("L2: headroom can be reserved");
        let request = &mut self.requests[id];
        request.held.merge(charge);
        request.expected = need.beyond(&now);
        self.execute(plan, Some(id), cx);
        ReserveOutcome::Evicting
    }

    /// What a group lacks of its limit it may have as soon as its spares are made.
    fn refuse_or_wait_for_spares(&self, id: RequestId<H>, beyond: Shortage) -> ReserveOutcome {
        let share = self.share_of_request(&self.requests[id]);
        let coming = self.held_for_spares(id, share).get(beyond.budget);
        let has_spares = coming > 0 && {
            let has = beyond.charged.saturating_add(beyond.requested);
            let frees = beyond.evictable.saturating_add(coming);
            has.saturating_sub(frees) <= beyond.limit
        };
        match has_spares {
            true => ReserveOutcome::AwaitFrees(beyond),
            false => ReserveOutcome::Refused(beyond),
        }
    }

    /// Evicts what is idle until no budget is overdrawn, or nothing is idle any more.
    pub fn repay(&mut self, cx: &mut Context<H, impl Slots<H>>) {
        let missing = self.overdraft_of_leases();
        if missing.iter().all(|(_, lacks)| lacks == 0) {
            return;
        }
        let mut plan = self.plan(missing, Claimant::unbound(), &mut cx.slots);
        if !plan.is_enough() {
            // Leases hold the rest; but nobody goes who does not help.
            plan.missing = PerBudget::from_fn(|b| missing[b].min(plan.freed.get(b)));
            self.spare(&mut plan, &mut cx.slots);
        }
        self.execute(plan, None, cx);
    }

    /// The overdraft beyond what is being destroyed for nobody in particular.
    pub(crate) fn overdraft_of_leases(&self) -> PerBudget<u64> {
        let (_, incoming) = self.awaited();
        let overdraft = self.ledger.overdraft();
        PerBudget::from_fn(|b| overdraft[b].saturating_sub(incoming[b]))
    }

    /// What requests still expect, against what is being destroyed: first, what is **earmarked**, though it looks
    /// free; second, what is **incoming** for nobody in particular. For one request and one budget there are
    /// three cases, by what the request expects and what its victims (those dying with it as heir) bring:
    ///
    /// 1. They bring just that: nothing is earmarked, and nothing of theirs is incoming for others.
    /// 2. They bring more: the rest is incoming for everybody.
    /// 3. They bring less: the rest must come from what is free now (there was room for it in this budget when
    ///    the victims were chosen for another one), so it is earmarked.
    ///
    /// For example, 90 of 100 bytes are charged. Request A expects 25, and its victims, who are being destroyed,
    /// bring 20: 5 are earmarked (case 3). Something of 10 is being destroyed for nobody: 10 are incoming, the 20
    /// are not. A newcomer that needs 8 is missing 90 + 8 + 5 − 100 = 3. Those are covered by the 10, so it waits
    /// for them instead of evicting anything; without A it would have been served at once.
    pub(crate) fn awaited(&self) -> (PerBudget<u64>, PerBudget<u64>) {
        self.awaited_by_others(None)
    }

    /// The same, as if this request waited for nothing.
    pub(crate) fn awaited_by_others(
        &self,
        but: Option<RequestId<H>>,
    ) -> (PerBudget<u64>, PerBudget<u64>) {
        let all = self.dying.iter().map(|(_, dying)| dying.charge.amounts());
        let dying = all.fold(Amounts::ZERO, |total, part| sum(&total, &part));
        let mut earmarked = PerBudget::default();
        let mut incoming = PerBudget::from_fn(|b| dying.get(b));
        for (id, request) in self.requests.iter() {
            if request.expected == Amounts::ZERO || Some(id) == but {
                continue;
            }
            let bring = self.brought_to(id);
            for b in Budget::ALL {
                let (wanted, brought) = (request.expected.get(b), bring.get(b));
                earmarked.set(b, earmarked[b] + wanted.saturating_sub(brought));
                incoming.set(b, incoming[b] - wanted.min(brought));
            }
        }
        (earmarked, incoming)
    }

    /// What is being destroyed for this request.
    pub(crate) fn brought_to(&self, id: RequestId<H>) -> Amounts {
        let of_it = self.dying.iter().filter(|(_, d)| d.heir == Some(id));
        of_it.fold(Amounts::ZERO, |all, (_, d)| sum(&all, &d.charge.amounts()))
    }
}
