//! A module's code: one request compiles or loads it, the others follow; without users it goes.

use alloc::vec::Vec;

use crate::state::{
    Amounts, Budget, CompileNeed, Destroy, Dying, Effects, FunctionId, Module, ModuleId, Phase,
    Queue, Request, RequestId, Shortage, Sleeper, Stale, Stamp, State, Ticket, Types,
};

/// What a request that needs its module's code must do.
pub enum Prepare<H: Types> {
    /// The code is loaded and pinned.
    Ready {
        source: H::Source,
        definition: H::Definition,
    },
    /// The code is nowhere, and this request leads: compile or load it, for all.
    Lead {
        source: H::Source,
        definition: H::Definition,
        /// What the code took last time, in bytes, when there was one.
        code_bytes: Option<u64>,
        /// What is known of compiling it.
        compile_need: CompileNeed,
    },
    /// Another request leads: `follow` it, then ask again.
    Follow(ModuleId<H>),
    /// The code is collected for somebody who has waited for long: `follow` that, then ask again; or be
    /// refused.
    Collected(ModuleId<H>, Shortage),
    /// As many compilations run as may: wait for a turn, then ask again.
    Queue {
        source: H::Source,
    },
    /// The module failed a short while ago.
    Failed(H::Failure),
    /// The function was removed.
    Gone,
    Closed,
}

impl<H: Types> Prepare<H> {
    const fn is_wait(&self) -> bool {
        matches!(
            self,
            Self::Follow(_) | Self::Collected(..) | Self::Queue { .. }
        )
    }
}

/// Whether a flight is of any use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlightUse {
    Wanted,
    /// No function names the module any more, or the leader's does not and nobody follows.
    Removed,
    /// Nobody waits for it.
    Unwanted,
    Closed,
}

/// What [`State::prepared`] has seen to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreparedCode {
    /// Bytes that the code takes.
    pub bytes: u64,
    /// Whether it stays loaded although nothing uses it, as the policy says.
    pub stays: bool,
}

impl<H: Types> State<H> {
    /// A request for a function's code alone: it has no seat, and no instance is made for it, so it is no miss.
    pub fn begin_prepare(&mut self, function: FunctionId<H>) -> RequestId<H> {
        let version = self.functions.get(function).map_or(0, |f| f.version);
        self.requests.insert(Request::new(Some(function), version))
    }

    /// The code that such a request has asked for is loaded, and of the function's present version. This is a use
    /// of it, and the request's end: its pin goes, and the code stays or goes as the policy says.
    pub fn prepared(
        &mut self,
        id: RequestId<H>,
        out: &mut Effects<H>,
    ) -> Result<PreparedCode, Stale> {
        let request = &self.requests[id];
        let function = request.function.and_then(|f| self.functions.get(f));
        let current = function.is_some_and(|f| f.version == request.version);
        let module = request.module.filter(|_| current && !self.closed);
        let module = module.ok_or(Stale)?;
        let now = self.now;
        let record = &mut self.modules[module];
        let Phase::Loaded { charge, .. } = &record.phase else {
            return Err(Stale);
        };
        let bytes = charge.amounts().get(Budget::Code);
        record.history.used(Stamp {
            at: now,
            sequence: 0,
        });
        self.abandon(id, out);
        let record = self.modules.get(module);
        let stays = record.is_some_and(Module::is_loaded);
        Ok(PreparedCode { bytes, stays })
    }

    /// Pins the request's module, at the function's present version, and says where its code is.
    pub fn prepare(&mut self, id: RequestId<H>, out: &mut Effects<H>) -> Prepare<H> {
        self.give_back_turn(id);
        let prepared = self.find_code(id, out);
        if prepared.is_wait() {
            // The leader that it waits for may itself wait for room: this request must not hold any of it.
            let expected = core::mem::take(&mut self.requests[id].expected);
            self.shrink_to(id, Amounts::ZERO, out);
            self.leave_room(id, out);
            if expected != Amounts::ZERO {
                self.wake_room(out);
            }
        }
        // Whoever was woken to compile, and does not compile, gives its turn to the next.
        self.wake_compiler(out);
        prepared
    }

    fn find_code(&mut self, id: RequestId<H>, out: &mut Effects<H>) -> Prepare<H> {
        if self.closed {
            return Prepare::Closed;
        }
        let function = self.requests[id].function;
        let function = function.and_then(|function| self.functions.get(function));
        let Some(function) = function else {
            return Prepare::Gone;
        };
        let (version, module) = (function.version, function.module);
        let definition = function.definition.clone();
        self.requests[id].version = version;
        if self.modules[module]
            .collected_for
            .is_some_and(|by| by != id)
        {
            // Its code is about to go: a pin would keep it.
            if let Some(before) = self.requests[id].module.take() {
                self.unpin(id, before, out);
            }
            return Prepare::Collected(module, self.collected_code(module));
        }
        self.pin(id, module, out);
        let now = self.now;
        let is_free = self.compile_turns.is_free_for(&self.group_of(id));
        let followed = self.requests[id].followed.take() == Some(module);
        let record = &mut self.modules[module];
        match &record.phase {
            Phase::Loaded { .. } => Prepare::Ready {
                source: record.source.clone(),
                definition,
            },
            Phase::InFlight { .. } => {
                self.requests[id].followed = Some(module);
                Prepare::Follow(module)
            }
            Phase::Failed { failure, until } if now < *until || followed => {
                Prepare::Failed(failure.clone())
            }
            Phase::Cold | Phase::Failed { .. } if !is_free => Prepare::Queue {
                source: record.source.clone(),
            },
            Phase::Cold | Phase::Failed { .. } => {
                record.phase = Phase::InFlight { leader: id };
                let lead = Prepare::Lead {
                    source: record.source.clone(),
                    definition,
                    code_bytes: record.code_bytes,
                    compile_need: record.compile_need,
                };
                self.take_turn(id);
                lead
            }
        }
    }

    /// The code of the module that the request has pinned, if it is loaded.
    pub fn code_of(&self, id: RequestId<H>) -> Option<H::Code> {
        match &self.modules[self.module_of(id)?].phase {
            Phase::Loaded { code, .. } => Some(code.clone()),
            _ => None,
        }
    }

    /// The request sleeps until the flight on this module has ended, or its code is collected no more; `None`
    /// when that is so.
    pub fn follow(
        &mut self,
        module: ModuleId<H>,
        id: RequestId<H>,
        waiter: H::Waiter,
        until: u64,
    ) -> Option<Ticket> {
        let record = self.modules.get_mut(module)?;
        let goes_on =
            matches!(record.phase, Phase::InFlight { .. }) || record.collected_for.is_some();
        if !goes_on {
            return None;
        }
        self.requests[id].asleep_until = Some(until);
        let request = Some(id);
        Some(record.followers.join(Sleeper {
            waiter,
            until,
            request,
        }))
    }

    pub fn leave_flight(&mut self, module: ModuleId<H>, ticket: Ticket) {
        let module = self.modules.get_mut(module);
        let sleeper = module.and_then(|module| module.followers.leave(ticket));
        self.has_left(sleeper);
    }

    /// The leader has loaded the code: it is charged `held` of what the request holds, and all
    /// followers look again. `cost` is what it took, in nanoseconds.
    pub fn loaded(
        &mut self,
        id: RequestId<H>,
        code: H::Code,
        held: Amounts,
        cost: u64,
        out: &mut Effects<H>,
    ) {
        let charge = self.requests[id].held.split(&held);
        debug_assert_eq!(
            charge.amounts(),
            held,
            "code is reserved before it is mapped"
        );
        let Some(module) = self.requests[id].module else {
            return self.ledger.release(charge);
        };
        let now = self.now;
        let record = &mut self.modules[module];
        record.code_bytes = Some(held.get(Budget::Code));
        record.history.cost = cost;
        record.history.used(Stamp {
            at: now,
            sequence: 0,
        });
        self.loaded += 1;
        self.end_flight(module, Phase::Loaded { code, charge }, out);
    }

    /// The leader could not: followers and whoever asks before `until` get the same failure.
    pub fn failed(
        &mut self,
        id: RequestId<H>,
        failure: H::Failure,
        until: u64,
        out: &mut Effects<H>,
    ) {
        if let Some(module) = self.requests[id].module {
            self.end_flight(module, Phase::Failed { failure, until }, out);
        }
    }

    /// The exact size of the code is known before it is mapped; the next flight will reserve it.
    pub fn note_code_bytes(&mut self, id: RequestId<H>, bytes: u64) {
        if let Some(module) = self.requests[id].module {
            self.modules[module].code_bytes = Some(bytes);
        }
    }

    /// What compiling takes is known better now.
    pub fn note_compile_need(&mut self, id: RequestId<H>, need: CompileNeed) {
        if let Some(module) = self.requests[id].module {
            self.modules[module].compile_need = need;
        }
    }

    /// Whether the flight that the request leads is of any use; `awaited` says whether the leader itself waits for
    /// it still. Work for no function has no flight, and is as useful as the pool is open.
    pub fn flight_use(&self, id: RequestId<H>, awaited: bool) -> FlightUse {
        if self.closed {
            return FlightUse::Closed;
        }
        let Some(request) = self.requests.get(id) else {
            return FlightUse::Unwanted;
        };
        let Some(module) = request.module.and_then(|id| self.modules.get(id)) else {
            return FlightUse::Wanted;
        };
        let followed = module.followers.iter().any(|f| f.until > self.now);
        let function = request.function.and_then(|f| self.functions.get(f));
        let current = function.is_some_and(|f| f.version == request.version);
        match (module.functions > 0, current && awaited, followed) {
            (false, ..) => FlightUse::Removed,
            (true, _, true) | (true, true, false) => FlightUse::Wanted,
            (true, false, false) if current => FlightUse::Unwanted,
            (true, false, false) => FlightUse::Removed,
        }
    }

    /// The leader ends its flight without a verdict, and goes on as a request that has not asked for code yet. It
    /// holds nothing any more.
    pub fn end_lead(&mut self, id: RequestId<H>, out: &mut Effects<H>) {
        self.shrink_to(id, Amounts::ZERO, out);
        if let Some(module) = self.requests[id].module.take() {
            self.unpin(id, module, out);
        }
    }

    /// What it takes to bring the code back has changed: it has become an artifact.
    pub fn note_cost(&mut self, id: RequestId<H>, cost: u64) {
        if let Some(module) = self.requests[id].module {
            self.modules[module].history.cost = cost;
        }
    }

    fn end_flight(&mut self, module: ModuleId<H>, phase: Phase<H>, out: &mut Effects<H>) {
        let record = &mut self.modules[module];
        let flight = core::mem::replace(&mut record.phase, phase);
        if let Phase::InFlight { leader } = flight {
            let (now, mut late) = (self.now, Vec::new());
            while let Some((_, sleeper)) = self.modules[module].followers.pop(now, &mut late) {
                self.wake(sleeper, out);
            }
            self.notify_late(late, out);
            self.wake_from_lines(module, out);
            self.end_turn(leader, out);
        }
    }

    pub(crate) fn forget_failure(&mut self, module: ModuleId<H>) {
        let phase = &mut self.modules[module].phase;
        if matches!(phase, Phase::Failed { .. }) {
            *phase = Phase::Cold;
        }
    }

    fn pin(&mut self, id: RequestId<H>, module: ModuleId<H>, out: &mut Effects<H>) {
        let before = self.requests[id].module.replace(module);
        if before == Some(module) {
            return;
        }
        self.modules[module].pins += 1;
        if let Some(before) = before {
            self.unpin(id, before, out);
        }
    }

    pub(crate) fn unpin(&mut self, id: RequestId<H>, module: ModuleId<H>, out: &mut Effects<H>) {
        let record = &mut self.modules[module];
        record.pins -= 1;
        // Only who was refused for this pin tries again: waiters pin their modules at each try, and would
        // wake each other for ever.
        let wanted = record.pins == 0 && core::mem::take(&mut record.wanted);
        let led = matches!(&record.phase, Phase::InFlight { leader } if *leader == id);
        if led {
            self.end_flight(module, Phase::Cold, out);
        }
        self.drop_out_if_unused(module, out);
        if wanted {
            self.wake_room(out);
        }
    }

    /// Code without instances stays or goes, as the policy says; without functions it goes, and
    /// its record with it.
    pub(crate) fn drop_out_if_unused(&mut self, id: ModuleId<H>, out: &mut Effects<H>) {
        let Some(module) = self.modules.get(id) else {
            return;
        };
        if !module.is_unused() {
            return;
        }
        let unnamed = module.functions == 0;
        let leaves = module.collected_for.is_some();
        let stays = module.pinned > 0 || self.config.policy.retains_code();
        if unnamed || leaves || self.closed || !stays {
            self.unload(id, None, out);
        }
        if unnamed && let Some(module) = self.modules.remove(id) {
            self.module_index.remove(&module.key);
            out.sources.push(module.source);
        }
    }

    /// Takes a module's code away; nothing may be using it.
    pub(crate) fn unload(
        &mut self,
        id: ModuleId<H>,
        heir: Option<RequestId<H>>,
        out: &mut Effects<H>,
    ) {
        let module = &mut self.modules[id];
        if !module.is_loaded() {
            return;
        }
        if let Phase::Loaded { code, charge } = core::mem::replace(&mut module.phase, Phase::Cold) {
            self.open_module(id, out);
            self.end_users(id, &charge.amounts());
            self.code_dropped += 1;
            self.loaded -= 1;
            let dying = self.dying.insert(Dying {
                charge,
                module: None,
                heir: heir.or(self.collecting),
            });
            out.destroy.push(Destroy::Code { dying, code });
        }
    }
}
