//! What is reserved for a group, and who may take it all the same.

use crate::fake::{Fake, Instance};
use crate::pool::{Gone, Module, NONE, Pool, gone as went};
use crate::state::{
    Amounts, Budget, EntryId, Expiry, Group, Overcommitted, PerBudget, Policy, ReserveOutcome,
    ShareTerms, Signal,
};

const MEMORY: Budget = Budget::Memory;
const CODE: Budget = Budget::Code;
const QUIET: u64 = 1;
const LOUD: u64 = 2;

fn terms(reserved: &[(Budget, u64)]) -> ShareTerms {
    let mut all = PerBudget::default();
    for (budget, amount) in reserved {
        all.set(*budget, *amount);
    }
    ShareTerms {
        reserved: all,
        ..ShareTerms::default()
    }
}

impl Pool {
    fn reserve(&mut self, group: u64, terms: ShareTerms) {
        let set = (self.state).set_share(&Group::from(group), terms, &mut self.cx);
        assert_eq!(set, Ok(()));
        assert_eq!(self.state.recount(), Ok(()));
    }

    fn home(&self, id: Instance) -> EntryId<Fake> {
        self.state.instance(id).expect("a live instance").entry
    }

    /// Somebody waits for this much; the waiter's number is 77.
    pub fn wait(&mut self, need: Amounts) -> crate::state::RequestId<Fake> {
        let request = self.state.begin_growth(None);
        let room = self.state.reserve(request, need, &mut self.cx);
        assert!(matches!(room, ReserveOutcome::Refused(_)), "{room:?}");
        let place = (self.state).wait_for_room(request, 77, &mut self.cx.slots);
        assert!(place.is_some());
        self.state.sleep_for_room(request, u64::MAX);
        assert!(self.cx.out.wake.is_empty());
        request
    }

    pub fn is_woken(&mut self) -> bool {
        let woken = std::mem::take(&mut self.cx.out.wake);
        woken.contains(&(77, Signal::Retry))
    }
}

fn of_memory(key: u8, memory: u64) -> Module {
    Module {
        memory,
        ..Module::new(key, 1)
    }
}

#[test]
fn what_is_reserved_stays_and_what_is_more_goes() {
    let mut pool = Pool::new(Policy::CostAware, &[(MEMORY, 10)]);
    pool.reserve(QUIET, terms(&[(MEMORY, 4)]));
    // The longest idle are those of the quiet group.
    let quiet = [1, 2, 3].map(|key| pool.idle_in(QUIET, of_memory(key, 2)));
    let loud = pool.idle_in(LOUD, of_memory(4, 4));
    // One is more than is reserved, and the longest idle; the others stay, though used before the loud one.
    assert_eq!(pool.ask(NONE.memory(2)).1, went(&quiet[..1], &[]));
    assert_eq!(pool.ask(NONE.memory(3)).1, went(&[loud], &[]));
    let (room, none) = pool.ask(NONE.memory(7));
    let ReserveOutcome::Refused(shortage) = room else {
        panic!("{room:?}");
    };
    assert_eq!(none, Gone::default());
    assert_eq!((shortage.evictable, shortage.reserved), (0, 4));
    // Nothing is reserved any more.
    pool.reserve(QUIET, ShareTerms::default());
    assert_eq!(pool.ask(NONE.memory(7)).1, went(&quiet[1..2], &[]));
}

#[test]
fn who_is_within_its_own_takes_what_others_have_reserved() {
    let mut pool = Pool::new(Policy::CostAware, &[(MEMORY, 10)]);
    let quiet = pool.idle_in(QUIET, of_memory(1, 2));
    let loud = pool.idle_in(LOUD, of_memory(2, 8));
    pool.reserve(QUIET, terms(&[(MEMORY, 5)]));
    pool.reserve(LOUD, terms(&[(MEMORY, 5)]));
    // One instance of eight is all that the other has: to take it breaks its reservation.
    let home = pool.home(quiet);
    let beyond = pool.ask_for(Some(home), NONE.memory(4));
    assert!(
        matches!(beyond.0, ReserveOutcome::Refused(_)),
        "{:?}",
        beyond.0
    );
    assert_eq!(
        pool.ask_for(Some(home), NONE.memory(3)).1,
        went(&[loud], &[])
    );
}

#[test]
fn a_group_takes_its_own() {
    let mut pool = Pool::new(Policy::CostAware, &[(MEMORY, 10)]);
    pool.reserve(QUIET, terms(&[(MEMORY, 10)]));
    let [first, second] = [1, 2].map(|key| pool.idle_in(QUIET, of_memory(key, 5)));
    let home = pool.home(second);
    assert_eq!(
        pool.ask_for(Some(home), NONE.memory(5)).1,
        went(&[first], &[])
    );
}

/// Each group that uses a module answers for all of its code.
#[test]
fn code_stays_for_each_of_its_users() {
    let mut pool = Pool::new(Policy::CostAware, &[(CODE, 10)]);
    let (shared, other) = (Module::new(1, 6), Module::new(2, 4));
    pool.reserve(QUIET, terms(&[(CODE, 6)]));
    let quiet = pool.idle_in(QUIET, shared);
    let loud = [shared, other].map(|module| pool.idle_in(LOUD, module));
    // Without an instance of its own as well: it is what it would have to compile again.
    assert_eq!(pool.state.evict(&[quiet], &mut pool.cx), 1);
    pool.destroy();
    let (room, _) = pool.ask(NONE.code(6));
    let ReserveOutcome::Refused(shortage) = room else {
        panic!("{room:?}");
    };
    assert_eq!((shortage.evictable, shortage.reserved), (4, 6));
    assert_eq!(pool.ask(NONE.code(4)).1, went(&loud[1..], &[2]));
    // Who uses no module of that size has nothing to keep.
    pool.reserve(QUIET, ShareTerms::default());
    assert_eq!(pool.ask(NONE.code(9)).1, went(&loud[..1], &[1]));
}

/// A stack is missing, and the only idle one is of a group that has just as much memory as is reserved for it. It gets
/// more.
fn waits_beside_a_reserved_stack() -> (Pool, Instance) {
    let mut pool = Pool::new(Policy::CostAware, &[(Budget::Stack, 1)]);
    pool.reserve(QUIET, terms(&[(MEMORY, 4)]));
    let quiet = pool.idle_in(QUIET, of_memory(1, 4));
    pool.wait(NONE.stack(1));
    (pool, quiet)
}

#[test]
fn who_waits_looks_again_when_a_group_has_grown_beyond_what_is_reserved() {
    let (mut pool, quiet) = waits_beside_a_reserved_stack();
    let grows = pool.state.begin_growth(Some(pool.home(quiet)));
    let room = pool.state.reserve(grows, NONE.memory(4), &mut pool.cx);
    assert_eq!(room, ReserveOutcome::Granted);
    assert!(!pool.is_woken());
    // Now a smaller instance would be enough for what is reserved.
    pool.state.grown(grows, quiet, &mut pool.cx);
    assert!(pool.is_woken());
}

#[test]
fn who_waits_looks_again_when_a_group_has_another_instance() {
    let (mut pool, _) = waits_beside_a_reserved_stack();
    let entry = pool.entry(of_memory(2, 4), QUIET);
    let request = match pool.state.try_seat(entry, &mut pool.cx) {
        crate::state::SeatOffer::Seat(request) => request,
        _ => panic!("no seat"),
    };
    pool.state.prepare(request, &mut pool.cx.out);
    let code = NONE.code(1);
    assert_eq!(
        pool.state.reserve(request, code, &mut pool.cx),
        ReserveOutcome::Granted
    );
    pool.state.loaded(request, 2, code, 1, &mut pool.cx.out);
    let holds = NONE.memory(4);
    assert_eq!(
        pool.state.reserve(request, holds, &mut pool.cx),
        ReserveOutcome::Granted
    );
    assert!(!pool.is_woken());
    let stamp = pool.cx.slots.next_stamp();
    let born = pool.state.install(request, holds, stamp, &mut pool.cx);
    assert!(born.is_ok() && pool.is_woken());
}

#[test]
fn a_reservation_lapses_and_is_back_at_its_next_use() {
    let mut pool = Pool::new(Policy::CostAware, &[(MEMORY, 4)]);
    let lapses = ShareTerms {
        lapses_after: Some(100),
        ..terms(&[(MEMORY, 4)])
    };
    pool.reserve(QUIET, lapses);
    let quiet = pool.idle_in(QUIET, of_memory(1, 4));
    let refused = |pool: &mut Pool| {
        while pool.state.sweep(Expiry::default(), &mut pool.cx) {}
        matches!(pool.ask(NONE.memory(4)).0, ReserveOutcome::Refused(_))
    };
    // Warm leases count, though the core is not told of them.
    pool.use_at(quiet, 90);
    pool.pass_until(189);
    assert!(refused(&mut pool));
    pool.pass_until(190);
    pool.wait(NONE.memory(4));
    while pool.state.sweep(Expiry::default(), &mut pool.cx) {}
    assert!(
        pool.is_woken(),
        "what it waits for is not reserved any more"
    );
    // Used again, it is.
    pool.use_at(quiet, 200);
    assert!(refused(&mut pool));
    pool.pass_until(300);
    assert!(!refused(&mut pool));
}

#[test]
fn more_than_there_is_cannot_be_reserved() {
    let mut pool = Pool::new(Policy::CostAware, &[(MEMORY, 10)]);
    pool.reserve(QUIET, terms(&[(MEMORY, 6)]));
    let mut set = |group: u64, memory| {
        let group = Group::from(group);
        pool.state
            .set_share(&group, terms(&[(MEMORY, memory)]), &mut pool.cx)
    };
    let refused = Overcommitted {
        budget: MEMORY,
        requested: 5,
        reserved: 6,
        limit: 10,
    };
    assert_eq!(set(LOUD, 5), Err(refused));
    assert_eq!(set(LOUD, 4), Ok(()));
    // Its own is replaced, and not added to.
    assert_eq!(set(QUIET, 6), Ok(()));
    assert_eq!(set(QUIET, 3), Ok(()));
    assert_eq!(set(LOUD, 7), Ok(()));
}
