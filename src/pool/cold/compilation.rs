//! The one place where compilers run: in this process, or in one of their own, whose memory is what is reserved for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::artifacts::ArtifactKey;
use crate::compiler::{Cap, CompilerError, Compilers, Failure, Order, Sandbox, Stop};
use crate::pool::api::build_error::{BuildError, LimitsError};
use crate::pool::api::compiled::Compiled;
use crate::pool::api::compiler_stats::KillReason;
use crate::pool::api::error::ModuleError;
use crate::pool::api::target::Target;
use crate::pool::cold::request_guard::RequestGuard;
use crate::pool::cold::reserve::Need;
use crate::pool::service::workers::IsAwaited;
use crate::pool::shared::{RequestId, Shared};
use crate::pool::time::clock::nanos;
use crate::runtime::{
    CodeNeeds, Facts, Unmapped, artifact_estimate, compile, guarded, refused_by_system, share,
};
use crate::state::{Amounts, Budget, CompileNeed, FlightUse, Group};

/// Bytes of heap that are tried at least, however little there is room for: so that it is refused, with numbers.
const LEAST_HEAP: u64 = 1 << 20;

/// A module that is to be compiled, and for whom.
pub(crate) struct Compile<'a, T: Send + 'static> {
    pub target: &'a Arc<Target>,
    pub wasm: &'a [u8],
    pub facts: &'a Facts,
    pub key: ArtifactKey,
    /// What it may take, where a process compiles.
    pub cap: Option<Cap>,
    pub request: RequestId<T>,
    pub is_awaited: IsAwaited<'a>,
    /// Told how many bytes of this process's heap it took, if the host measures that.
    pub measured: &'a dyn Fn(u64),
}

/// Why a module was not compiled.
pub(crate) enum CompileFailure {
    /// This is wrong with it.
    Verdict(ModuleError),
    /// Its process may take too little.
    Cap(Shortfall),
    /// Nobody needs it.
    Stopped,
}

/// Of what its process lacked.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shortfall {
    Heap,
    /// Room for what it makes, which is so long; 0 if nobody knows.
    Artifact(u64),
}

impl<T: Send + 'static> Shared<T> {
    /// The processes that wait for work hold memory for as long as the pool is open.
    pub(crate) fn keep_compilers(self: &Arc<Self>) -> Result<(), BuildError> {
        let Some(compilers) = &self.compilers else {
            return Ok(());
        };
        let needed = compilers.standing_bytes();
        let amounts = Amounts::ZERO.compile(needed);
        let least = compilers.bytes(
            0,
            &Cap {
                heap: LEAST_HEAP,
                artifact: 0,
            },
        );
        let target = Arc::new(Target {
            signature: "the compiler's processes".into(),
            group: Group::NOBODY,
        });
        let request = self.with_state(|locked, _| locked.state.begin_work());
        let guard = RequestGuard::new(self, request);
        let all = amounts.saturating_add(&Amounts::ZERO.compile(least));
        let fits = self.with_state(|locked, _| locked.state.can_ever_hold(&all));
        if !fits || !self.reserve_if_free(&Need::of(&guard, &target, amounts)) {
            let limits = self.settings.limits;
            let value = [Budget::Compile, Budget::Total].map(|b| limits.get(b).unwrap_or(u64::MAX));
            return Err(BuildError::Limits(LimitsError::NeverFits {
                field: "compile",
                value: value[0].min(value[1]),
                what: "a compiler in a process of its own",
                needed: all.get(Budget::Compile),
            }));
        }
        self.with_state(|locked, cx| locked.state.keep_standing(request, &mut cx.out));
        let Sandbox { landlock, seccomp } = compilers.sandbox();
        if !(landlock && seccomp) {
            guarded("a subscriber", || {
                tracing::warn!(landlock, seccomp, "compiler is not shut in");
            });
        }
        Ok(())
    }

    /// What the first try of a module may take where processes compile, if so much is reserved `beside` it: what it took before,
    /// or as much as is thought, or as there can be, since the process keeps to it. `None` where this one compiles.
    ///
    /// # Errors
    /// If there cannot be as much as was known to be too little.
    pub(crate) fn first_cap(
        &self,
        source: &ModuleSize<'_>,
        need: CompileNeed,
        beside: &Amounts,
    ) -> Result<Option<Cap>, ModuleError> {
        let Some(compilers) = &self.compilers else {
            return Ok(None);
        };
        let estimate = compilers.first_heap().unwrap_or(source.estimate);
        let wanted = match need.more_than {
            0 => need.enough.unwrap_or(estimate),
            too_little => estimate.max(too_little.saturating_mul(2)),
        };
        let artifact =
            artifact_estimate(source.wasm, source.facts).max(source.code_bytes.unwrap_or(0));
        let most = self.most_heap(source.wasm, artifact, beside);
        let heap = |heap| compilers.bytes(source.wasm, &Cap { heap, artifact });
        if need.more_than > 0 && most <= need.more_than {
            return Err(ModuleError::TooExpensive {
                needed_at_least: heap(need.more_than).saturating_add(1),
                cap: heap(most),
            });
        }
        let heap = wanted.min(most.max(LEAST_HEAP));
        Ok(Some(Cap { heap, artifact }))
    }

    /// The most heap that a process may ever have, beside what it makes and what is reserved otherwise.
    fn most_heap(&self, wasm: u64, artifact: u64, beside: &Amounts) -> u64 {
        let most = self.with_state(|locked, _| locked.state.most_to_compile(beside));
        let without_heap = Cap { heap: 0, artifact };
        let rest = self
            .compilers
            .as_ref()
            .map(|c| c.bytes(wasm, &without_heap));
        let of_each = self.compilers.as_ref().and_then(Compilers::max_heap);
        let most = most.saturating_sub(rest.unwrap_or(0));
        most.min(of_each.unwrap_or(u64::MAX))
    }

    /// What a module is tried with that was refused `cap`: twice as much, or as much as there can be.
    ///
    /// # Errors
    /// If that is no more.
    pub(crate) fn raised_cap(
        &self,
        source: &ModuleSize<'_>,
        cap: Cap,
        shortfall: Shortfall,
        beside: &Amounts,
    ) -> Result<Cap, ModuleError> {
        let twice = Cap {
            heap: cap.heap.saturating_mul(2),
            ..cap
        };
        let raised = match shortfall {
            Shortfall::Heap => twice,
            Shortfall::Artifact(bytes) => Cap {
                artifact: bytes.max(cap.artifact.saturating_mul(2)),
                ..cap
            },
        };
        let most = self.most_heap(source.wasm, raised.artifact, beside);
        let heap = raised.heap.min(most);
        let is_more = match shortfall {
            Shortfall::Heap => heap > cap.heap,
            Shortfall::Artifact(_) => heap > 0,
        };
        let bytes = |cap: &Cap| {
            self.compilers
                .as_ref()
                .map_or(0, |c| c.bytes(source.wasm, cap))
        };
        match is_more {
            true => Ok(Cap { heap, ..raised }),
            false => Err(ModuleError::TooExpensive {
                needed_at_least: bytes(&cap).saturating_add(1),
                cap: bytes(&Cap {
                    heap: most,
                    artifact: raised.artifact,
                }),
            }),
        }
    }

    /// What is reserved in `compile` while a module is compiled.
    pub(crate) fn room_to_compile(&self, source: &ModuleSize<'_>, cap: Option<&Cap>) -> Amounts {
        let bytes = match (&self.compilers, cap) {
            (Some(compilers), Some(cap)) => compilers.bytes(source.wasm, cap),
            _ => source.estimate,
        };
        Amounts::ZERO.compile(bytes)
    }

    /// Compiles, and counts it; how long it took. The room is reserved.
    pub(crate) fn run_compiler(
        &self,
        order: &Compile<'_, T>,
    ) -> Result<(Unmapped, Duration), CompileFailure> {
        let _span = tracing::info_span!(
            "compile",
            function = %order.target.signature,
            wasm_bytes = order.wasm.len(),
        )
        .entered();
        let began = Instant::now();
        let compiled = self.compile_uncounted(order);
        let (time, succeeded) = (began.elapsed(), compiled.is_ok());
        self.with_state(|locked, _| {
            locked.compilations += u64::from(succeeded);
            (locked.state).bill_compilation(order.request, nanos(time), succeeded);
        });
        let code = compiled?;
        self.observer.compiled(time);
        Ok((code, time))
    }

    /// The same, of what is thrown away.
    pub(crate) fn compile_uncounted(
        &self,
        order: &Compile<'_, T>,
    ) -> Result<Unmapped, CompileFailure> {
        let held = self.with_state(|locked, _| locked.state.held(order.request));
        let reserved_bytes = held.map_or(0, |held| held.get(Budget::Compile));
        let began = Instant::now();
        let (compiled, heap_bytes) = match order.cap {
            Some(cap) => self.compile_in_process(order, cap),
            None => self.compile_here(order, reserved_bytes),
        };
        self.compile_hooks.tell(&Compiled {
            signature: order.target.signature.clone(),
            group: order.target.group.clone(),
            wasm_bytes: order.wasm.len() as u64,
            reserved_bytes,
            heap_bytes,
            time: began.elapsed(),
            succeeded: compiled.is_ok(),
        });
        compiled
    }

    /// With the heap that it took, if that is known.
    fn compile_here(
        &self,
        order: &Compile<'_, T>,
        reserved: u64,
    ) -> (Result<Unmapped, CompileFailure>, Option<u64>) {
        let _listed = self.in_flight.enter(order.target.clone(), reserved);
        // Some valid modules make the compiler panic: that is their failure, and nobody else's.
        let hooks = &self.compile_hooks;
        let compile = || hooks.measure(|| compile(&self.runtime, order.wasm, order.facts));
        let panicked = || (Err(wasmtime::Error::msg("the compiler panicked")), None);
        let (compiled, heap) = guarded("the compiler", compile).unwrap_or_else(panicked);
        if let (Ok(_), Some(bytes)) = (&compiled, heap) {
            (order.measured)(bytes);
        }
        let compiled = compiled.map_err(|error| CompileFailure::Verdict(verdict_of(error)));
        (compiled, heap)
    }

    fn compile_in_process(
        &self,
        order: &Compile<'_, T>,
        cap: Cap,
    ) -> (Result<Unmapped, CompileFailure>, Option<u64>) {
        let Some(compilers) = &self.compilers else {
            let error = ModuleError::Process(CompilerError::Unsupported);
            return (Err(CompileFailure::Verdict(error)), None);
        };
        let reserved = compilers.bytes(order.wasm.len() as u64, &cap);
        let listed = self.in_flight.enter(order.target.clone(), reserved);
        let stop = || self.why_stop(order);
        let made = compilers.compile(&Order {
            wasm: order.wasm,
            key: order.key,
            cap,
            stop: &stop,
            started: &|process| listed.runs_in(process),
        });
        let made = match made {
            Ok(made) => made,
            Err(failure) => return (Err(self.report_failure(order, cap, failure)), None),
        };
        let need = CompileNeed {
            more_than: 0,
            enough: Some(made.enough),
        };
        self.note_compile_need(order.request, need);
        self.observer.compiled_in_process(made.peak, reserved);
        let mapped = made.mapped_bytes;
        let needs = (mapped, CodeNeeds::of(&self.runtime, order.facts, mapped));
        let code = Unmapped::made_elsewhere(made.artifact, made.code_bytes, needs);
        (Ok(code), Some(made.heap))
    }

    /// Counts it, and keeps what it says of the module.
    fn report_failure(&self, order: &Compile<'_, T>, cap: Cap, failure: Failure) -> CompileFailure {
        let died = matches!(failure, Failure::Process(CompilerError::Died { .. }));
        let reason = match &failure {
            Failure::Heap | Failure::Artifact(_) => Some(KillReason::Cap),
            Failure::Time(_) => Some(KillReason::Time),
            Failure::Stopped(Stop::Unwanted) => Some(KillReason::Unwanted),
            Failure::Stopped(Stop::Removed) => Some(KillReason::Removed),
            Failure::Stopped(Stop::Closed) => Some(KillReason::Closed),
            Failure::Module(_) | Failure::Process(_) => None,
        };
        self.with_state(|locked, _| {
            locked.compiler_crashes += u64::from(died);
            if let Some(reason) = reason {
                *reason.of(&mut locked.compiler_kills) += 1;
            }
        });
        if let Some(reason) = reason {
            self.observer.compiler_killed(reason);
        }
        if died {
            self.observer.compiler_crashed();
        }
        if let Failure::Heap = failure {
            let need = CompileNeed {
                more_than: cap.heap,
                enough: None,
            };
            self.note_compile_need(order.request, need);
        }
        let verdict = match failure {
            Failure::Heap => return CompileFailure::Cap(Shortfall::Heap),
            Failure::Artifact(bytes) => return CompileFailure::Cap(Shortfall::Artifact(bytes)),
            Failure::Stopped(_) => return CompileFailure::Stopped,
            Failure::Module(texts) => verdict_of(chain(texts)),
            Failure::Time(limit) => ModuleError::TooSlow { limit },
            Failure::Process(error) => ModuleError::Process(error),
        };
        CompileFailure::Verdict(verdict)
    }

    fn note_compile_need(&self, request: RequestId<T>, need: CompileNeed) {
        self.with_state(|locked, _| locked.state.note_compile_need(request, need));
    }

    fn why_stop(&self, order: &Compile<'_, T>) -> Option<Stop> {
        let awaited = (order.is_awaited)();
        let flight = |locked: &mut crate::pool::shared::Locked<T>| {
            locked.state.flight_use(order.request, awaited)
        };
        match self.with_state(|locked, _| flight(locked)) {
            FlightUse::Wanted => None,
            FlightUse::Unwanted => Some(Stop::Unwanted),
            FlightUse::Removed => Some(Stop::Removed),
            FlightUse::Closed => Some(Stop::Closed),
        }
    }
}

/// What is known of a module before it is compiled.
pub(crate) struct ModuleSize<'a> {
    /// Bytes of wasm.
    pub wasm: u64,
    pub facts: &'a Facts,
    /// Bytes of heap that compiling it is thought to take.
    pub estimate: u64,
    /// Bytes that its code took before.
    pub code_bytes: Option<u64>,
}

/// An error that says this, with causes.
fn chain(texts: Vec<String>) -> wasmtime::Error {
    let mut texts = texts.into_iter().rev();
    let cause = wasmtime::Error::msg(texts.next().unwrap_or_default());
    texts.fold(cause, wasmtime::Error::context)
}

fn verdict_of(error: wasmtime::Error) -> ModuleError {
    match refused_by_system(&error) {
        Some(refused) => ModuleError::System(refused.into()),
        None => ModuleError::Compile(share(error)),
    }
}

impl ModuleError {
    /// Whether it lies in the module, as far as one can see: then the next try is likely to fail as well.
    pub(crate) fn is_remembered(&self) -> bool {
        match self {
            Self::System(_) => false,
            Self::Process(error) => error.is_of_the_module(),
            _ => true,
        }
    }
}
