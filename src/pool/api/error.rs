//! One enum for each public operation, with who asked, how much, what the limit is and what holds
//! it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::pool::api::async_reason::AsyncReason;
use crate::pool::api::budget_exceeded::BudgetExceeded;
use crate::pool::api::build_error::LimitsError;
use crate::pool::api::function_name::{NameError, name_of};
use crate::pool::api::function_type::ArgumentsError;
use crate::pool::api::memory_error::MemoryError;
use crate::runtime::{
    Causes, GuestTrap, ImportError, InspectError, SharedError, StackTooSmall, SystemError,
};
use crate::state::Group;

/// A function on whose behalf, and in whose group, something was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The function's name with its argument types, as in `math.add(bigint, bigint)`.
    pub signature: Arc<str>,
    /// The scheduling group, tenant or role.
    pub group: Group,
}

impl Target {
    /// The function's name, without its argument types.
    pub fn name(&self) -> &str {
        name_of(&self.signature)
    }

    /// The function's name with its argument types.
    pub fn signature(&self) -> &str {
        &self.signature
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in group {}", self.signature, self.group)
    }
}

/// Why a function was not defined, or not replaced. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DefineError {
    /// No function can be called so.
    #[error("{function}: {source}")]
    Name {
        /// The function: the beginning of what was given, in readable characters.
        function: Arc<str>,
        /// What is wrong with it.
        source: NameError,
    },
    /// The bytes are not a core module, as far as can be seen without compiling them.
    #[error("{function}: {source}")]
    Module {
        /// The function.
        function: Arc<str>,
        /// What is wrong with them.
        source: InspectError,
    },
    /// The definition lacks its wasm.
    #[error("{function}: the definition has no wasm")]
    NoWasm {
        /// The function.
        function: Arc<str>,
    },
    /// The module has no such export, or it is not a function.
    #[error(
        "{function}: the module exports no function {export:?}; its functions are: {available}"
    )]
    MissingExport {
        /// The function.
        function: Arc<str>,
        /// The export that was asked for.
        export: String,
        /// What there is.
        available: String,
    },
    /// The export has another type than the handle.
    #[error("{function}: export {export:?} is {found}, and the handle expects {expected}")]
    WrongSignature {
        /// The function.
        function: Arc<str>,
        /// The export.
        export: String,
        /// Its type in the module.
        found: String,
        /// The type of the handle.
        expected: String,
    },
    /// The declared minimum of the module's memories is more than an instance may have.
    #[error(
        "{function}: the module declares or imports {requested} bytes of memory, and an instance may have {limit}"
    )]
    MemoryTooLarge {
        /// The function.
        function: Arc<str>,
        /// Bytes declared.
        requested: u64,
        /// `max_instance_memory`, in bytes.
        limit: u64,
    },
    /// The declared minimum of the module's tables is more than an instance may have.
    #[error(
        "{function}: the module declares or imports a table of {requested} elements, and a table may have {limit}"
    )]
    TableTooLarge {
        /// The function.
        function: Arc<str>,
        /// Elements declared.
        requested: u64,
        /// `max_table_elements`.
        limit: u64,
    },
    /// The module can never be linked with what the host provides.
    #[error("{function}: {source}")]
    Imports {
        /// The function.
        function: Arc<str>,
        /// What is missing, or of another type.
        source: ImportError,
    },
    /// The definition's imports were made by a pool of another engine, or with other store data.
    #[error(
        "{function}: its imports were made by another pool: make them with this one's `imports`"
    )]
    ForeignImports {
        /// The function.
        function: Arc<str>,
    },
    /// The name is taken, with the same argument types.
    #[error("{function} is defined already; use replace to give it new code")]
    AlreadyDefined {
        /// The function.
        function: Arc<str>,
    },
    /// `replace` of a function that is not defined.
    #[error("{function} is not defined, so it cannot be replaced")]
    NotDefined {
        /// The function.
        function: Arc<str>,
    },
    /// `replace` by a function of another type, which handles of the old type could not call.
    #[error(
        "{function} is {old}, and its replacement is {new}: if that is meant, say so by allow_type_change"
    )]
    TypeChanged {
        /// The function.
        function: Arc<str>,
        /// Its type.
        old: String,
        /// The type of what was to replace it.
        new: String,
    },
    /// A limit of the definition needs what the engine was configured without.
    #[error("{function}: {setting} is set, but the engine was configured without {needs}")]
    EngineLacks {
        /// The function.
        function: Arc<str>,
        /// The definition's setting.
        setting: &'static str,
        /// What wasmtime's `Config`, or the builder, must enable for it.
        needs: &'static str,
    },
    /// A limit of the definition's own makes no sense.
    #[error("{function}: {source}")]
    Limits {
        /// The function.
        function: Arc<str>,
        /// Which, and why.
        source: LimitsError,
    },
    /// The pool is closed.
    #[error("{function}: the pool is closed")]
    Closed {
        /// The function.
        function: Arc<str>,
    },
}

/// Why a function was not found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LookupError {
    /// None of this name is defined.
    #[error("function {name} is not defined")]
    Unknown {
        /// The name, as it was given.
        name: String,
    },
    /// Several are; name one with its argument types.
    #[error("function {name} has several overloads: {}", overloads.join("; "))]
    Ambiguous {
        /// The name, as it was given.
        name: String,
        /// All of them, with argument types.
        overloads: Vec<String>,
    },
    /// It has another type than the handle.
    #[error("{function} is {found}, and the handle expects {expected}")]
    WrongSignature {
        /// The function.
        function: Arc<str>,
        /// Its export's type.
        found: String,
        /// The type of the handle.
        expected: String,
    },
}

/// No function of this name is defined.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("function {name} is not defined")]
pub struct UnknownFunction {
    /// The name, as it was given.
    pub name: String,
}

/// Why a module's code could not be had. Shared by all who waited for it, and repeated to whoever
/// asks within the cool-down.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModuleError {
    /// It does not compile.
    #[error("the module does not compile: {}", Causes(&**.0))]
    Compile(#[source] SharedError),
    /// The operating system refused what compiling or loading it takes, even after others that were
    /// idle had been evicted for it. It is not the module's fault: whoever asks next tries again.
    #[error("the system refused what compiling or loading the module takes: {0}")]
    System(#[source] SystemError),
    /// Its compiled code could not be mapped.
    #[error("the module's code could not be loaded: {}", Causes(&**.0))]
    Load(#[source] SharedError),
    /// It does not link, which only its compiled code shows: an import is of a type of the module's
    /// own. Not tried again until the function is replaced.
    #[error("the module does not link: {}", Causes(&**.0))]
    Link(#[source] SharedError),
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
#[non_exhaustive]
pub enum WaitingFor {
    /// One of the entry's instances: all are leased.
    Instance,
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
    #[error("{target}: {source}")]
    Module {
        /// Who asked.
        target: Arc<Target>,
        /// What is wrong with the module.
        source: Arc<ModuleError>,
    },
    /// The start function trapped.
    #[error("{target}: the start function trapped: {trap}")]
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
    #[error("{target}: the system refused what an instance takes: {source}")]
    System {
        /// Who asked.
        target: Arc<Target>,
        /// What the system said.
        source: SystemError,
    },
    /// The instance could not be made: a host function that the start function called failed, or a
    /// create hook did.
    #[error("{target}: the instance could not be made: {}", Causes(&**source))]
    Instantiate {
        /// Who asked.
        target: Arc<Target>,
        /// Why.
        source: SharedError,
    },
    /// The calling thread has too little stack for a guest call.
    #[error("{target}: {source}")]
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
    /// The function was removed.
    #[error("function {function} was removed")]
    Removed {
        /// The function.
        function: Arc<str>,
    },
    /// The function was replaced by another type than the handle's: look it up again.
    #[error(
        "function {function} was replaced by another type: it is {found}, and the handle expects {expected}"
    )]
    TypeChanged {
        /// The function.
        function: Arc<str>,
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
    #[error("{target} trapped: {trap}")]
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
    #[error("{target}: {}", Causes(&**source))]
    Host {
        /// Who was called.
        target: Arc<Target>,
        /// The host function's error.
        source: SharedError,
    },
    /// The function cannot be called with these values. It has not been, and the lease is as it was.
    #[error("{target}: {source}")]
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
    #[error("{target}: {source}")]
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
    #[error("{target}: {source}")]
    Memory {
        /// Who was called.
        target: Arc<Target>,
        /// Why.
        source: MemoryError,
    },
}

impl CallError {
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
