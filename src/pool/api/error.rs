//! One enum for each public operation, with who asked, how much, what the limit is and what holds
//! it. A message says what its sources do not: a chain, or a [`Report`](crate::Report), says each thing once.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::compiler::CompilerError;
use crate::pool::api::async_reason::AsyncReason;
use crate::pool::api::budget_exceeded::BudgetExceeded;
use crate::pool::api::function_type::ArgumentsError;
use crate::pool::api::group_limit::GroupLimit;
use crate::pool::api::memory_error::MemoryError;
use crate::pool::api::target::Target;
use crate::runtime::{GuestTrap, SharedError, StackTooSmall, SystemError};

/// Why a module's code could not be had. Shared by all who waited for it, and repeated to whoever
/// asks within the cool-down.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModuleError {
    /// It does not compile.
    #[error("the module does not compile")]
    Compile(#[source] SharedError),
    /// The operating system refused what compiling or loading it takes, even after others that were
    /// idle had been evicted for it. It is not the module's fault: whoever asks next tries again.
    #[error("the system refused what compiling or loading the module takes")]
    System(#[source] SystemError),
    /// Compiling it takes more memory than `compile` (or `total`) can ever give, or so much that it was not tried. Only
    /// where processes compile ([`CompileIn::Process`](crate::CompileIn::Process)). Whoever asks next is refused at
    /// once, as long as the limits are what they were.
    #[error(
        "compiling the module takes at least {needed_at_least} bytes, where there can never be more than {cap}"
    )]
    TooExpensive {
        /// Bytes: fewer were not enough.
        needed_at_least: u64,
        /// Bytes that its process can ever have.
        cap: u64,
    },
    /// Compiling it took too long, and was ended. Only where processes compile.
    #[error("compiling the module took more than {limit:?}")]
    TooSlow {
        /// The limit: of real time, or of the processor's.
        limit: Duration,
    },
    /// The process that was to compile it failed. If it was ended from outside, whoever asks next tries again.
    #[error("the module could not be compiled in a process of its own")]
    Process(#[source] CompilerError),
    /// Its compiled code could not be mapped.
    #[error("the module's code could not be loaded")]
    Load(#[source] SharedError),
    /// It does not link, which only its compiled code shows: an import is of a type of the module's
    /// own. Not tried again until the function is replaced.
    #[error("the module does not link")]
    Link(#[source] SharedError),
    /// It could not be warmed up: see `Definition::warm_up`. A reason that lies in the module alone (it cannot be
    /// snapshotted, it calls imports, it traps) stays one until the function is replaced; limits, and memory that
    /// there was not, are tried again after the cool-down.
    #[error("the module could not be warmed up by its export {export:?}")]
    WarmUp {
        /// The export that was run.
        export: Arc<str>,
        /// Why.
        source: WarmUpError,
    },
}

/// Why a module could not be warmed up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WarmUpError {
    /// What it has, or may do, cannot be part of a snapshot: memories, tables or globals that it imports,
    /// instructions that change tables or drop passive segments, globals that hold references.
    #[error("the module cannot be snapshotted")]
    Unsupported(#[source] SharedError),
    /// It called the host: what that has done cannot be part of a snapshot.
    #[error("it called the import {module:?} {name:?}")]
    CalledImport {
        /// The import's module name.
        module: String,
        /// The import's name.
        name: String,
    },
    /// It trapped.
    #[error("it trapped")]
    Trapped(#[source] GuestTrap),
    /// It ran out of what a lease of the function may have.
    #[error("it ran out of {0}")]
    Limit(CallLimit),
    /// It was refused memory that it asked for, or there was no room for its snapshot. A guest that goes on
    /// without it would be snapshotted as another than was meant.
    #[error("it lacked memory")]
    Memory(#[source] SharedError),
    /// Wasmtime failed.
    #[error("it failed")]
    Failed(#[source] SharedError),
}

/// The middle of a sentence about leases, if there are any.
struct BetweenCalls(usize);

impl fmt::Display for BetweenCalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            1 => f.write_str(" (1 of them between two calls, perhaps by this very thread)"),
            held => write!(
                f,
                " ({held} of them between two calls, perhaps by this very thread)"
            ),
        }
    }
}

/// The end of a sentence that may have a reason.
struct Because<'a>(Option<&'a BudgetExceeded>);

impl fmt::Display for Because<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |reason| write!(f, ": {reason}"))
    }
}

/// What an acquire that ran into its deadline was waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum WaitingFor {
    /// One of the entry's instances: all are leased.
    Instance,
    /// One of the group's instances: it has as many as it may
    /// ([`Share::max_instances`](crate::Share::max_instances)), all leased, or others of it came before.
    GroupInstance,
    /// Room in a budget.
    Room,
    /// Another caller's compilation of the same module.
    Compilation,
    /// One of the compilations that may run at once.
    Compiler,
}

impl fmt::Display for WaitingFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Instance => "one of its instances, all leased",
            Self::GroupInstance => "one of its group's instances, as many as it may have",
            Self::Room => "room in a budget",
            Self::Compilation => "the compilation of its module",
            Self::Compiler => "a turn to compile its module",
        })
    }
}

/// Why no instance could be leased. Every charge is what it was before, and the function can be
/// asked for again at once.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AcquireError {
    /// A budget cannot be met.
    #[error(transparent)]
    BudgetExceeded(BudgetExceeded),
    /// The deadline came first.
    #[error(
        "{target} waited {waited:?} for {waiting_for}{}{}",
        BetweenCalls(*between_calls),
        Because(shortage.as_deref())
    )]
    Timeout {
        /// Who asked.
        target: Arc<Target>,
        /// For how long.
        waited: Duration,
        /// For what.
        waiting_for: WaitingFor,
        /// The budget that had no room, when it looked last; `None` if it waited for something else,
        /// or never came first in the queue for room.
        shortage: Option<Box<BudgetExceeded>>,
        /// Of the entry's leases, if it waited for one of them to end: those that no thread was in a call
        /// of when it gave up. They are held between two calls, perhaps by the very thread that
        /// waited, or they are tasks'.
        between_calls: usize,
    },
    /// `try_acquire` would have had to wait.
    #[error("{target} would have to wait for {waiting_for}")]
    WouldBlock {
        /// Who asked.
        target: Arc<Target>,
        /// For what.
        waiting_for: WaitingFor,
    },
    /// Every instance of the entry is in a call, of a thread, that waits for this very acquire, directly
    /// or through other threads that wait. A lease that is held outside of a call may still end on
    /// another thread, and a task may be dropped: a wait for those ends by its deadline
    /// ([`AcquireError::Timeout`]).
    #[error(
        "{target} would wait for itself: all its instances are in calls that wait for this one"
    )]
    Deadlock {
        /// Who asked.
        target: Arc<Target>,
    },
    /// The module's code could not be had.
    #[error("{target}: its module's code could not be had")]
    Module {
        /// Who asked.
        target: Arc<Target>,
        /// What is wrong with the module.
        source: Arc<ModuleError>,
    },
    /// The start function trapped.
    #[error("{target}: the start function trapped")]
    StartTrapped {
        /// Who asked.
        target: Arc<Target>,
        /// What it did.
        #[source]
        trap: GuestTrap,
    },
    /// The start function ran out of fuel or time.
    #[error("{target}: the start function ran out of {limit}")]
    StartLimit {
        /// Who asked.
        target: Arc<Target>,
        /// Of what.
        limit: CallLimit,
    },
    /// The operating system refused memory, address space, mappings or files that the instance
    /// takes (or a host function that the start function called says so), even after others that were
    /// idle had been evicted for it.
    #[error("{target}: the system refused what an instance takes")]
    System {
        /// Who asked.
        target: Arc<Target>,
        /// What the system said.
        source: SystemError,
    },
    /// The instance could not be made: a host function that the start function called failed, or a create hook
    /// did; or it wanted more than its limits grant, or than there was room for, beyond what its module declares
    /// (then its kind says so).
    #[error("{target}: the instance could not be made")]
    Instantiate {
        /// Who asked.
        target: Arc<Target>,
        /// Why.
        source: SharedError,
    },
    /// The calling thread has too little stack for a guest call.
    #[error("{target} cannot be called on this stack")]
    StackTooSmall {
        /// Who asked.
        target: Arc<Target>,
        /// Numbers.
        source: StackTooSmall,
    },
    /// The guests of this function run only as tasks, and a thread asked for an instance that would have
    /// to be made.
    #[error("{target}: {}: use acquire_async", AsyncReason::TasksOnly)]
    AsyncRequired {
        /// Who asked.
        target: Arc<Target>,
    },
    /// The function's guests have failed too often: see [`Quarantine`](crate::Quarantine). It is tried again when the time is
    /// over; that it succeeds then is another thing, so this is not [`Self::is_retryable`].
    #[error(
        "{target} is in quarantine for another {time_left:?}: its guests have failed too often"
    )]
    Quarantined {
        /// Who asked.
        target: Arc<Target>,
        /// How long it will still be refused.
        time_left: Duration,
    },
    /// The group has a limit that is no budget, and this is beyond it.
    #[error("{target}: {limit}")]
    GroupLimit {
        /// Who asked.
        target: Arc<Target>,
        /// Which.
        limit: GroupLimit,
    },
    /// The function was removed.
    #[error("function {} was removed", target.signature)]
    Removed {
        /// Who asked.
        target: Arc<Target>,
    },
    /// The function was replaced by another type than the handle's: look it up again.
    #[error(
        "function {} was replaced by another type: it is {found}, and the handle expects {expected}",
        target.signature
    )]
    TypeChanged {
        /// Who asked.
        target: Arc<Target>,
        /// Its type now.
        found: String,
        /// The type of the handle.
        expected: String,
    },
    /// The pool is closed.
    #[error("{target}: the pool is closed")]
    Closed {
        /// Who asked.
        target: Arc<Target>,
    },
}

/// What a call ran out of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum CallLimit {
    /// Units of wasmtime's fuel.
    Fuel(u64),
    /// Wall-clock time.
    Time(Duration),
}

impl fmt::Display for CallLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fuel(units) => write!(f, "fuel ({units} units)"),
            Self::Time(limit) => write!(f, "time ({limit:?})"),
        }
    }
}

/// Why a call failed. After `Trap`, `Limit` and `Host` the instance is retired: it is never leased
/// again. The others leave it as it was.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// No instance could be leased.
    #[error(transparent)]
    Acquire(#[from] AcquireError),
    /// The guest trapped.
    #[error("{target} trapped")]
    Trap {
        /// Who was called.
        target: Arc<Target>,
        /// What the guest did.
        #[source]
        trap: GuestTrap,
    },
    /// The lease's fuel or time is used up.
    #[error("{target} ran out of {limit}")]
    Limit {
        /// Who was called.
        target: Arc<Target>,
        /// Of what.
        limit: CallLimit,
    },
    /// It was stopped from outside: see [`Canceller`](crate::Canceller).
    #[error("{target} was cancelled")]
    Cancelled {
        /// Who was called.
        target: Arc<Target>,
    },
    /// A host function failed, or wasmtime did.
    #[error("{target}: the call failed in the host")]
    Host {
        /// Who was called.
        target: Arc<Target>,
        /// The host function's error.
        source: SharedError,
    },
    /// The function cannot be called with these values. It has not been, and the lease is as it was.
    #[error("{target} cannot be called with these values")]
    Arguments {
        /// Who was to be called.
        target: Arc<Target>,
        /// Which of them, and why.
        source: ArgumentsError,
    },
    /// The export does not exist, or has another type.
    #[error("{target}: export {export:?}: {problem}")]
    Export {
        /// Who was called.
        target: Arc<Target>,
        /// The export.
        export: String,
        /// What is wrong.
        problem: String,
    },
    /// An earlier call of this lease failed: the instance is not in a defined state any more.
    #[error(
        "{target}: an earlier call of this lease failed, so its instance cannot be called again"
    )]
    Broken {
        /// Who was called.
        target: Arc<Target>,
    },
    /// The calling thread has too little stack for a guest call.
    #[error("{target} cannot be called on this stack")]
    StackTooSmall {
        /// Who was called.
        target: Arc<Target>,
        /// Numbers.
        source: StackTooSmall,
    },
    /// A synchronous call of the guest, where only a task can make it. The guest was not called, and the
    /// lease is as it was.
    #[error("{target}: {reason}: use {instead}")]
    AsyncRequired {
        /// Who was called.
        target: Arc<Target>,
        /// Why.
        reason: AsyncReason,
        /// The function to call instead.
        instead: &'static str,
    },
    /// Bytes could not be passed to the guest or read from it.
    #[error("{target}: bytes could not be passed to the guest or read from it")]
    Memory {
        /// Who was called.
        target: Arc<Target>,
        /// Why.
        source: MemoryError,
    },
}

impl AcquireError {
    /// On whose behalf, and of which function, an instance was asked for.
    pub fn target(&self) -> &Arc<Target> {
        match self {
            Self::BudgetExceeded(exceeded) => &exceeded.target,
            Self::Timeout { target, .. }
            | Self::WouldBlock { target, .. }
            | Self::Deadlock { target }
            | Self::Module { target, .. }
            | Self::StartTrapped { target, .. }
            | Self::StartLimit { target, .. }
            | Self::System { target, .. }
            | Self::Instantiate { target, .. }
            | Self::StackTooSmall { target, .. }
            | Self::AsyncRequired { target }
            | Self::Quarantined { target, .. }
            | Self::GroupLimit { target, .. }
            | Self::Removed { target }
            | Self::TypeChanged { target, .. }
            | Self::Closed { target } => target,
        }
    }
}

impl CallError {
    /// Who was called, or was to be.
    pub fn target(&self) -> &Arc<Target> {
        match self {
            Self::Acquire(error) => error.target(),
            Self::Trap { target, .. }
            | Self::Limit { target, .. }
            | Self::Cancelled { target }
            | Self::Host { target, .. }
            | Self::Arguments { target, .. }
            | Self::Export { target, .. }
            | Self::Broken { target }
            | Self::StackTooSmall { target, .. }
            | Self::AsyncRequired { target, .. }
            | Self::Memory { target, .. } => target,
        }
    }

    /// The same; if only a task can, with the name of what it should call.
    pub(crate) fn with_instead(self, instead: &'static str) -> Self {
        match self {
            Self::AsyncRequired { target, reason, .. } => Self::AsyncRequired {
                target,
                reason,
                instead,
            },
            other => other,
        }
    }
}
