//! Functions that are pinned: the model's side of the random runs, and direct questions.

use std::collections::BTreeSet;

use crate::fake::{Fake, Instance};
use crate::model::{MFunction, MInstance, Model};
use crate::pool::{Gone, Module, NONE, Pool, gone as went};
use crate::state::{
    Budget, Expiry, FunctionId, FunctionTerms, Group, IdleTime, NewFunction, PerBudget, Policy,
    ReserveOutcome, ShareTerms,
};
use crate::world::World;

impl Model {
    /// Whether some function pins the module.
    pub fn is_key_pinned(&self, key: u8) -> bool {
        let pins = |f: &MFunction| f.key == key && f.terms.pinned;
        self.functions.iter().flatten().any(pins)
    }

    pub fn is_any_pinned(&self) -> bool {
        self.functions.iter().flatten().any(|f| f.terms.pinned)
    }

    /// The function of an instance, if it is pinned.
    fn pinned_of(&self, instance: &MInstance) -> Option<&MFunction> {
        let function = self.function_of(instance.entry)?;
        function.terms.pinned.then_some(function)
    }

    pub fn is_of_pinned(&self, id: Instance) -> bool {
        self.pinned_of(&self.instances[&id]).is_some()
    }

    fn live_of(&self, function: &MFunction) -> BTreeSet<Instance> {
        let own = |i: &MInstance| {
            self.function_of(i.entry)
                .is_some_and(|f| f.id == function.id)
        };
        let own = self.instances.iter().filter(|(_, i)| own(i));
        own.map(|(id, _)| *id).collect()
    }

    /// Whether no instance of a pinned function would be left, or no code.
    /// What is of the one `own`'s is not asked.
    pub fn takes_pinned(
        &self,
        gone: &[Instance],
        dropped: &[u8],
        own: Option<FunctionId<Fake>>,
    ) -> bool {
        let takes_all = |id: &Instance| {
            let function = self.pinned_of(&self.instances[id]);
            let function = function.filter(|f| Some(f.id) != own);
            function.is_some_and(|f| self.live_of(f).iter().all(|id| gone.contains(id)))
        };
        gone.iter().any(takes_all) || dropped.iter().any(|key| self.is_key_pinned(*key))
    }

    /// Whether another instance of the same pinned function is there.
    pub fn has_pinned_sibling(&self, id: Instance) -> bool {
        let function = self.pinned_of(&self.instances[&id]);
        function.is_some_and(|f| self.live_of(f).len() > 1)
    }
}

impl World {
    /// What a sweep leaves of what was idle for too long: one of each pinned function that would have none. `too_old` goes in
    /// any case.
    pub fn check_swept(
        &mut self,
        gone: &BTreeSet<Instance>,
        idle: &BTreeSet<Instance>,
        too_old: &BTreeSet<Instance>,
    ) {
        let all: BTreeSet<_> = idle.union(too_old).copied().collect();
        assert!(gone.is_subset(&all), "not idle or alive for too long");
        let left: Vec<_> = all.difference(gone).copied().collect();
        for id in &left {
            let function = self.model.pinned_of(&self.model.instances[id]);
            let live = self.model.live_of(function.expect("it is pinned"));
            assert!(live.is_subset(idle), "another one is left");
            let siblings = left.iter().filter(|other| live.contains(other));
            assert_eq!(siblings.count(), 1, "one of them is enough");
            assert!(!too_old.contains(id), "it is too old");
            self.seen.note("stays though idle for too long");
        }
        for id in idle {
            let Some(function) = self.model.pinned_of(&self.model.instances[id]) else {
                continue;
            };
            let live = self.model.live_of(function);
            let stays = live.is_subset(idle) && live.intersection(too_old).count() == 0;
            let is_left = live.iter().any(|id| !gone.contains(id));
            assert!(!stays || is_left, "the last one is pinned");
        }
    }
}

fn pinned() -> FunctionTerms {
    FunctionTerms {
        pinned: true,
        ..FunctionTerms::default()
    }
}

fn of_memory(key: u8, memory: u64) -> Module {
    Module {
        memory,
        ..Module::new(key, 4)
    }
}

/// Of one pinned function, idle, and then of another.
fn pool_with_one(policy: Policy, limits: &[(Budget, u64)]) -> (Pool, Instance, Instance) {
    let mut pool = Pool::new(policy, limits);
    pool.terms = pinned();
    let kept = pool.idle(of_memory(1, 4));
    pool.terms = FunctionTerms::default();
    let other = pool.idle(of_memory(2, 4));
    (pool, kept, other)
}

#[test]
fn what_is_pinned_stays_whoever_lacks_room() {
    for policy in [Policy::Lru, Policy::ModuleLru, Policy::CostAware] {
        let (mut pool, kept, other) = pool_with_one(policy, &[(Budget::Memory, 8)]);
        assert_eq!(pool.ask(NONE.memory(4)).1.instances, [other]);
        let (room, none) = pool.ask(NONE.memory(5));
        let ReserveOutcome::Refused(shortage) = room else {
            panic!("{room:?}");
        };
        assert_eq!((none, shortage.reserved), (Gone::default(), 4));
        // Another one of the same function makes this one like others.
        let second = pool.idle_in(2, of_memory(1, 4));
        assert_eq!(pool.ask(NONE.memory(4)).1.instances, [kept]);
        assert!(matches!(
            pool.ask(NONE.memory(8)).0,
            ReserveOutcome::Refused(_)
        ));
        assert!(pool.is_idle(second));
    }
}

#[test]
fn its_code_stays_without_instances_by_every_policy() {
    for policy in [Policy::Lru, Policy::ModuleLru, Policy::CostAware] {
        let (mut pool, kept, other) = pool_with_one(policy, &[(Budget::Code, 8)]);
        assert_eq!(pool.ask(NONE.code(4)).1, went(&[other], &[2]));
        assert!(matches!(
            pool.ask(NONE.code(5)).0,
            ReserveOutcome::Refused(_)
        ));
        assert_eq!(pool.state.evict(&[kept], &mut pool.cx), 1, "the host may");
        assert_eq!(pool.destroy(), went(&[kept], &[]));
        pool.pass_until(1_000);
        let expiry = Expiry {
            code_idle: Some(1),
            ..Expiry::default()
        };
        while pool.state.sweep(expiry, &mut pool.cx) {}
        assert_eq!(pool.destroy(), Gone::default());
        assert!(matches!(
            pool.ask(NONE.code(5)).0,
            ReserveOutcome::Refused(_)
        ));
        // A system that has no room is another matter, when nothing else is left.
        assert_eq!(pool.state.relieve(2, &mut pool.cx), 1);
        assert_eq!(pool.destroy(), went(&[], &[1]));
        assert_eq!(pool.state.recount(), Ok(()));
    }
}

#[test]
fn sweeps_leave_one() {
    for idle in [IdleTime::OF_THE_POOL, IdleTime::of_nanos(5)] {
        let mut pool = Pool::new(Policy::CostAware, &[]);
        pool.terms = FunctionTerms { idle, ..pinned() };
        let all = [1, 2, 3].map(|group| pool.idle_in(group, of_memory(1, 1)));
        pool.pass_until(100);
        let expiry = Expiry {
            idle: Some(10),
            ..Expiry::default()
        };
        while pool.state.sweep(expiry, &mut pool.cx) {}
        let gone = pool.destroy();
        assert_eq!(gone.instances.len(), 2, "{idle:?}");
        assert_eq!(all.iter().filter(|id| pool.is_idle(**id)).count(), 1);
        let expiry = Expiry {
            lifetime: Some(10),
            ..Expiry::default()
        };
        while pool.state.sweep(expiry, &mut pool.cx) {}
        assert_eq!(
            pool.destroy().instances.len(),
            1,
            "nothing is older than it may be"
        );
    }
}

#[test]
fn whoever_is_within_its_reservation_takes_it_and_its_own_group_at_its_limit() {
    let (mut pool, kept, other) = pool_with_one(Policy::CostAware, &[(Budget::Memory, 8)]);
    let terms = ShareTerms {
        reserved: PerBudget::from_fn(|b| if b == Budget::Memory { 5 } else { 0 }),
        ..ShareTerms::default()
    };
    let quiet = Group::from(7_u64);
    assert_eq!(pool.state.set_share(&quiet, terms, &mut pool.cx), Ok(()));
    let home = pool.entry(of_memory(2, 4), 7);
    assert_eq!(
        pool.ask_for(Some(home), NONE.memory(4)).1.instances,
        [other]
    );
    let beyond = pool.ask_for(Some(home), NONE.memory(6)).0;
    assert!(matches!(beyond, ReserveOutcome::Refused(_)));
    assert_eq!(pool.ask_for(Some(home), NONE.memory(5)).1.instances, [kept]);

    let (mut pool, kept, other) = pool_with_one(Policy::CostAware, &[]);
    let mut terms = ShareTerms::default();
    terms.limits.set(Budget::Memory, 8);
    let own = Group::from(1_u64);
    assert_eq!(pool.state.set_share(&own, terms, &mut pool.cx), Ok(()));
    let home = pool.entry(of_memory(2, 4), 1);
    assert_eq!(pool.ask_for(Some(home), NONE.memory(4)).1.instances, [kept]);
    assert!(pool.is_idle(other));
}

#[test]
fn what_is_not_pinned_any_more_goes() {
    let (mut pool, kept, _) = pool_with_one(Policy::Lru, &[(Budget::Code, 8)]);
    assert!(matches!(
        pool.ask(NONE.code(5)).0,
        ReserveOutcome::Refused(_)
    ));
    let function = pool.state.find("f1", "").expect("it is defined");
    assert!(pool.state.remove(function, &mut pool.cx));
    assert_eq!(pool.destroy(), went(&[kept], &[1]));
    assert_eq!(pool.state.recount(), Ok(()));
}

#[test]
fn who_waits_for_room_hears_of_another_instance_of_what_is_pinned() {
    let mut pool = Pool::new(Policy::CostAware, &[(Budget::Memory, 8)]);
    pool.terms = pinned();
    let kept = pool.idle(of_memory(1, 4));
    let waiting = pool.wait(NONE.memory(6));
    let _second = pool.lease_in(2, of_memory(1, 4));
    assert!(pool.is_woken(), "there is another one now");
    let room = (pool.state).reserve(waiting, NONE.memory(4), &mut pool.cx);
    assert_eq!(room, ReserveOutcome::Evicting);
    assert_eq!(pool.destroy(), went(&[kept], &[]));
    assert_eq!(pool.state.recount(), Ok(()));
}

#[test]
fn who_waits_for_room_hears_that_nothing_is_pinned_any_more() {
    let named = |name: &str, terms| NewFunction {
        name: name.into(),
        arguments: "".into(),
        definition: 0,
        key: [1; 32],
        source: 1,
        terms,
        owner: None,
    };
    for removed in [true, false] {
        let mut pool = Pool::new(Policy::CostAware, &[(Budget::Code, 4)]);
        for (name, terms) in [("f1", pinned()), ("other", FunctionTerms::default())] {
            let defined = pool.state.define(named(name, terms));
            assert!(defined.is_ok());
        }
        let id = pool.idle(of_memory(1, 1));
        assert_eq!(pool.state.evict(&[id], &mut pool.cx), 1);
        pool.destroy();
        let _waiting = pool.wait(NONE.code(1));
        if removed {
            let function = pool.state.find("f1", "").expect("it is defined");
            assert!(pool.state.remove(function, &mut pool.cx));
        } else {
            let loose = named("f1", FunctionTerms::default());
            assert!(pool.state.replace(loose, &mut pool.cx).is_ok());
        }
        assert!(pool.is_woken(), "its code may go now");
        assert_eq!(pool.state.recount(), Ok(()));
    }
}
