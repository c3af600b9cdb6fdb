//! The books alone: the pure core with slots that are played, so that ten thousand modules need not be compiled.

use std::time::{Duration, Instant};

use crate::fake::{Doors, Fake, Instance};
use crate::state::{
    Amounts, Budget, Config, Context, Destroy, Expiry, FunctionTerms, Group, NewFunction,
    PerBudget, Policy, Prepare, ReserveOutcome, SeatOffer, ShareTerms, State,
};

const CODE: Amounts = Amounts::ZERO.code(1000).mappings(3);
const INSTANCE: Amounts = Amounts::ZERO.memory(1000).mappings(3);

/// What would be under the pool's lock.
pub struct Books {
    state: State<Fake>,
    cx: Context<Fake, Doors>,
    made: u32,
    now: u64,
}

impl Books {
    /// With one idle instance of each of so many modules, and no room for code beyond those.
    pub fn of_modules(count: u32) -> Self {
        let mut books = Self::new(PerBudget::from_fn(|budget| match budget {
            Budget::Code => u64::from(count) * CODE.get(Budget::Code),
            _ => u64::MAX,
        }));
        (0..count).for_each(|_| {
            books.add();
        });
        books
    }

    fn new(limits: PerBudget<u64>) -> Self {
        let config = Config {
            policy: Policy::CostAware,
            seats_per_entry: 1,
            first_seats: 1,
            max_unused_entries: 1024,
            max_compilations: 1,
            max_overtakes: 64,
            quarantine: None,
            group_terms: ShareTerms::default(),
            keeps_ages: true,
            max_spares: 4,
            bills: None,
        };
        Self {
            state: State::new(config, limits),
            cx: Context::new(Doors::default()),
            made: 0,
            now: 1,
        }
    }

    fn pass(&mut self) {
        self.now += 1000;
        self.cx.slots.now = self.now;
        self.state.advance(self.now);
    }

    /// A new module, loaded, with an idle instance; making room if there is none. What the choice took.
    fn add(&mut self) -> Duration {
        self.pass();
        self.made += 1;
        let mut key = [0; 32];
        key[..4].copy_from_slice(&self.made.to_le_bytes());
        let name = format!("f{}", self.made);
        let function = self.state.define(NewFunction {
            name: name.as_str().into(),
            arguments: "".into(),
            definition: 0,
            key,
            source: 0,
            terms: FunctionTerms::default(),
            owner: None,
        });
        let function = function.expect("a new name");
        let doors = &mut self.cx.slots;
        let entry = (self.state)
            .entry(
                function,
                &Group::from(1),
                |_, _| doors.open(0, 1),
                &mut self.cx.out,
            )
            .expect("it is defined");
        let SeatOffer::Seat(request) = self.state.try_seat(entry, &mut self.cx) else {
            panic!("its seat is vacant");
        };
        let Prepare::Lead { .. } = self.state.prepare(request, &mut self.cx.out) else {
            panic!("nobody has loaded it");
        };
        let began = Instant::now();
        let room = self.state.reserve(request, CODE, &mut self.cx);
        let took = began.elapsed();
        if room == ReserveOutcome::Evicting {
            self.destroy();
            let again = self.state.reserve(request, CODE, &mut self.cx);
            assert_eq!(again, ReserveOutcome::Granted);
        }
        // They cost between one and sixteen times as much as each other.
        let cost = 1000 << (self.made % 5);
        (self.state).loaded(request, self.made, CODE, cost, &mut self.cx.out);
        let room = self.state.reserve(request, INSTANCE, &mut self.cx);
        assert_eq!(room, ReserveOutcome::Granted);
        let stamp = self.cx.slots.next_stamp();
        let instance = self.state.install(request, INSTANCE, stamp, &mut self.cx);
        self.park(instance.expect("nothing was replaced"));
        took
    }

    fn park(&mut self, id: Instance) {
        let instance = self.state.instance(id).expect("it is live");
        let door = *self.state.entry_handle(instance.entry).expect("its entry");
        let seat = instance.seat();
        self.cx.slots.mark_idle(door, seat);
        self.cx.slots.put(door, seat, id);
    }

    fn destroy(&mut self) {
        while !self.cx.out.destroy.is_empty() {
            for destroy in std::mem::take(&mut self.cx.out.destroy) {
                self.state.freed(Destroy::dying(&destroy), &mut self.cx.out);
            }
        }
    }

    /// What it takes to choose a module and to claim its instance, so often, sorted.
    pub fn choices(&mut self, count: usize) -> Vec<Duration> {
        let mut took: Vec<_> = (0..count).map(|_| self.add()).collect();
        took.sort();
        took
    }

    /// A sweep that finds nothing, in all of its steps.
    pub fn sweep(&mut self) -> Duration {
        self.pass();
        let hour = Some(3_600_000_000_000);
        let expiry = Expiry {
            idle: hour,
            lifetime: hour,
            code_idle: hour,
            slack: 0,
        };
        let began = Instant::now();
        self.state.expire(&mut self.cx.out);
        loop {
            let more = self.state.sweep(expiry, &mut self.cx);
            self.state.repay(&mut self.cx);
            if !more {
                break;
            }
        }
        let took = began.elapsed();
        assert!(self.cx.out.destroy.is_empty());
        took
    }

    /// A request for more code than there ever is.
    pub fn refusal(&mut self) -> Duration {
        self.pass();
        let request = self.state.begin_growth(None);
        let limit = self.state.ledger().limits()[Budget::Code];
        let need = Amounts::ZERO.code(limit + 1);
        let began = Instant::now();
        let room = self.state.reserve(request, need, &mut self.cx);
        let took = began.elapsed();
        assert!(matches!(room, ReserveOutcome::Refused(_)));
        self.state.abandon(request, &mut self.cx.out);
        took
    }
}
