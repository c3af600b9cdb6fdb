//! Who waits for its group's sake: never beside what could serve it, and never beside a record that is gone.

use std::num::NonZeroU16;

use crate::fake::{Fake, Instance};
use crate::pool::{Module, NONE, Pool};
use crate::state::{
    CountLimits, EntryId, FunctionTerms, Group, NewFunction, Policy, Prepare, RemovalReason,
    RequestId, Returned, SeatOffer, SeatWait, ShareTerms, Signal, TooManyWait,
};

const OWN: u64 = 1;

impl Pool {
    fn limit_counts(&mut self, set: impl FnOnce(&mut CountLimits)) {
        let mut terms = ShareTerms::default();
        set(&mut terms.counts);
        let set = (self.state).set_share(&Group::from(OWN), terms, &mut self.cx);
        assert_eq!(set, Ok(()));
        assert_eq!(self.state.recount(), Ok(()));
    }

    pub fn queue_up(&mut self, entry: EntryId<Fake>, waiter: u32, until: u64) -> SeatWait<Fake> {
        let wait = self.state.wait_for_seat(entry, waiter, until, &mut self.cx);
        assert_eq!(self.state.recount(), Ok(()));
        wait
    }

    pub fn seat(&mut self, entry: EntryId<Fake>) -> Option<RequestId<Fake>> {
        let offer = self.state.try_seat(entry, &mut self.cx);
        assert_eq!(self.state.recount(), Ok(()));
        match offer {
            SeatOffer::Seat(request) => Some(request),
            SeatOffer::Full | SeatOffer::GroupFull => None,
            _ => panic!("neither a seat nor none"),
        }
    }

    pub fn told(&mut self) -> Vec<(u32, Signal<Fake>)> {
        std::mem::take(&mut self.cx.out.wake)
    }

    pub fn discard(&mut self, id: Instance) {
        let reason = RemovalReason::Discarded;
        self.state.dismiss(id, reason, None, &mut self.cx);
        self.destroy();
        assert_eq!(self.state.recount(), Ok(()));
    }
}

fn module(key: u8) -> Module {
    Module::new(key, 1)
}

/// What goes to make room for an entry leaves others unused, and too many: this one is the longest unused, and stays.
#[test]
fn an_entry_is_not_forgotten_while_room_is_made_for_it() {
    for max_unused in 1..4 {
        let mut pool = Pool::with_few_unused(max_unused);
        pool.limit_counts(|counts| counts.instances = 1);
        // As many are unused as may be, and the first for longest.
        let last = pool.idle_in(OWN, module(9));
        let unused: Vec<_> = (0..max_unused as u8)
            .map(|key| pool.entry(module(key), OWN))
            .collect();
        assert!(
            unused
                .iter()
                .all(|id| pool.state.entry_handle(*id).is_some())
        );
        assert!(pool.seat(unused[0]).is_some());
        assert_eq!(pool.destroy().instances, [last]);
    }
}

#[test]
fn entries_that_limits_leave_unused_are_forgotten_in_turn() {
    let mut pool = Pool::with_few_unused(1);
    pool.limit_counts(|counts| counts.instances = 3);
    let held = [0, 1, 2].map(|key| pool.lease_in(OWN, module(key)));
    for id in held {
        pool.park(id);
    }
    pool.limit_counts(|counts| counts.instances = 1);
    assert_eq!(pool.destroy().instances, held[..2]);
    pool.limit_counts(|counts| counts.instances = 0);
    assert_eq!(pool.destroy().instances, held[2..]);
}

#[test]
fn whoever_is_late_is_in_nobodys_way() {
    for is_reported in [true, false] {
        let mut pool = Pool::new(Policy::Lru, &[]);
        pool.limit_counts(|counts| (counts.instances, counts.waiting) = (1, 3));
        let [first, other] = [0, 2].map(|key| pool.entry(module(key), OWN));
        let held = pool.lease_in(OWN, module(1));
        for waiter in 1..4 {
            assert!(matches!(
                pool.queue_up(first, waiter, 5),
                SeatWait::Queued(_)
            ));
        }
        let too_many = TooManyWait(3);
        assert!(matches!(pool.queue_up(first, 9, 100), SeatWait::TooMany(it) if it == too_many));
        pool.pass_until(9);
        // Late ones are not counted; and who comes later does not go before who came in time.
        for (waiter, entry) in [(4, other), (5, first)] {
            assert!(matches!(
                pool.queue_up(entry, waiter, 100),
                SeatWait::Queued(_)
            ));
        }
        if is_reported {
            let returned = pool.state.returned(held, &mut pool.cx);
            assert!(matches!(returned, Returned::Retire(RemovalReason::Room)));
        }
        pool.discard(held);
        let told = pool.told();
        let late = [1, 2, 3].map(|waiter| (waiter, Signal::Late));
        assert_eq!(told[..3], late);
        assert!(matches!(told[3..], [(4, Signal::Seat(_))]), "{told:?}");
    }
}

#[test]
fn whoever_comes_finds_what_is_idle_beside_those_who_are_late() {
    let mut pool = Pool::new(Policy::Lru, &[]);
    pool.limit_counts(|counts| counts.instances = 1);
    let (first, held) = (pool.entry(module(0), OWN), pool.lease_in(OWN, module(1)));
    assert!(matches!(pool.queue_up(first, 1, 5), SeatWait::Queued(_)));
    pool.pass_until(9);
    let returned = pool.state.returned(held, &mut pool.cx);
    assert!(matches!(returned, Returned::Park));
    pool.put_back(held);
    assert!(pool.seat(first).is_some(), "in place of what is idle");
    assert_eq!(pool.destroy().instances, [held]);
    assert_eq!(pool.told(), [(1, Signal::Late)]);
}

/// It waited for an instance of its own function; from now on any of the group's will do.
#[test]
fn a_function_that_may_have_more_is_served_by_its_group() {
    for idle in [true, false] {
        let mut pool = Pool::new(Policy::Lru, &[]);
        pool.limit_counts(|counts| counts.instances = 2);
        pool.terms.max_instances = NonZeroU16::new(1);
        let _held = pool.lease_in(OWN, module(0));
        pool.terms = FunctionTerms::default();
        let other = pool.lease_in(OWN, module(1));
        let entry = pool.entry(module(0), OWN);
        assert!(matches!(
            pool.queue_up(entry, 1, u64::MAX),
            SeatWait::Queued(_)
        ));
        if idle {
            pool.park(other);
        }
        let more = NewFunction {
            name: "f0".into(),
            arguments: "".into(),
            definition: 0,
            key: [0; 32],
            source: 0,
            terms: FunctionTerms::default(),
            owner: None,
        };
        assert!(pool.state.replace(more, &mut pool.cx).is_ok());
        assert_eq!(pool.state.recount(), Ok(()));
        if !idle {
            assert!(pool.told().is_empty());
            let returned = pool.state.returned(other, &mut pool.cx);
            assert!(matches!(returned, Returned::Retire(RemovalReason::Room)));
            let (door, seat) = pool.place_of(other);
            assert!(pool.cx.slots.slot(door, seat).notifies, "it has been asked");
            pool.discard(other);
        }
        let told = pool.told();
        assert!(matches!(told[..], [(1, Signal::Seat(_))]), "{told:?}");
    }
}

#[test]
fn who_was_let_wait_for_an_instance_may_wait_for_its_code() {
    let mut pool = Pool::new(Policy::Lru, &[]);
    pool.limit_counts(|counts| (counts.instances, counts.waiting) = (1, 1));
    let (entry, held) = (pool.entry(module(0), OWN), pool.lease_in(OWN, module(1)));
    assert!(matches!(
        pool.queue_up(entry, 1, u64::MAX),
        SeatWait::Queued(_)
    ));
    pool.discard(held);
    let told = pool.told();
    let [(1, Signal::Seat(request))] = told[..] else {
        panic!("{told:?}");
    };
    assert!(matches!(
        pool.queue_up(entry, 2, u64::MAX),
        SeatWait::Queued(_)
    ));
    assert_eq!(pool.state.begin_to_wait(request), Ok(()));
}

/// A group that may compile nothing more now does not wait beside code that another has brought.
#[test]
fn who_waits_for_a_turn_hears_of_the_code_that_it_waits_for() {
    let mut pool = Pool::with_compilations(3);
    pool.limit_counts(|counts| counts.compilations = 1);
    let mut ask = |group, key| {
        let entry = pool.entry(module(key), group);
        let request = pool.seat(entry).expect("a vacant seat");
        (request, pool.state.prepare(request, &mut pool.cx.out))
    };
    let (_long, lead) = ask(OWN, 0);
    assert!(matches!(lead, Prepare::Lead { .. }));
    let (waiting, queue) = ask(OWN, 1);
    assert!(matches!(queue, Prepare::Queue { .. }));
    pool.state.wait_for_compiler(waiting, 1, 7, u64::MAX);
    assert_eq!(pool.state.recount(), Ok(()));
    let entry = pool.entry(module(1), 2);
    let other = pool.seat(entry).expect("a vacant seat");
    let lead = pool.state.prepare(other, &mut pool.cx.out);
    assert!(matches!(lead, Prepare::Lead { .. }));
    let code = NONE.code(1).mappings(1);
    pool.state.reserve(other, code, &mut pool.cx);
    (pool.state).loaded(other, 1, code, 1, &mut pool.cx.out);
    assert_eq!(pool.told(), [(7, Signal::Retry)]);
    assert_eq!(pool.state.recount(), Ok(()));
    let ready = pool.state.prepare(waiting, &mut pool.cx.out);
    assert!(matches!(ready, Prepare::Ready { .. }));
}
