//! What groups have reserved, the slow way.

use std::collections::{BTreeMap, BTreeSet};

use crate::fake::{Fake, Instance};
use crate::model::{MInstance, Model, Place, Request, Step, Sums, plus, sums, total};
use crate::room::{Outlook, by_source, covers};
use crate::state::{Amounts, Budget, FunctionId, Group, PerBudget, ShareTerms};
use crate::world::{GROUPS, World, pick};

#[derive(Clone, Debug)]
pub struct MShare {
    pub reserved: Sums,
    pub lapses_after: Option<u64>,
    pub used_at: u64,
    pub lapsed: bool,
    /// Modules that it has made an instance of since their code was loaded.
    pub users_of: BTreeSet<u8>,
}

/// Groups that are protected from somebody.
#[derive(Debug, Default)]
pub struct Guards {
    groups: BTreeSet<u8>,
    /// That somebody's own, from which it takes before it takes what others have.
    own: Option<u8>,
    /// Functions are pinned: from that somebody, too.
    pins: bool,
    /// That somebody's function, which may take its own.
    function: Option<FunctionId<Fake>>,
    /// That somebody stays within its own, and takes what is theirs if all else is not enough.
    breaks: bool,
}

impl Guards {
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.own.is_none() && !self.pins
    }

    pub fn is_of_pins_alone(&self) -> bool {
        self.groups.is_empty() && self.own.is_none() && self.pins && !self.breaks
    }
}

/// What may be reserved: of one budget or another, little or much.
const TERMS: [(Sums, Option<u64>); 8] = [
    ([0; 8], None),
    ([4, 0, 0, 0, 0, 0, 0, 0], None),
    ([9, 0, 0, 0, 0, 0, 0, 0], Some(14)),
    ([0, 4, 0, 0, 0, 0, 0, 0], Some(14)),
    ([0, 12, 0, 0, 0, 0, 0, 0], None),
    ([3, 4, 0, 2, 1, 0, 0, 1], None),
    ([0, 0, 0, 0, 0, 14, 5, 0], Some(14)),
    ([60, 0, 0, 0, 0, 0, 0, 0], None),
];

impl Model {
    pub fn share_of(&mut self, entry: usize) -> Option<&mut MShare> {
        let group = self.entries[entry].share;
        self.shares.get_mut(&group)
    }

    pub fn note_share_used(&mut self, entry: usize) {
        let now = self.now;
        if let Some(share) = self.share_of(entry) {
            share.used_at = now;
            share.lapsed = false;
        }
    }

    fn instances_of(&self, group: u8) -> Sums {
        let own = |i: &Instance| self.group_of(*i) == group;
        let own = self.instances.iter().filter(|(id, _)| own(id));
        total(own.map(|(_, i)| &i.holds))
    }

    fn code_of(&self, group: u8) -> Sums {
        let uses = |key: &u8| self.shares[&group].users_of.contains(key);
        let used = self.loaded().filter(|(key, _)| uses(key));
        total(used.map(|(_, holds)| holds))
    }

    pub fn holds(&self, group: u8) -> Sums {
        let (instances, code) = (self.instances_of(group), self.code_of(group));
        core::array::from_fn(|b| instances[b] + code[b])
    }

    fn group_of(&self, id: Instance) -> u8 {
        self.entries[self.instances[&id].entry].share
    }

    /// Who is protected from this request, which lacks so much of what it wants to hold.
    pub fn guards(&self, id: Request, target: &Amounts, missing: &Sums) -> Guards {
        let request = &self.requests[&id];
        let grows = match request.step {
            Step::Grow(instance, _) => self.instances.get(&instance).map(|i| i.entry),
            _ => None,
        };
        let entry = request.seat.map(|(entry, _)| entry).or(grows);
        // Who has left for good is no group's any more.
        let entry = entry.filter(|entry| !self.entries[*entry].gone);
        let own = entry.map(|entry| self.entries[entry].share);
        let own_share = own.and_then(|own| self.shares.get_key_value(&own));
        let breaks = own_share.is_some_and(|(group, share)| {
            let all = plus(self.holds(*group), target);
            (0..8).all(|b| missing[b] == 0 || all[b] <= share.reserved[b])
        });
        let shares = self.shares.iter().filter(|(_, share)| !share.lapsed);
        let groups: BTreeSet<u8> = shares.map(|(group, _)| *group).collect();
        let is_own = |group: &u8| Some(*group) == own;
        Guards {
            own: groups.iter().copied().find(is_own),
            groups: groups.into_iter().filter(|group| !is_own(group)).collect(),
            pins: self.is_any_pinned(),
            function: entry.map(|entry| self.entries[entry].function),
            breaks,
        }
    }

    /// Whether these cannot all go, since that would take too much from somebody.
    pub fn keeps(&self, guards: &Guards, gone: &[Instance], dropped: &[u8]) -> bool {
        !guards.breaks && self.takes_too_much(guards, gone, dropped)
    }

    /// Nothing was taken that is reserved, unless nothing else was enough.
    pub fn check_kept(&self, guards: &Guards, missing: &Sums, gone: &[Instance], dropped: &[u8]) {
        if self.takes_too_much(guards, gone, dropped) {
            assert!(guards.breaks, "what is reserved was taken");
            let others = self.evictable_beside(&guards.groups, guards.pins);
            assert!(!covers(&others, missing), "taken in vain");
        }
        let own: BTreeSet<u8> = guards.own.into_iter().collect();
        let of_own = Guards {
            groups: own,
            ..Guards::default()
        };
        if self.takes_too_much(&of_own, gone, dropped) {
            let all: BTreeSet<u8> = guards.groups.union(&of_own.groups).copied().collect();
            let others = self.evictable_beside(&all, guards.pins);
            assert!(!covers(&others, missing), "its own was taken in vain");
        }
    }

    /// Nobody is protected but what is pinned, and that only as long as there is anything else.
    pub fn pins_alone(&self) -> Guards {
        Guards {
            pins: self.is_any_pinned(),
            breaks: true,
            ..Guards::default()
        }
    }

    fn takes_too_much(&self, guards: &Guards, gone: &[Instance], dropped: &[u8]) -> bool {
        guards.groups.iter().any(|group| {
            let own = gone.iter().filter(|id| self.group_of(**id) == *group);
            let instances = total(own.map(|id| &self.instances[id].holds));
            let users_of = &self.shares[group].users_of;
            let code = self
                .loaded()
                .filter(|(key, _)| dropped.contains(key) && users_of.contains(key));
            let lost = code.fold(instances, |sum, (_, holds)| plus(sum, holds));
            let (held, reserved) = (self.holds(*group), self.shares[group].reserved);
            (0..8).any(|b| lost[b] > 0 && held[b] - lost[b] < reserved[b])
        }) || guards.pins && self.takes_pinned(gone, dropped, guards.function)
    }

    /// An idle instance that is not protected, and whose room would be enough for this request. Where another of its
    /// group is idle too, or was when somebody last looked, that one may have gone first, and have left nothing to take of the group.
    pub fn enough_alone(&self, id: Request, outlook: &Outlook) -> Option<Instance> {
        let guards = self.guards(id, &self.requests[&id].target, &outlook.missing);
        let brings = |holds: &Amounts| plus(outlook.coming, holds);
        let idle = self.idle();
        let is_alone = |id: Instance| {
            let group = self.group_of(id);
            let of_it = |other: &Instance| self.group_of(*other) == group;
            let others = idle.iter().filter(|(other, _)| of_it(other));
            let mut unseen = self.instances.iter().filter(|(_, i)| i.unseen);
            let mine = others.count() == 1 && !unseen.any(|(other, _)| of_it(other));
            mine && !self.has_pinned_sibling(id)
        };
        let is_enough = |(id, i): &&(Instance, &MInstance)| {
            is_alone(*id)
                && !self.keeps(&guards, &[*id], &[])
                && covers(&brings(&i.holds), &outlook.missing)
        };
        idle.iter().find(is_enough).map(|(id, _)| *id)
    }

    pub fn is_guarded(&self, guards: &Guards, id: Instance) -> bool {
        let group = self.group_of(id);
        let is_pinned = guards.pins && self.is_of_pinned(id);
        guards.groups.contains(&group) || guards.own == Some(group) || is_pinned
    }

    /// What the request finds if it needs it.
    pub fn surely_evictable(&self, guards: &Guards) -> Sums {
        match guards.breaks {
            true => self.evictable(),
            false => self.evictable_beside(&guards.groups, guards.pins),
        }
    }

    /// What is idle, of nobody who is protected, and of no function that is pinned.
    fn evictable_beside(&self, groups: &BTreeSet<u8>, pins: bool) -> Sums {
        let idle = self.idle();
        let idle = idle
            .iter()
            .filter(|(id, _)| !groups.contains(&self.group_of(*id)))
            .filter(|(id, _)| !(pins && self.is_of_pinned(*id)));
        let instances = total(idle.map(|(_, i)| &i.holds));
        let of_nobody = |key: u8| {
            let uses = |group: &u8| self.shares[group].users_of.contains(&key);
            let is_pinned = pins && self.is_key_pinned(key);
            self.may_drop(key) && !is_pinned && !groups.iter().any(uses)
        };
        let free = self.loaded().filter(|(key, _)| of_nobody(*key));
        let modules = total(free.map(|(_, holds)| holds));
        by_source(&instances, &modules)
    }
}

impl World {
    pub fn set_share(&mut self, group: u8, terms: u8) {
        let group = group % GROUPS as u8;
        let Some((reserved, lapses_after)) = pick(&TERMS, terms) else {
            return;
        };
        let others = self
            .model
            .shares
            .iter()
            .filter(|(other, _)| **other != group);
        let all = others.fold(reserved, |sum, (_, share)| {
            core::array::from_fn(|b| sum[b] + share.reserved[b])
        });
        let fits = (0..8).all(|b| reserved[b] == 0 || all[b] <= self.model.limits[b]);
        let terms = ShareTerms {
            reserved: PerBudget::from_fn(|b| reserved[b as usize]),
            lapses_after,
            ..ShareTerms::default()
        };
        let name = Group::from(u64::from(group));
        let set = (self.state).set_share(&name, terms, &mut self.cx);
        assert_eq!(set.is_ok(), fits, "{set:?}");
        self.seen.note_if(!fits, "reservation refused");
        if fits && reserved == [0; 8] {
            self.model.shares.remove(&group);
        } else if fits {
            self.seen.note("reserved");
            let own = |i: &Instance| self.model.group_of(*i) == group;
            let own = self.model.instances.iter().filter(|(id, _)| own(id));
            let users_of = own.map(|(_, i)| i.key).collect();
            let before = self.model.shares.get(&group);
            self.seen.note_if(before.is_some(), "reserved again");
            let users_of = before.map_or(users_of, |share| share.users_of.clone());
            let share = MShare {
                reserved,
                lapses_after,
                used_at: self.model.now,
                lapsed: false,
                users_of,
            };
            self.model.shares.insert(group, share);
        }
        self.absorb(None);
    }

    fn last_use_of(&self, group: u8) -> u64 {
        let model = &self.model;
        let own = model
            .instances
            .iter()
            .filter(|(id, _)| model.group_of(**id) == group);
        let seems_idle = |i: &MInstance| {
            let slot = &self.cx.slots.doors[i.entry].slots[i.seat];
            slot.idle && !slot.notifies
        };
        let uses = own.map(|(_, i)| match i.place {
            Place::Idle => i.last.at,
            // It is about to be put back, and its slot says so already.
            _ if seems_idle(i) => self.cx.slots.doors[i.entry].slots[i.seat].stamp.at,
            _ => model.now,
        });
        uses.chain([model.shares[&group].used_at])
            .max()
            .unwrap_or(0)
    }

    /// Before a sweep: what has not been used for long lapses.
    pub fn review_shares(&mut self) {
        let groups: Vec<_> = self.model.shares.keys().copied().collect();
        for group in groups {
            let (now, used_at) = (self.model.now, self.last_use_of(group));
            if let Some(share) = self.model.shares.get_mut(&group) {
                let lapses = share
                    .lapses_after
                    .is_some_and(|after| now - used_at >= after);
                share.lapsed = lapses;
                self.seen.note_if(lapses, "reservation lapsed");
            }
        }
    }

    pub fn check_shares(&self) {
        let said: BTreeMap<u8, _> = (self.state.shares())
            .map(|(_, share)| (share.group.number().expect("a number") as u8, share))
            .collect();
        let known: Vec<_> = self.model.shares.keys().copied().collect();
        assert_eq!(said.keys().copied().collect::<Vec<_>>(), known);
        for (group, share) in &self.model.shares {
            let core = said[group];
            let reserved = Budget::ALL.map(|b| core.terms.reserved[b]);
            assert_eq!(
                (reserved, core.lapsed),
                (share.reserved, share.lapsed),
                "{group}"
            );
            let instances = sums(&core.instances);
            assert_eq!(instances, self.model.instances_of(*group), "{group} holds");
            assert_eq!(sums(&core.code), self.model.code_of(*group), "{group} uses");
        }
    }
}
