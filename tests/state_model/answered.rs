//! A function that counts in its owner's share, whoever calls it.

use crate::fake::Fake;
use crate::pool::{Module, NONE, Pool, gone as went};
use crate::state::{
    Budget, FunctionId, FunctionTerms, Group, NewFunction, Owner, PerBudget, Policy,
    ReserveOutcome, SeatOffer, SeatWait, ShareTerms, Signal, State,
};

const OWNER: u64 = 9;

fn owner(group: u64, answers: bool) -> Option<Owner> {
    let group = Group::from(group);
    Some(Owner { group, answers })
}

/// A pool in which the functions that are defined from now on count in the owner's share.
fn answered(limits: &[(Budget, u64)], terms: ShareTerms) -> Pool {
    let mut pool = Pool::new(Policy::CostAware, limits);
    pool.owner = owner(OWNER, true);
    let set = (pool.state).set_share(&Group::from(OWNER), terms, &mut pool.cx);
    assert_eq!(set, Ok(()));
    pool
}

fn limited(budget: Budget, most: u64) -> ShareTerms {
    let mut terms = ShareTerms::default();
    terms.limits.set(budget, most);
    terms
}

fn holds(state: &State<Fake>, group: u64) -> u64 {
    let group = Group::from(group);
    let share = state.shares().find(|(_, share)| share.group == group);
    share.map_or(0, |(_, share)| share.holds().get(Budget::Memory))
}

fn module(key: u8) -> Module {
    Module {
        memory: 2,
        ..Module::new(key, 1)
    }
}

#[test]
fn what_its_callers_take_counts_for_the_owner_and_not_for_them() {
    let mut pool = answered(&[], limited(Budget::Memory, 4));
    let one = Group::from(1_u64);
    let none = limited(Budget::Memory, 0);
    assert_eq!(pool.state.set_share(&one, none, &mut pool.cx), Ok(()));
    let first = pool.lease_in(1, module(1));
    let second = pool.lease_in(2, module(1));
    assert_eq!((holds(&pool.state, OWNER), holds(&pool.state, 1)), (4, 0));
    assert_eq!(pool.state.recount(), Ok(()));
    // Called by a third group: the owner's limit, and what it has idle, whoever has called that.
    let refused = pool.try_lease(3, module(1)).unwrap_err();
    assert!(refused.of_group && refused.limit == 4, "{refused:?}");
    pool.park(first);
    let (_, gone) = pool.try_lease(3, module(1)).expect("what is idle goes");
    assert_eq!(gone, went(&[first], &[]));
    // A function of another name that the first caller calls is in that one's own share.
    pool.owner = None;
    pool.idle_in(4, module(5));
    let refused = pool.try_lease(1, module(5)).unwrap_err();
    assert!(refused.of_group && refused.limit == 0, "{refused:?}");
    pool.park(second);
    assert_eq!(pool.state.recount(), Ok(()));
}

#[test]
fn what_is_reserved_for_the_owner_stays_whoever_has_called() {
    let of_memory = |b| if b == Budget::Memory { 2 } else { 0 };
    let terms = ShareTerms {
        reserved: PerBudget::from_fn(of_memory),
        ..ShareTerms::default()
    };
    let mut pool = answered(&[(Budget::Memory, 6)], terms);
    let first = pool.idle_in(1, module(1));
    pool.owner = None;
    let second = pool.idle_in(2, module(2));
    let (_, gone) = pool.ask(NONE.memory(4));
    assert_eq!(gone, went(&[second], &[]));
    assert!(pool.is_idle(first));
}

#[test]
fn callers_of_all_groups_share_the_owners_seats() {
    let mut terms = ShareTerms::default();
    terms.counts.instances = 1;
    let mut pool = answered(&[], terms);
    let first = pool.lease_in(1, module(1));
    let entry = pool.entry(module(1), 2);
    let offer = pool.state.try_seat(entry, &mut pool.cx);
    assert!(!matches!(offer, SeatOffer::Seat(_)));
    pool.park(first);
    // The idle one of another group goes for it.
    let second = pool.seat(entry);
    assert!(second.is_some());
    assert_eq!(pool.destroy(), went(&[first], &[]));
}

fn new_function(owner: Option<Owner>) -> NewFunction<Fake> {
    NewFunction {
        name: "f1".into(),
        arguments: "".into(),
        definition: 0,
        key: [1; 32],
        source: 1,
        terms: FunctionTerms::default(),
        owner,
    }
}

#[test]
fn a_replacement_that_counts_for_another_is_another_function() {
    let mut pool = answered(&[], limited(Budget::Memory, 9));
    let old = pool.lease_in(1, module(1));
    let function = |pool: &Pool| pool.state.find("f1", "").expect("it is defined");
    let first: FunctionId<Fake> = function(&pool);
    // What says nothing, and what says the same, leaves it as it is.
    for owner in [None, owner(OWNER, true)] {
        let replaced = pool.state.replace(new_function(owner), &mut pool.cx);
        assert_eq!(replaced, Ok(first));
    }
    for (n, owner) in [owner(OWNER, false), owner(5, true), owner(OWNER, true)]
        .into_iter()
        .enumerate()
    {
        let before = function(&pool);
        let replaced = pool.state.replace(new_function(owner), &mut pool.cx);
        assert!(replaced.is_ok_and(|new| new != before), "{n}");
        assert_eq!(pool.state.recount(), Ok(()));
        assert_eq!(holds(&pool.state, OWNER), 2, "the old one's lease");
    }
    assert_eq!(pool.state.definitions_of(&Group::from(OWNER)), 1);
    pool.discard(old);
    pool.destroy();
    assert_eq!(holds(&pool.state, OWNER), 0);
    let _new = pool.lease_in(1, module(1));
    assert_eq!(holds(&pool.state, OWNER), 2);
    assert_eq!(pool.state.recount(), Ok(()));
}

#[test]
fn who_waits_counts_for_the_owner_and_is_served_when_its_limits_go() {
    let mut terms = ShareTerms::default();
    (terms.counts.instances, terms.counts.waiting) = (2, 1);
    let mut pool = answered(&[(Budget::Memory, 2)], terms);
    let _first = pool.lease_in(1, module(1));
    let [second, third] = [2, 3].map(|group| pool.entry(module(1), group));
    // One has a seat and waits for room.
    let request = pool.seat(second).expect("a second seat");
    let room = pool.state.reserve(request, NONE.memory(2), &mut pool.cx);
    assert!(matches!(room, ReserveOutcome::Refused(_)), "{room:?}");
    assert!(
        pool.state
            .wait_for_room(request, 7, &mut pool.cx.slots)
            .is_some()
    );
    assert_eq!(pool.state.too_many_wait(third), None);
    pool.state.sleep_for_room(request, u64::MAX);
    assert!(pool.state.too_many_wait(third).is_some());
    pool.state.abandon(request, &mut pool.cx.out);
    // Another waits for a seat, until nothing is said of the owner any more.
    let _taken = pool.seat(second).expect("the second seat");
    assert!(matches!(
        pool.queue_up(third, 8, u64::MAX),
        SeatWait::Queued(_)
    ));
    pool.told();
    let none = ShareTerms::default();
    let set = (pool.state).set_share(&Group::from(OWNER), none, &mut pool.cx);
    assert_eq!(set, Ok(()));
    let told = pool.told();
    assert!(
        matches!(told[..], [(8, Signal::Seat(_) | Signal::Retry)]),
        "{told:?}"
    );
}
