//! Requests, one step at a time: prepare, lead, compile, load; then instantiate, or keep the code. Or grow.

use crate::fake::{Fake, Instance};
use crate::model::{MPhase, Nap, Request, Sleep, Step, sums};
use crate::room::{Verdict, covers};
use crate::state::{Amounts, Prepare, ReserveOutcome, Stale};
use crate::world::{CODE_BYTES, COMPILE_BYTES, COOL_DOWN, MEMORY_BYTES, STACK_BYTES, World, pick};

/// What goes wrong in a step. All bits set: nothing does, and whoever must wait waits.
#[derive(Clone, Copy)]
struct Dice(u8);

impl Dice {
    fn fails(self) -> bool {
        self.0 & 0b111 == 0
    }
    fn is_impatient(self) -> bool {
        self.0 & 0b1_1000 == 0
    }
    fn is_late(self) -> bool {
        self.0 & 0b1110_0000 == 0
    }
}

pub const GOOD: u8 = 0xff;

/// What asking for a module must come to, by the model.
#[derive(Debug, PartialEq, Eq)]
enum Expected {
    Ready(u32, u32),
    Lead(u8, u32, Option<u64>),
    Follow,
    Queue,
    Failed(u32),
    Gone,
    Closed,
}

fn verdict(room: ReserveOutcome) -> Verdict {
    match room {
        ReserveOutcome::Granted => Verdict::Granted,
        ReserveOutcome::Evicting => Verdict::Evicting,
        ReserveOutcome::AwaitFrees(_) => Verdict::Soon,
        ReserveOutcome::Refused(_) => Verdict::Refused,
    }
}

fn code(bytes: u64) -> Amounts {
    Amounts::ZERO.code(bytes).mappings(1)
}

impl World {
    pub fn step(&mut self, id: Request, dice: u8) {
        let dice = Dice(dice);
        if self.is_leaked(id) {
            return;
        }
        if let Some(nap) = self.model.request(id).nap {
            if nap.late {
                return self.give_up(id);
            }
            let gives_up = if nap.woken {
                dice.is_late()
            } else {
                dice.is_impatient()
            };
            if gives_up {
                return self.give_up(id);
            }
            if !nap.woken {
                return;
            }
        }
        match self.model.request(id).step {
            Step::Prepare => self.prepare(id, dice),
            Step::Lead(estimate) => {
                if self.ask(id, code(estimate).compile(COMPILE_BYTES), dice) {
                    self.compile(id, estimate, dice);
                }
            }
            Step::Load => {
                let bytes = self.true_size(id);
                if self.ask(id, code(bytes).compile(COMPILE_BYTES), dice) {
                    self.load(id, bytes);
                }
            }
            Step::Instantiate => {
                if self.ask(id, self.instance_need(id), dice) {
                    self.model.request(id).step = Step::Bear;
                }
            }
            Step::Bear => self.bear(id, dice),
            Step::Spare => self.make_spare(id, dice.fails()),
            Step::Keep => self.keep_code(id, dice),
            Step::Turn => self.ask_for_turn(id, dice),
            Step::Work => {
                self.seen.note("module of no function compiled");
                self.give_up(id);
            }
            Step::Grow(instance, by) => {
                if self.ask(id, Amounts::ZERO.memory(by), dice) {
                    self.grow(id, instance, dice);
                }
            }
        }
    }

    pub fn is_leaked(&self, id: Request) -> bool {
        self.model.requests[&id].leaked.is_some()
    }

    /// The deadline of a waiter: some have one.
    pub fn until(&self, waiter: u32) -> u64 {
        match waiter % 3 {
            0 => self.cx.slots.now + 3 + u64::from(waiter % 8),
            _ => u64::MAX,
        }
    }

    fn key(&self, id: Request) -> u8 {
        self.model.requests[&id].key.expect("it was prepared")
    }

    fn true_size(&self, id: Request) -> u64 {
        CODE_BYTES[usize::from(self.key(id))]
    }

    pub fn instance_need(&self, id: Request) -> Amounts {
        let key = usize::from(self.key(id));
        Amounts::ZERO
            .memory(MEMORY_BYTES[key])
            .stack(STACK_BYTES[key])
            .mappings(1)
            .instances(1)
    }

    // The module: ─────────────────────────────────────────────────────────────────────────────

    fn expect_prepare(&mut self, id: Request) -> Expected {
        if self.model.closed {
            return Expected::Closed;
        }
        let function = self.model.requests[&id].function;
        let function = function.expect("growth needs no code");
        let Some(function) = self.model.function(function) else {
            return Expected::Gone;
        };
        let (key, version, definition) = (function.key, function.version, function.definition);
        self.model.request(id).version = version;
        if self.model.collected_for.contains(&key) && self.model.collecting != Some(id) {
            let request = self.model.request(id);
            request.key = None;
            request.awaits_leave = Some(key);
            return Expected::Follow;
        }
        self.model.request(id).awaits_leave = None;
        self.model.pin(id, key);
        let full = !self.model.has_turn_for(id);
        let followed = self.model.request(id).followed.take() == Some(key);
        let module = &self.model.modules[&key];
        match module.phase {
            MPhase::Loaded { code, .. } => Expected::Ready(code, definition),
            MPhase::Flight(_) => {
                self.model.request(id).followed = Some(key);
                Expected::Follow
            }
            MPhase::Failed { failure, until } if self.cx.slots.now < until || followed => {
                Expected::Failed(failure)
            }
            _ if full => Expected::Queue,
            _ => Expected::Lead(key, definition, module.code_bytes),
        }
    }

    fn prepare(&mut self, id: Request, dice: Dice) {
        let turn = self.model.request(id).nap.take();
        let expected = self.expect_prepare(id);
        let prepared = self.state.prepare(id, &mut self.cx.out);
        let found = match &prepared {
            Prepare::Ready { definition, .. } => {
                let code = self
                    .state
                    .code_of(id)
                    .expect("the code is loaded and pinned");
                Expected::Ready(code, *definition)
            }
            Prepare::Lead {
                source,
                definition,
                code_bytes,
                ..
            } => Expected::Lead(*source, *definition, *code_bytes),
            Prepare::Follow(_) | Prepare::Collected(..) => Expected::Follow,
            Prepare::Queue { .. } => Expected::Queue,
            Prepare::Failed(failure) => Expected::Failed(*failure),
            Prepare::Gone => Expected::Gone,
            Prepare::Closed => Expected::Closed,
        };
        assert_eq!(found, expected);
        if matches!(found, Expected::Follow | Expected::Queue) {
            // Who waits for another holds nothing that the other may wait for.
            let request = self.model.request(id);
            request.held = Amounts::ZERO;
            request.expects = false;
            request.promised = false;
        }
        if let Prepare::Lead { .. } = prepared {
            let key = self.key(id);
            self.model.module(key).phase = MPhase::Flight(id);
        }
        self.absorb(None);
        let woken = turn.map(|nap| nap.sleep);
        let leads = matches!(found, Expected::Lead(..));
        let passes = matches!(woken, Some(Sleep::Compilers(..))) && !leads;
        self.seen.note_if(passes, "turn to compile passed on");
        self.act_on(id, prepared, dice);
    }

    fn act_on(&mut self, id: Request, prepared: Prepare<Fake>, dice: Dice) {
        let waiter = self.model.number();
        match prepared {
            Prepare::Ready { .. } => {
                self.seen.note("code ready");
                self.with_code(id);
            }
            Prepare::Lead { code_bytes, .. } => {
                let guess = self.true_size(id) + u64::from(dice.0 % 5) - 2;
                let estimate = code_bytes.unwrap_or(guess);
                self.model.request(id).step = Step::Lead(estimate);
            }
            Prepare::Collected(..) if dice.is_impatient() => self.give_up(id),
            Prepare::Follow(module) | Prepare::Collected(module, _) => {
                self.seen.note("follow");
                let leaves = self.model.request(id).awaits_leave.is_some();
                self.seen.note_if(leaves, "waits for a module to leave");
                let until = self.until(waiter);
                let ticket = self.state.follow(module, id, waiter, until);
                if ticket.is_none() && leaves {
                    // Its pin was the last that kept the code: it asks again.
                    self.model.request(id).awaits_leave = None;
                    return;
                }
                let ticket = ticket.expect("the flight is under way");
                self.sleep(id, waiter, waiter, Sleep::Flight(module, ticket));
            }
            Prepare::Queue { .. } => self.wait_to_compile(id, waiter, dice),
            Prepare::Failed(_) => {
                self.seen.note("refused while cooling down");
                self.give_up(id);
            }
            Prepare::Gone | Prepare::Closed => self.give_up(id),
        }
    }

    fn wait_to_compile(&mut self, id: Request, waiter: u32, dice: Dice) {
        self.seen.note("queued to compile");
        let (until, size) = (self.until(waiter), u64::from(dice.0 % 7));
        (self.state).wait_for_compiler(id, size, waiter, until);
        let sleep = self.model.join_line(id, size);
        self.sleep(id, waiter, waiter, sleep);
    }

    pub fn begin_work(&mut self) {
        let id = self.state.begin_work();
        self.model.begin(id, None, 0, Step::Turn);
    }

    fn ask_for_turn(&mut self, id: Request, dice: Dice) {
        if self.model.closed {
            return self.give_up(id);
        }
        let expected = self.model.has_turn_for(id);
        self.model.request(id).nap = None;
        let has_turn = self.state.ask_for_turn(id, &mut self.cx.out);
        assert_eq!(has_turn, expected);
        self.absorb(None);
        if has_turn {
            self.model.request(id).step = Step::Work;
        } else {
            let waiter = self.model.number();
            self.wait_to_compile(id, waiter, dice);
        }
    }

    fn sleep(&mut self, id: Request, waiter: u32, order: u32, sleep: Sleep) {
        let until = self.until(waiter);
        self.model.request(id).nap = Some(Nap {
            waiter,
            sleep,
            woken: false,
            order,
            until,
            late: false,
            closed: false,
        });
    }

    fn compile(&mut self, id: Request, estimate: u64, dice: Dice) {
        let key = self.key(id);
        if dice.fails() {
            self.seen.note("module failed");
            let failure = self.model.number();
            let until = self.cx.slots.now + COOL_DOWN;
            self.state.failed(id, failure, until, &mut self.cx.out);
            self.model.module(key).phase = MPhase::Failed { failure, until };
            self.absorb(None);
            return self.give_up(id);
        }
        let bytes = self.true_size(id);
        self.seen
            .note_if(bytes > estimate, "code larger than estimated");
        self.state.note_code_bytes(id, bytes);
        self.model.module(key).code_bytes = Some(bytes);
        self.model.request(id).step = Step::Load;
    }

    fn load(&mut self, id: Request, bytes: u64) {
        let (serial, key, holds) = (self.model.number(), self.key(id), code(bytes));
        let cost = 1000 * bytes;
        self.state.loaded(id, serial, holds, cost, &mut self.cx.out);
        self.model.module(key).phase = MPhase::Loaded {
            code: serial,
            holds,
        };
        let request = self.model.request(id);
        request.held = request.held.beyond(&holds);
        self.absorb(None);
        self.state.shrink_to(id, Amounts::ZERO, &mut self.cx.out);
        let request = self.model.request(id);
        request.held = Amounts::ZERO;
        self.with_code(id);
        self.absorb(None);
        self.seen.note("loaded");
    }

    /// The code is there: for an instance, if the request has a seat for one.
    fn with_code(&mut self, id: Request) {
        let request = self.model.request(id);
        request.step = match request.seat {
            Some(_) => Step::Instantiate,
            None => Step::Keep,
        };
    }

    // Without an instance: ────────────────────────────────────────────────────────────────────

    /// A preparation begins; also of functions that are gone.
    pub fn prepare_ahead(&mut self, index: u8) {
        let defined = self.model.functions.iter().flatten().map(|f| f.id);
        let known: Vec<_> = defined
            .chain(self.model.entries.iter().map(|e| e.function))
            .collect();
        let Some(function) = pick(&known, index) else {
            return;
        };
        let misses = self.state.totals().misses;
        let id = self.state.begin_prepare(function);
        assert_eq!(self.state.totals().misses, misses, "no instance is made");
        let current = self.model.function(function).map(|f| f.version);
        self.seen
            .note_if(current.is_none(), "prepared a removed function");
        let version = current.unwrap_or(0);
        self.model.begin(id, Some(function), version, Step::Prepare);
    }

    fn keep_code(&mut self, id: Request, dice: Dice) {
        let (key, stale) = (self.key(id), self.model.is_stale(id));
        let Ok(code) = self.state.prepared(id, &mut self.cx.out) else {
            assert!(stale, "current code was refused");
            self.seen.note("prepared, and stale");
            self.absorb(None);
            self.model.request(id).step = Step::Prepare;
            if dice.is_impatient() {
                self.give_up(id);
            }
            return;
        };
        assert!(!stale, "C-N2: stale code was prepared");
        assert_eq!(code.bytes, CODE_BYTES[usize::from(key)]);
        self.model.requests.remove(&id);
        let unused = self.model.is_unused(key);
        let leaves = self.model.collected_for.contains(&key);
        let pinned = self.model.is_key_pinned(key);
        let retained = (self.model.policy.retains_code() || pinned) && !leaves;
        assert_eq!(code.stays, retained || !unused, "C-M4");
        self.seen.note("prepared");
        self.seen
            .note_if(!code.stays, "prepared, and dropped at once");
        self.absorb(None);
    }

    // The instance: ───────────────────────────────────────────────────────────────────────────

    fn bear(&mut self, id: Request, dice: Dice) {
        if dice.fails() {
            self.seen.note("instantiation failed");
            return self.give_up(id);
        }
        let need = self.instance_need(id);
        let less = u64::from(dice.0 >> 7);
        let holds = need.beyond(&Amounts::ZERO.memory(less));
        let stamp = self.cx.slots.next_stamp();
        let stale = self.model.is_stale(id);
        let request = self.model.request(id);
        let (version, (entry, seat)) = (request.version, request.seat.expect("not a growth"));
        match self.state.install(id, holds, stamp, &mut self.cx) {
            Ok(instance) => {
                assert!(!stale, "C-N2: a stale instance was born");
                let key = self.key(id);
                self.model.requests.remove(&id);
                self.model
                    .bear(instance, (entry, seat), key, version, holds, stamp);
                self.absorb(None);
                self.cx.slots.slot(entry, seat).stamp = stamp;
                self.lease_out(instance, entry);
                self.seen.note("born");
            }
            Err(Stale) => {
                assert!(stale, "a current instance was refused");
                self.seen.note("stale");
                self.absorb(None);
                self.model.request(id).step = Step::Prepare;
                if dice.is_impatient() {
                    self.give_up(id);
                }
            }
        }
    }

    fn grow(&mut self, id: Request, instance: Instance, dice: Dice) {
        if dice.fails() {
            self.seen.note("growth abandoned");
            return self.give_up(id);
        }
        self.seen.note("growth granted");
        let held = self.model.requests.remove(&id).expect("it asked").held;
        let record = self.model.instance(instance);
        let sum = record.holds.checked_add(&held);
        record.holds = sum.expect("small");
        self.state.grown(id, instance, &mut self.cx);
        self.absorb(None);
    }

    // Room: ───────────────────────────────────────────────────────────────────────────────────

    /// Whether the request now holds `target`.
    fn ask(&mut self, id: Request, target: Amounts, dice: Dice) -> bool {
        let outlook = self.model.outlook(id, &target);
        if self.model.is_due(id) && !outlook.is_granted() {
            return self.collect(id, target, dice);
        }
        let promised = self.is_promised(id, target);
        let need = target.beyond(&self.model.requests[&id].held);
        let overtakes = need != Amounts::ZERO && !self.model.is_first_for_room(id);
        let request = self.model.request(id);
        request.expects = false;
        request.promised = false;
        request.target = target;
        let room = (self.state).reserve(id, target, &mut self.cx);
        let evicts = !self.cx.out.destroy.is_empty();
        assert_eq!(evicts, room == ReserveOutcome::Evicting, "C-R4: {room:?}");
        assert!(
            room == ReserveOutcome::Granted || !promised,
            "C-R5: {room:?} after its victims died"
        );
        assert!(outlook.allows(verdict(room)), "C-R4: {room:?} {outlook:?}");
        if overtakes && matches!(room, ReserveOutcome::Granted | ReserveOutcome::Evicting) {
            self.model.note_overtaken();
        }
        match room {
            ReserveOutcome::Granted => {
                self.granted(id, target);
                return true;
            }
            ReserveOutcome::Evicting => {
                let (gone, dropped) = self.victims();
                let guards = self.model.guards(id, &target, &outlook.missing);
                self.model
                    .check_victims(&guards, &outlook.missing, &gone, &dropped);
                self.seen
                    .note_if(!guards.is_empty(), "evicted beside what is reserved");
                self.note_victims(&gone, &dropped);
                self.evicting(id);
            }
            ReserveOutcome::AwaitFrees(_) => {
                self.seen.note("awaits frees");
                self.refused(id, dice);
            }
            ReserveOutcome::Refused(shortage) => {
                let budget = shortage.budget as usize;
                assert_eq!(shortage.limit, self.model.limits[budget]);
                let held = self.model.requests[&id].held;
                let more = sums(&target.beyond(&held))[budget];
                let held = sums(&held)[budget];
                assert_eq!(shortage.charged, self.model.charged()[budget] - held);
                assert_eq!(shortage.requested, held + more);
                assert!(
                    outlook.missing[budget] > 0,
                    "refused for a budget with room"
                );
                self.seen.note("refused");
                let reserved =
                    outlook.evictable != outlook.surely_evictable && shortage.reserved > 0;
                self.seen
                    .note_if(reserved, "refused beside what is reserved");
                let guards = self.model.guards(id, &target, &outlook.missing);
                self.seen.note_if(
                    reserved && guards.is_of_pins_alone(),
                    "waits for what is pinned",
                );
                // What is about to be put back seems idle to a mere look.
                let idle = outlook.evictable[budget];
                let is_idle = shortage.reserved + shortage.evictable <= idle;
                assert!(is_idle || self.cx.slots.race.is_some(), "{shortage:?}");
                self.refused(id, dice);
            }
        }
        false
    }

    /// It has been passed too often: it takes what there is, and keeps it.
    fn collect(&mut self, id: Request, target: Amounts, dice: Dice) -> bool {
        let promised = self.is_promised(id, target);
        self.model.inherit(id);
        let request = self.model.request(id);
        request.target = target;
        request.expects = false;
        let lacks = self.model.lacks(id, &target);
        let guards = self.model.guards(id, &target, &lacks);
        let most = covers(&self.model.evictable(), &lacks);
        let least = covers(&self.model.surely_evictable(&guards), &lacks);
        let room = (self.state).reserve(id, target, &mut self.cx);
        assert_eq!(self.state.collecting(), Some(id), "passed for ever");
        assert!(!promised, "C-R5: {room:?} after its victims died");
        self.mirror();
        let (gone, dropped) = self.victims();
        let evicts = !gone.is_empty() || !dropped.is_empty();
        let enough = match most == least {
            true => most,
            false => covers(&self.model.freed_by(&gone, &dropped), &lacks),
        };
        let expected = match (evicts, enough) {
            (true, _) => Verdict::Evicting,
            (false, true) => Verdict::Soon,
            (false, false) => Verdict::Refused,
        };
        assert_eq!(verdict(room), expected, "C-R4: {lacks:?}");
        if enough {
            assert_eq!(evicts, lacks != [0; 8]);
            self.model.check_victims(&guards, &lacks, &gone, &dropped);
        } else {
            self.model.check_collected(&guards, &lacks, &gone, &dropped);
        }
        self.seen.note("collecting");
        self.seen.note_if(evicts && !enough, "collecting a part");
        self.seen
            .note_if(!self.model.collected_for.is_empty(), "module leaves");
        self.take_over(id);
        let request = self.model.request(id);
        request.expects = true;
        request.promised = enough && evicts;
        if evicts {
            self.absorb(Some(id));
        } else {
            self.refused(id, dice);
        }
        false
    }

    /// What the core says of those who collect.
    pub fn mirror(&mut self) {
        self.model.collecting = self.state.collecting();
        self.model.collected_for = self.state.collected_modules().map(|key| key[0]).collect();
    }

    /// Whether victims were evicted for this very request, all are gone, and no limit was changed.
    fn is_promised(&self, id: Request, target: Amounts) -> bool {
        let request = &self.model.requests[&id];
        let dying = self.model.dying.values().any(|d| d.heir == Some(id));
        request.promised && request.target == target && !dying
    }

    fn granted(&mut self, id: Request, target: Amounts) {
        self.seen.note("granted");
        let request = self.model.request(id);
        let need = target.beyond(&request.held);
        request.held = request.held.checked_add(&need).expect("small");
        if request.nap.take().is_some() {
            // Served, it lets the next one look.
            self.state.wake_room(&mut self.cx.out);
            self.seen.note("room after waiting");
            self.absorb(None);
        }
    }

    fn evicting(&mut self, id: Request) {
        self.take_over(id);
        let request = self.model.request(id);
        request.expects = true;
        request.promised = true;
        self.absorb(Some(id));
    }

    /// What the core gave to a request on its own account: never more than it asked for. Returns
    /// how much.
    pub fn take_over(&mut self, id: Request) -> Amounts {
        let held = self.state.held(id).expect("a living request");
        let request = self.model.request(id);
        assert!(
            request.held.beyond(&held) == Amounts::ZERO,
            "{id:?} lost something"
        );
        let gained = held.beyond(&request.held);
        let need = request.target.beyond(&request.held);
        assert!(
            gained.beyond(&need) == Amounts::ZERO,
            "{id:?} got {gained:?} for {need:?}"
        );
        request.held = held;
        gained
    }

    fn note_victims(&mut self, gone: &[Instance], dropped: &[u8]) {
        self.seen.note("evicting");
        self.seen.note_if(!gone.is_empty(), "idle eviction");
        self.seen.note_if(gone.len() > 1, "several victims");
        self.seen.note_if(!dropped.is_empty(), "code eviction");
        let both = !gone.is_empty() && !dropped.is_empty();
        self.seen.note_if(both, "module evicted with its instances");
    }

    /// There is no room: waits for it, in its old place if it had one, or gives up.
    fn refused(&mut self, id: Request, dice: Dice) {
        if let Step::Grow(instance, _) = self.model.request(id).step {
            let entry = self.model.instances[&instance].entry;
            self.state
                .count_growth_refusal(self.model.entries[entry].id);
            self.seen.note("growth refused");
        }
        self.state.count_refusal(id);
        if self.model.closed || dice.is_impatient() {
            return self.give_up(id);
        }
        let waiter = self.model.number();
        let nap = self.model.request(id).nap;
        let place = nap.map(|nap| match nap.sleep {
            Sleep::Room(ticket) => ticket,
            other => panic!("asks for room while it sleeps for {other:?}"),
        });
        let ticket = (self.state).wait_for_room(id, waiter, &mut self.cx.slots);
        match ticket {
            Some(ticket) => {
                self.seen.note("waits for room");
                assert!(place.is_none_or(|place| place == ticket), "place lost");
                let order = nap.map_or(waiter, |nap| nap.order);
                let overtakes = self.model.overtakes;
                self.model.request(id).since.get_or_insert(overtakes);
                self.state.sleep_for_room(id, self.until(waiter));
                self.sleep(id, waiter, order, Sleep::Room(ticket));
            }
            None => {
                self.seen.note("lease ended as room was awaited");
                assert!(self.cx.slots.fired.is_some(), "no lease has ended");
            }
        }
        self.absorb(None);
    }

    /// Leaves whatever it waits for, if it was woken or not, and ends.
    pub fn give_up(&mut self, id: Request) {
        if self.is_leaked(id) {
            return;
        }
        let nap = self.model.request(id).nap.take();
        match nap.map(|nap| nap.sleep) {
            Some(Sleep::Flight(module, ticket)) => self.state.leave_flight(module, ticket),
            Some(Sleep::Compilers(..)) => self.state.leave_compilers(id, &mut self.cx.out),
            Some(Sleep::Room(_)) => self.state.leave_room(id, &mut self.cx.out),
            None => {}
        }
        self.absorb(None);
        self.model.end(id);
        self.state.abandon(id, &mut self.cx.out);
        self.absorb(None);
        self.seen.note("request given up");
        // A second time must change nothing.
        self.state.abandon(id, &mut self.cx.out);
        assert!(self.cx.out.wake.is_empty() && self.cx.out.destroy.is_empty());
    }
}
