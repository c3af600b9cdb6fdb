//! What making room may cost, worked out the slow way.

use std::collections::BTreeSet;

use crate::fake::Instance;
use crate::model::{
    CODE, COMPILE, INSTANCES, MEMORY, MInstance, MRequest, Model, Place, Request, STACK, Step,
    Sums, plus, sums, total,
};
use crate::shares::Guards;
use crate::state::Amounts;

/// What a reservation must come to.
#[derive(Clone, Copy, Debug)]
pub struct Outlook {
    pub missing: Sums,
    /// What all idle instances and all code without leased instances would free.
    pub evictable: Sums,
    /// The same without what is of groups that are protected from it, in part or as a whole.
    pub surely_evictable: Sums,
    /// What is being destroyed and promised to nobody.
    pub coming: Sums,
    /// What is held for spares that are being made.
    pub of_spares: Sums,
    /// The code that these have pinned.
    pub code_of_spares: Sums,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Granted,
    Evicting,
    Soon,
    Refused,
}

impl Outlook {
    pub fn is_granted(&self) -> bool {
        covers(&[0; 8], &self.missing)
    }

    /// Whether it may come to this. How much of a protected group's is left to others depends on the order in which it is
    /// taken; so there are bounds.
    pub fn allows(&self, verdict: Verdict) -> bool {
        let rank = |verdict| match verdict {
            Verdict::Refused => 0,
            Verdict::Soon => 1,
            Verdict::Evicting => 2,
            Verdict::Granted => 3,
        };
        let (least, most) = (self.verdict_with(&self.surely_evictable), self.verdict());
        (rank(least)..=rank(most)).contains(&rank(verdict))
    }

    pub fn verdict(&self) -> Verdict {
        let with_code =
            core::array::from_fn(|b| self.coming[b] + self.of_spares[b] + self.code_of_spares[b]);
        match self.verdict_with(&self.evictable) {
            // Code that spares pin can go with them, once they are made.
            Verdict::Refused if covers(&sum_of(self.evictable, with_code), &self.missing) => {
                Verdict::Soon
            }
            other => other,
        }
    }

    /// With what is surely evictable.
    pub fn least(&self) -> Verdict {
        self.verdict_with(&self.surely_evictable)
    }

    fn verdict_with(&self, evictable: &Sums) -> Verdict {
        let all = |b: usize| evictable[b] + self.coming[b] + self.of_spares[b];
        let both = core::array::from_fn(all);
        if covers(&[0; 8], &self.missing) {
            Verdict::Granted
        } else if covers(&self.coming, &self.missing) {
            Verdict::Soon
        } else if covers(evictable, &self.missing) {
            Verdict::Evicting
        } else if covers(&both, &self.missing) {
            Verdict::Soon
        } else {
            Verdict::Refused
        }
    }
}

/// Memory, stacks and instances come from instances, code from modules, mappings and sums from both, and what compilations hold
/// from nobody.
pub fn by_source(instances: &Sums, modules: &Sums) -> Sums {
    core::array::from_fn(|b| match b {
        MEMORY | STACK | INSTANCES => instances[b],
        CODE => modules[b],
        COMPILE => 0,
        _ => instances[b] + modules[b],
    })
}

/// Whether code takes of it.
fn is_of_code(b: usize) -> bool {
    b == CODE || (STACK + 1..INSTANCES).contains(&b)
}

fn sum_of(a: Sums, b: Sums) -> Sums {
    core::array::from_fn(|i| a[i] + b[i])
}

pub fn covers(freed: &Sums, missing: &Sums) -> bool {
    (0..8).all(|b| missing[b] <= freed[b])
}

impl Model {
    pub fn outlook(&self, request: Request, target: &Amounts) -> Outlook {
        let need = sums(&target.beyond(&self.requests[&request].held));
        let charged = self.charged();
        let (earmarked, coming) = self.awaited(Some(request));
        let missing = core::array::from_fn(|b| match need[b] {
            0 => 0,
            wanted => (charged[b] + earmarked[b] + wanted).saturating_sub(self.limits[b]),
        });
        let guards = self.guards(request, target, &missing);
        Outlook {
            missing,
            evictable: self.evictable(),
            surely_evictable: self.surely_evictable(&guards),
            coming,
            of_spares: total(self.spares_in_making().map(|r| &r.held)),
            code_of_spares: total(
                self.loaded()
                    .filter(|(key, _)| self.spares_in_making().any(|r| r.key == Some(*key)))
                    .map(|(_, holds)| holds),
            ),
        }
    }

    fn spares_in_making(&self) -> impl Iterator<Item = &MRequest> {
        self.requests.values().filter(|r| r.step == Step::Spare)
    }

    /// What others wait for beyond what their victims will bring (it is there, and is theirs: only
    /// another budget keeps them from holding it already); and what is dying for nobody.
    fn awaited(&self, target: Option<Request>) -> (Sums, Sums) {
        let mut earmarked = [0; 8];
        let mut coming = total(self.dying.values().map(|d| &d.holds));
        let heirs = self.requests.iter().filter(|(_, r)| r.expects);
        for (id, request) in heirs.filter(|(id, _)| Some(**id) != target) {
            let victims = self.dying.values().filter(|d| d.heir == Some(*id));
            let bring = total(victims.map(|d| &d.holds));
            let wait = sums(&request.target.beyond(&request.held));
            for b in 0..8 {
                earmarked[b] += wait[b].saturating_sub(bring[b]);
                coming[b] -= wait[b].min(bring[b]);
            }
        }
        (earmarked, coming)
    }

    /// What is being destroyed for nobody is for this request.
    pub fn inherit(&mut self, id: Request) {
        let alive: BTreeSet<_> = self.requests.keys().copied().collect();
        for dying in self.dying.values_mut() {
            if dying.heir.is_none_or(|heir| !alive.contains(&heir)) {
                dying.heir = Some(id);
            }
        }
    }

    /// What a request that collects lacks beyond what is being destroyed for it.
    pub fn lacks(&self, id: Request, target: &Amounts) -> Sums {
        let missing = self.outlook(id, target).missing;
        let victims = self.dying.values().filter(|d| d.heir == Some(id));
        let bring = total(victims.map(|d| &d.holds));
        core::array::from_fn(|b| missing[b].saturating_sub(bring[b]))
    }

    /// Whether this instance must not stay when its lease ends, since somebody collects.
    pub fn is_collected(&self, id: Instance) -> bool {
        let Some(by) = self.collecting else {
            return false;
        };
        let lacks = self.lacks(by, &self.requests[&by].target);
        let (holds, key) = (sums(&self.instances[&id].holds), self.instances[&id].key);
        let leaves = self.collected_for.contains(&key);
        let guards = self.guards(by, &self.requests[&by].target, &lacks);
        if self.keeps(&guards, &[id], &[]) {
            return false;
        }
        (0..8).any(|b| lacks[b] > 0 && (holds[b] > 0 || leaves && is_of_code(b)))
    }

    /// Whether whoever collects evicted what helps, and nobody else.
    pub fn check_collected(
        &self,
        guards: &Guards,
        lacks: &Sums,
        gone: &[Instance],
        dropped: &[u8],
    ) {
        let evictable = self.surely_evictable(guards);
        self.check_kept(guards, lacks, gone, dropped);
        // The others went with modules whose code leaves.
        let own = |id: &&Instance| !self.collected_for.contains(&self.instances[id].key);
        let own: Vec<_> = gone.iter().filter(own).copied().collect();
        let freed = self.freed_by(gone, dropped);
        let possible: Sums = core::array::from_fn(|b| lacks[b].min(evictable[b]));
        assert!(
            covers(&freed, &possible),
            "{freed:?} is less than {possible:?}"
        );
        let useful = self.freed_by(&own, dropped);
        let useful = core::array::from_fn(|b| lacks[b].min(useful[b]));
        self.check_needed(&useful, &own, dropped);
        let live = total(
            self.instances
                .iter()
                .filter(|(id, _)| !gone.contains(id))
                .map(|(_, i)| &i.holds),
        );
        let code = lacks[CODE] > freed[CODE];
        let beyond = (STACK + 1..INSTANCES).any(|b| lacks[b] > freed[b] + live[b]);
        assert!(
            code || beyond || self.collected_for.is_empty(),
            "a module leaves in vain"
        );
    }

    /// Whether lowered limits evicted the right ones: enough, if there is enough, and nobody else.
    pub fn check_repaid(&self, gone: &[Instance], dropped: &[u8]) {
        let (over, (_, coming)) = (self.overdraft(), self.awaited(None));
        let evictable = self.evictable();
        let missing: Sums = core::array::from_fn(|b| over[b].saturating_sub(coming[b]));
        if covers(&evictable, &missing) {
            self.check_victims(&self.pins_alone(), &missing, gone, dropped);
            return;
        }
        let freed = self.freed_by(gone, dropped);
        let possible: Sums = core::array::from_fn(|b| missing[b].min(evictable[b]));
        assert!(
            covers(&freed, &possible),
            "{freed:?} is less than {possible:?}"
        );
        self.check_needed(
            &core::array::from_fn(|b| missing[b].min(freed[b])),
            gone,
            dropped,
        );
    }

    /// What all that is idle would free.
    pub fn evictable(&self) -> Sums {
        let instances = total(self.idle().iter().map(|(_, i)| &i.holds));
        let free = self.loaded().filter(|(key, _)| self.may_drop(*key));
        let modules = total(free.map(|(_, holds)| holds));
        by_source(&instances, &modules)
    }

    pub fn may_drop(&self, key: u8) -> bool {
        let idle = self.live(key).all(|i| i.place == Place::Idle);
        idle && self.pins(key) == 0 && self.dying_of(key) == 0
    }

    /// Idle instances, the least recently used first.
    pub fn idle(&self) -> Vec<(Instance, &MInstance)> {
        let all = self.instances.iter().map(|(id, i)| (*id, i));
        let mut idle: Vec<_> = all.filter(|(_, i)| i.place == Place::Idle).collect();
        idle.sort_by_key(|(_, i)| i.last);
        idle
    }

    /// Whether these victims, before anything was destroyed, are the right ones.
    pub fn check_victims(
        &self,
        guards: &Guards,
        missing: &Sums,
        gone: &[Instance],
        dropped: &[u8],
    ) {
        for id in gone {
            let place = self.instances[id].place;
            assert_eq!(place, Place::Idle, "C-R1: victims are idle");
        }
        let freed = self.freed_by(gone, dropped);
        assert!(covers(&freed, missing), "{freed:?} cannot give {missing:?}");
        let loose = self.loose(gone, dropped);
        self.check_needed(missing, gone, dropped);
        self.check_kept(guards, missing, gone, dropped);
        self.check_recency(guards, missing, gone, dropped);
        let only_code = (0..8).all(|b| b == CODE || missing[b] == 0);
        if only_code {
            assert!(loose.is_empty(), "C-R3: {loose:?} freed no code");
        }
        if guards.is_empty()
            && missing[CODE] == 0
            && let Some(expected) = self.least_recently_used(missing)
        {
            assert_eq!(dropped, [0u8; 0], "C-R2: instances were enough");
            let gone: BTreeSet<_> = gone.iter().copied().collect();
            assert_eq!(gone, expected, "C-R2: least recently used first");
        }
    }

    /// Victims that went for their own sake, and not with their module.
    fn loose(&self, gone: &[Instance], dropped: &[u8]) -> Vec<Instance> {
        let alone = |id: &&Instance| !dropped.contains(&self.instances[id].key);
        gone.iter().filter(alone).copied().collect()
    }

    pub fn freed_by<'a>(
        &self,
        gone: impl IntoIterator<Item = &'a Instance>,
        dropped: &[u8],
    ) -> Sums {
        let instances = total(gone.into_iter().map(|id| &self.instances[id].holds));
        let modules = self.loaded().filter(|(key, _)| dropped.contains(key));
        modules.fold(instances, |sum, (_, holds)| plus(sum, holds))
    }

    /// No victim could have stayed.
    fn check_needed(&self, missing: &Sums, gone: &[Instance], dropped: &[u8]) {
        for spared in &self.loose(gone, dropped) {
            let rest = gone.iter().filter(|id| *id != spared);
            let freed = self.freed_by(rest, dropped);
            assert!(!covers(&freed, missing), "{spared:?} was evicted in vain");
        }
        for &spared in dropped {
            let rest = gone.iter().filter(|id| self.instances[id].key != spared);
            let others: Vec<_> = dropped.iter().copied().filter(|m| *m != spared).collect();
            let freed = self.freed_by(rest, &others);
            assert!(
                !covers(&freed, missing),
                "module {spared} was dropped in vain"
            );
        }
    }

    /// No instance that was idle for longer could have taken a victim's place.
    fn check_recency(&self, guards: &Guards, missing: &Sums, gone: &[Instance], dropped: &[u8]) {
        for victim in &self.loose(gone, dropped) {
            for (older, _) in self.idle() {
                if older == *victim {
                    break;
                }
                if gone.contains(&older) || self.is_guarded(guards, older) {
                    continue;
                }
                let instead = gone.iter().filter(|id| *id != victim).chain([&older]);
                let freed = self.freed_by(instead, dropped);
                assert!(
                    !covers(&freed, missing),
                    "C-R2: {older:?} should have gone before {victim:?}"
                );
            }
        }
    }

    /// The least recently used instances that are enough, without those that are not needed.
    fn least_recently_used(&self, missing: &Sums) -> Option<BTreeSet<Instance>> {
        let mut chosen: Vec<Instance> = Vec::new();
        for (id, _) in self.idle() {
            if covers(&self.freed_by(&chosen, &[]), missing) {
                break;
            }
            chosen.push(id);
        }
        if !covers(&self.freed_by(&chosen, &[]), missing) {
            return None;
        }
        for at in (0..chosen.len()).rev() {
            let rest = (chosen.iter().enumerate()).filter(|(i, _)| *i != at);
            if covers(&self.freed_by(rest.map(|(_, id)| id), &[]), missing) {
                chosen.remove(at);
            }
        }
        Some(chosen.into_iter().collect())
    }
}
