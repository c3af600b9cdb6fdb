//! The naive model: who holds what, in plain lists, summed afresh whenever somebody asks.

use std::collections::{BTreeMap, VecDeque};

use crate::fake::{Fake, Instance};
use crate::quarantine::{Judged, MConduct, RULE};
use crate::shares::MShare;
use crate::state::{
    Amounts, Budget, DyingId, EntryId, FunctionId, FunctionTerms, ModuleId, Policy, QuarantineRule,
    RequestId, Signal, Stamp, Ticket,
};

/// One number per budget, the total last.
pub type Sums = [u64; 8];
pub type Request = RequestId<Fake>;
pub type Dying = DyingId<Fake>;

pub fn sums(amounts: &Amounts) -> Sums {
    Budget::ALL.map(|b| amounts.get(b))
}

pub fn plus(a: Sums, b: &Amounts) -> Sums {
    let b = sums(b);
    core::array::from_fn(|i| a[i] + b[i])
}

pub fn total<'a>(all: impl IntoIterator<Item = &'a Amounts>) -> Sums {
    all.into_iter().fold([0; 8], plus)
}

/// How many pass whoever waits for room before it collects.
pub const MAX_OVERTAKES: u64 = 2;

/// Entries that are kept although nothing uses them.
pub const MAX_UNUSED: usize = 2;

pub const MEMORY: usize = 0;
pub const CODE: usize = 1;
pub const COMPILE: usize = 2;
pub const STACK: usize = 3;
pub const INSTANCES: usize = 7;

#[derive(Debug)]
pub struct MFunction {
    pub id: FunctionId<Fake>,
    pub key: u8,
    pub version: u64,
    pub definition: u32,
    pub terms: FunctionTerms,
}

impl MFunction {
    /// Instances that each of its entries may have at once.
    pub fn most(&self) -> usize {
        let own = self.terms.max_instances;
        own.map_or(usize::MAX, |own| own.get().into())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MSeat {
    Vacant,
    Promised,
    Taken(Instance),
}

/// Who waits for a seat.
#[derive(Clone, Copy, Debug)]
pub struct Queued {
    pub waiter: u32,
    pub ticket: Ticket,
    pub until: u64,
    /// Nobody will ever poll it.
    pub leaked: bool,
}

#[derive(Debug)]
pub struct MEntry {
    pub id: EntryId<Fake>,
    pub function: FunctionId<Fake>,
    pub group: u8,
    /// In which group's share it counts.
    pub share: u8,
    pub seats: Vec<MSeat>,
    pub queue: VecDeque<Queued>,
    /// Handles that keep it.
    pub handles: usize,
    /// When it was last asked for, or seen in use.
    pub used: u32,
    /// The core has no record of it any more.
    pub gone: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Idle,
    /// Back in its slot, which notifies: its release has yet to take the lock.
    Unheard,
    Leased,
    /// In the shell's hands, under the lock.
    Held,
}

#[derive(Debug)]
pub struct MInstance {
    pub entry: usize,
    pub seat: usize,
    pub key: u8,
    pub version: u64,
    pub holds: Amounts,
    pub last: Stamp,
    pub created_at: u64,
    pub place: Place,
    /// Handed to somebody who will never take it, and is late from then on.
    pub leaked: Option<u64>,
    /// It is leased once.
    pub pristine: bool,
    /// Its lease began without the lock: the core may have looked last when it was idle.
    pub unseen: bool,
}

#[derive(Debug)]
pub enum MPhase {
    Cold,
    Flight(Request),
    Loaded { code: u32, holds: Amounts },
    Failed { failure: u32, until: u64 },
}

#[derive(Debug)]
pub struct MModule {
    pub phase: MPhase,
    pub code_bytes: Option<u64>,
}

/// What a request does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Prepare,
    /// It leads: reserve for the compilation, with this estimate of the code.
    Lead(u64),
    /// It has compiled, and now knows the true size.
    Load,
    Instantiate,
    Bear,
    /// It makes an instance for nobody in particular.
    Spare,
    /// It wants no instance: the code is there, and its request ends.
    Keep,
    /// It compiles something that no function needs, when it is its turn.
    Turn,
    Work,
    /// It makes this lease's memory grow.
    Grow(Instance, u64),
}

/// What a request sleeps for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sleep {
    Flight(ModuleId<Fake>, Ticket),
    /// In the line of this group, with what that has been served and its own size.
    Compilers(Option<u8>, u64),
    Room(Ticket),
}

#[derive(Clone, Copy, Debug)]
pub struct Nap {
    pub waiter: u32,
    pub sleep: Sleep,
    pub woken: bool,
    /// The place among those who wait for room; kept when it must wait again.
    pub order: u32,
    pub until: u64,
    /// It has been told so.
    pub late: bool,
    /// It was woken because the pool was closed.
    pub closed: bool,
}

#[derive(Debug)]
pub struct MRequest {
    /// The module whose flight it waited for last.
    pub followed: Option<u8>,
    /// The function whose code it needs.
    pub function: Option<FunctionId<Fake>>,
    pub seat: Option<(usize, usize)>,
    pub key: Option<u8>,
    pub version: u64,
    pub held: Amounts,
    /// How many had passed those who wait for room when it began to.
    pub since: Option<u64>,
    /// The module whose code it waits to see gone.
    pub awaits_leave: Option<u8>,
    pub step: Step,
    pub nap: Option<Nap>,
    /// Of what it compiles.
    pub size: u64,
    /// What it last asked for.
    pub target: Amounts,
    /// Victims were evicted for it, and it has not asked again.
    pub expects: bool,
    /// Nobody will ever poll it, and it is late from then on.
    pub leaked: Option<u64>,
    /// And no limit was changed since, so that it will be granted when they are gone.
    pub promised: bool,
}

#[derive(Debug)]
pub struct MDying {
    pub holds: Amounts,
    /// The module of an instance.
    pub key: Option<u8>,
    pub heir: Option<Request>,
}

#[derive(Debug)]
pub struct Model {
    pub policy: Policy,
    pub max_compilations: usize,
    pub limits: Sums,
    /// How far the limits were exceeded after the last step.
    pub over: Sums,
    pub functions: Vec<Option<MFunction>>,
    pub entries: Vec<MEntry>,
    pub modules: BTreeMap<u8, MModule>,
    pub instances: BTreeMap<Instance, MInstance>,
    pub requests: BTreeMap<Request, MRequest>,
    pub dying: BTreeMap<Dying, MDying>,
    /// Releases that saw their slots' flags and have yet to take the lock.
    pub reports: Vec<(usize, usize)>,
    /// Seat waiters that must be served by the call that is under way.
    pub due: VecDeque<(Queued, usize, usize)>,
    /// Entries whose function may have another number of instances now.
    pub refit: Vec<usize>,
    /// Who must be told by that call that they are late.
    pub late: Vec<u32>,
    pub now: u64,
    pub closed: bool,
    /// Who collects, and which modules leave for it: as the core said after the last call.
    pub collecting: Option<Request>,
    pub collected_for: Vec<u8>,
    /// How often somebody got what those who wait for room might have had.
    pub overtakes: u64,
    pub quarantine: QuarantineRule,
    pub conducts: BTreeMap<Judged, MConduct>,
    /// Who must be told by the call that is under way to look again, having waited for a seat.
    pub expelled: Vec<u32>,
    /// Groups that have something reserved.
    pub shares: BTreeMap<u8, MShare>,
    /// Sizes of those whose turn to compile has come, by group; nothing that prepares has one.
    pub served: BTreeMap<Option<u8>, u64>,
    pub numbers: u32,
}

impl Model {
    pub fn new(policy: Policy, max_compilations: usize, names: usize) -> Self {
        Self {
            policy,
            max_compilations,
            limits: [0; 8],
            over: [0; 8],
            functions: (0..names).map(|_| None).collect(),
            entries: Vec::new(),
            modules: BTreeMap::new(),
            instances: BTreeMap::new(),
            requests: BTreeMap::new(),
            dying: BTreeMap::new(),
            reports: Vec::new(),
            due: VecDeque::new(),
            refit: Vec::new(),
            late: Vec::new(),
            now: 0,
            closed: false,
            collecting: None,
            collected_for: Vec::new(),
            overtakes: 0,
            quarantine: RULE,
            conducts: BTreeMap::new(),
            expelled: Vec::new(),
            shares: BTreeMap::new(),
            served: BTreeMap::new(),
            numbers: 0,
        }
    }

    /// A number that was not used before.
    pub fn number(&mut self) -> u32 {
        self.numbers += 1;
        self.numbers
    }

    pub fn loaded(&self) -> impl Iterator<Item = (u8, &Amounts)> {
        self.modules.iter().filter_map(|(key, m)| match &m.phase {
            MPhase::Loaded { holds, .. } => Some((*key, holds)),
            _ => None,
        })
    }

    pub fn charged(&self) -> Sums {
        let instances = self.instances.values().map(|i| &i.holds);
        let requests = self.requests.values().map(|r| &r.held);
        let dying = self.dying.values().map(|d| &d.holds);
        let modules = self.loaded().map(|(_, holds)| holds);
        total(instances.chain(requests).chain(dying).chain(modules))
    }

    pub fn overdraft(&self) -> Sums {
        let charged = self.charged();
        core::array::from_fn(|b| charged[b].saturating_sub(self.limits[b]))
    }

    pub fn function_of(&self, entry: usize) -> Option<&MFunction> {
        self.function(self.entries[entry].function)
    }

    /// The function, if it has not been removed.
    pub fn function(&self, id: FunctionId<Fake>) -> Option<&MFunction> {
        self.functions.iter().flatten().find(|f| f.id == id)
    }

    /// Whether the version that a request has asked for is not the function's any more.
    pub fn is_stale(&self, id: Request) -> bool {
        let request = &self.requests[&id];
        let function = request
            .function
            .and_then(|function| self.function(function));
        self.closed || function.map(|f| f.version) != Some(request.version)
    }

    pub fn flights(&self) -> usize {
        let flying = |m: &&MModule| matches!(m.phase, MPhase::Flight(_));
        self.modules.values().filter(flying).count()
    }

    pub fn compiling(&self) -> usize {
        let works = self.requests.values().filter(|r| r.step == Step::Work);
        self.flights() + works.count()
    }

    /// Whether a turn to compile is free that was not promised to somebody else.
    pub fn has_turn_for(&self, id: Request) -> bool {
        let works = |r: &MRequest| r.step == Step::Work;
        let promised = |r: &MRequest| {
            let woken = |nap: &Nap| nap.woken && matches!(nap.sleep, Sleep::Compilers(..));
            r.nap.as_ref().is_some_and(woken)
        };
        let others = self.requests.iter().filter(|(other, _)| **other != id);
        let busy = others.filter(|(_, r)| works(r) || promised(r)).count();
        self.flights() + busy < self.max_compilations
    }

    pub fn leases(&self) -> Vec<Instance> {
        let leased =
            |(_, i): &(&Instance, &MInstance)| i.place == Place::Leased && i.leaked.is_none();
        self.instances
            .iter()
            .filter(leased)
            .map(|(id, _)| *id)
            .collect()
    }

    pub fn live(&self, key: u8) -> impl Iterator<Item = &MInstance> {
        self.instances.values().filter(move |i| i.key == key)
    }

    pub fn pins(&self, key: u8) -> usize {
        let pinned = |r: &&MRequest| r.key == Some(key);
        self.requests.values().filter(pinned).count()
    }

    pub fn names(&self, key: u8) -> usize {
        let named = |f: &&MFunction| f.key == key;
        self.functions.iter().flatten().filter(named).count()
    }

    pub fn dying_of(&self, key: u8) -> usize {
        let of = |d: &&MDying| d.key == Some(key);
        self.dying.values().filter(of).count()
    }

    pub fn is_unused(&self, key: u8) -> bool {
        self.pins(key) + self.live(key).count() + self.dying_of(key) == 0
    }

    // What the calls of the shell change: ─────────────────────────────────────────────────────

    /// A seat is free: the first in the queue must be told so by this very call.
    pub fn vacate(&mut self, entry: usize, seat: usize) {
        self.entries[entry].seats[seat] = MSeat::Vacant;
        if !self.may_occupy(entry) {
            return;
        }
        self.skip_late(entry);
        if let Some(next) = self.entries[entry].queue.pop_front() {
            self.entries[entry].seats[seat] = MSeat::Promised;
            self.due.push_back((next, entry, seat));
        }
    }

    /// The entries of a function, in the order of their groups.
    pub fn entries_of(&self, function: FunctionId<Fake>) -> Vec<usize> {
        let all = self.entries.iter().enumerate();
        let own = all.filter(|(_, e)| e.function == function && !e.gone);
        let mut own: Vec<_> = own.map(|(at, e)| (e.group, at)).collect();
        own.sort();
        own.into_iter().map(|(_, at)| at).collect()
    }

    /// Who waits gets the seats that may be occupied now, of so many that there are.
    pub fn offer_more(&mut self, entry: usize, seats: usize) -> bool {
        self.entries[entry].seats.resize(seats, MSeat::Vacant);
        let mut any = false;
        loop {
            if !self.may_occupy(entry) {
                return any;
            }
            self.skip_late(entry);
            if self.entries[entry].queue.is_empty() {
                return any;
            }
            let vacant = (self.entries[entry].seats.iter()).position(|s| *s == MSeat::Vacant);
            let seat = vacant.expect("a seat for as many as there may be");
            any = true;
            self.vacate(entry, seat);
        }
    }

    pub fn occupied(&self, entry: usize) -> usize {
        let seats = self.entries[entry].seats.iter();
        seats.filter(|seat| **seat != MSeat::Vacant).count()
    }

    pub fn may_occupy(&self, entry: usize) -> bool {
        let function = self.function_of(entry);
        function.is_some_and(|f| self.occupied(entry) < f.most())
    }

    pub fn has_surplus(&self, entry: usize) -> bool {
        let function = self.function_of(entry);
        function.is_some_and(|f| self.occupied(entry) > f.most())
    }

    /// Whoever is served next, those before it are told that they are late.
    pub fn skip_late(&mut self, entry: usize) {
        let queue = &mut self.entries[entry].queue;
        while let Some(late) = queue.pop_front_if(|queued| queued.until <= self.now) {
            self.late.push(late.waiter);
        }
    }

    pub fn promise(&mut self, request: Request, entry: usize, seat: usize) {
        self.entries[entry].seats[seat] = MSeat::Promised;
        self.note_share_used(entry);
        let version = self.function_of(entry).map_or(0, |f| f.version);
        let function = Some(self.entries[entry].function);
        self.begin(request, function, version, Step::Prepare);
        self.request(request).seat = Some((entry, seat));
    }

    pub fn begin(
        &mut self,
        request: Request,
        function: Option<FunctionId<Fake>>,
        version: u64,
        step: Step,
    ) {
        let record = MRequest {
            followed: None,
            function,
            seat: None,
            key: None,
            version,
            held: Amounts::ZERO,
            since: None,
            awaits_leave: None,
            step,
            nap: None,
            size: 0,
            target: Amounts::ZERO,
            expects: false,
            leaked: None,
            promised: false,
        };
        let before = self.requests.insert(request, record);
        assert!(before.is_none(), "{request:?} given out twice");
    }

    /// The request needs this module, and no other any more.
    pub fn pin(&mut self, request: Request, key: u8) {
        let before = self.request(request).key.replace(key);
        if before != Some(key) {
            self.stop_leading(request);
        }
    }

    fn stop_leading(&mut self, request: Request) {
        for module in self.modules.values_mut() {
            if matches!(module.phase, MPhase::Flight(leader) if leader == request) {
                module.phase = MPhase::Cold;
            }
        }
    }

    pub fn request(&mut self, id: Request) -> &mut MRequest {
        self.requests
            .get_mut(&id)
            .expect("the model knows the request")
    }

    pub fn instance(&mut self, id: Instance) -> &mut MInstance {
        self.instances
            .get_mut(&id)
            .expect("the model knows the instance")
    }

    pub fn module(&mut self, key: u8) -> &mut MModule {
        self.modules
            .get_mut(&key)
            .expect("the model knows the module")
    }

    /// The request has ended: all it had is free.
    pub fn end(&mut self, id: Request) {
        let request = self.requests.remove(&id).expect("ended once");
        self.stop_leading(id);
        if let Some((entry, seat)) = request.seat {
            self.vacate(entry, seat);
        }
    }

    /// An instance that nobody leases goes to its destruction.
    pub fn free_instance(&mut self, id: Instance, dying: Dying, heir: Option<Request>) {
        let instance = self.instances.remove(&id).expect("destroyed once");
        let idle = matches!(instance.place, Place::Idle | Place::Held);
        assert!(idle, "{id:?} was destroyed while {:?}", instance.place);
        let key = Some(instance.key);
        let used_at = match instance.place {
            Place::Held => self.now,
            _ => instance.last.at,
        };
        if let Some(share) = self.share_of(instance.entry) {
            share.used_at = share.used_at.max(used_at);
        }
        self.doom(dying, instance.holds, key, heir);
        self.vacate(instance.entry, instance.seat);
    }

    /// Code goes to its destruction. Returns its module.
    pub fn drop_code(&mut self, code: u32, dying: Dying, heir: Option<Request>) -> u8 {
        let is_it =
            |m: &MModule| matches!(m.phase, MPhase::Loaded { code: loaded, .. } if loaded == code);
        let found = self.modules.iter().find(|(_, m)| is_it(m));
        let key = *found.expect("code is dropped once").0;
        assert_eq!(self.pins(key), 0, "module {key} was dropped while pinned");
        assert_eq!(
            self.live(key).count(),
            0,
            "module {key} was dropped under its instances"
        );
        let phase = core::mem::replace(&mut self.module(key).phase, MPhase::Cold);
        for share in self.shares.values_mut() {
            share.users_of.remove(&key);
        }
        if let MPhase::Loaded { holds, .. } = phase {
            self.doom(dying, holds, None, heir);
        }
        key
    }

    fn doom(&mut self, id: Dying, holds: Amounts, key: Option<u8>, heir: Option<Request>) {
        let before = self.dying.insert(id, MDying { holds, key, heir });
        assert!(before.is_none(), "{id:?} dies twice");
    }

    // Who is woken: ───────────────────────────────────────────────────────────────────────────

    pub fn wake(&mut self, waiter: u32, signal: Signal<Fake>) {
        match signal {
            Signal::Seat(request) => {
                let (first, entry, seat) = self.due.pop_front().expect("no seat became free");
                assert_eq!(waiter, first.waiter, "seats go to who came first");
                self.promise(request, entry, seat);
                self.request(request).leaked = first.leaked.then_some(first.until);
            }
            Signal::Late => self.notify_late(waiter),
            Signal::Retry if self.expelled.contains(&waiter) => {
                self.expelled.retain(|expelled| *expelled != waiter);
            }
            Signal::Retry => self.wake_nap(waiter, false),
            Signal::Gone => {
                assert!(self.wake_seat_waiter(waiter), "Gone is for seat waiters");
            }
            Signal::Closed => {
                assert!(self.closed, "told Closed by an open pool");
                if !self.wake_seat_waiter(waiter) {
                    self.wake_nap(waiter, true);
                }
            }
        }
    }

    fn wake_seat_waiter(&mut self, waiter: u32) -> bool {
        for entry in &mut self.entries {
            if entry.queue.front().is_some_and(|w| w.waiter == waiter) {
                entry.queue.pop_front();
                return true;
            }
        }
        false
    }

    fn notify_late(&mut self, waiter: u32) {
        if let Some(at) = self.late.iter().position(|late| *late == waiter) {
            self.late.remove(at);
            return;
        }
        let now = self.now;
        let waits = |r: &&mut MRequest| r.nap.is_some_and(|nap| nap.waiter == waiter);
        let request = self.requests.values_mut().find(waits);
        let request = request.expect("who is told that it is late waits");
        request.expects = false;
        let nap = request.nap.as_mut().expect("it was found asleep");
        assert!(nap.until <= now && !nap.late && !nap.woken, "{nap:?}");
        nap.late = true;
    }

    fn wake_nap(&mut self, waiter: u32, closed: bool) {
        let sleeper = |(_, r): &(&Request, &MRequest)| r.nap.is_some_and(|n| n.waiter == waiter);
        let found = self.requests.iter().find(sleeper).map(|(id, _)| *id);
        let id = found.expect("who is woken sleeps");
        let nap = self.requests[&id].nap.expect("it was found asleep");
        assert!(!nap.woken, "{id:?} was woken twice");
        assert!(closed || nap.until > self.now, "{id:?} is late");
        match nap.sleep {
            Sleep::Room(_) => assert_eq!(self.first_for_room(), Some(id), "room is FIFO"),
            Sleep::Compilers(group, _) => {
                assert!(
                    closed || self.first_in_line(group) == Some(id),
                    "out of line"
                );
                *self.served.entry(group).or_default() += self.requests[&id].size;
            }
            Sleep::Flight(..) => {}
        }
        if let Some(nap) = &mut self.request(id).nap {
            nap.woken = true;
            nap.closed = closed;
        }
    }

    fn first(&self, waits: impl Fn(&Nap) -> bool) -> Option<Request> {
        let naps = self
            .requests
            .iter()
            .filter_map(|(id, r)| Some((id, r.nap?)));
        let asleep = naps.filter(|(_, nap)| !nap.woken && !nap.late && waits(nap));
        asleep.min_by_key(|(_, nap)| nap.order).map(|(id, _)| *id)
    }

    pub fn first_for_room(&self) -> Option<Request> {
        self.first(|nap| matches!(nap.sleep, Sleep::Room(_)))
    }

    /// Whether it is the first of those who wait for room, asleep or woken.
    pub fn is_first_for_room(&self, id: Request) -> bool {
        let place = |r: &MRequest| match r.nap? {
            nap if nap.late => None,
            nap => matches!(nap.sleep, Sleep::Room(_)).then_some(nap.order),
        };
        let first = self.requests.values().filter_map(place).min();
        !self.closed && first.is_some() && place(&self.requests[&id]) == first
    }

    /// Whether it was passed so often that it collects if it finds no room.
    pub fn is_due(&self, id: Request) -> bool {
        let since = self.requests[&id].since;
        since.is_some_and(|s| self.overtakes - s >= MAX_OVERTAKES) && self.is_first_for_room(id)
    }

    /// Somebody got what those who wait for room might have had.
    pub fn note_overtaken(&mut self) {
        let waits = |r: &MRequest| matches!(r.nap, Some(nap) if !nap.late && matches!(nap.sleep, Sleep::Room(_)));
        if !self.closed && self.requests.values().any(waits) {
            self.overtakes += 1;
        }
    }

    pub fn first_compiler(&self) -> Option<Request> {
        self.first(|nap| matches!(nap.sleep, Sleep::Compilers(..)))
    }

    /// Of a group, the smaller compiles before the larger, within bounds.
    fn first_in_line(&self, group: Option<u8>) -> Option<Request> {
        let place = |(id, r): (&Request, &MRequest)| match r.nap? {
            nap if nap.woken || nap.late => None,
            nap => match nap.sleep {
                Sleep::Compilers(of, due) if of == group => Some((due, nap.order, *id)),
                _ => None,
            },
        };
        let first = self.requests.iter().filter_map(place);
        first
            .min_by_key(|(due, order, _)| (*due, *order))
            .map(|(.., id)| id)
    }

    /// A request of this size joins its group's line.
    pub fn join_line(&mut self, id: Request, size: u64) -> Sleep {
        let seat = self.requests[&id].seat;
        let group = seat.map(|(entry, _)| self.entries[entry].share);
        self.request(id).size = size;
        let served = self.served.get(&group).copied().unwrap_or(0);
        Sleep::Compilers(group, served + size)
    }

    /// Whether nothing but its function's name leads to an entry.
    pub fn is_unused_entry(&self, entry: usize) -> bool {
        let record = &self.entries[entry];
        let defined = self.function_of(entry).is_some();
        defined && !record.gone && record.handles == 0 && self.is_vacant(entry)
    }

    /// The core keeps no record of these entries any more.
    pub fn forget(&mut self, forgotten: &[usize]) {
        for &entry in forgotten {
            if self.function_of(entry).is_some() {
                assert!(self.is_unused_entry(entry), "entry {entry} is in use");
            }
            assert!(self.is_vacant(entry), "entry {entry} holds something");
            self.entries[entry].gone = true;
        }
        let unused = || (0..self.entries.len()).filter(|e| self.is_unused_entry(*e));
        assert!(unused().count() <= MAX_UNUSED, "entries pile up");
        let of_the_defined = |entry: &&usize| self.function_of(**entry).is_some();
        for &entry in forgotten.iter().filter(of_the_defined) {
            assert_eq!(
                unused().count(),
                MAX_UNUSED,
                "{entry} was forgotten in vain"
            );
            let earliest = unused().map(|e| self.entries[e].used).min();
            let used = self.entries[entry].used;
            assert!(Some(used) <= earliest, "others were unused for longer");
        }
        let now = self.number();
        for entry in 0..self.entries.len() {
            if !self.is_unused_entry(entry) {
                self.entries[entry].used = now;
            }
        }
    }

    /// Records that nobody can reach any more.
    pub fn tidy(&mut self) {
        for entry in 0..self.entries.len() {
            let vacant = self.is_vacant(entry);
            if vacant && self.function_of(entry).is_none() {
                self.entries[entry].gone = true;
            }
        }
        let keys: Vec<u8> = self.modules.keys().copied().collect();
        for key in keys {
            if self.names(key) == 0 && self.is_unused(key) {
                let module = self.modules.remove(&key);
                let loaded = module.is_some_and(|m| matches!(m.phase, MPhase::Loaded { .. }));
                assert!(!loaded, "the code of module {key} is lost");
            }
        }
    }

    pub fn is_vacant(&self, entry: usize) -> bool {
        let entry = &self.entries[entry];
        entry.queue.is_empty() && entry.seats.iter().all(|s| *s == MSeat::Vacant)
    }
}
