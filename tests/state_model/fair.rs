//! Who is next of those who wait for room: first come, first served within a group, and by weight between groups.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use proptest::prelude::*;

use crate::fake::Fake;
use crate::pool::{Module, NONE, Pool};
use crate::state::{
    Amounts, Budget, EntryId, FairTags, Group, Owner, Policy, RemovalReason, RequestId,
    ReserveOutcome, Returned, SeatOffer, SeatWait, ShareTerms, Signal,
};

const STEP: u64 = 1 << 20;

/// A pool whose memory is all in use, and who waits for some of it.
struct Line {
    pool: Pool,
    entries: BTreeMap<u64, EntryId<Fake>>,
    requests: BTreeMap<u32, RequestId<Fake>>,
    next: u32,
}

impl Line {
    fn new(weights: &[(u64, u32)]) -> Self {
        let mut pool = Pool::new(Policy::Lru, &[(Budget::Memory, 1)]);
        let module = Module::new(1, 1);
        pool.lease_in(99, module);
        let entries = (1..6)
            .map(|group| (group, pool.entry(module, group)))
            .collect();
        let mut line = Self {
            pool,
            entries,
            requests: BTreeMap::new(),
            next: 0,
        };
        for (group, weight) in weights {
            line.weigh(*group, *weight);
        }
        line
    }

    fn weigh(&mut self, group: u64, weight: u32) {
        let terms = ShareTerms {
            weight,
            ..ShareTerms::default()
        };
        let (state, cx) = (&mut self.pool.state, &mut self.pool.cx);
        state.set_share(&Group::from(group), terms, cx).unwrap();
    }

    /// Somebody of this group waits; its number.
    fn join(&mut self, group: u64) -> u32 {
        let number = self.next;
        self.next += 1;
        let (state, cx) = (&mut self.pool.state, &mut self.pool.cx);
        let request = state.begin_growth(Some(self.entries[&group]));
        let room = state.reserve(request, NONE.memory(1), cx);
        assert!(matches!(room, ReserveOutcome::Refused(_)), "{room:?}");
        assert!(
            state
                .wait_for_room(request, number, &mut cx.slots)
                .is_some()
        );
        state.sleep_for_room(request, u64::MAX);
        self.requests.insert(number, request);
        assert_eq!(state.recount(), Ok(()));
        number
    }

    /// Whose turn it is, who then is served.
    fn serve(&mut self) -> Option<u32> {
        self.pool.state.wake_room(&mut self.pool.cx.out);
        self.leave_woken()
    }

    fn leave_woken(&mut self) -> Option<u32> {
        let woken = std::mem::take(&mut self.pool.cx.out.wake);
        let [(number, Signal::Retry)] = woken[..] else {
            assert!(woken.is_empty(), "{woken:?}");
            return None;
        };
        let request = self.requests.remove(&number).unwrap();
        // Served, it wakes the next, who then sleeps again in its place.
        self.pool.state.abandon(request, &mut self.pool.cx.out);
        let next = std::mem::take(&mut self.pool.cx.out.wake);
        for (next, _) in next {
            let request = self.requests[&next];
            let (state, cx) = (&mut self.pool.state, &mut self.pool.cx);
            assert!(state.wait_for_room(request, next, &mut cx.slots).is_some());
            state.sleep_for_room(request, u64::MAX);
        }
        assert_eq!(self.pool.state.recount(), Ok(()));
        Some(number)
    }
}

#[test]
fn without_weights_it_is_first_come_first_served() {
    let mut line = Line::new(&[]);
    let joined: Vec<_> = [1, 1, 2, 1, 3, 2].map(|group| line.join(group)).into();
    let served: Vec<_> = std::iter::from_fn(|| line.serve()).collect();
    assert_eq!(served, joined);
}

#[test]
fn a_thousand_of_one_group_delay_one_of_another_by_one_turn() {
    let mut line = Line::new(&[(1, 1)]);
    let many: Vec<_> = (0..1000).map(|_| line.join(1)).collect();
    // Some have been served already.
    for number in &many[..300] {
        assert_eq!(line.serve(), Some(*number));
    }
    let one = line.join(2);
    let another = line.join(3);
    let served: Vec<_> = (0..4).map(|_| line.serve().unwrap()).collect();
    assert_eq!(served, [many[300], one, another, many[301]]);
}

#[test]
fn calls_of_a_function_that_counts_for_its_owner_are_the_owners_turns() {
    let mut line = Line::new(&[(9, 1)]);
    let group = Group::from(9_u64);
    let answers = true;
    line.pool.owner = Some(Owner { group, answers });
    for group in [4, 5] {
        let entry = line.pool.entry(Module::new(2, 1), group);
        line.entries.insert(group, entry);
    }
    let [first, second, third, anothers] = [4, 4, 5, 1].map(|group| line.join(group));
    let served: Vec<_> = std::iter::from_fn(|| line.serve()).collect();
    assert_eq!(served, [first, anothers, second, third]);
}

#[test]
fn turns_go_by_weight() {
    let mut line = Line::new(&[(1, 3), (2, 1)]);
    let first: Vec<_> = (0..90).map(|_| line.join(1)).collect();
    (0..90).for_each(|_| _ = line.join(2));
    let served: Vec<_> = (0..80).map(|_| line.serve().unwrap()).collect();
    let of_first = served
        .iter()
        .filter(|number| first.contains(number))
        .count();
    assert!((59..=61).contains(&of_first), "{of_first} of 80");
    // First come, first served within each.
    assert!(served.iter().filter(|n| first.contains(n)).is_sorted());
    assert!(served.iter().filter(|n| !first.contains(n)).is_sorted());
}

/// Somebody whose turn it is looks in vain, and keeps the first place, whoever joins meanwhile.
#[test]
fn who_looks_in_vain_stays_first() {
    for weight in [1, 0] {
        let mut line = Line::new(&[(1, 1)]);
        let many: Vec<_> = (0..3).map(|_| line.join(1)).collect();
        assert_eq!(line.serve(), Some(many[0]));
        assert_eq!(line.serve(), Some(many[1]));
        line.weigh(1, weight);
        line.pool.state.wake_room(&mut line.pool.cx.out);
        line.pool.cx.out.wake.clear();
        // The third has its turn.
        line.join(2);
        let request = line.requests[&many[2]];
        let (state, cx) = (&mut line.pool.state, &mut line.pool.cx);
        assert!((state.wait_for_room(request, many[2], &mut cx.slots)).is_some());
        state.sleep_for_room(request, u64::MAX);
        state.wake_room(&mut cx.out);
        assert_eq!(cx.out.wake, [(many[2], Signal::Retry)]);
        cx.out.wake.clear();
        assert!((state.wait_for_room(request, many[2], &mut cx.slots)).is_some());
        state.sleep_for_room(request, u64::MAX);
    }
}

/// Groups that wait no more are forgotten, and those that do are not.
#[test]
fn long_lines_are_remembered() {
    let mut tags = FairTags::new();
    let long = Group::from(0);
    for n in 0..10 {
        assert_eq!(tags.join(&long, 1, 1), n * STEP);
    }
    for group in 1..1000_u64 {
        assert_eq!(tags.join(&Group::from(group), 1, 1), 0);
        // Its turn comes at once.
        tags.serve(0);
    }
    assert_eq!(tags.join(&long, 1, 1), 10 * STEP);
    tags.serve(20 * STEP);
    assert_eq!(tags.join(&long, 1, 1), 20 * STEP);
}

#[derive(Clone, Debug)]
enum Op {
    Join(u64),
    Serve,
    Weigh(u64, u32),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (1..5_u64).prop_map(Op::Join),
        4 => Just(Op::Serve),
        1 => (1..5_u64, 0..4_u32).prop_map(|(group, weight)| Op::Weigh(group, weight)),
    ]
}

/// Start-time fair queueing, in plain lists.
fn run(ops: Vec<Op>) {
    let mut line = Line::new(&[]);
    let mut weights: BTreeMap<u64, u32> = BTreeMap::new();
    let (mut clock, mut ends): (u64, BTreeMap<u64, u64>) = Default::default();
    let mut waiting: Vec<(u64, u32)> = Vec::new();
    for op in ops {
        match op {
            Op::Join(group) => {
                let last = waiting.iter().map(|(tag, _)| *tag).max().unwrap_or(0);
                let tag = match weights.values().any(|weight| *weight > 0) {
                    false => clock.max(last),
                    true => {
                        let tag = clock.max(ends.get(&group).copied().unwrap_or(0));
                        let weight = weights.get(&group).copied().unwrap_or(0).max(1);
                        ends.insert(group, tag + STEP / u64::from(weight));
                        tag
                    }
                };
                waiting.push((tag, line.join(group)));
                waiting.sort_unstable();
            }
            Op::Serve => {
                let expected = (!waiting.is_empty()).then(|| waiting.remove(0));
                assert_eq!(line.serve(), expected.map(|(_, number)| number));
                if let Some((tag, _)) = expected {
                    // The next has been looked at, too.
                    let next = waiting.first().map_or(tag, |(tag, _)| *tag);
                    clock = clock.max(next);
                }
                if waiting.is_empty() {
                    (clock, ends) = Default::default();
                }
            }
            Op::Weigh(group, weight) => {
                line.weigh(group, weight);
                weights.insert(group, weight);
                // Whoever is first looks again.
                let woken = std::mem::take(&mut line.pool.cx.out.wake);
                for (number, _) in woken {
                    let request = line.requests[&number];
                    let (state, cx) = (&mut line.pool.state, &mut line.pool.cx);
                    assert!(
                        state
                            .wait_for_room(request, number, &mut cx.slots)
                            .is_some()
                    );
                    state.sleep_for_room(request, u64::MAX);
                }
                if let Some((tag, _)) = waiting.first() {
                    clock = clock.max(*tag);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn turns_come_as_plain_lists_say(ops in prop::collection::vec(op(), 1..80)) {
        run(ops);
    }
}

impl Pool {
    /// The group whose instance is asked for again and again.
    fn weigh_the_loud(&mut self, weight: u32) {
        let terms = ShareTerms {
            weight,
            ..ShareTerms::default()
        };
        let loud = Group::from(1_u64);
        assert_eq!(self.state.set_share(&loud, terms, &mut self.cx), Ok(()));
    }

    /// Somebody waits for room for an instance of this entry; the waiter's number is 9.
    fn wait_with_seat(&mut self, entry: EntryId<Fake>, looks_for: Option<Amounts>) {
        let SeatOffer::Seat(request) = self.state.try_seat(entry, &mut self.cx) else {
            panic!("a vacant seat");
        };
        if let Some(need) = looks_for {
            let room = self.state.reserve(request, need, &mut self.cx);
            assert!(matches!(room, ReserveOutcome::Refused(_)));
        }
        let place = (self.state).wait_for_room(request, 9, &mut self.cx.slots);
        assert!(place.is_some());
        self.state.sleep_for_room(request, u64::MAX);
    }
}

impl Pool {
    /// Two wait for room for instances of this entry, a step apart, of whom the first is late by now.
    fn two_wait_a_step_apart(&mut self, entry: EntryId<Fake>) {
        for (waiter, until) in [(8, 5), (9, u64::MAX)] {
            let request = self.seat(entry).expect("a vacant seat");
            let place = (self.state).wait_for_room(request, waiter, &mut self.cx.slots);
            assert!(place.is_some());
            self.state.sleep_for_room(request, until);
        }
        self.pass_until(9);
    }
}

/// What is handed on within a group is a turn of that group: a queue for its instances delays nobody by more than that.
#[test]
fn an_instance_is_not_handed_on_before_anothers_turn() {
    for weighs in [true, false] {
        let mut pool = Pool::new(Policy::CostAware, &[(Budget::Memory, 1)]);
        pool.weigh_the_loud(u32::from(weighs));
        let module = Module::new(1, 1);
        pool.terms.max_instances = NonZeroU16::new(1);
        let id = pool.lease_in(1, module);
        let (home, quiet) = (pool.entry(module, 1), pool.entry(module, 2));
        // Two of the loud group wait for its instance; then the quiet one waits for room.
        for waiter in [1, 2] {
            let wait = pool
                .state
                .wait_for_seat(home, waiter, u64::MAX, &mut pool.cx);
            assert!(matches!(wait, SeatWait::Queued(_)));
        }
        pool.wait_with_seat(quiet, Some(NONE.memory(1)));
        let returned = pool.state.returned(id, &mut pool.cx);
        if weighs {
            assert!(matches!(returned, Returned::Retire(RemovalReason::Room)));
            (pool.state).dismiss(id, RemovalReason::Room, None, &mut pool.cx);
            pool.destroy();
            let woken = std::mem::take(&mut pool.cx.out.wake);
            assert!(woken.contains(&(9, Signal::Retry)), "{woken:?}");
        } else {
            assert!(
                matches!(returned, Returned::Hand(1)),
                "first come, first served"
            );
        }
        assert_eq!(pool.state.recount(), Ok(()));
    }
}

#[test]
fn a_group_alone_hands_its_instances_on() {
    let mut pool = Pool::new(Policy::CostAware, &[(Budget::Memory, 1)]);
    pool.weigh_the_loud(1);
    let module = Module::new(1, 1);
    pool.terms.max_instances = NonZeroU16::new(1);
    let id = pool.lease_in(1, module);
    let (home, other) = (pool.entry(module, 1), pool.entry(Module::new(2, 1), 1));
    let wait = pool.state.wait_for_seat(home, 1, u64::MAX, &mut pool.cx);
    assert!(matches!(wait, SeatWait::Queued(_)));
    pool.wait_with_seat(other, None);
    let returned = pool.state.returned(id, &mut pool.cx);
    assert!(
        matches!(returned, Returned::Hand(1)),
        "within its own group"
    );
}

/// Each that is handed on is a step of the group, until it is another's turn; who is late has none.
#[test]
fn what_is_handed_on_is_a_turn_of_the_group() {
    let mut pool = Pool::new(Policy::CostAware, &[(Budget::Memory, 1)]);
    pool.weigh_the_loud(1);
    let module = Module::new(1, 1);
    let [home, quiet] = [1, 2].map(|group| {
        pool.terms.max_instances = NonZeroU16::new(if group == 1 { 1 } else { 2 });
        pool.entry(Module::new(group as u8, 1), group)
    });
    let id = pool.lease_in(1, module);
    pool.two_wait_a_step_apart(quiet);
    for waiter in [1, 2] {
        let wait = (pool.state).wait_for_seat(home, waiter, u64::MAX, &mut pool.cx);
        assert!(matches!(wait, SeatWait::Queued(_)));
    }
    let returned = pool.state.returned(id, &mut pool.cx);
    assert!(matches!(returned, Returned::Hand(1)), "its own turn");
    let returned = pool.state.returned(id, &mut pool.cx);
    assert!(matches!(returned, Returned::Retire(RemovalReason::Room)));
}

/// Who waits for code is not served by an instance of another module, which is handed on.
#[test]
fn what_is_of_no_use_to_who_waits_is_handed_on() {
    let mut pool = Pool::new(Policy::CostAware, &[(Budget::Code, 1)]);
    pool.weigh_the_loud(1);
    let module = Module::new(1, 1);
    pool.terms.max_instances = NonZeroU16::new(1);
    let id = pool.lease_in(1, module);
    let (home, quiet) = (pool.entry(module, 1), pool.entry(Module::new(2, 1), 2));
    let wait = (pool.state).wait_for_seat(home, 1, u64::MAX, &mut pool.cx);
    assert!(matches!(wait, SeatWait::Queued(_)));
    pool.wait_with_seat(quiet, Some(NONE.code(1)));
    let returned = pool.state.returned(id, &mut pool.cx);
    assert!(matches!(returned, Returned::Hand(1)), "it brings no code");
}

/// Calls of other groups, of functions that count in the loud one's share.
#[test]
fn a_turn_is_of_the_group_that_answers_for_the_function() {
    for is_anothers in [false, true] {
        let mut pool = Pool::new(Policy::CostAware, &[(Budget::Memory, 1)]);
        pool.weigh_the_loud(1);
        let group = Group::from(1_u64);
        let answers = true;
        pool.owner = Some(Owner { group, answers });
        pool.terms.max_instances = NonZeroU16::new(1);
        let module = Module::new(1, 1);
        let id = pool.lease_in(4, module);
        let home = pool.entry(module, 4);
        if is_anothers {
            pool.owner = None;
        }
        pool.terms.max_instances = NonZeroU16::new(2);
        let other = pool.entry(Module::new(2, 1), 5);
        pool.two_wait_a_step_apart(other);
        for waiter in [1, 2] {
            let wait = (pool.state).wait_for_seat(home, waiter, u64::MAX, &mut pool.cx);
            assert!(matches!(wait, SeatWait::Queued(_)));
        }
        let mut handed = 0;
        while let Returned::Hand(_) = pool.state.returned(id, &mut pool.cx) {
            handed += 1;
        }
        assert_eq!(handed, if is_anothers { 1 } else { 2 });
    }
}
