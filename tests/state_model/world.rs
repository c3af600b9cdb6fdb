//! The core, its fake shell and the model, side by side: what one does, all do.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;

use crate::fake::{Doors, Fake};
use crate::model::{
    MAX_OVERTAKES, MAX_UNUSED, MModule, MPhase, MRequest, Model, Nap, Place, Request,
};
use crate::quarantine::RULE;
use crate::state::{
    Amounts, Config, Context, Destroy, Effects, EntryId, Expiry, FunctionTerms, Group, IdleTime,
    NewFunction, Owner, PerBudget, Policy, QuarantineRule, RemovalReason, Reuse, ShareTerms,
    Signal, State,
};
use crate::{
    fake::Instance,
    model::{MFunction, MInstance},
};

pub const NAMES: [&str; 4] = ["a", "b", "c", "d"];
pub const GROUPS: u64 = 3;
/// The function that counts in this group's share.
const ANSWERED: usize = 3;
const ANSWERS: u8 = 1;
pub const KEYS: u8 = 3;
/// What module `key` needs: its code, and an instance's memory and stack.
pub const CODE_BYTES: [u64; KEYS as usize] = [4, 7, 11];
pub const MEMORY_BYTES: [u64; KEYS as usize] = [3, 4, 6];
pub const STACK_BYTES: [u64; KEYS as usize] = [0, 2, 1];
pub const COMPILE_BYTES: u64 = 6;
pub const COOL_DOWN: u64 = 12;

/// More than a request takes.
const STEPS: usize = 12;

const IDLE: u64 = 9;
/// Of functions with a time of their own.
const OWN_IDLE: u64 = 4;
const LIFETIME: u64 = 18;
const CODE_IDLE: u64 = 15;

/// Limits on memory, code, compile, stack, mappings, the total, code and stacks together, and instances; the
/// first are the roomiest.
const LIMITS: [[u64; 8]; 8] = [
    [40, 20, 20, 12, 20, 90, 24, 99],
    [20, 18, 14, 8, 12, 46, 22, 99],
    [12, 18, 20, 12, 20, 60, 30, 6],
    [40, 12, 9, 12, 20, 60, 14, 99],
    [40, 22, 20, 3, 20, 60, 16, 5],
    [40, 30, 20, 12, 5, 60, 26, 99],
    [40, 30, 20, 12, 20, 24, 30, 99],
    [9, 11, 8, 3, 4, 22, 12, 3],
];

#[derive(Clone, Debug)]
pub struct Setup {
    pub policy: u8,
    pub seats: usize,
    pub max_compilations: usize,
    pub limits: u8,
    /// Whether the run ends with everybody served, or with everything given up.
    pub serve: bool,
}

/// Indices are taken modulo what there is; an operation on nothing does nothing.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    Define(u8, u8),
    Replace(u8, u8),
    /// The system refuses what the budgets grant.
    Relieve(u8),
    /// Another function takes the name.
    Supersede(u8, u8),
    Remove(u8),
    /// An acquire under the lock, queueing when the entry is full.
    Enter(u8, u8),
    /// An acquire with all its steps, as far as they go without sleep; some leases end at once.
    Warm(u8, u8),
    /// The same through an entry held from before, whatever became of its function.
    Stray(u8),
    /// An acquire that finds its instance in a slot, or else enters.
    Fast(u8, u8),
    LeaveSeat(u8),
    /// A function's code is prepared.
    Prepare(u8),
    /// Something is compiled that no function needs.
    Work,
    /// Nobody will ever poll it again, whoever waits or was just handed something.
    Leak(u8),
    Step(u8, u8),
    GiveUp(u8),
    Free(u8),
    ReleaseFast(u8, u8),
    ReleaseSlow(u8),
    /// A lease looks at its door and is about to put its instance back; the low bit of the second says
    /// what it sees if the core asks for its release at that moment.
    Race(u8, u8),
    /// A release that saw its slot's flag takes the lock.
    Report(u8),
    Trap(u8),
    Grow(u8, u8),
    Shrink(u8, u8),
    Pass(u8),
    Sweep(u8),
    Limits(u8),
    Retain(u8),
    /// A handle of (function, group) is made; and is dropped.
    Keep(u8, u8),
    LetGo(u8),
    /// A quarantine is lifted by hand.
    Lift(u8),
    /// A spare is to be made, if the core wants one.
    Spare,
    /// So much is reserved for a group, or nothing any more.
    Share(u8, u8),
    Close,
}

/// How often each outcome occurred.
#[derive(Debug, Default)]
pub struct Seen(pub BTreeMap<&'static str, u64>);

impl Seen {
    pub fn note(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    pub fn note_if(&mut self, when: bool, what: &'static str) {
        if when {
            self.note(what);
        }
    }
}

/// The member of `all` that an index of any size names.
pub fn pick<T: Copy>(all: &[T], index: u8) -> Option<T> {
    all.get(usize::from(index) % all.len().max(1)).copied()
}

pub struct World {
    pub state: State<Fake>,
    pub cx: Context<Fake, Doors>,
    pub model: Model,
    pub seen: Seen,
    /// Leases that an entry may hold at once.
    pub seats: usize,
}

impl World {
    pub fn new(setup: &Setup) -> Self {
        let policies = [Policy::Lru, Policy::ModuleLru, Policy::CostAware];
        let rule = QuarantineRule {
            by_group: setup.seats == 2,
            ..RULE
        };
        let policy = policies[usize::from(setup.policy) % policies.len()];
        let config = Config {
            policy,
            seats_per_entry: setup.seats,
            first_seats: 1,
            max_unused_entries: MAX_UNUSED,
            max_overtakes: MAX_OVERTAKES,
            keeps_ages: true,
            max_compilations: setup.max_compilations,
            quarantine: Some(rule),
            // All groups have one, or none; nobody comes near it.
            group_terms: ShareTerms {
                limits: PerBudget::of(u64::MAX - (setup.seats as u64 % 2)),
                ..ShareTerms::default()
            },
            max_spares: crate::spares::MAX_SPARES,
            bills: Some(2),
        };
        let mut world = Self {
            state: State::new(config, PerBudget::from_fn(|_| 0)),
            cx: Context::new(Doors::default()),
            model: Model::new(policy, setup.max_compilations, NAMES.len()),
            seen: Seen::default(),
            seats: setup.seats,
        };
        world.model.quarantine = rule;
        world.set_limits(setup.limits);
        world
    }

    pub fn apply(&mut self, op: Op) {
        match op {
            Op::Define(name, key) => self.define(name, key),
            Op::Replace(name, key) => self.replace(name, key),
            Op::Relieve(count) => self.relieve(usize::from(count % 4)),
            Op::Supersede(name, key) => self.supersede(name, key),
            Op::Remove(name) => self.remove(name),
            Op::Enter(name, group) => self.acquire(name, group),
            Op::Warm(name, group) => self.warm(name, group),
            Op::Stray(entry) => self.stray(entry),
            Op::Fast(entry, seat) => self.fast(entry, seat),
            Op::LeaveSeat(waiter) => self.leave_seat(waiter),
            Op::Prepare(function) => self.prepare_ahead(function),
            Op::Work => self.begin_work(),
            Op::Leak(waiter) => self.leak(waiter),
            Op::Step(request, dice) => {
                if let Some(id) = self.pick_request(request) {
                    self.step(id, dice);
                }
            }
            Op::GiveUp(request) => {
                if let Some(id) = self.pick_request(request) {
                    self.give_up(id);
                }
            }
            Op::Free(dying) => self.free(dying),
            Op::ReleaseFast(lease, dice) => self.with_lease(lease, |w, id| {
                w.release_fast(id, dice % 2 == 0);
            }),
            Op::ReleaseSlow(lease) => self.with_lease(lease, |w, id| {
                if !w.spend(id) {
                    w.release_slow(id);
                }
            }),
            Op::Race(lease, dice) => self.with_lease(lease, |w, id| {
                w.start_race(id, dice % 2 == 1);
            }),
            Op::Report(report) => self.report(report),
            Op::Trap(lease) => self.with_lease(lease, Self::trap),
            Op::Grow(lease, by) => self.with_lease(lease, |w, id| {
                w.begin_growth(id, 1 + u64::from(by % 6));
            }),
            Op::Shrink(lease, by) => self.with_lease(lease, |w, id| {
                w.shrink(id, u64::from(by % 4));
            }),
            Op::Pass(time) => self.pass(u64::from(time % 10)),
            Op::Sweep(kind) => {
                self.sweep(kind);
                // Now and then nothing happens for long.
                for _ in 0..u64::from(kind >> 3 & 0b11) {
                    self.pass(IDLE);
                    self.sweep(kind);
                }
            }
            Op::Limits(which) => self.set_limits(which),
            Op::Retain(mask) => self.retain(mask),
            Op::Keep(name, group) => self.keep(name, group),
            Op::LetGo(entry) => self.let_go(entry),
            Op::Lift(name) => self.lift(name),
            Op::Spare => self.begin_spare(),
            Op::Share(group, terms) => self.set_share(group, terms),
            Op::Close => self.close(),
        }
    }

    fn warm(&mut self, name: u8, dice: u8) {
        let before: Vec<_> = self.model.requests.keys().copied().collect();
        self.acquire(name, dice);
        let new = |id: &&Request| !before.contains(id);
        let Some(id) = self.model.requests.keys().find(new).copied() else {
            return;
        };
        let leases = self.model.leases();
        for _ in 0..STEPS {
            self.free_for(id);
            let awake = |r: &MRequest| r.nap.is_none_or(|nap| nap.woken);
            if !self.model.requests.get(&id).is_some_and(awake) {
                break;
            }
            self.step(id, crate::acquire::GOOD);
        }
        let born = self.model.leases();
        if let Some(lease) = born.into_iter().find(|id| !leases.contains(id))
            && dice & 0x80 != 0
        {
            self.release_fast(lease, true);
        }
    }

    /// Destroys what was evicted for this request.
    fn free_for(&mut self, id: Request) {
        while let Some(at) = (self.model.dying.values()).position(|d| d.heir == Some(id)) {
            self.free(at as u8);
        }
    }

    fn pick_request(&self, index: u8) -> Option<Request> {
        let all: Vec<_> = self.model.requests.keys().copied().collect();
        pick(&all, index)
    }

    /// Does what the core says, in the model.
    pub fn absorb(&mut self, heir: Option<Request>) {
        self.apply_fired_race();
        self.mirror();
        let heir = heir.or(self.model.collecting);
        let effects = core::mem::replace(&mut self.cx.out, Effects::new());
        let Effects {
            wake,
            destroy,
            forgotten,
            // Nothing of a host's is in them here.
            sources: _,
        } = effects;
        let last = |signal: &Signal<Fake>| matches!(signal, Signal::Gone | Signal::Closed);
        for (waiter, signal) in wake.iter().filter(|(_, s)| last(s)) {
            self.model.wake(*waiter, *signal);
        }
        for destroy in destroy {
            self.free_instance(destroy, heir);
        }
        for entry in core::mem::take(&mut self.model.refit) {
            let seats = self.cx.slots.doors[entry].slots.len();
            let offered = self.model.offer_more(entry, seats);
            self.seen
                .note_if(offered, "seats served when there may be more");
        }
        for (waiter, signal) in wake.into_iter().filter(|(_, s)| !last(s)) {
            let late = matches!(signal, Signal::Late);
            self.seen.note_if(late, "told that it is late");
            let served = matches!(signal, Signal::Seat(_));
            self.seen.note_if(served, "seat served from the queue");
            self.model.wake(waiter, signal);
        }
        let late = &self.model.late;
        assert!(late.is_empty(), "{late:?} were not told that they are late");
        let due = &self.model.due;
        assert!(due.is_empty(), "{due:?} were not told of their seats");
        let expelled = &self.model.expelled;
        assert!(expelled.is_empty(), "{expelled:?} wait in a quarantine");
        self.seen.note_if(!forgotten.is_empty(), "entry forgotten");
        let forgotten: Vec<_> = forgotten.iter().map(|(door, _)| *door).collect();
        self.model.forget(&forgotten);
        self.model.tidy();
    }

    fn free_instance(&mut self, destroy: Destroy<Fake>, heir: Option<Request>) {
        match destroy {
            Destroy::Instance {
                dying,
                instance,
                reason,
            } => {
                self.seen.note(reason.name());
                self.model.free_instance(instance, dying, heir);
            }
            Destroy::Code { dying, code } => {
                self.seen.note("code dropped");
                self.model.drop_code(code, dying, heir);
            }
        }
    }

    /// The instances and modules that the core wants destroyed now.
    pub fn victims(&self) -> (Vec<Instance>, Vec<u8>) {
        let (mut instances, mut modules) = (Vec::new(), Vec::new());
        for destroy in &self.cx.out.destroy {
            match destroy {
                Destroy::Instance {
                    instance, reason, ..
                } => {
                    assert_eq!(*reason, RemovalReason::Room);
                    instances.push(*instance);
                }
                Destroy::Code { code, .. } => {
                    let is_it = |m: &MModule| matches!(m.phase, MPhase::Loaded { code: c, .. } if c == *code);
                    let found = self.model.modules.iter().find(|(_, m)| is_it(m));
                    modules.push(*found.expect("loaded code is dropped").0);
                }
            }
        }
        (instances, modules)
    }

    // Names: ──────────────────────────────────────────────────────────────────────────────────

    /// One function counts in one group's share, whoever calls it.
    fn owner(name: usize, definition: u32) -> Owner {
        let answers = name == ANSWERED;
        let group = match answers {
            true => ANSWERS.into(),
            false => u64::from(definition % 4),
        };
        let group = Group::from(group);
        Owner { group, answers }
    }

    fn new_function(
        &mut self,
        name: usize,
        key: u8,
        terms: FunctionTerms,
    ) -> (NewFunction<Fake>, u32) {
        let definition = self.model.number();
        let new = NewFunction {
            name: NAMES[name].into(),
            arguments: "".into(),
            definition,
            key: [key; 32],
            source: key,
            terms,
            owner: Some(Self::owner(name, definition))
                .filter(|_| name == ANSWERED || definition % 4 < 3),
        };
        (new, definition)
    }

    /// The module that a number means, how many instances of it an entry may have (all that it has seats for, most often),
    /// how long they may be idle, and whether each is leased but once.
    fn key_and_terms(&self, number: u8) -> (u8, FunctionTerms) {
        let fewer = usize::from(number / KEYS) % 4;
        let idle = match number / KEYS / 4 % 4 {
            0 => IdleTime::FOREVER,
            1 => IdleTime::of_nanos(OWN_IDLE),
            _ => IdleTime::OF_THE_POOL,
        };
        let reuse = match number / KEYS / 16 % 3 {
            1 => Reuse::Pristine,
            _ => Reuse::Warm,
        };
        let max_instances = NonZeroU16::new(self.seats.saturating_sub(fewer).max(1) as u16);
        (
            number % KEYS,
            FunctionTerms {
                max_instances,
                idle,
                reuse,
                pinned: number / KEYS / 48 % 2 == 1,
            },
        )
    }

    fn ensure_module(&mut self, key: u8) {
        let cold = || MModule {
            phase: MPhase::Cold,
            code_bytes: None,
        };
        let known = self.model.modules.contains_key(&key);
        self.seen.note_if(known, "module under two names");
        self.model.modules.entry(key).or_insert_with(cold);
    }

    fn define(&mut self, name: u8, key: u8) {
        let (key, terms) = self.key_and_terms(key);
        let name = usize::from(name) % NAMES.len();
        let (new, definition) = self.new_function(name, key, terms);
        let defined = self.state.define(new);
        let free = !self.model.closed && self.model.functions[name].is_none();
        assert_eq!(defined.is_ok(), free);
        if let Ok(id) = defined {
            self.ensure_module(key);
            self.model.functions[name] = Some(MFunction {
                id,
                key,
                version: 0,
                definition,
                terms,
            });
        }
    }

    fn replace(&mut self, name: u8, key: u8) {
        let (key, terms) = self.key_and_terms(key);
        let name = usize::from(name) % NAMES.len();
        let (new, definition) = self.new_function(name, key, terms);
        let replaced = (self.state).replace(new, &mut self.cx);
        let mut refit = Vec::new();
        let known = !self.model.closed && self.model.functions[name].is_some();
        assert_eq!(replaced.is_ok(), known);
        if known {
            self.ensure_module(key);
            if let Some(function) = &mut self.model.functions[name] {
                function.key = key;
                function.version += 1;
                let id = function.id;
                function.definition = definition;
                function.terms = terms;
                self.model.forgive(id);
                refit = self.model.entries_of(id);
            }
            let phase = &mut self.model.module(key).phase;
            if matches!(phase, MPhase::Failed { .. }) {
                *phase = MPhase::Cold;
            }
        }
        self.model.refit = refit;
        self.absorb(None);
    }

    fn relieve(&mut self, count: usize) {
        let idle = self.model.idle();
        let mut expected = Vec::new();
        for (id, _) in idle {
            // What is pinned stays, as long as there is anything else.
            let with_it = [&expected[..], &[id]].concat();
            if expected.len() < count && !self.model.takes_pinned(&with_it, &[], None) {
                expected.push(id);
            }
        }
        let relieved = (self.state).relieve(count, &mut self.cx);
        let (instances, code) = self.victims();
        let is_last = expected.is_empty() && !instances.is_empty();
        assert!(!is_last || instances.iter().all(|id| self.model.is_of_pinned(*id)));
        if !is_last {
            assert_eq!(instances, expected, "the least recently used go");
        }
        assert!(instances.len() <= count && code.len() <= count);
        assert_eq!(relieved, instances.len() + code.len());
        self.seen.note_if(relieved > 0, "relieved");
        self.absorb(None);
    }

    fn supersede(&mut self, name: u8, key: u8) {
        let (key, terms) = self.key_and_terms(key);
        let name = usize::from(name) % NAMES.len();
        let (new, definition) = self.new_function(name, key, terms);
        let counts = |world: &Self| {
            let function = world.model.functions[name].as_ref()?;
            Some(world.state.function(function.id)?.counts)
        };
        let before = counts(self);
        let replaced = (self.state).replace_by_another(new, &mut self.cx);
        let known = !self.model.closed && self.model.functions[name].is_some();
        assert_eq!(replaced.is_ok(), known);
        if let Ok(id) = replaced {
            self.ensure_module(key);
            self.model.functions[name] = Some(MFunction {
                id,
                key,
                version: 0,
                definition,
                terms,
            });
            let phase = &mut self.model.module(key).phase;
            if matches!(phase, MPhase::Failed { .. }) {
                *phase = MPhase::Cold;
            }
            assert_eq!(counts(self), before, "counts go with the name");
            self.seen.note("superseded");
        }
        self.absorb(None);
    }

    fn remove(&mut self, name: u8) {
        let name = usize::from(name) % NAMES.len();
        if let Some(function) = self.model.functions[name].take() {
            let removed = (self.state).remove(function.id, &mut self.cx);
            assert!(removed);
            self.seen.note("remove");
        }
        self.absorb(None);
    }

    /// The entry of a defined function, made when it is new.
    pub fn entry(&mut self, name: u8, number: u64) -> Option<usize> {
        let function = self.model.functions[usize::from(name) % NAMES.len()].as_ref()?;
        let function = function.id;
        let doors = &mut self.cx.slots;
        let mut made = None;
        let make = |id, function: &crate::state::Function<Fake>| {
            let door = doors.open(function.version, 1);
            made = Some((id, door));
            door
        };
        let group = Group::from(number);
        let id = (self.state).entry(function, &group, make, &mut self.cx.out);
        let id: EntryId<Fake> = id.expect("the function is defined");
        let Some((new, door)) = made else {
            let known = self.model.entries.iter().position(|e| e.id == id);
            let known = known.expect("the model knows the entry");
            self.model.entries[known].used = self.model.number();
            self.absorb(None);
            return Some(known);
        };
        assert_eq!((new, door), (id, self.model.entries.len()));
        let is_answered = usize::from(name) % NAMES.len() == ANSWERED;
        let group = number as u8;
        let groups = (group, if is_answered { ANSWERS } else { group });
        self.model
            .entries
            .push(crate::model::MEntry::new(id, function, groups, 1));
        self.model.entries[door].used = self.model.number();
        self.absorb(None);
        Some(door)
    }

    // Upkeep: ─────────────────────────────────────────────────────────────────────────────────

    pub fn free(&mut self, index: u8) {
        let all: Vec<_> = self.model.dying.keys().copied().collect();
        let Some(id) = pick(&all, index) else {
            return;
        };
        let dying = self.model.dying.remove(&id).expect("it was listed");
        self.state.freed(id, &mut self.cx.out);
        if let Some(heir) = dying.heir
            && self.model.requests.contains_key(&heir)
        {
            let gained = self.take_over(heir);
            self.seen
                .note_if(gained != Amounts::ZERO, "heir got its victim's");
        }
        self.absorb(None);
    }

    fn pass(&mut self, time: u64) {
        self.cx.slots.now += time;
        self.model.now = self.cx.slots.now;
        self.state.advance(self.cx.slots.now);
    }

    /// Somebody with a deadline is dropped by its executor without being dropped.
    fn leak(&mut self, index: u8) {
        let mut waiting: Vec<_> = (self.model.entries.iter_mut())
            .flat_map(|entry| entry.queue.iter_mut())
            .filter(|queued| queued.until != u64::MAX && !queued.leaked)
            .collect();
        let all = waiting.len() + self.model.requests.len();
        let index = usize::from(index) % all.max(1);
        if let Some(queued) = waiting.get_mut(index) {
            queued.leaked = true;
            return self.seen.note("leaked");
        }
        let index = index - waiting.len();
        if let Some(request) = self.model.requests.values_mut().nth(index)
            && let Some(nap) = request.nap.filter(|nap| nap.until != u64::MAX && !nap.late)
        {
            request.leaked = Some(nap.until);
            self.seen.note("leaked");
        }
    }

    /// Sleepers whose deadlines have come end; what was handed to those that are leaked goes to others.
    pub fn expire(&mut self) {
        let now = self.cx.slots.now;
        let sleeps = |nap: &Nap| !nap.woken || nap.closed;
        let asleep = |r: &MRequest| r.nap.filter(|nap| sleeps(nap) && nap.until <= now);
        let requests = self.model.requests.iter();
        let late: Vec<_> = requests
            .filter_map(|(id, r)| Some((*id, asleep(r)?)))
            .collect();
        self.state.expire(&mut self.cx.out);
        for (id, nap) in late {
            if !nap.late && !nap.closed {
                self.model.late.push(nap.waiter);
            }
            self.seen.note("expired");
            self.model.end(id);
        }
        self.absorb(None);
        let is_due = |leaked: Option<u64>| leaked.is_some_and(|until| until <= now);
        while let Some((id, _)) = self.model.requests.iter().find(|(_, r)| is_due(r.leaked)) {
            let id = *id;
            self.seen.note("taken back");
            self.model.end(id);
            self.state.abandon(id, &mut self.cx.out);
            self.absorb(None);
        }
        while let Some((id, _)) = self.model.instances.iter().find(|(_, i)| is_due(i.leaked)) {
            let id = *id;
            self.seen.note("taken back");
            self.model.instance(id).leaked = None;
            self.release_slow(id);
        }
    }

    /// Nobody is leaked any more.
    pub fn reap(&mut self) {
        let leaked = self.model.requests.values().any(|r| r.leaked.is_some())
            || self.model.instances.values().any(|i| i.leaked.is_some())
            || (self.model.entries.iter()).any(|e| e.queue.iter().any(|w| w.leaked));
        if leaked {
            self.pass(1000);
            self.expire();
            self.check();
        }
    }

    fn sweep(&mut self, kind: u8) {
        self.expire();
        let expiry = Expiry {
            idle: (kind & 1 != 0).then_some(IDLE),
            slack: u64::from(kind & 1),
            lifetime: (kind & 2 != 0).then_some(LIFETIME),
            code_idle: (kind & 4 != 0).then_some(CODE_IDLE),
        };
        let now = self.cx.slots.now;
        let over = |since: u64, expiry: Option<u64>| expiry.is_some_and(|t| now - since >= t);
        let idle = self.model.idle();
        let time_of = |i: &MInstance| match self.model.function_of(i.entry).map(|f| f.terms) {
            // Spares go by what is needed of them.
            _ if i.pristine => None,
            Some(terms) if terms.idle.is_own() => {
                let own = terms.idle.own_nanos();
                own.map(|time| time + expiry.slack)
            }
            _ => expiry.idle,
        };
        let trimmed = self.spares_to_trim(expiry);
        let is_idle =
            |(id, i): &&(Instance, &MInstance)| over(i.last.at, time_of(i)) || trimmed.contains(id);
        let is_too_old = |(_, i): &&(Instance, &MInstance)| over(i.created_at, expiry.lifetime);
        let too_idle: BTreeSet<_> = idle.iter().filter(is_idle).map(|(id, _)| *id).collect();
        let too_old = idle.iter().filter(is_too_old).map(|(id, _)| *id).collect();
        let expected: BTreeSet<_> = too_idle.union(&too_old).copied().collect();
        for (id, i) in &idle {
            let others = over(i.last.at, expiry.idle);
            let goes = expected.contains(id);
            self.seen
                .note_if(goes && !others, "idle for longer than its function may be");
            self.seen
                .note_if(!goes && others, "idle for longer than others may be");
        }
        self.review_shares();
        while self.state.sweep(expiry, &mut self.cx) {}
        let gone: BTreeSet<_> = self.cx.out.destroy.iter().filter_map(buried).collect();
        self.seen.note_if(!trimmed.is_empty(), "spares trimmed");
        self.check_swept(&gone, &too_idle, &too_old);
        self.absorb(None);
    }

    fn keep(&mut self, name: u8, group: u8) {
        if let Some(entry) = self.entry(name, u64::from(group) % GROUPS) {
            self.state.keep_entry(self.model.entries[entry].id);
            self.model.entries[entry].handles += 1;
        }
    }

    fn let_go(&mut self, index: u8) {
        let kept: Vec<usize> = (0..self.model.entries.len())
            .filter(|e| self.model.entries[*e].handles > 0)
            .collect();
        if let Some(entry) = pick(&kept, index) {
            let record = &mut self.model.entries[entry];
            record.handles -= 1;
            self.state.let_go_of_entry(record.id, &mut self.cx.out);
            self.absorb(None);
        }
    }

    pub fn set_limits(&mut self, which: u8) {
        let limits = LIMITS[usize::from(which) % LIMITS.len()];
        self.model.limits = limits;
        for request in self.model.requests.values_mut() {
            request.promised = false;
        }
        let per_budget = PerBudget::from_fn(|b| limits[b as usize]);
        self.state.set_limits(per_budget, &mut self.cx);
        let (gone, dropped) = self.victims();
        self.seen.note_if(!gone.is_empty(), "lowered limits repaid");
        self.model.check_repaid(&gone, &dropped);
        self.absorb(None);
        self.model.over = self.model.overdraft();
    }

    /// A lease has ended while more is charged than the limits allow.
    pub fn repay(&mut self) {
        self.state.repay(&mut self.cx);
        let (gone, dropped) = self.victims();
        self.seen.note_if(!gone.is_empty(), "a lease's end repaid");
        self.model.check_repaid(&gone, &dropped);
        self.absorb(None);
    }

    fn retain(&mut self, mask: u8) {
        let chosen: Vec<Instance> = (self.model.instances.keys().enumerate())
            .filter(|(n, _)| mask >> (n % 8) & 1 == 1)
            .map(|(_, id)| *id)
            .collect();
        let idle = |id: &&Instance| self.model.instances[id].place == Place::Idle;
        let expected = chosen.iter().filter(idle).count();
        let evicted = (self.state).evict(&chosen, &mut self.cx);
        assert_eq!(evicted, expected, "only what is idle can be evicted");
        self.absorb(None);
    }

    pub fn close(&mut self) {
        self.model.closed = true;
        self.state.close(&mut self.cx);
        self.absorb(None);
        assert!(self.model.idle().is_empty(), "closed with idle instances");
    }
}

fn buried(destroy: &Destroy<Fake>) -> Option<Instance> {
    match destroy {
        Destroy::Instance { instance, .. } => Some(*instance),
        Destroy::Code { .. } => None,
    }
}
