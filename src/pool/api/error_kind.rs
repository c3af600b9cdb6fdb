//! What went wrong, in a few words: for hosts that speak HTTP or SQL.

use std::fmt;

use crate::compiler::CompilerError;
use crate::pool::api::budget_exceeded::BudgetExceeded;
use crate::pool::api::build_error::{BuildError, LimitsError};
use crate::pool::api::define_error::{DefineError, LookupError, UnknownFunction};
use crate::pool::api::error::{AcquireError, CallError, ModuleError, WarmUpError};
use crate::pool::api::group_limit::GroupLimit;
use crate::pool::api::imports::ImportsError;
use crate::pool::api::memory_error::MemoryError;
use crate::pool::api::names::named;
use crate::pool::api::precompile::PrecompileError;
use crate::pool::api::share::ShareError;
use crate::runtime::{Refusal, SharedError};

/// Whose fault an error is, and what can be done about it: the same kinds for all errors.
///
/// ```
/// use wasm_pool::{CallError, ErrorKind};
///
/// fn http_status(error: &CallError) -> u16 {
///     match error.kind() {
///         ErrorKind::NotFound => 404,
///         ErrorKind::Invalid | ErrorKind::TooLarge => 400,
///         ErrorKind::Guest | ErrorKind::Limit => 422,
///         _ if error.is_retryable() => 503,
///         _ => 500,
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// What was given is wrong, and will be: a module, a type, a name, a limit, values of a call.
    Invalid,
    /// There is no such function (any more).
    NotFound,
    /// There is such a function already, or it has another type.
    Conflict,
    /// More is asked for than the limits will ever grant.
    TooLarge,
    /// All that there may be is in use.
    Exhausted,
    /// It was waited for in vain.
    Timeout,
    /// The guest used up its fuel, its time or its memory.
    Limit,
    /// The guest failed: it trapped, or gave back what is not its own; or it has so often that it is refused for a while.
    Guest,
    /// Code of the host's failed: an imported function, or a hook.
    Host,
    /// The operating system refused something.
    System,
    /// Somebody stopped it.
    Cancelled,
    /// It cannot be done here, or like this: by a thread instead of a task, on this stack, with this lease,
    /// by a call that would wait for itself.
    Misuse,
    /// The pool is closed.
    Closed,
}

impl ErrorKind {
    /// Every kind.
    pub const ALL: [Self; 13] = [
        Self::Invalid,
        Self::NotFound,
        Self::Conflict,
        Self::TooLarge,
        Self::Exhausted,
        Self::Timeout,
        Self::Limit,
        Self::Guest,
        Self::Host,
        Self::System,
        Self::Cancelled,
        Self::Misuse,
        Self::Closed,
    ];

    /// Its name, in lower case: `not_found`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::TooLarge => "too_large",
            Self::Exhausted => "exhausted",
            Self::Timeout => "timeout",
            Self::Limit => "limit",
            Self::Guest => "guest",
            Self::Host => "host",
            Self::System => "system",
            Self::Cancelled => "cancelled",
            Self::Misuse => "misuse",
            Self::Closed => "closed",
        }
    }

    /// Whether the same may succeed later although nobody changes anything: what is in use comes free.
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Exhausted | Self::Timeout | Self::System)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

named!(ErrorKind, "a kind of error");

/// `kind` of each error, and what follows from it.
macro_rules! kinds {
    ($($error:ty: |$it:ident| $kind:expr;)*) => {$(
        impl $error {
            /// Whose fault it is, and what can be done about it.
            pub fn kind(&self) -> ErrorKind {
                let $it = self;
                $kind
            }

            /// Whether the same may succeed later although nobody changes anything.
            pub fn is_retryable(&self) -> bool {
                self.kind().is_retryable()
            }
        }
    )*};
}

/// If a limit of the instance refused it what it asked for, or a budget.
fn refused(source: &SharedError) -> Option<ErrorKind> {
    Some(match source.downcast_ref()? {
        Refusal::Budget { .. } => ErrorKind::Exhausted,
        Refusal::Memory { .. } | Refusal::Table { .. } => ErrorKind::TooLarge,
    })
}

kinds! {
    BudgetExceeded: |error| match error.requested > error.limit {
        true => ErrorKind::TooLarge,
        false => ErrorKind::Exhausted,
    };
    AcquireError: |error| match error {
        AcquireError::BudgetExceeded(exceeded) => exceeded.kind(),
        AcquireError::Timeout { .. } => ErrorKind::Timeout,
        AcquireError::WouldBlock { .. } => ErrorKind::Exhausted,
        AcquireError::Module { source, .. } => source.kind(),
        AcquireError::StartTrapped { .. } | AcquireError::Quarantined { .. } => ErrorKind::Guest,
        AcquireError::StartLimit { .. } => ErrorKind::Limit,
        AcquireError::System { .. } => ErrorKind::System,
        AcquireError::Instantiate { source, .. } => refused(source).unwrap_or(ErrorKind::Host),
        AcquireError::GroupLimit { limit, .. } => match limit {
            GroupLimit::Instances => ErrorKind::TooLarge,
            GroupLimit::Waiting(_) => ErrorKind::Exhausted,
        },
        AcquireError::Deadlock { .. }
        | AcquireError::StackTooSmall { .. }
        | AcquireError::AsyncRequired { .. } => ErrorKind::Misuse,
        AcquireError::Removed { .. } => ErrorKind::NotFound,
        AcquireError::TypeChanged { .. } => ErrorKind::Conflict,
        AcquireError::Closed { .. } => ErrorKind::Closed,
    };
    ModuleError: |error| match error {
        ModuleError::Compile(_) | ModuleError::Link(_) => ErrorKind::Invalid,
        ModuleError::System(_) | ModuleError::Process(_) => ErrorKind::System,
        ModuleError::TooExpensive { .. } => ErrorKind::TooLarge,
        ModuleError::TooSlow { .. } => ErrorKind::Limit,
        ModuleError::Load(_) => ErrorKind::Host,
        ModuleError::WarmUp { source, .. } => source.kind(),
    };
    WarmUpError: |error| match error {
        WarmUpError::Unsupported(_) | WarmUpError::CalledImport { .. } => ErrorKind::Invalid,
        WarmUpError::Trapped(_) => ErrorKind::Guest,
        WarmUpError::Limit(_) => ErrorKind::Limit,
        WarmUpError::Memory(source) => refused(source).unwrap_or(ErrorKind::Exhausted),
        WarmUpError::Failed(_) => ErrorKind::Host,
    };
    CallError: |error| match error {
        CallError::Acquire(error) => error.kind(),
        CallError::Trap { .. } => ErrorKind::Guest,
        CallError::Limit { .. } => ErrorKind::Limit,
        CallError::Cancelled { .. } => ErrorKind::Cancelled,
        CallError::Host { .. } => ErrorKind::Host,
        CallError::Arguments { .. } | CallError::Export { .. } => ErrorKind::Invalid,
        CallError::Broken { .. }
        | CallError::StackTooSmall { .. }
        | CallError::AsyncRequired { .. } => ErrorKind::Misuse,
        CallError::Memory { source, .. } => source.kind(),
    };
    MemoryError: |error| match error {
        MemoryError::NoMemory => ErrorKind::Invalid,
        MemoryError::OutOfBounds { .. } | MemoryError::NotUtf8 { .. } => ErrorKind::Guest,
        MemoryError::GuestOutOfMemory { .. } => ErrorKind::Limit,
        MemoryError::TooLong { .. } => ErrorKind::TooLarge,
    };
    DefineError: |error| match error {
        DefineError::MemoryTooLarge { .. } | DefineError::TableTooLarge { .. } => {
            ErrorKind::TooLarge
        }
        DefineError::AlreadyDefined { .. } | DefineError::TypeChanged { .. } => ErrorKind::Conflict,
        DefineError::NotDefined { .. } => ErrorKind::NotFound,
        DefineError::TooMany { .. } | DefineError::NoPlace { .. } => ErrorKind::TooLarge,
        DefineError::Closed { .. } => ErrorKind::Closed,
        DefineError::WarmUp { .. } => ErrorKind::Invalid,
        DefineError::ForeignImports { .. } | DefineError::EngineLacks { .. } => ErrorKind::Misuse,
        DefineError::Name { .. }
        | DefineError::Module { .. }
        | DefineError::NoWasm { .. }
        | DefineError::MissingExport { .. }
        | DefineError::WrongType { .. }
        | DefineError::Imports { .. }
        | DefineError::Limits { .. } => ErrorKind::Invalid,
    };
    LookupError: |error| match error {
        LookupError::Unknown { .. } => ErrorKind::NotFound,
        LookupError::Ambiguous { .. } => ErrorKind::Invalid,
        LookupError::WrongType { .. } => ErrorKind::Conflict,
    };
    UnknownFunction: |_error| ErrorKind::NotFound;
    LimitsError: |_error| ErrorKind::Invalid;
    ShareError: |_error| ErrorKind::Invalid;
    BuildError: |error| match error {
        BuildError::Limits(error) => error.kind(),
        BuildError::Engine(_) | BuildError::Share(_) => ErrorKind::Invalid,
        BuildError::ForeignLinker
        | BuildError::EngineHasAllocator
        | BuildError::UnfitAllocator { .. }
        | BuildError::EngineLacks { .. } => ErrorKind::Misuse,
        #[cfg(feature = "config")]
        BuildError::Artifacts(_) => ErrorKind::System,
        BuildError::Housekeeper(_) => ErrorKind::System,
        BuildError::Compiler(error) => match error {
            CompilerError::Start { .. } | CompilerError::System(_) => ErrorKind::System,
            _ => ErrorKind::Misuse,
        },
    };
    PrecompileError: |error| match error {
        PrecompileError::Module(_) | PrecompileError::Compile(_) => ErrorKind::Invalid,
        PrecompileError::Refused(error) => error.kind(),
        PrecompileError::System(_) => ErrorKind::System,
        PrecompileError::Acquire(error) => error.kind(),
        PrecompileError::NoArtifacts => ErrorKind::Misuse,
        PrecompileError::NotSaved => ErrorKind::Host,
    };
    ImportsError: |_error| ErrorKind::Invalid;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::pool::api::target::Target;

    #[test]
    fn an_instance_that_wants_too_much_is_not_the_hosts_failure() {
        let refused = |refusal: Refusal| AcquireError::Instantiate {
            target: Arc::new(Target {
                signature: "f()".into(),
                group: 1.into(),
            }),
            source: Arc::new(refusal),
        };
        let (requested, limit) = (2, 1);
        let later = refused(Refusal::Budget { requested });
        assert_eq!(later.kind(), ErrorKind::Exhausted);
        assert!(later.is_retryable());
        for never in [
            Refusal::Memory { requested, limit },
            Refusal::Table { requested, limit },
        ] {
            assert_eq!(refused(never).kind(), ErrorKind::TooLarge);
        }
    }
}
