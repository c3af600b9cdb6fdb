//! A plan for room: which idle instances and which unused code to give up.
//!
//! A plan claims its victims from their slots, so that nobody can lease them meanwhile; when they are not
//! enough, or more than needed, they are put back before anything was destroyed. Before it claims many, it
//! looks whether all that is idle would be enough ([`Idle`]), and gives up if not: to claim and restore
//! thousands in vain takes milliseconds.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::room::sum;
use super::shares::Claimant;
use crate::state::{
    Amounts, Budget, Context, InstanceId, ModuleId, OF_CODE, PerBudget, Phase, RemovalReason,
    RequestId, Slots, Stamp, State, Types,
};

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
    pub(crate) in_vain: Option<Idle>,
    /// For whom it is.
    pub(crate) by: Claimant<H>,
}

/// How many instances a plan tries before it looks at all. In tests two, so that plans do both.
const TRIES: usize = if cfg!(test) { 2 } else { 64 };

/// What is idle, and what it would free.
#[derive(Clone, Copy)]
pub(crate) struct Idle {
    pub(crate) instances: Amounts,
    /// With the code that no other instance runs, and no request has pinned.
    pub(crate) all: Amounts,
}

impl<H: Types> Plan<H> {
    fn new(missing: PerBudget<u64>, by: Claimant<H>) -> Self {
        Self {
            missing,
            victims: Vec::new(),
            claimed: BTreeSet::new(),
            doomed: BTreeSet::new(),
            freed: Amounts::ZERO,
            incoming: PerBudget::default(),
            tries: usize::MAX,
            in_vain: None,
            by,
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

impl<H: Types> State<H> {
    /// A plan of all that helps, though it may not be enough.
    pub(crate) fn plan(
        &mut self,
        missing: PerBudget<u64>,
        by: Claimant<H>,
        slots: &mut impl Slots<H>,
    ) -> Plan<H> {
        self.carry_on(Plan::new(missing, by), slots)
    }

    /// A plan that gives up as soon as it turns out that all that is idle would not be enough, nor with what is
    /// `incoming`.
    pub(crate) fn plan_all_or_nothing(
        &mut self,
        missing: PerBudget<u64>,
        incoming: PerBudget<u64>,
        by: Claimant<H>,
        slots: &mut impl Slots<H>,
    ) -> Plan<H> {
        let mut plan = Plan::new(missing, by);
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
    pub(crate) fn idle(&self, plan: &Plan<H>, slots: &impl Slots<H>) -> Idle {
        let mut instances = Amounts::ZERO;
        let mut busy = BTreeSet::new();
        for (id, instance) in self.instances.iter() {
            let entry = &self.entries[instance.entry].handle;
            if slots.seems_idle(entry, instance.seat()) || plan.claimed.contains(&id) {
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
        loop {
            self.claim_what_helps(&mut plan, slots);
            let gives_up = plan.in_vain.is_some();
            if plan.is_enough() || gives_up || !plan.by.reach_further() {
                break;
            }
        }
        if plan.is_enough() {
            self.spare(&mut plan, slots);
        }
        plan
    }

    fn claim_what_helps(&mut self, plan: &mut Plan<H>, slots: &mut impl Slots<H>) {
        if plan.goes_on(&[Budget::Code]) {
            self.claim_modules(plan, &[Budget::Code], slots);
        }
        let by_recency = [
            Budget::Memory,
            Budget::Stack,
            Budget::Mappings,
            Budget::Total,
            Budget::Mapped,
            Budget::Instances,
        ];
        self.claim_instances(plan, &by_recency, slots);
        // Every idle instance is claimed now, so what is left to give up is code.
        let last = [Budget::Mappings, Budget::Total, Budget::Mapped];
        if plan.goes_on(&last) {
            self.claim_modules(plan, &last, slots);
        }
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
                let claimed = &plan.claimed;
                self.note_module_taken(&mut plan.by, id, |id| claimed.contains(id));
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
        if self.is_code_kept(&plan.by, id)
            || self.is_module_protected(&plan.by, id, |id| plan.claimed.contains(id))
        {
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
        for instance in &claimed {
            self.note_share_seen(*instance, slots);
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
            let frees = self.instances[id].charge.amounts();
            let helps = budgets.iter().any(|b| plan.lacks(*b) && frees.get(*b) > 0);
            let stays =
                self.is_protected(&plan.by, id) || self.is_kept(&plan.by, id, &plan.claimed);
            if helps && !stays && self.claim(id, slots) {
                self.note_instance_taken(&mut plan.by, id);
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

    pub(crate) fn undo(&mut self, plan: Plan<H>, slots: &mut impl Slots<H>) {
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
        cx: &mut Context<H, impl Slots<H>>,
    ) {
        let mut modules = Vec::new();
        for (victim, _) in plan.victims {
            match victim {
                Victim::Instance(id) => self.dismiss(id, RemovalReason::Room, heir, cx),
                Victim::Module(id, instances) => {
                    for instance in instances {
                        self.dismiss(instance, RemovalReason::Room, heir, cx);
                    }
                    modules.push(id);
                }
            }
        }
        for id in modules {
            self.unload(id, heir, &mut cx.out);
        }
    }
}
