//! Making room: which idle instances and which unused code to give up for a request.
//!
//! Planned first, then executed. A plan claims its victims from their slots, so that nobody can
//! lease them meanwhile; when they are not enough, or more than needed, they are put back before
//! anything was destroyed. Before it claims many, it looks whether all that is idle would be enough
//! ([`Idle`]), and gives up if not: to claim and restore thousands in vain takes milliseconds.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use crate::state::{
    Amounts, Budget, Context, Effects, Instance, InstanceId, Module, ModuleId, PerBudget, Phase,
    RemovalReason, RequestId, Shortage, Slots, Stamp, State, Types,
};

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

/// Who goes. Instances of a whole module are listed with it, since the module goes only if they do.
enum Victim<H: Types> {
    Instance(InstanceId<H>),
    Module(ModuleId<H>, Vec<InstanceId<H>>),
}

pub(crate) struct Plan<H: Types> {
    /// What is missing in each budget before the request fits.
    pub(crate) missing: PerBudget<u64>,
    victims: Vec<(Victim<H>, Amounts)>,
    claimed: BTreeSet<InstanceId<H>>,
    doomed: BTreeSet<ModuleId<H>>,
    pub(crate) freed: Amounts,
    /// What is being destroyed for nobody in particular.
    incoming: PerBudget<u64>,
    /// How many may be tried before it looks whether all that is idle is enough.
    tries: usize,
    /// What all that is idle would free, when that has turned out not to be enough: the plan has given up.
    in_vain: Option<Idle>,
}

/// How many instances a plan tries before it looks at all. In tests two, so that plans do both.
const TRIES: usize = if cfg!(test) { 2 } else { 64 };

/// What is idle, and what it would free.
#[derive(Clone, Copy)]
struct Idle {
    instances: Amounts,
    /// With the code that no other instance runs, and no request has pinned.
    all: Amounts,
}

impl<H: Types> Plan<H> {
    fn new(missing: PerBudget<u64>) -> Self {
        Self {
            missing,
            victims: Vec::new(),
            claimed: BTreeSet::new(),
            doomed: BTreeSet::new(),
            freed: Amounts::ZERO,
            incoming: PerBudget::default(),
            tries: usize::MAX,
            in_vain: None,
        }
    }

    fn lacks(&self, budget: Budget) -> bool {
        self.missing[budget] > self.freed.get(budget)
    }

    fn lacks_any(&self, budgets: &[Budget]) -> bool {
        budgets.iter().any(|b| self.lacks(*b))
    }

    /// Whether it goes on for the sake of these.
    fn goes_on(&self, budgets: &[Budget]) -> bool {
        self.in_vain.is_none() && self.lacks_any(budgets)
    }

    pub(crate) fn is_enough(&self) -> bool {
        !self.lacks_any(&Budget::ALL)
    }

    fn add(&mut self, victim: Victim<H>, frees: Amounts) {
        match &victim {
            Victim::Instance(id) => {
                self.claimed.insert(*id);
            }
            Victim::Module(id, instances) => {
                self.doomed.insert(*id);
                self.claimed.extend(instances);
            }
        }
        self.freed = sum(&self.freed, &frees);
        self.victims.push((victim, frees));
    }
}

/// Budgets that code counts in.
pub(crate) const OF_CODE: [Budget; 4] = [
    Budget::Code,
    Budget::Mappings,
    Budget::Total,
    Budget::Mapped,
];

/// Parts of one ledger always add up to less than the ledger.
pub(crate) fn sum(a: &Amounts, b: &Amounts) -> Amounts {
    a.checked_add(b).expect("L1: charges of one ledger add up")
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
        if self.may_collect(id) {
            return self.collect(id, need, cx);
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
        let plan = self.plan_all_or_nothing(missing, incoming, &mut cx.slots);
        if !plan.is_enough() {
            let evictable = plan.in_vain.map_or(plan.freed, |idle| idle.all);
            let lacking = PerBudget::from_fn(|b| missing[b].saturating_sub(evictable.get(b)));
            let shortage = self.ledger.shortage(&need, &lacking, &evictable);
            let frees_cover = plan.in_vain.is_none() && frees_cover(&missing, &evictable);
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
        self.execute(plan, Some(id), &mut cx.out);
        ReserveOutcome::Evicting
    }

    /// Evicts what is idle until no budget is overdrawn, or nothing is idle any more.
    pub fn repay(&mut self, cx: &mut Context<H, impl Slots<H>>) {
        let missing = self.overdraft_of_leases();
        if missing.iter().all(|(_, lacks)| lacks == 0) {
            return;
        }
        let mut plan = self.plan(missing, &mut cx.slots);
        if !plan.is_enough() {
            // Leases hold the rest; but nobody goes who does not help.
            plan.missing = PerBudget::from_fn(|b| missing[b].min(plan.freed.get(b)));
            self.spare(&mut plan, &mut cx.slots);
        }
        self.execute(plan, None, &mut cx.out);
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

    /// A plan of all that helps, though it may not be enough.
    pub(crate) fn plan(&mut self, missing: PerBudget<u64>, slots: &mut impl Slots<H>) -> Plan<H> {
        self.carry_on(Plan::new(missing), slots)
    }

    /// A plan that gives up as soon as it turns out that all that is idle would not be enough, nor with what is
    /// `incoming`.
    fn plan_all_or_nothing(
        &mut self,
        missing: PerBudget<u64>,
        incoming: PerBudget<u64>,
        slots: &mut impl Slots<H>,
    ) -> Plan<H> {
        let mut plan = Plan::new(missing);
        if !slots.asks_leased() {
            plan.tries = TRIES;
            plan.incoming = incoming;
            let most = self.at_most_idle();
            if missing.iter().any(|(b, missing)| missing > most.get(b)) {
                plan.tries = 0;
                self.look_ahead(&mut plan, slots);
            }
        }
        self.carry_on(plan, slots)
    }

    /// What instances and code are charged, idle or not: an upper bound that takes no look at them.
    fn at_most_idle(&self) -> Amounts {
        let dying = self.dying.iter().map(|(_, dying)| dying.charge.amounts());
        let held = self.requests.iter().map(|(_, r)| r.held.amounts());
        let others = dying.chain(held);
        let others = others.fold(Amounts::ZERO, |total, part| sum(&total, &part));
        self.ledger.charged().beyond(&others)
    }

    /// What is idle, with what the plan has claimed: looked at, and not touched.
    fn idle(&self, plan: &Plan<H>, slots: &impl Slots<H>) -> Idle {
        let mut instances = Amounts::ZERO;
        let mut busy = BTreeSet::new();
        for (id, instance) in self.instances.iter() {
            let entry = &self.entries[instance.entry].handle;
            if slots.seems_idle(entry, instance.seat) || plan.claimed.contains(&id) {
                instances = sum(&instances, &instance.charge.amounts());
            } else {
                busy.insert(instance.module);
            }
        }
        let kept = busy.iter().map(|id| self.modules.charged_for(*id));
        let kept = kept.fold(Amounts::ZERO, |all, one| sum(&all, &one));
        let all = sum(&instances, &self.modules.charged().beyond(&kept));
        Idle { instances, all }
    }

    /// Gives up if all that is idle is not enough. Where it would be with what is incoming, the plan must be
    /// exact, and goes on: a look may take for idle what is about to be.
    fn look_ahead(&mut self, plan: &mut Plan<H>, slots: &impl Slots<H>) {
        self.modules.settle();
        let idle = self.idle(plan, slots);
        let short = |(b, missing): (Budget, u64)| {
            missing > idle.all.get(b).saturating_add(plan.incoming[b])
        };
        if plan.missing.iter().any(short) {
            plan.in_vain = Some(idle);
            let needs_code = |b: &Budget| plan.missing[*b] > idle.instances.get(*b);
            if OF_CODE.iter().any(needs_code) {
                self.note_wanted();
            }
        }
    }

    /// One more is tried.
    fn note_try(&mut self, plan: &mut Plan<H>, slots: &impl Slots<H>) {
        if plan.tries == 1 {
            self.look_ahead(plan, slots);
        }
        plan.tries = plan.tries.saturating_sub(1);
    }

    /// A plan has use for the code of modules that requests have pinned: it passes them over.
    fn note_wanted(&mut self) {
        for (_, request) in self.requests.iter() {
            if let Some(module) = request.module {
                self.modules[module].wanted = true;
            }
        }
    }

    fn carry_on(&mut self, mut plan: Plan<H>, slots: &mut impl Slots<H>) -> Plan<H> {
        if plan.goes_on(&[Budget::Code]) {
            self.claim_modules(&mut plan, &[Budget::Code], slots);
        }
        let by_recency = [
            Budget::Memory,
            Budget::Stack,
            Budget::Mappings,
            Budget::Total,
            Budget::Mapped,
        ];
        self.claim_instances(&mut plan, &by_recency, slots);
        // Every idle instance is claimed now, so what is left to give up is code.
        let last = [Budget::Mappings, Budget::Total, Budget::Mapped];
        if plan.goes_on(&last) {
            self.claim_modules(&mut plan, &last, slots);
        }
        if plan.is_enough() {
            self.spare(&mut plan, slots);
        }
        plan
    }

    /// Claims whole modules, the least worthy first, until none of `budgets` lacks anything.
    fn claim_modules(&mut self, plan: &mut Plan<H>, budgets: &[Budget], slots: &mut impl Slots<H>) {
        self.note_wanted();
        let mut choice = self.begin_choice();
        while plan.goes_on(budgets) {
            let Some(id) = self.choose(&mut choice, slots) else {
                break;
            };
            if let Some((instances, frees)) = self.claim_module(plan, id, slots) {
                plan.add(Victim::Module(id, instances), frees);
            }
            self.note_try(plan, slots);
        }
    }

    /// Claims every instance of the module that is not claimed yet; none, if one is leased.
    fn claim_module(
        &mut self,
        plan: &Plan<H>,
        id: ModuleId<H>,
        slots: &mut impl Slots<H>,
    ) -> Option<(Vec<InstanceId<H>>, Amounts)> {
        let module = &self.modules[id];
        let Phase::Loaded { charge, .. } = &module.phase else {
            return None;
        };
        if module.pins > 0 || module.dying > 0 || plan.doomed.contains(&id) {
            return None;
        }
        let mut frees = charge.amounts();
        let mut claimed = Vec::new();
        for &instance in module.live.difference(&plan.claimed) {
            if !self.claim(instance, slots) {
                for instance in claimed {
                    self.restore(instance, slots);
                }
                return None;
            }
            frees = sum(&frees, &self.instances[instance].charge.amounts());
            claimed.push(instance);
        }
        Some((claimed, frees))
    }

    /// Claims idle instances, the least recently used first, until none of `budgets` lacks
    /// anything.
    fn claim_instances(
        &mut self,
        plan: &mut Plan<H>,
        budgets: &[Budget],
        slots: &mut impl Slots<H>,
    ) {
        let mut cursor = None;
        while plan.goes_on(budgets) {
            let Some((known, id)) = self.next_by_recency(&mut cursor, slots) else {
                break;
            };
            debug_assert!(known == self.instances[id].known);
            if plan.claimed.contains(&id) {
                continue;
            }
            if self.claim(id, slots) {
                let frees = self.instances[id].charge.amounts();
                plan.add(Victim::Instance(id), frees);
            }
            self.note_try(plan, slots);
        }
    }

    /// The next instance in true order of last use; stale places in the order are mended on the
    /// way.
    pub(crate) fn next_by_recency(
        &mut self,
        cursor: &mut Option<(Stamp, InstanceId<H>)>,
        slots: &impl Slots<H>,
    ) -> Option<(Stamp, InstanceId<H>)> {
        loop {
            let (known, id) = self.recency.next(*cursor)?;
            let seen = self.last_used(id, slots);
            if seen <= known {
                *cursor = Some((known, id));
                return Some((known, id));
            }
            self.observe(id, seen, slots);
        }
    }

    /// Puts back victims that turned out not to be needed, the worthiest first.
    pub(crate) fn spare(&mut self, plan: &mut Plan<H>, slots: &mut impl Slots<H>) {
        let mut at = plan.victims.len();
        while at > 0 {
            at -= 1;
            let without = plan.freed.beyond(&plan.victims[at].1);
            let needed = Budget::ALL
                .iter()
                .any(|b| plan.missing[*b] > without.get(*b));
            if needed || self.is_needed_by_module(plan, &plan.victims[at].0) {
                continue;
            }
            let (victim, _) = plan.victims.remove(at);
            plan.freed = without;
            if let Victim::Module(id, _) = &victim {
                plan.doomed.remove(id);
            }
            self.unclaim(victim, slots);
        }
    }

    /// An instance claimed for itself may since have become part of why a module can go.
    fn is_needed_by_module(&self, plan: &Plan<H>, victim: &Victim<H>) -> bool {
        match victim {
            Victim::Instance(id) => plan.doomed.contains(&self.instances[*id].module),
            Victim::Module(..) => false,
        }
    }

    fn undo(&mut self, plan: Plan<H>, slots: &mut impl Slots<H>) {
        for (victim, _) in plan.victims {
            self.unclaim(victim, slots);
        }
    }

    fn unclaim(&mut self, victim: Victim<H>, slots: &mut impl Slots<H>) {
        match victim {
            Victim::Instance(id) => self.restore(id, slots),
            Victim::Module(_, instances) => {
                for id in instances {
                    self.restore(id, slots);
                }
            }
        }
    }

    /// Hands the victims to the shell to destroy: instances first, then the code they ran.
    pub(crate) fn execute(
        &mut self,
        plan: Plan<H>,
        heir: Option<RequestId<H>>,
        out: &mut Effects<H>,
    ) {
        let mut modules = Vec::new();
        for (victim, _) in plan.victims {
            match victim {
                Victim::Instance(id) => self.dismiss(id, RemovalReason::Room, heir, out),
                Victim::Module(id, instances) => {
                    for instance in instances {
                        self.dismiss(instance, RemovalReason::Room, heir, out);
                    }
                    modules.push(id);
                }
            }
        }
        for id in modules {
            self.unload(id, heir, out);
        }
    }
}
