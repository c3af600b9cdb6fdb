//! Building a pool.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use wasmtime::{Engine, Linker};

use crate::artifacts::Artifacts;
use crate::compiler::{CompileIn, Compilers};
use crate::pool::Pool;
use crate::pool::api::build_error::{BuildError, LimitsError};
use crate::pool::api::check_compiler::check_compiler;
#[cfg(feature = "config")]
use crate::pool::api::config::ArtifactSettings;
use crate::pool::api::limits::{LARGEST, Limits, check_at_most, check_lease, check_range};
use crate::pool::api::quarantine::Quarantine;
use crate::pool::cold::compile_hooks::CompileHooks;
use crate::pool::defined::InstanceLimits;
use crate::pool::function_settings::FunctionSettings;
use crate::pool::service::housekeeper::Housekeeper;
use crate::pool::service::observe::{Listener, Observer};
use crate::pool::settings::Settings;
use crate::pool::shared::{Hook, MakeData, Parts, Shared};
use crate::pool::time::clock::{Clock, nanos};
use crate::pool::time::clock_thread::{ClockThread, channel};
use crate::pool::time::timekeeper::Timekeeper;
use crate::runtime::{HostImports, ModuleLimits, Runtime, StoreData};
use crate::state::{Group, Policy, Reuse, ShareTerms};

pub(super) type Imports<T> = dyn FnOnce(&mut Linker<StoreData<T>>) -> wasmtime::Result<()> + Send;

/// Settings of a pool to be built. What is not set has the default that its method names.
pub struct PoolBuilder<T: Send + 'static = ()> {
    name: Arc<str>,
    pub(super) settings: Settings,
    /// Set by the host, as opposed to derived from the limits.
    pub(super) max_instance_memory: Option<u64>,
    max_idle_memory: Option<u64>,
    pub(super) max_wasm_stack: usize,
    /// `None`: as [`PoolBuilder::async_stack_size`] says.
    pub(super) async_stack_size: Option<usize>,
    pub(super) backtraces: bool,
    pub(super) engine: Option<Engine>,
    pub(super) linker: Option<Linker<StoreData<T>>>,
    pub(super) imports: Vec<Box<Imports<T>>>,
    artifacts: Option<Artifacts>,
    pub(super) compile_in: CompileIn,
    /// To be opened, if there are no `artifacts`.
    #[cfg(feature = "config")]
    pub(crate) artifact_settings: Option<ArtifactSettings>,
    make_data: Box<MakeData<T>>,
    pub(super) on_create: Option<Box<Hook<T>>>,
    pub(super) on_recycle: Option<Box<Hook<T>>>,
    pub(super) listener: Option<Box<Listener>>,
    pub(super) compile_hooks: CompileHooks,
    clock: Option<Arc<dyn Clock>>,
    housekeeper: bool,
}

/// Nanoseconds. A shorter tick keeps a processor busy with nothing else.
const SHORTEST_TICK: u64 = 100_000;
/// Bytes that a process can address on today's machines. A module that declares more is refused when it is
/// defined, and not by the system, for which all that is idle would be evicted first.
const ADDRESS_SPACE: u64 = 1 << 47;
/// Each may take a thread.
const MOST_COMPILATIONS: usize = 1024;
/// Beyond it there is no stack, nor a place for one: a stack is address space, if nothing else.
const LARGEST_STACK: u64 = 1 << 30;

impl<T: Send + 'static> PoolBuilder<T> {
    pub(crate) fn new(make: impl Fn(&str, &Group) -> T + Send + Sync + 'static) -> Self {
        Self {
            name: "default".into(),
            settings: Settings {
                allocator: None,
                places: None,
                limits: Limits::new(),
                instance: InstanceLimits {
                    // More than a process can address: the budgets decide.
                    memory: ADDRESS_SPACE,
                    table_elements: 100_000,
                },
                modules: ModuleLimits::new(),
                max_idle_memory: u64::MAX,
                max_instances_per_entry: 8,
                max_compilations: std::thread::available_parallelism()
                    .map_or(1, |n| n.get().min(MOST_COMPILATIONS)),
                max_uses: u64::MAX,
                reuse: Reuse::Warm,
                max_spares: 8,
                max_lifetime: None,
                idle_timeout: Some(Duration::from_secs(5)),
                code_idle_timeout: None,
                wait_timeout: Duration::from_secs(30),
                wait_for_room: false,
                compile_cooldown: Duration::from_secs(10),
                fuel: None,
                fuel_yield: None,
                call_timeout: Some(Duration::from_secs(30)),
                epoch_tick: Duration::from_millis(10),
                cancellable: false,
                policy: Policy::default(),
                group_terms: ShareTerms::default(),
                shares: Vec::new(),
                quarantine: None,
                billing: None,
                functions: FunctionSettings::default(),
            },
            max_instance_memory: None,
            max_idle_memory: None,
            max_wasm_stack: 512 << 10,
            async_stack_size: None,
            backtraces: false,
            engine: None,
            linker: None,
            imports: Vec::new(),
            artifacts: None,
            compile_in: CompileIn::Here,
            #[cfg(feature = "config")]
            artifact_settings: None,
            make_data: Box::new(make),
            on_create: None,
            on_recycle: None,
            listener: None,
            compile_hooks: CompileHooks::default(),
            clock: None,
            housekeeper: true,
        }
    }

    /// The label `pool` of the pool's metrics. Default: `default`.
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = name.into();
        self
    }

    /// The budgets. Default: none but [`Limits::DEFAULT_MAPPINGS`].
    pub fn limits(mut self, limits: Limits) -> Self {
        self.settings.limits = limits;
        self
    }

    /// Bytes of linear memory (all memories of an instance together, and its GC heap) that one
    /// instance may grow to; beyond, `memory.grow` returns −1. Default: whatever the memory budget
    /// can hold.
    pub fn max_instance_memory(mut self, bytes: u64) -> Self {
        self.max_instance_memory = Some(bytes);
        self
    }

    /// Bytes of linear memory that an instance may keep when its lease ends; a larger one is
    /// retired. Default: as much as it may grow to.
    pub fn max_idle_memory(mut self, bytes: u64) -> Self {
        self.max_idle_memory = Some(bytes);
        self
    }

    /// Elements that one table may grow to. Default: 100,000.
    pub fn max_table_elements(mut self, elements: u64) -> Self {
        self.settings.instance.table_elements = elements;
        self
    }

    /// Leases that one (function, group) may hold at once, at most 65,536; further acquires wait.
    /// Each takes a cache line or two in every entry. Default: 8.
    pub fn max_instances_per_entry(mut self, count: usize) -> Self {
        self.settings.max_instances_per_entry = count;
        self
    }

    /// Compilations that may run at once, each on the thread that asked for it, or on one of as many
    /// threads of the pool's own for tasks: at most 1,024. Default: as many as the machine runs
    /// threads.
    ///
    /// Others wait for a turn. It goes to the group that has the fewest, and had the least time of them; within a
    /// group the smaller modules go first, until one that is larger was passed by as many bytes as it has itself.
    pub fn max_compilations(mut self, count: usize) -> Self {
        self.settings.max_compilations = count;
        self
    }

    /// Leases that one instance serves before it is retired. With 1, each lease makes its instance, and destroys it: see
    /// [`Self::reuse`] for instances that are made ahead. A definition may say otherwise. Default: no limit.
    pub fn max_uses(mut self, uses: u64) -> Self {
        self.settings.max_uses = uses;
        self
    }

    /// Age at which an instance is retired. Default: none.
    pub fn max_lifetime(mut self, age: Duration) -> Self {
        self.settings.max_lifetime = Some(age);
        self
    }

    /// T: an instance idle for T is evicted before it has been idle for 2T. Default: 5 s; `None`
    /// for never.
    pub fn idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.settings.idle_timeout = timeout.into();
        self
    }

    /// The code of a module without instances is dropped when it has not been used for this long.
    /// Default: it stays until its room is needed.
    pub fn code_idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.settings.code_idle_timeout = timeout.into();
        self
    }

    /// How long `acquire` waits for an instance, for room, or behind a request that waits for room
    /// before it compiles. Time in which its module is compiled, by whomever, or in which it waits for
    /// a turn to compile while others do, does not count: a compilation ends, and giving it up would
    /// be in vain. Who must not wait so long uses `acquire_timeout`, whose deadline holds for
    /// everything but this thread's own compilation. Default: 30 s.
    pub fn wait_timeout(mut self, timeout: Duration) -> Self {
        self.settings.wait_timeout = timeout;
        self
    }

    /// Whether `acquire` also waits for room in the budgets, instead of failing at once when
    /// evicting what is idle is not enough. Default: no. A single one says it by
    /// [`AcquireOptions::wait_for_room`](crate::AcquireOptions::wait_for_room).
    pub fn wait_for_room(mut self, wait: bool) -> Self {
        self.settings.wait_for_room = wait;
        self
    }

    /// How long a module that failed to compile or load is refused without another try. One that does
    /// not link is refused until its function is replaced. Default: 10 s.
    pub fn compile_cooldown(mut self, time: Duration) -> Self {
        self.settings.compile_cooldown = time;
        self
    }

    /// Wasmtime fuel for each lease. Default: none, and code that does not count it.
    pub fn fuel(mut self, units: u64) -> Self {
        self.settings.fuel = Some(units);
        self
    }

    /// A task's guest lets others go on each time that it has burnt so many units of fuel, besides at
    /// each tick of the epoch: polls are then as short as that, however coarse the ticks. Such guests
    /// run only as tasks: synchronous calls, and acquires that would have to make an instance, return
    /// [`CallError::AsyncRequired`](crate::CallError::AsyncRequired), and hooks cannot call them.
    pub fn fuel_yield_interval(mut self, units: u64) -> Self {
        self.settings.fuel_yield = Some(units);
        self
    }

    /// Real time for each lease's guest code, the start function included. Checked once per
    /// [`Self::epoch_tick`]: a guest ends within two ticks of it. A single bulk instruction is not
    /// interrupted; see [`Self::max_instance_memory`]. Default: 30 s. `None` lets the pool's own engine make faster code (a
    /// tight loop takes up to 1.5 times as long with checks in it), which nothing can stop, and which
    /// as a task lets no others go on (but by [`Self::fuel_yield_interval`]).
    ///
    /// A task's time also passes while it waits for a host function. One bulk instruction (`memory.fill`,
    /// `memory.copy` and their like) is not looked into: it runs to its end, over as much memory as the
    /// instance has. On the machine of README's figures, busy with other work, that took 0.35 s for
    /// each GiB, and up to 2.8 s for each that was touched for the first time:
    /// [`Self::max_instance_memory`] bounds it.
    pub fn call_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.settings.call_timeout = limit.into();
        self
    }

    /// How often the epoch moves while something is leased: at least 100 µs. Ticks follow the clock: one
    /// that was late, on a busy machine, makes up for it. Default: 10 ms.
    pub fn epoch_tick(mut self, period: Duration) -> Self {
        self.settings.epoch_tick = period;
        self
    }

    /// What to evict for code. Default: [`Policy::CostAware`].
    pub fn policy(mut self, policy: Policy) -> Self {
        self.settings.policy = policy;
        self
    }

    /// Functions whose guests fail again and again are refused for a while. Default: none are, but in
    /// [`Self::strangers`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use wasm_pool::{AcquireError, CallError, Definition, Function, Pool, Quarantine};
    ///
    /// let minute = Duration::from_secs(60);
    /// let pool = Pool::builder().quarantine(Quarantine::after(3, minute)).build()?;
    /// let wasm = wat::parse_str(r#"(module (func (export "f") unreachable))"#)?;
    /// let f: Function<(), ()> = pool.define(Definition::new("f").wasm(wasm))?;
    /// for _ in 0..3 {
    ///     assert!(matches!(f.call("tenant", ()), Err(CallError::Trap { .. })));
    /// }
    /// let error = f.acquire("tenant").map(drop).unwrap_err();
    /// assert!(matches!(error, AcquireError::Quarantined { .. }), "{error}");
    /// pool.lift_quarantine("f")?;
    /// assert!(matches!(f.call("tenant", ()), Err(CallError::Trap { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn quarantine(mut self, quarantine: impl Into<Option<Quarantine>>) -> Self {
        self.settings.quarantine = quarantine.into();
        self
    }

    /// Where compiled code is found, and kept beyond the life of this pool. Pools that share them compile a module
    /// once between them. Default: none, and what is dropped is compiled anew.
    pub fn artifacts(mut self, artifacts: &Artifacts) -> Self {
        self.artifacts = Some(artifacts.clone());
        self
    }

    /// Where modules are compiled: in this process, or in one that cannot take more than is reserved for it, and is killed
    /// when it takes too long or nobody needs it any more. With processes, an acquire's deadline holds while it
    /// compiles, too. Default: [`CompileIn::Here`].
    ///
    /// ```no_run
    /// use wasm_pool::{CompilerProcess, Limits, Pool};
    ///
    /// let pool = Pool::builder()
    ///     .limits(Limits::new().compile(256 << 20))
    ///     .compile_in(CompilerProcess::helper("/usr/libexec/wasm-pool-compiler"))
    ///     .build()?;
    /// # Ok::<(), wasm_pool::BuildError>(())
    /// ```
    pub fn compile_in(mut self, place: impl Into<CompileIn>) -> Self {
        self.compile_in = place.into();
        self
    }

    /// Where the pool gets the time from. Default: [`SystemClock`](crate::SystemClock).
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// No threads for time, alarms and sweeps: the host calls [`Pool::sweep`], and [`Pool::tick`] if calls
    /// have deadlines. Without the clock thread's coarse clock, each release reads the real one (some 20 ns).
    pub fn no_housekeeper(mut self) -> Self {
        self.housekeeper = false;
        self
    }

    /// Builds the pool and starts its clock thread and its housekeeper.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn build(mut self) -> Result<Pool<T>, BuildError> {
        self.checked_limits()?;
        self.validate_stack_size()?;
        let runtime = self.runtime()?;
        self.validate_stacks(&runtime)?;
        let linker = self.link(&runtime)?;
        let compilers = self.compilers(&runtime)?;
        #[cfg(feature = "config")]
        if let (None, Some(settings)) = (&self.artifacts, &self.artifact_settings) {
            self.artifacts = Some(settings.open().map_err(BuildError::Artifacts)?);
        }
        let (sender, control) = channel();
        let timekeeper = Timekeeper::new(self.clock.take(), self.housekeeper.then_some(sender));
        let clock = ClockThread {
            epoch: runtime.epoch().clone(),
            period: runtime.interrupts().then_some(self.settings.epoch_tick),
            beat: self.settings.sweep_period(),
            control,
        };
        let period = self.settings.sweep_period();
        let shared = Shared::new(Parts {
            settings: self.settings,
            runtime,
            imports: Arc::new(HostImports::new(linker, Vec::new(), 0)),
            artifacts: self.artifacts,
            compilers,
            make_data: self.make_data,
            on_create: self.on_create,
            on_recycle: self.on_recycle,
            compile_hooks: self.compile_hooks,
            timekeeper: timekeeper.clone(),
            observer: Observer::new(self.name, self.listener),
            housekeeper: Housekeeper::none(),
        });
        shared.set_places_aside()?;
        shared.keep_compilers()?;
        shared.set_groups()?;
        if self.housekeeper {
            let pool = shared.this.clone();
            let tick = move || clock.run(&timekeeper);
            let started = (shared.timekeeper.threads.start("wasm-pool clock", tick))
                .and_then(|()| shared.housekeeper.start(pool, period));
            started.map_err(BuildError::Housekeeper)?;
        }
        Ok(Pool { shared })
    }

    /// Every limit makes sense, alone and with the others.
    pub(super) fn checked_limits(&mut self) -> Result<(), LimitsError> {
        let settings = &mut self.settings;
        let limits = settings.limits;
        limits.validate()?;
        let seats = settings.max_instances_per_entry as u64;
        let tick = nanos(settings.epoch_tick);
        check_at_most("max_instances_per_entry", seats, 1 << 16)?;
        let compilations = settings.max_compilations as u64;
        check_at_most("max_compilations", compilations, MOST_COMPILATIONS as u64)?;
        check_at_most("epoch_tick", tick, LARGEST)?;
        if tick < SHORTEST_TICK {
            return Err(LimitsError::TooSmall {
                field: "epoch_tick",
                value: tick,
                min: SHORTEST_TICK,
            });
        }
        check_at_most("max_wasm_stack", self.max_wasm_stack as u64, LARGEST_STACK)?;
        if let Some(bytes) = self.async_stack_size {
            check_at_most("async_stack_size", bytes as u64, LARGEST_STACK)?;
        }
        check_range("max_uses", settings.max_uses)?;
        check_range("max_table_elements", settings.instance.table_elements)?;
        if let Some(units) = settings.fuel_yield {
            check_range("fuel_yield_interval", units)?;
        }
        check_lease(settings.fuel, settings.call_timeout)?;
        if let Some(quarantine) = &settings.quarantine {
            quarantine.validate()?;
        }
        if let CompileIn::Process(process) = &self.compile_in {
            check_compiler(process)?;
        }
        if let Some(bytes) = self.max_instance_memory {
            check_range("max_instance_memory", bytes)?;
            limits.validate_instance(bytes)?;
            settings.instance.memory = bytes;
        }
        self.checked_places()?;
        let settings = &mut self.settings;
        settings.max_idle_memory = settings.instance.memory;
        if let Some(bytes) = self.max_idle_memory {
            check_range("max_idle_memory", bytes)?;
            settings.max_idle_memory = bytes;
        }
        Ok(())
    }

    /// The processes that compile, if any are to.
    fn compilers(&self, runtime: &Runtime) -> Result<Option<Compilers>, BuildError> {
        let CompileIn::Process(process) = &self.compile_in else {
            return Ok(None);
        };
        let own = self.engine.is_none().then(|| self.engine_settings());
        let compilers = Compilers::start(process.clone(), own, runtime.key());
        compilers.map(Some).map_err(BuildError::Compiler)
    }
}

impl<T: Send + 'static> fmt::Debug for PoolBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolBuilder")
            .field("name", &self.name)
            .field("settings", &self.settings)
            .field("compile_in", &self.compile_in)
            .field("max_instance_memory", &self.max_instance_memory)
            .field("max_idle_memory", &self.max_idle_memory)
            .field("max_wasm_stack", &self.max_wasm_stack)
            .field("async_stack_size", &self.async_stack_size)
            .field("backtraces", &self.backtraces)
            .finish_non_exhaustive()
    }
}
