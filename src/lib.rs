//! A memory-budgeted pool of WebAssembly instances, and of the compiled modules behind them, for
//! [wasmtime].
//!
//! A host that runs many WebAssembly functions wants warm instances and cannot afford to keep them
//! all. Creating an instance costs microseconds, compiling a module milliseconds to seconds, and
//! wasmtime takes both the linear memories and the compiled code behind the allocator's back. This
//! crate keeps instances per function and per scheduling group, evicts what is used least, and
//! promises:
//!
//! **The sum of what is charged never exceeds a budget, not for an instant, and what is charged
//! matches what the kernel says the process uses.** (Only a limit that is lowered beneath what leases hold is
//! exceeded, by that, until they end.)
//!
//! # Example
//!
//! ```
//! use std::time::Duration;
//! use wasm_pool::{Definition, Function, Limits, Pool};
//!
//! let pool = Pool::builder()
//!     .limits(Limits::new().code(40 << 20).memory(100 << 20)) // bytes
//!     .max_instance_memory(2 << 20)      // bytes one instance may grow to
//!     .max_instances_per_entry(2)        // leases that (function, group) may hold at once
//!     .idle_timeout(Duration::from_secs(5))
//!     .build()?;
//! # let bytes = include_bytes!("../examples/guests/prebuilt/math_add.wasm");
//!
//! let add: Function<(i64, i64), i64> = pool.define(
//!     Definition::new("math.add").args(["bigint", "bigint"]).wasm(&bytes[..]).export("add"),
//! )?;
//!
//! let three = add.call("reports", (1, 2))?;      // acquire, call, release
//! assert_eq!(three, 3);
//!
//! let mut lease = add.acquire("reports")?;       // or try_acquire, acquire_timeout, acquire_with
//! for row in 0..1000 {                           // several calls in one lease
//!     assert_eq!(lease.call((row, 1))?, row + 1);
//! }
//! drop(lease);
//!
//! let stats = pool.stats();
//! assert_eq!((stats.compilations, stats.misses, stats.hits), (1, 1, 1));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How a call flows
//!
//! ```text
//! acquire ─ look up ─ idle instance? ─────────────────────────────→ lease → call → release
//!              │ none                                                 ↑              │
//!              ├─ all leased: wait, first come first served ──────────┤            idle
//!              └─ reserve ─ evict ─ compile or load ─ instantiate ────┘              │
//!                           ↑      (once for all)                                    │
//!                           └────────────────────────── least recently used ←────────┘
//! ```
//!
//! - **Look up**: each thread finds its entry, (function, group), in a table of its own. By a name it costs a little more than by
//!   a number, or by a key made once ([`Pool::group`]); a resolved handle ([`Function::in_group`]) looks nothing up.
//! - **Lease**: an idle instance is taken out of a slot, with one atomic exchange, or none if the thread owns it. A warm lease
//!   takes no lock, touches no account and no order of recency.
//! - **Compile**: once for any number of first users, on the first one's thread (for a task, on a
//!   thread of the pool's), in an engine that is thrown away. Failures reach all of them, and are not tried again for a short while.
//!   [`Pool::prepare`] does as much ahead of the first call, and leases nothing; [`Pool::precompile`]
//!   compiles modules into the artifacts, for pools that are yet to be built.
//! - **Reserve**: before anything is compiled, mapped or grown. If a budget has no room, idle
//!   instances are evicted, the least recently used first; for code, whole modules, the least
//!   worthy first. If that cannot free enough, nothing is evicted, and the request fails with all
//!   the numbers ([`BudgetExceeded`]), or waits if it asked to.
//! - **Release**: healthy instances go back to their slot. One whose call failed in any way is
//!   never leased again.
//!
//! # Budgets
//!
//! | budget | what is charged | when |
//! |---|---|---|
//! | `memory` | linear memories, tables, GC heaps; 8 KiB per instance, and what its module declares | before it is made or grows |
//! | `code` | compiled code, as mapped, and what a loaded module keeps of the heap | before it is mapped |
//! | `compile` | heap of compilations in flight, by estimate; or, in processes of their own, all that those can hold | before they start |
//! | `stack` | fiber stacks; none for synchronous calls | before an instance is leased to a task |
//! | `mappings` | VMAs | as memory, code and stacks |
//! | `total` | bytes of the first four together | |
//! | `mapped` | bytes of code and stacks together | |
//! | `instances` | instances: idle, leased and in the making | as memory |
//!
//! Idle and leased instances are charged alike. A charge is released when the kernel has the
//! memory back. What is not charged: the pool's own books (at most 512 bytes for each function, and the wasm
//! bytes that the host passes in), threads and their stacks, wasmtime's engine, and the host's own data. DESIGN.md has all of
//! it, and what bounds it.
//!
//! # Guarantees
//!
//! - Instances are never shared across groups.
//! - Once [`Pool::replace`] returns, no call that starts later runs old code; a handle whose types
//!   it changed, as the definition must say, is told so in acquire.
//! - Who waits for room is passed by a bounded number of others; then room is kept for it.
//! - Waiting is first come, first served (but for turns to compile, which go between groups), and always ends: by a deadline, by [`Pool::close`], or at
//!   once with an error, where a host function would wait for the very call that it is in, directly or
//!   through other threads that wait. What a thread holds between two calls may end elsewhere: it
//!   waits for that until its deadline, and the error says so. Only a compilation is waited for as long
//!   as it takes, unless a deadline was given ([`Function::acquire_timeout`]).
//! - Time passes whatever host code does: wakers, listeners, hooks, recorders and destructors that panic or
//!   block delay neither the end of another call nor another task's alarm (of wakers, up to 15 may block at
//!   the same time).
//! - No guest and no input can panic, abort or hang the host. Nothing is lost by a failure: charges, seats
//!   and other tenants are as before. The exceptions:
//!   - Compilation in this process: the heap that it takes is charged by estimate, and nothing ends it. Bound the size
//!     of what strangers may define, or compile in processes of their own ([`CompileIn::Process`]).
//!   - A pool without [`PoolBuilder::call_timeout`] (it has one by default), and one bulk instruction
//!     (`memory.fill` and the like), which runs to its end: [`PoolBuilder::max_instance_memory`] bounds it.
//!   - Stacks that the pool does not know: fibers of the host's own, or of an engine that the host has
//!     brought (but for those of a pooling allocator, where `/proc/self/maps` can be read, as for the pool's own). On a thread's own
//!     stack, a segment of `stacker`'s and the pool's own fibers, each way into a
//!     guest looks first at what is left ([`StackTooSmall`]); guests that are called through
//!     [`Lease::store_mut`] do not.
//! - Foreign code (compilation, instantiation, guests, drops, hooks) never runs under a lock.
//!
//! # Imports
//!
//! [`PoolBuilder::imports`] adds host functions for every definition. [`Pool::imports`] makes [`Imports`] for
//! some, at any time: other functions, also under names that are taken, and memories, tables and globals
//! that each instance gets of its own, charged like those that a module declares. A definition takes them
//! by [`Definition::imports`]; they are part of what its module is. [`Pool::define`] and [`Pool::replace`]
//! compare names and types of all imports before anything is compiled, and name all that is missing.
//!
//! # Tasks
//!
//! [`Function::acquire_async`], [`Function::call_async`] and [`Lease::call_async`] do the same without
//! blocking a thread, on any executor. Tasks and threads wait in one queue. A task's guest runs on a
//! fiber stack, which its instance keeps, and which is charged as long; it lets others go on at each
//! tick of the epoch. Modules are compiled on the pool's own threads. Dropping a future, at any
//! point, gives back what it held; one that is leaked while it waits holds it until its deadline. Bytes go through [`Lease::pass_bytes_async`] and
//! [`Lease::take_bytes_async`]: a guest's allocator may take as long as any guest, and the synchronous
//! ones are refused in a task's lease. [`Lease::call`] is not: it says what it does. Guests that import
//! async host functions, or that yield by fuel, run only as tasks ([`AsyncReason`]). Any call can be stopped
//! from any thread by a [`Canceller`].
//!
//! # Compiling
//!
//! By default, modules are compiled in this process. With [`PoolBuilder::compile_in`] and a [`CompilerProcess`], each is compiled
//! in a process of its own, on Linux: what that may take is what is reserved for it in `compile`, and the kernel
//! sees to it. It ends when it takes too long, when nobody waits for it any more, when its function is
//! removed or replaced, when the pool is closed, and when this process ends, however that ends. A module that needs more than was
//! thought is tried again with more, as long as there can be more ([`ModuleError::TooExpensive`]).
//!
//! # What can be observed
//!
//! [`Pool::stats`] says what a pool holds and what happened to it; [`Pool::recount`] checks its books. Metrics go
//! to the recorder of the `metrics` crate, with the label `pool` ([`PoolBuilder::name`]) and at most one more.
//! Counters of hits, misses, blocks, refusals and growth refusals, and gauges, are brought up to date by the housekeeper or
//! [`Pool::sweep`], all others at once.
//!
//! | metric | kind | unit | label | what it counts | in [`Stats`] |
//! |---|---|---|---|---|---|
//! | `wasm_pool_hits_total` | counter | | | Leases of an instance that was there: idle, or handed over by the lease before | `hits` |
//! | `wasm_pool_misses_total` | counter | | | Acquires that set out to make an instance, whether there was room for it or not | `misses` |
//! | `wasm_pool_blocks_total` | counter | | | Acquires that queued for an instance | `blocks` |
//! | `wasm_pool_refusals_total` | counter | | | Acquires and preparations that a budget refused, or a limit of their group | `refusals` |
//! | `wasm_pool_growth_refusals_total` | counter | | | Times that growth of an instance was refused: the guest saw −1 | `growth_refusals` |
//! | `wasm_pool_spares_total` | counter | | | Instances that were made before anybody asked for them | `spares_made` |
//! | `wasm_pool_quarantines_total` | counter | | | Times that a function was refused from then on, for what its guests had done | `quarantines` |
//! | `wasm_pool_evictions_total` | counter | | `reason` | Idle instances evicted: for room, for idleness, or as not retained | `evictions` |
//! | `wasm_pool_retirements_total` | counter | | `reason` | Instances that left for any other reason | `retirements` |
//! | `wasm_pool_compilations_total` | counter | | | Modules compiled, whether there was then room for them or not | `compilations` |
//! | `wasm_pool_loads_total` | counter | | | Times that compiled code was mapped and linked | `loads` |
//! | `wasm_pool_module_failures_total` | counter | | | Modules that could not be compiled, mapped or linked | `module_failures` |
//! | `wasm_pool_warm_ups_total` | counter | | | Instances that were warmed up and snapshotted | `warm_ups` |
//! | `wasm_pool_compiler_kills_total` | counter | | `reason` | Compilations in processes of their own that were ended before they were done | `compiler_kills` |
//! | `wasm_pool_compiler_crashes_total` | counter | | | Processes that died while they compiled, and that nobody of the pool's has ended | `compiler_crashes` |
//! | `wasm_pool_code_dropped_total` | counter | | | Modules whose code was evicted or dropped out | `code_dropped` |
//! | `wasm_pool_guest_failures_total` | counter | | `kind` | Calls, start functions and warm-ups of guests that failed | |
//! | `wasm_pool_compile_seconds` | histogram | seconds | | Time to compile a module | |
//! | `wasm_pool_compile_peak_percent` | histogram | percent | | Of what was reserved for a compilation in a process of its own, how much it had at its peak | |
//! | `wasm_pool_load_seconds` | histogram | seconds | | Time to map and link compiled code | |
//! | `wasm_pool_wait_seconds` | histogram | seconds | `outcome` | Time of one wait of an acquire or a preparation: for an instance, for room, or for a compilation | |
//! | `wasm_pool_charged` | gauge | bytes, or a count | `budget` | Charged to a budget: bytes, or a count | `budget(..).charged` |
//! | `wasm_pool_limit` | gauge | bytes, or a count | `budget` | Limit of a budget that has one: bytes, or a count | `budget(..).limit` |
//! | `wasm_pool_instances` | gauge | | `state` | Instances that are idle, and that are leased | `idle`, `leased` |
//! | `wasm_pool_modules_loaded` | gauge | | | Modules whose code is mapped | `modules_loaded` |
//! | `wasm_pool_group_calls_total` | counter | | `group` | Calls of guests, of groups with series of their own and of all others | `bills` |
//! | `wasm_pool_group_failures_total` | counter | | `group` | Calls and start functions that failed, likewise | `bills` |
//! | `wasm_pool_group_refusals_total` | counter | | `group` | Requests that a budget refused, or a limit of their group, likewise | `bills` |
//! | `wasm_pool_group_guest_microseconds_total` | counter | microseconds | `group` | Time in guest code, likewise | `bills` |
//! | `wasm_pool_group_memory_byte_seconds_total` | counter | | `group` | Bytes of memory, times the seconds that instances held them, likewise | `bills` |
//!
//! `reason` is [`RemovalReason::name`], and of kills one of `cap`, `time`, `unwanted`, `removed` and `closed`, `kind` one of `fuel`, `deadline`, `trap`, `cancelled` and `host`, `outcome` one of
//! `served` and `timeout`, `budget` [`Budget::name`], `state` one of `idle` and `leased`.
//!
//! Spans and events go to the subscriber of the `tracing` crate. There are none on the warm path.
//!
//! | span or event | what | fields | around, or after |
//! |---|---|---|---|
//! | `compile` | span, info | `function`, `wasm_bytes` | compiling a module |
//! | `estimate` | span, debug | `function` | on a worker, for a task: counting what a large module's functions have |
//! | `warm up` | span, info | `function`, `export` | warming up a definition: compiling for that, running the export, the snapshot |
//! | `load` | span, info | `function` | mapping and linking compiled code |
//! | `instantiate` | span, debug | `function`, `group` | the host's data, the instance, its start function |
//! | `destroy` | span, debug | `function`, `group`, `reason` | destroying an instance, the host's data with it |
//! | `code dropped` | event, debug | `bytes` | unmapping code; bytes as charged to `code` |
//! | `host code panicked` | event, error | `what` | a panic in what the pool called on its own account |
//! | `artifact rejected` | event, warn | `store`, `key`, `error`, `removed` | an artifact that is corrupt or of another version; it is as if it were not there |
//! | `artifact store fails` | event, warn | `store`, `error` | the first failure of a store to read, or to write, since that worked; the pool goes on without it |
//! | `compiler is not shut in` | event, warn | `landlock`, `seccomp` | building a pool whose processes compile with less around them than there might be: what the kernel does not have is false |
//! | `no thread to make spares on` | event, error | `error` | the system refused a thread: leases that each have an instance of their own end it themselves, and sweeps make spares |
//! | `no thread to compile on` | event, error | `error` | the system refused a thread |
//! | `no thread to keep artifacts on` | event, error | `error` | the system refused a thread |
//! | `no thread to ring alarms on` | event, error | `error` | the system refused a thread |
//!
//! `function` is the function's name with its argument types, `group` the group.
//!
//! # Errors
//!
//! Each error of an operation has a `target()` (whom it was for), a `kind()` ([`ErrorKind`]), `is_retryable()`, and
//! perhaps a source, which may have a kind too. A message does not repeat what its source says: [`Report`] prints
//! all of them in one line.
//!
//! # Features
//!
//! - `serde` (not default): what the pool reports ([`Stats`], [`Removal`], [`BudgetExceeded`] and what they consist of)
//!   is `Serialize`; what is set ([`Limits`], [`AcquireOptions`], [`Policy`], [`Reuse`], [`Group`]) is `Deserialize` as well.
//! - `compiler` (not default): the program `wasm-pool-compiler`, and `serve_compiler` for programs that compile for
//!   themselves; Linux. Brings the crates `landlock`, `nix` and `seccompiler`. A pool whose processes are another program's
//!   (`CompilerProcess::helper`) does without.
//! - `zstd` (not default): artifacts can be compressed ([`Codec::Zstd`]).
//! - `object_store` (not default): artifacts in a bucket, by the crate of this name (`ObjectStoreAdapter`).
//! - `config` (not default): `Config` reads all settings of a pool from a TOML file; see `PoolBuilder::config`.
//! - `warm-up` (not default): `Definition::warm_up`, which runs an export of a module once and lets all instances
//!   begin with what it has left in memory. Brings the crate `wasmtime-wizer`.
//!
//! # Limits of this version
//!
//! Components, shared memories and custom page sizes are not supported; a
//! module that needs them is refused when it is defined. Exception tags cannot be given to a module to
//! import.

/// Its code is compiled, and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

extern crate alloc;

mod artifacts;
mod compiler;
mod pool;
mod runtime;
#[allow(
    dead_code,
    unused_imports,
    reason = "its own tests, which include it by path, use all of it"
)]
mod state;
mod sync;

#[cfg(feature = "object_store")]
pub use artifacts::ObjectStoreAdapter;
pub use artifacts::{
    ArtifactInfo, ArtifactKey, ArtifactStats, ArtifactStore, Artifacts, ArtifactsBuilder, Codec,
    EncodedArtifact, EngineKey, MemoryStore, NotAKey, StoreError, StoredArtifact, Upkeep,
    VerifiedArtifact,
};
#[cfg(unix)]
pub use artifacts::{DirStore, DirStoreBuilder, EngineInfo};
pub use compiler::{CompileIn, CompilerError, CompilerProcess};
#[cfg(all(target_os = "linux", feature = "compiler"))]
pub use compiler::{serve_compiler, serve_compiler_with};
pub use pool::{
    AcquireError, AcquireOptions, ArgumentsError, AsGroup, AsyncReason, Bill, Billing, Bills,
    BudgetExceeded, BudgetStats, BuildError, CallError, CallLimit, CallTypes, Canceller, Clock,
    CodeOrigin, CompilationStats, Compiled, CompilerKills, DefineError, Definition, Dynamic,
    ErrorKind, ExportedFunc, Function, FunctionBill, FunctionName, FunctionStats, FunctionType,
    GroupBill, GroupKey, GroupLimit, GroupStats, GuestBytes, GuestFailures, Holder, IdleInstance,
    Imports, ImportsBuilder, ImportsError, InGroup, Lease, Limits, LimitsError, LookupError,
    ManualClock, MemoryError, ModuleError, NameError, Pool, PoolBuilder, Precompile,
    PrecompileError, PrecompileOutcome, Precompiled, Prepared, Quarantine, Quarantined, Removal,
    Share, ShareError, Stats, SystemClock, Target, TextError, UnknownFunction, UnknownName,
    ValueType, WaitingFor, WarmUpError,
};
#[cfg(feature = "config")]
pub use pool::{ArtifactSettings, Config, ConfigError, ConfigPlace};
pub use runtime::{
    GuestTrap, INSTANCE_OVERHEAD, ImportError, InspectError, MissingImport, ModuleLimit,
    ModuleLimits, ModuleTooLarge, PoolingAllocator, Report, SharedError, StackTooSmall, StoreData,
    SystemError,
};
pub use state::{Budget, Group, Policy, RemovalReason, Reuse};
/// The wasmtime that the pool is built on: its types are in this crate's API.
pub use wasmtime;
