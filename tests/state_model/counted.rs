//! How many instances a group may have: never more, whatever it asks for; and whoever of it waits is served in turn.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::fake::{Fake, Instance, Race};
use crate::pool::{Gone, Module, NONE, Pool};
use crate::state::{
    CountLimits, DefineRefused, EntryId, FunctionTerms, Group, NewFunction, Owner, Policy, Prepare,
    RemovalReason, RequestId, ReserveOutcome, Returned, Reuse, SeatOffer, SeatWait, ShareTerms,
    Signal, Slots, Stamp, Ticket, TooManyWait,
};

/// Instances that an entry may have.
const SEATS: usize = 2;
const MODULES: u8 = 4;
const GROUPS: std::ops::Range<u64> = 1..3;

fn may_have(instances: u32) -> ShareTerms {
    ShareTerms {
        counts: CountLimits {
            instances,
            ..CountLimits::NONE
        },
        ..ShareTerms::default()
    }
}

#[derive(Clone, Debug)]
enum Op {
    Ask {
        group: u64,
        key: u8,
    },
    /// An instance is made, or comes to nothing.
    Make {
        nth: usize,
        well: bool,
    },
    End {
        nth: usize,
    },
    Discard {
        nth: usize,
    },
    Leave {
        nth: usize,
    },
    /// `None`: nothing is said of the group any more.
    Limit {
        group: u64,
        most: Option<u32>,
    },
    Remove {
        key: u8,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let nth = 0..8_usize;
    prop_oneof![
        8 => (GROUPS, 0..MODULES).prop_map(|(group, key)| Op::Ask { group, key }),
        6 => (nth.clone(), 0..5_u8).prop_map(|(nth, dice)| Op::Make { nth, well: dice > 0 }),
        6 => nth.clone().prop_map(|nth| Op::End { nth }),
        1 => nth.clone().prop_map(|nth| Op::Discard { nth }),
        1 => nth.prop_map(|nth| Op::Leave { nth }),
        1 => (GROUPS, prop::option::weighted(0.8, 0..5_u32))
            .prop_map(|(group, most)| Op::Limit { group, most }),
        1 => (0..MODULES).prop_map(|key| Op::Remove { key }),
    ]
}

type Entry = EntryId<Fake>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Waiting {
    waiter: u32,
    entry: Entry,
    group: u64,
    ticket: Ticket,
}

/// What there is, in plain lists.
#[derive(Default)]
struct Naive {
    making: Vec<(Entry, u64, RequestId<Fake>)>,
    leased: Vec<(Entry, u64, Instance)>,
    /// The longest idle first.
    idle: Vec<(Entry, u64, Instance)>,
    /// Who came first is first.
    waiting: Vec<Waiting>,
    most: BTreeMap<u64, usize>,
    waiters: u32,
    /// What has been seen.
    seen: BTreeMap<&'static str, u32>,
}

impl Naive {
    fn note(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    fn most(&self, group: u64) -> usize {
        self.most.get(&group).copied().unwrap_or(usize::MAX)
    }

    /// Instances of the group, those in the making included.
    fn has(&self, group: u64) -> usize {
        let making = self.making.iter().filter(|(_, g, _)| *g == group).count();
        let there = self.leased.iter().chain(&self.idle);
        making + there.filter(|(_, g, _)| *g == group).count()
    }

    fn has_room(&self, entry: Entry) -> bool {
        let making = self.making.iter().filter(|(e, ..)| *e == entry).count();
        let there = self.leased.iter().chain(&self.idle);
        making + there.filter(|(e, ..)| *e == entry).count() < SEATS
    }

    /// Who of the group is to be served with a new instance, if there is room.
    fn next(&self, group: u64) -> Option<Waiting> {
        let own = self.waiting.iter().filter(|w| w.group == group);
        own.copied().find(|w| self.has_room(w.entry))
    }

    /// What the core tells those who wait must be what the list says.
    fn serve(&mut self, pool: &mut Pool, group: u64) {
        let mut told = std::mem::take(&mut pool.cx.out.wake).into_iter();
        while self.has(group) < self.most(group)
            && let Some(next) = self.next(group)
        {
            self.waiting.retain(|w| w.waiter != next.waiter);
            let (waiter, signal) = told.next().expect("there is room for somebody");
            assert_eq!(waiter, next.waiter, "who came first is served first");
            let Signal::Seat(request) = signal else {
                panic!("{signal:?}")
            };
            self.making.push((next.entry, group, request));
            self.note("served with another's room");
        }
        assert_eq!(told.next(), None);
    }
}

struct World {
    pool: Pool,
    modules: Vec<Module>,
    naive: Naive,
}

impl World {
    fn new() -> Self {
        let mut pool = Pool::new(Policy::Lru, &[]);
        let modules: Vec<_> = (0..MODULES).map(|key| Module::new(key, 1)).collect();
        for module in &modules {
            let id = pool.lease_in(99, *module);
            pool.park(id);
        }
        let naive = Naive::default();
        Self {
            pool,
            modules,
            naive,
        }
    }

    fn gone(&mut self, expected: &[Instance]) {
        let mut gone = self.pool.destroy();
        gone.code.clear();
        let expected = Gone {
            instances: expected.to_vec(),
            code: Vec::new(),
        };
        assert_eq!(gone, expected);
        self.naive
            .idle
            .retain(|(.., id)| !gone.instances.contains(id));
    }

    fn ask(&mut self, group: u64, key: u8) {
        let entry = self.pool.entry(self.modules[usize::from(key)], group);
        let (has, most) = (self.naive.has(group), self.naive.most(group));
        let has_room = self.naive.has_room(entry);
        let awaited = self.naive.waiting.iter().any(|w| w.entry == entry);
        let own = self.naive.idle.iter().position(|(e, ..)| *e == entry);
        let offer = self.pool.state.try_seat(entry, &mut self.pool.cx);
        let naive = &mut self.naive;
        match offer {
            SeatOffer::Idle(id) => {
                assert!(!awaited);
                let own = own.expect("an idle instance");
                let of_entry = |(e, _, i): &(Entry, u64, Instance)| *e == entry && *i == id;
                assert!(naive.idle.iter().any(of_entry), "{own}");
                naive.idle.retain(|it| !of_entry(it));
                naive.leased.push((entry, group, id));
            }
            SeatOffer::Seat(request) => {
                assert!(!awaited && own.is_none() && has_room);
                let needed = (has + 1).saturating_sub(most);
                let idle = naive.idle.iter().filter(|(_, g, _)| *g == group);
                let victims: Vec<_> = idle.take(needed).map(|(.., id)| *id).collect();
                assert_eq!(victims.len(), needed, "more than it may have");
                naive.making.push((entry, group, request));
                if needed > 0 {
                    naive.note("made in place of what was idle");
                }
                self.gone(&victims);
            }
            SeatOffer::Barred => assert_eq!(most, 0),
            SeatOffer::GroupFull | SeatOffer::Full => {
                assert!(most > 0 && (awaited || own.is_none()));
                let of_group = matches!(offer, SeatOffer::GroupFull);
                assert_eq!(of_group, has_room, "who waits for what");
                if of_group {
                    assert!(has >= most, "there was room");
                    let idle = naive.idle.iter().filter(|(_, g, _)| *g == group);
                    assert!(awaited || idle.count() < (has + 1).saturating_sub(most));
                    naive.note("waits for its group");
                }
                self.wait(entry, group);
            }
            SeatOffer::Quarantined(_) | SeatOffer::Gone | SeatOffer::Closed => panic!("{has}"),
        }
    }

    fn wait(&mut self, entry: Entry, group: u64) {
        self.naive.waiters += 1;
        let waiter = self.naive.waiters;
        let wait = (self.pool.state).wait_for_seat(entry, waiter, u64::MAX, &mut self.pool.cx);
        let SeatWait::Queued(ticket) = wait else {
            panic!("no lease ends meanwhile");
        };
        self.naive.waiting.push(Waiting {
            waiter,
            entry,
            group,
            ticket,
        });
    }

    fn make(&mut self, nth: usize, well: bool) {
        let (entry, group, request) = self.naive.making.remove(nth);
        let prepared = self.pool.state.prepare(request, &mut self.pool.cx.out);
        if !well || !matches!(prepared, Prepare::Ready { .. }) {
            self.pool.state.abandon(request, &mut self.pool.cx.out);
            return self.naive.serve(&mut self.pool, group);
        }
        let holds = NONE.memory(1);
        let room = (self.pool.state).reserve(request, holds, &mut self.pool.cx);
        assert_eq!(room, ReserveOutcome::Granted);
        let stamp = self.pool.cx.slots.next_stamp();
        let born = (self.pool.state).install(request, holds, stamp, &mut self.pool.cx);
        self.naive
            .leased
            .push((entry, group, born.expect("nothing was replaced")));
    }

    /// A lease ends as the shell ends it: under the lock only if somebody has asked for that.
    fn end(&mut self, nth: usize) {
        let (entry, group, id) = self.naive.leased.remove(nth);
        let seat = self.pool.state.instance(id).expect("it is leased").seat();
        let door = *self.pool.state.entry_handle(entry).expect("its entry");
        let slots = &mut self.pool.cx.slots;
        slots.mark_idle(door, seat);
        let is_open = slots.doors[door].is_open();
        if is_open && !slots.put(door, seat, id) {
            self.naive.idle.push((entry, group, id));
            let beyond = self.naive.has(group) > self.naive.most(group);
            assert!(
                !beyond && self.naive.next(group).is_none(),
                "nobody was told"
            );
            return;
        }
        if is_open {
            let taken = slots.slot(door, seat).take_released();
            assert_eq!(taken, Some(id));
        } else {
            slots.slot(door, seat).clear_notify();
        }
        self.naive.leased.insert(nth, (entry, group, id));
        let beyond = self.naive.has(group) > self.naive.most(group);
        let own = self.naive.waiting.iter().position(|w| w.entry == entry);
        let other = self
            .naive
            .waiting
            .iter()
            .position(|w| w.group == group && w.entry != entry && self.naive.has_room(w.entry));
        self.naive.leased.remove(nth);
        let other_first = other.is_some_and(|other| own.is_none_or(|own| other < own));
        match self.pool.state.returned(id, &mut self.pool.cx) {
            Returned::Hand(waiter) => {
                assert!(!beyond && !other_first);
                let next = self
                    .naive
                    .waiting
                    .remove(own.expect("somebody waits for it"));
                assert_eq!(waiter, next.waiter);
                self.naive.leased.push((entry, group, id));
                self.naive.note("handed on");
            }
            Returned::Park => {
                assert!(!beyond && other.is_none() && own.is_none());
                self.pool.cx.slots.restore(&door, seat, id);
                self.naive.idle.push((entry, group, id));
            }
            Returned::Retire(RemovalReason::Room) => {
                assert!(beyond || other_first, "it went for nobody");
                let note = if beyond {
                    "beyond its limit"
                } else {
                    "for another entry"
                };
                self.naive.note(note);
                self.dismiss(group, id, RemovalReason::Room);
            }
            Returned::Retire(RemovalReason::Removed) => {
                self.dismiss(group, id, RemovalReason::Removed);
            }
            Returned::Retire(reason) => panic!("{reason:?}"),
        }
    }

    fn dismiss(&mut self, group: u64, id: Instance, reason: RemovalReason) {
        self.pool.state.dismiss(id, reason, None, &mut self.pool.cx);
        self.naive.serve(&mut self.pool, group);
        self.gone(&[id]);
    }

    fn limit(&mut self, group: u64, most: Option<u32>) {
        let terms = most.map_or(ShareTerms::default(), may_have);
        let set = (self.pool.state).set_share(&Group::from(group), terms, &mut self.pool.cx);
        assert_eq!(set, Ok(()));
        self.naive.most.remove(&group);
        if let Some(most) = most {
            self.naive.most.insert(group, most as usize);
        }
        let beyond = self.naive.has(group).saturating_sub(self.naive.most(group));
        let idle = self.naive.idle.iter().filter(|(_, g, _)| *g == group);
        let victims: Vec<_> = idle.take(beyond).map(|(.., id)| *id).collect();
        if most == Some(0) {
            let told: Vec<_> = std::mem::take(&mut self.pool.cx.out.wake);
            let own = self.naive.waiting.extract_if(.., |w| w.group == group);
            let mut own: Vec<_> = own.map(|w| (w.waiter, Signal::Retry)).collect();
            own.sort_by_key(|(waiter, _)| *waiter);
            let mut told = told;
            told.sort_by_key(|(waiter, _)| *waiter);
            assert_eq!(told, own, "all are told");
        }
        // All who have room are served at once, in whatever order.
        if most.is_none() {
            (self.pool.cx.out.wake).sort_by_key(|(waiter, _)| *waiter);
        }
        self.naive.serve(&mut self.pool, group);
        self.gone(&victims);
    }

    fn remove(&mut self, key: u8) {
        let name = format!("f{key}");
        let Some(function) = self.pool.state.find(&name, "") else {
            return;
        };
        let of_it = |state: &crate::state::State<Fake>, id: Instance| {
            let entry = state.instance(id).map(|i| i.entry);
            entry.is_some_and(|entry| {
                (0..MODULES).any(|_| {
                    state
                        .function(function)
                        .is_some_and(|f| f.entries.values().any(|e| *e == entry))
                })
            })
        };
        let state = &self.pool.state;
        let gone: Vec<_> = self
            .naive
            .idle
            .iter()
            .filter(|(.., id)| of_it(state, *id))
            .copied()
            .collect();
        let entries: Vec<_> = (state.function(function).into_iter())
            .flat_map(|f| f.entries.values().copied())
            .collect();
        self.pool.state.remove(function, &mut self.pool.cx);
        self.naive.idle.retain(|it| !gone.contains(it));
        self.naive.waiting.retain(|w| !entries.contains(&w.entry));
        let told = std::mem::take(&mut self.pool.cx.out.wake);
        let (lost, rest): (Vec<_>, Vec<_>) =
            told.into_iter().partition(|(_, s)| *s == Signal::Gone);
        drop(lost);
        // By group, in whatever order their entries went.
        for group in GROUPS {
            let mut own = rest.clone();
            own.retain(|(waiter, _)| {
                self.naive
                    .waiting
                    .iter()
                    .any(|w| w.waiter == *waiter && w.group == group)
            });
            self.pool.cx.out.wake = own;
            self.naive.serve(&mut self.pool, group);
        }
        self.pool.destroy();
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Ask { group, key } => self.ask(group, key),
            Op::Make { nth, well } if nth < self.naive.making.len() => self.make(nth, well),
            Op::End { nth } if nth < self.naive.leased.len() => self.end(nth),
            Op::Discard { nth } if nth < self.naive.leased.len() => {
                let (_, group, id) = self.naive.leased.remove(nth);
                self.dismiss(group, id, RemovalReason::Discarded);
            }
            Op::Leave { nth } if nth < self.naive.waiting.len() => {
                let gone = self.naive.waiting.remove(nth);
                let (entry, ticket) = (gone.entry, gone.ticket);
                let cx = &mut self.pool.cx;
                assert!((self.pool.state).leave_seat_queue(entry, ticket, cx));
            }
            Op::Limit { group, most } => self.limit(group, most),
            Op::Remove { key } => self.remove(key),
            Op::Make { .. } | Op::End { .. } | Op::Discard { .. } | Op::Leave { .. } => {}
        }
        assert_eq!(self.pool.state.recount(), Ok(()));
        for group in GROUPS {
            let (has, most) = (self.naive.has(group), self.naive.most(group));
            let others = self.naive.idle.iter().filter(|(_, g, _)| *g == group);
            assert!(
                has <= most || others.count() == 0,
                "{has} of {most}, some idle"
            );
        }
    }
}

fn run(ops: Vec<Op>) -> World {
    let mut world = World::new();
    for op in ops {
        world.apply(op);
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn instances_of_groups_are_as_a_naive_list_says(ops in prop::collection::vec(op(), 1..80)) {
        run(ops);
    }
}

#[test]
fn these_operations_reach_what_they_are_for() {
    let mut runner = TestRunner::deterministic();
    let mut seen = BTreeMap::<_, u32>::new();
    for _ in 0..300 {
        let ops = prop::collection::vec(op(), 80).new_tree(&mut runner);
        for (what, times) in run(ops.expect("operations").current()).naive.seen {
            *seen.entry(what).or_default() += times;
        }
    }
    for what in [
        "beyond its limit",
        "for another entry",
        "handed on",
        "made in place of what was idle",
        "served with another's room",
        "waits for its group",
    ] {
        let times = seen.get(what).copied().unwrap_or(0);
        assert!(times >= 20, "{what}: {times} times; {seen:?}");
    }
}

#[test]
fn a_spare_in_the_making_gives_way_to_a_lease_of_its_group() {
    let mut pool = Pool::new(Policy::Lru, &[]);
    let (pristine, warm) = (Module::new(0, 1), Module::new(1, 1));
    let set = (pool.state).set_share(&Group::from(1_u64), may_have(2), &mut pool.cx);
    assert_eq!(set, Ok(()));
    pool.terms.reuse = Reuse::Pristine;
    let spent = pool.lease_in(1, pristine);
    (pool.state).dismiss(spent, RemovalReason::Uses, None, &mut pool.cx);
    let spare = (pool.state.begin_spare(&mut pool.cx)).expect("one is wanted");
    pool.terms.reuse = Reuse::Warm;
    let [first, second] = [(); 2].map(|()| pool.lease_in(1, warm));
    // It comes to nothing, whatever its maker does.
    let stamp = Stamp::NEVER;
    assert!(
        (pool.state)
            .install(spare.request, NONE, stamp, &mut pool.cx)
            .is_err()
    );
    pool.state.abandon(spare.request, &mut pool.cx.out);
    let entry = pool.entry(pristine, 1);
    let offer = pool.state.try_seat(entry, &mut pool.cx);
    assert!(matches!(offer, SeatOffer::GroupFull));
    assert_eq!(pool.state.instance_count(), 2);
    assert!(
        [first, second]
            .iter()
            .all(|id| pool.state.instance(*id).is_some())
    );
    assert_eq!(pool.state.recount(), Ok(()));
}

#[test]
fn as_many_wait_as_may_wherever_they_wait() {
    let mut pool = Pool::new(Policy::Lru, &[]);
    let terms = ShareTerms {
        counts: CountLimits {
            waiting: 2,
            ..CountLimits::NONE
        },
        ..ShareTerms::default()
    };
    let set = (pool.state).set_share(&Group::from(1_u64), terms, &mut pool.cx);
    assert_eq!(set, Ok(()));
    let module = Module::new(0, 1);
    for group in [1, 2] {
        for _ in 0..SEATS {
            pool.lease_in(group, module);
        }
    }
    let [own, others] = [1, 2].map(|group| pool.entry(module, group));
    let mut wait = |entry, waiter| {
        pool.state
            .wait_for_seat(entry, waiter, u64::MAX, &mut pool.cx)
    };
    let SeatWait::Queued(first) = wait(own, 1) else {
        panic!("it may wait");
    };
    for waiter in 2..5 {
        assert!(matches!(wait(others, waiter), SeatWait::Queued(_)));
    }
    // The second waits for room.
    let second = pool.entry(Module::new(1, 1), 1);
    let SeatOffer::Seat(request) = pool.state.try_seat(second, &mut pool.cx) else {
        panic!("a vacant seat");
    };
    assert_eq!(pool.state.begin_to_wait(request), Ok(()));
    let _place = pool.state.wait_for_room(request, 9, &mut pool.cx.slots);
    pool.state.sleep_for_room(request, u64::MAX);
    let foreign = pool.entry(Module::new(2, 1), 2);
    let SeatOffer::Seat(of_another) = pool.state.try_seat(foreign, &mut pool.cx) else {
        panic!("a vacant seat");
    };
    let _place = pool.state.wait_for_room(of_another, 8, &mut pool.cx.slots);
    pool.state.sleep_for_room(of_another, u64::MAX);
    assert_eq!(pool.state.waiting_of_groups().into_values().next(), Some(2));
    let SeatOffer::Seat(third) = pool.state.try_seat(second, &mut pool.cx) else {
        panic!("a vacant seat");
    };
    let too_many = TooManyWait(2);
    assert_eq!(pool.state.begin_to_wait(third), Err(too_many));
    let refused = pool.state.wait_for_seat(own, 10, u64::MAX, &mut pool.cx);
    assert!(matches!(refused, SeatWait::TooMany(it) if it == too_many));
    // Who has waited is not asked again.
    assert_eq!(pool.state.begin_to_wait(request), Ok(()));
    assert!(pool.state.leave_seat_queue(own, first, &mut pool.cx));
    // One of its own, and one of another's.
    let mut waiting = pool.state.waiting_of_groups().into_values();
    assert_eq!((waiting.next(), waiting.next()), (Some(1), None));
    assert_eq!(pool.state.begin_to_wait(third), Ok(()));
    assert_eq!(pool.state.recount(), Ok(()));
}

#[test]
fn a_lease_that_ends_while_somebody_begins_to_wait_is_not_missed() {
    let mut pool = Pool::new(Policy::Lru, &[]);
    let set = (pool.state).set_share(&Group::from(1_u64), may_have(1), &mut pool.cx);
    assert_eq!(set, Ok(()));
    let (first, second) = (Module::new(0, 1), Module::new(1, 1));
    let instance = pool.lease_in(1, first);
    let home = pool.entry(first, 1);
    let door = *pool.state.entry_handle(home).expect("its entry");
    let entry = pool.entry(second, 1);
    let offer = pool.state.try_seat(entry, &mut pool.cx);
    assert!(matches!(offer, SeatOffer::GroupFull));
    pool.cx.slots.mark_idle(door, 0);
    pool.cx.slots.race = Some(Race {
        door,
        seat: 0,
        instance,
        sees_flag: false,
    });
    let wait = pool.state.wait_for_seat(entry, 1, u64::MAX, &mut pool.cx);
    assert!(matches!(wait, SeatWait::Again));
    assert_eq!(pool.state.recount(), Ok(()));
    let offer = pool.state.try_seat(entry, &mut pool.cx);
    assert!(matches!(offer, SeatOffer::Seat(_)));
    assert_eq!(pool.destroy().instances, [instance]);
    assert_eq!(pool.state.recount(), Ok(()));
}

#[test]
fn whoever_is_late_gets_nothing_and_its_entry_is_as_unused_as_before() {
    let mut pool = Pool::new(Policy::Lru, &[]);
    let set = (pool.state).set_share(&Group::from(1_u64), may_have(1), &mut pool.cx);
    assert_eq!(set, Ok(()));
    let (first, second) = (Module::new(0, 1), Module::new(1, 1));
    let instance = pool.lease_in(1, first);
    let entry = pool.entry(second, 1);
    let wait = pool.state.wait_for_seat(entry, 1, 5, &mut pool.cx);
    assert!(matches!(wait, SeatWait::Queued(_)));
    pool.pass_until(9);
    // Nobody is there to get the room of it.
    let returned = pool.state.returned(instance, &mut pool.cx);
    assert!(matches!(returned, Returned::Park));
    let reason = RemovalReason::Discarded;
    (pool.state).dismiss(instance, reason, None, &mut pool.cx);
    assert_eq!(pool.cx.out.wake, [(1, Signal::Late)]);
    pool.destroy();
    assert_eq!(pool.state.recount(), Ok(()));
}

#[test]
fn so_many_are_defined_on_a_groups_behalf_and_no_more() {
    let mut pool = Pool::new(Policy::Lru, &[]);
    let [quota, other] = [1_u64, 2].map(Group::from);
    let terms = |definitions| ShareTerms {
        counts: CountLimits {
            definitions,
            ..CountLimits::NONE
        },
        ..ShareTerms::default()
    };
    assert_eq!(pool.state.set_share(&quota, terms(2), &mut pool.cx), Ok(()));
    let named = |name: &str, owner: Option<&Group>| NewFunction {
        name: name.into(),
        arguments: "".into(),
        definition: 0,
        key: [1; 32],
        source: 1,
        terms: FunctionTerms::default(),
        owner: owner.cloned().map(|group| Owner {
            group,
            answers: false,
        }),
    };
    let state = &mut pool.state;
    let (a, b) = (named("a", Some(&quota)), named("b", Some(&quota)));
    assert!(state.define(a).is_ok() && state.define(b).is_ok());
    let too_many = DefineRefused::TooMany(2);
    assert_eq!(state.define(named("c", Some(&quota))), Err(too_many));
    assert!(state.find("c", "").is_none());
    for owner in [None, Some(&other)] {
        let name = if owner.is_some() { "c" } else { "d" };
        assert!(state.define(named(name, owner)).is_ok());
    }
    // Whose it is already may have other code; another's may not become its own.
    assert!(
        state
            .replace(named("a", Some(&quota)), &mut pool.cx)
            .is_ok()
    );
    assert!(state.replace(named("a", None), &mut pool.cx).is_ok());
    let taken = state.replace(named("c", Some(&quota)), &mut pool.cx);
    assert_eq!(taken, Err(too_many));
    let taken = state.replace_by_another(named("c", Some(&quota)), &mut pool.cx);
    assert_eq!(taken, Err(too_many));
    // What is given away leaves room, and so does what is removed.
    let another = named("a", Some(&other));
    assert!(state.replace_by_another(another, &mut pool.cx).is_ok());
    assert!(state.define(named("e", Some(&quota))).is_ok());
    assert_eq!(state.define(named("f", Some(&quota))), Err(too_many));
    let id = state.find("e", "").expect("it is defined");
    assert!(state.remove(id, &mut pool.cx));
    assert!(state.define(named("f", Some(&quota))).is_ok());
    assert_eq!(state.definitions_of(&quota), 2);
    assert_eq!(state.set_share(&quota, terms(0), &mut pool.cx), Ok(()));
    let more = named("g", Some(&quota));
    assert_eq!(state.define(more), Err(DefineRefused::TooMany(0)));
    assert_eq!(state.recount(), Ok(()));
}
