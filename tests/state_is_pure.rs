//! The core needs `alloc`, `slab` and `hashbrown`, and nothing else: this file has no `std`, so
//! that it builds shows it. One life of an instance shows that it also runs.
//!
//! A binary of its own, since a whole crate has `std` or has not. It links no wasmtime.

#![no_std]

extern crate alloc;

#[allow(dead_code, unused_imports)]
#[path = "../src/state/mod.rs"]
mod state;

use alloc::vec::Vec;

use state::{
    Amounts, Budget, Config, Context, Destroy, EntryId, FunctionTerms, Group, InstanceId,
    NewFunction, PerBudget, Policy, Prepare, RequestId, ReserveOutcome, Returned, SeatOffer,
    ShareTerms, Slots, Stamp, State, Types,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Nothing;

impl Types for Nothing {
    type Definition = ();
    type Entry = ();
    type Source = ();
    type Code = ();
    type Failure = ();
    type Waiter = ();
}

/// One entry with one seat.
#[derive(Default)]
struct OneSlot {
    idle: Option<InstanceId<Nothing>>,
    stamp: Stamp,
}

impl Slots<Nothing> for OneSlot {
    fn claim(&mut self, _: &(), _: usize, instance: InstanceId<Nothing>) -> bool {
        self.idle.take_if(|idle| *idle == instance).is_some()
    }
    fn restore(&mut self, _: &(), _: usize, instance: InstanceId<Nothing>) {
        self.idle = Some(instance);
    }
    fn last_used(&self, _: &(), _: usize) -> Stamp {
        self.stamp
    }
    fn uses(&self, _: &(), _: usize) -> u64 {
        0
    }
    fn seems_idle(&self, _: &(), _: usize) -> bool {
        self.idle.is_some()
    }
    fn asks_leased(&self) -> bool {
        false
    }
    fn notify_on_release(&mut self, _: &(), _: usize) -> bool {
        self.idle.is_none()
    }
    fn set_waited(&mut self, _: &(), _: bool) {}
    fn set_version(&mut self, _: &(), _: u64) {}
    fn set_closed(&mut self, _: &()) {}
    fn leased_nanos(&mut self, _: &(), _: usize, _: u64) -> u64 {
        0
    }

    fn add_seats(&mut self, (): &(), _: usize) {}
}

const CODE: Amounts = Amounts::ZERO.code(40).mappings(2);
const COMPILING: Amounts = CODE.compile(30);
const INSTANCE: Amounts = Amounts::ZERO.memory(20).mappings(1);

struct Life {
    state: State<Nothing>,
    cx: Context<Nothing, OneSlot>,
}

impl Life {
    fn new() -> Self {
        let config = Config {
            policy: Policy::CostAware,
            seats_per_entry: 1,
            first_seats: 1,
            max_unused_entries: 1,
            max_compilations: 1,
            max_overtakes: u64::MAX,
            keeps_ages: true,
            quarantine: None,
            group_terms: ShareTerms::default(),
            max_spares: 4,
            bills: None,
        };
        Self {
            state: State::new(config, PerBudget::from_fn(|_| 100)),
            cx: Context::new(OneSlot::default()),
        }
    }

    fn entry(&mut self) -> EntryId<Nothing> {
        let function = self.state.define(NewFunction {
            name: "f".into(),
            arguments: "".into(),
            definition: (),
            key: [7; 32],
            source: (),
            terms: FunctionTerms::default(),
            owner: None,
        });
        let function = function.expect("an open pool takes a new name");
        let entry = self
            .state
            .entry(function, &Group::from(1), |_, _| (), &mut self.cx.out);
        entry.expect("the function is defined")
    }

    fn try_seat(&mut self, entry: EntryId<Nothing>) -> RequestId<Nothing> {
        match self.state.try_seat(entry, &mut self.cx) {
            SeatOffer::Seat(request) => request,
            _ => panic!("the seat is vacant"),
        }
    }

    fn reserve(&mut self, request: RequestId<Nothing>, target: Amounts) {
        let room = self.state.reserve(request, target, &mut self.cx);
        assert_eq!(room, ReserveOutcome::Granted);
    }

    fn check(&self, charged: Amounts) {
        assert_eq!(*self.state.ledger().charged(), charged);
        assert_eq!(self.state.recount(), Ok(()));
        assert!(!self.state.is_overdrawn());
    }
}

#[test]
fn one_life() {
    let mut life = Life::new();
    let entry = life.entry();
    let request = life.try_seat(entry);
    life.check(Amounts::ZERO);

    let prepared = life.state.prepare(request, &mut life.cx.out);
    assert!(matches!(
        prepared,
        Prepare::Lead {
            code_bytes: None,
            ..
        }
    ));
    life.reserve(request, COMPILING);
    life.check(COMPILING);
    life.state.loaded(request, (), CODE, 1000, &mut life.cx.out);
    life.state
        .shrink_to(request, Amounts::ZERO, &mut life.cx.out);
    life.check(CODE);

    life.reserve(request, INSTANCE);
    let both = CODE.checked_add(&INSTANCE).expect("small");
    life.check(both);
    let stamp = Stamp { at: 0, sequence: 1 };
    let born = life.state.install(request, INSTANCE, stamp, &mut life.cx);
    let instance = born.expect("nobody replaced the function");
    life.check(both);

    let returned = life.state.returned(instance, &mut life.cx);
    assert!(matches!(returned, Returned::Park));
    life.cx.slots.idle = Some(instance);
    assert_eq!(life.state.evict(&[instance], &mut life.cx), 1);
    life.check(both);

    let mut dying = Vec::new();
    for destroy in life.cx.out.destroy.drain(..) {
        match destroy {
            Destroy::Instance { dying: id, .. } => dying.push(id),
            Destroy::Code { .. } => panic!("CostAware keeps the code"),
        }
    }
    assert_eq!(dying.len(), 1);
    life.state.freed(dying[0], &mut life.cx.out);
    life.check(CODE);
    assert_eq!(life.state.ledger().peak()[Budget::Total], 70);
}
