//! A pool of the core's, with the same fake shell, that is asked directly: who goes, and who stays.

use crate::fake::{Doors, Fake, Instance};
use crate::state::{
    Amounts, Budget, Config, Context, Destroy, EntryId, FunctionTerms, Group, NewFunction, Owner,
    PerBudget, Policy, Prepare, ReserveOutcome, SeatOffer, ShareTerms, Slots, State,
};

pub const NONE: Amounts = Amounts::ZERO;

/// What a module and its instances take.
#[derive(Clone, Copy)]
pub struct Module {
    /// Its key; its code gets the same number.
    pub key: u8,
    pub code: u64,
    /// What it cost to compile.
    pub cost: u64,
    pub memory: u64,
}

impl Module {
    pub const fn new(key: u8, code: u64) -> Self {
        Self {
            key,
            code,
            cost: 1000,
            memory: 1,
        }
    }
}

/// A pool with one function and one entry per module.
pub struct Pool {
    pub state: State<Fake>,
    pub cx: Context<Fake, Doors>,
    /// Of functions that are defined from now on.
    pub terms: FunctionTerms,
    pub owner: Option<Owner>,
}

/// What was destroyed, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Gone {
    pub instances: Vec<Instance>,
    pub code: Vec<u32>,
}

impl Pool {
    /// A pool in which nothing is scarce but what `limits` says.
    pub fn new(policy: Policy, limits: &[(Budget, u64)]) -> Self {
        Self::with_group_terms(policy, limits, ShareTerms::default())
    }

    /// The same, where each group of which nothing else is said has the limits of these.
    pub fn with_group_terms(
        policy: Policy,
        limits: &[(Budget, u64)],
        group_terms: ShareTerms,
    ) -> Self {
        let mut all = PerBudget::from_fn(|_| 1_000_000);
        for (budget, limit) in limits {
            all.set(*budget, *limit);
        }
        Self::with(
            Config {
                group_terms,
                ..Self::config(policy)
            },
            all,
        )
    }

    /// Nothing is scarce, but that entries are forgotten when so many more are unused.
    pub fn with_few_unused(max_unused_entries: usize) -> Self {
        let config = Config {
            max_unused_entries,
            ..Self::config(Policy::Lru)
        };
        Self::with(config, PerBudget::of(1_000_000))
    }

    /// Nothing is scarce, and so many may compile at once.
    pub fn with_compilations(max_compilations: usize) -> Self {
        let config = Config {
            max_compilations,
            ..Self::config(Policy::CostAware)
        };
        Self::with(config, PerBudget::of(1_000_000))
    }

    fn config(policy: Policy) -> Config {
        Config {
            policy,
            seats_per_entry: 2,
            first_seats: 1,
            max_unused_entries: 100,
            max_compilations: 1,
            max_overtakes: u64::MAX,
            keeps_ages: true,
            quarantine: None,
            group_terms: ShareTerms::default(),
            max_spares: 4,
            bills: Some(3),
        }
    }

    fn with(config: Config, all: PerBudget<u64>) -> Self {
        Self {
            state: State::new(config, all),
            cx: Context::new(Doors::default()),
            terms: FunctionTerms::default(),
            owner: None,
        }
    }

    pub fn entry(&mut self, module: Module, group: u64) -> EntryId<Fake> {
        let name = format!("f{}", module.key);
        let new = NewFunction {
            name: name.as_str().into(),
            arguments: "".into(),
            definition: 0,
            key: [module.key; 32],
            source: module.key,
            terms: self.terms,
            owner: self.owner.clone(),
        };
        let known = self.state.find(&name, "");
        let function = known.unwrap_or_else(|| self.state.define(new).expect("a new name"));
        let doors = &mut self.cx.slots;
        let open = |_, _: &crate::state::Function<Fake>| doors.open(0, 1);
        let entry = self
            .state
            .entry(function, &Group::from(group), open, &mut self.cx.out);
        entry.expect("the function is defined")
    }

    /// Another instance, leased.
    pub fn lease_new(&mut self, module: Module) -> Instance {
        self.lease_in(1, module)
    }

    /// The same, of this group.
    pub fn lease_in(&mut self, group: u64, module: Module) -> Instance {
        let entry = self.entry(module, group);
        let entered = self.state.try_seat(entry, &mut self.cx);
        let SeatOffer::Seat(request) = entered else {
            panic!("no vacant seat");
        };
        let code = NONE.code(module.code).mappings(1);
        if let Prepare::Lead { .. } = self.state.prepare(request, &mut self.cx.out) {
            let room = (self.state).reserve(request, code, &mut self.cx);
            assert_eq!(room, ReserveOutcome::Granted);
            let serial = u32::from(module.key);
            (self.state).loaded(request, serial, code, module.cost, &mut self.cx.out);
        }
        let holds = NONE.memory(module.memory).stack(1).mappings(1);
        let room = (self.state).reserve(request, holds, &mut self.cx);
        assert_eq!(room, ReserveOutcome::Granted);
        let stamp = self.cx.slots.next_stamp();
        let born = (self.state).install(request, holds, stamp, &mut self.cx);
        born.expect("nothing was replaced")
    }

    /// Back into its slot, used just now; the core is not told.
    pub fn park(&mut self, id: Instance) {
        let instance = self.state.instance(id).expect("a live instance");
        let door = self.state.entry_handle(instance.entry);
        let (door, seat) = (*door.expect("its entry"), instance.seat());
        self.cx.slots.mark_idle(door, seat);
        assert!(!self.cx.slots.put(door, seat, id), "nobody asks for it");
    }

    /// The entry's door of an instance, and its seat.
    pub fn place_of(&self, id: Instance) -> (usize, usize) {
        let instance = self.state.instance(id).expect("a live instance");
        let door = self.state.entry_handle(instance.entry);
        (*door.expect("its entry"), instance.seat())
    }

    /// Into its slot, by whoever has the lock.
    pub fn put_back(&mut self, id: Instance) {
        let (door, seat) = self.place_of(id);
        self.cx.slots.slot(door, seat).clear_notify();
        self.cx.slots.restore(&door, seat, id);
    }

    /// Another instance, idle.
    pub fn idle(&mut self, module: Module) -> Instance {
        self.idle_in(1, module)
    }

    pub fn idle_in(&mut self, group: u64, module: Module) -> Instance {
        let id = self.lease_in(group, module);
        self.park(id);
        id
    }

    pub fn is_idle(&self, id: Instance) -> bool {
        let slots = self.cx.slots.doors.iter().flat_map(|door| &door.slots);
        slots.into_iter().any(|s| s.cell == Some(id))
    }

    /// Takes an instance out of its slot and puts it back, at this time.
    pub fn use_at(&mut self, id: Instance, now: u64) {
        self.pass_until(now);
        let instance = self.state.instance(id).expect("a live instance");
        let door = *self.state.entry_handle(instance.entry).expect("its entry");
        let seat = instance.seat();
        assert!(self.cx.slots.claim(&door, seat, id), "not idle");
        self.park(id);
    }

    pub fn pass_until(&mut self, now: u64) {
        self.cx.slots.now = now;
        self.state.advance(now);
    }

    /// Somebody asks for this much, and the victims die for it.
    pub fn ask(&mut self, need: Amounts) -> (ReserveOutcome, Gone) {
        self.ask_for(None, need)
    }

    /// The same, for an instance of this entry.
    pub fn ask_for(&mut self, of: Option<EntryId<Fake>>, need: Amounts) -> (ReserveOutcome, Gone) {
        let request = self.state.begin_growth(of);
        let room = (self.state).reserve(request, need, &mut self.cx);
        let gone = self.destroy();
        if room == ReserveOutcome::Evicting {
            let again = (self.state).reserve(request, need, &mut self.cx);
            assert_eq!(again, ReserveOutcome::Granted, "the victims were enough");
        }
        assert_eq!(self.state.recount(), Ok(()));
        self.state.abandon(request, &mut self.cx.out);
        (room, gone)
    }

    /// A look at all modules, as every request for more code than there is takes it: what was
    /// used since the last look is noted.
    pub fn look(&mut self) {
        let (room, gone) = self.ask(NONE.code(900_000));
        assert!(matches!(room, ReserveOutcome::Refused(_)));
        assert_eq!(gone, Gone::default());
    }

    pub fn destroy(&mut self) -> Gone {
        let mut gone = Gone::default();
        while !self.cx.out.destroy.is_empty() {
            for destroy in std::mem::take(&mut self.cx.out.destroy) {
                let dying = match destroy {
                    Destroy::Instance {
                        dying, instance, ..
                    } => {
                        gone.instances.push(instance);
                        dying
                    }
                    Destroy::Code { dying, code } => {
                        gone.code.push(code);
                        dying
                    }
                };
                self.state.freed(dying, &mut self.cx.out);
            }
        }
        gone
    }
}

pub fn gone(instances: &[Instance], code: &[u32]) -> Gone {
    Gone {
        instances: instances.to_vec(),
        code: code.to_vec(),
    }
}
