//! Why definitions are refused, and functions not found.

use std::sync::Arc;

use crate::pool::api::build_error::LimitsError;
use crate::pool::api::function_name::NameError;
use crate::runtime::{ImportError, InspectError};
use crate::state::Group;

/// Why a function was not defined, or not replaced. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DefineError {
    /// No function can be called so.
    #[error("{target} cannot be defined")]
    Name {
        /// The function: the beginning of what was given, in readable characters.
        target: Arc<str>,
        /// What is wrong with it.
        source: NameError,
    },
    /// The bytes are not a core module, as far as can be seen without compiling them.
    #[error("{target}: its wasm is refused")]
    Module {
        /// The function.
        target: Arc<str>,
        /// What is wrong with them.
        source: InspectError,
    },
    /// The definition lacks its wasm.
    #[error("{target}: the definition has no wasm")]
    NoWasm {
        /// The function.
        target: Arc<str>,
    },
    /// The module has no such export, or it is not a function.
    #[error("{target}: the module exports no function {export:?}; its functions are: {available}")]
    MissingExport {
        /// The function.
        target: Arc<str>,
        /// The export that was asked for.
        export: String,
        /// What there is.
        available: String,
    },
    /// The export has another type than the handle.
    #[error("{target}: export {export:?} is {found}, and the handle expects {expected}")]
    WrongType {
        /// The function.
        target: Arc<str>,
        /// The export.
        export: String,
        /// Its type in the module.
        found: String,
        /// The type of the handle.
        expected: String,
    },
    /// The declared minimum of the module's memories is more than an instance may have.
    #[error(
        "{target}: the module declares or imports {requested} bytes of memory, and an instance may have {limit}"
    )]
    MemoryTooLarge {
        /// The function.
        target: Arc<str>,
        /// Bytes declared.
        requested: u64,
        /// `max_instance_memory` of the pool, or `max_memory` of the definition, in bytes.
        limit: u64,
    },
    /// The declared minimum of the module's tables is more than an instance may have.
    #[error(
        "{target}: the module declares or imports a table of {requested} elements, and a table may have {limit}"
    )]
    TableTooLarge {
        /// The function.
        target: Arc<str>,
        /// Elements declared.
        requested: u64,
        /// `max_table_elements`.
        limit: u64,
    },
    /// The engine's pooling allocator has no place that an instance would fit into: see
    /// [`PoolBuilder::pooling_allocator`](crate::PoolBuilder::pooling_allocator).
    #[error("{target} needs {needed} {what}, and the engine's pooling allocator has made {there}")]
    NoPlace {
        /// The function.
        target: Arc<str>,
        /// What it needs more of than there is.
        what: &'static str,
        /// How many it needs.
        needed: u64,
        /// How many there are.
        there: u64,
    },
    /// The module can never be linked with what the host provides.
    #[error("{target} can never be linked")]
    Imports {
        /// The function.
        target: Arc<str>,
        /// What is missing, or of another type.
        source: ImportError,
    },
    /// The definition's imports were made by a pool of another engine, or with other store data.
    #[error("{target}: its imports were made by another pool: make them with this one's `imports`")]
    ForeignImports {
        /// The function.
        target: Arc<str>,
    },
    /// The module can never be warmed up as the definition says: see `Definition::warm_up`.
    #[error("{target} cannot be warmed up: {reason}")]
    WarmUp {
        /// The function.
        target: Arc<str>,
        /// Why not.
        reason: String,
    },
    /// The name is taken, with the same argument types.
    #[error("{target} is defined already; use replace to give it new code")]
    AlreadyDefined {
        /// The function.
        target: Arc<str>,
    },
    /// `replace` of a function that is not defined.
    #[error("{target} is not defined, so it cannot be replaced")]
    NotDefined {
        /// The function.
        target: Arc<str>,
    },
    /// `replace` by a function of another type, which handles of the old type could not call.
    #[error(
        "{target} is {old}, and its replacement is {new}: if that is meant, say so by allow_type_change"
    )]
    TypeChanged {
        /// The function.
        target: Arc<str>,
        /// Its type.
        old: String,
        /// The type of what was to replace it.
        new: String,
    },
    /// As many functions are defined on its owner's behalf as may be: see
    /// [`Share::max_definitions`](crate::Share::max_definitions).
    #[error(
        "{target}: {limit} functions are defined on behalf of group {owner}, as many as may be"
    )]
    TooMany {
        /// The function.
        target: Arc<str>,
        /// On whose behalf it was to be defined.
        owner: Group,
        /// How many may be.
        limit: u32,
    },
    /// A limit of the definition needs what the engine was configured without.
    #[error("{target}: {setting} is set, but the engine was configured without {needs}")]
    EngineLacks {
        /// The function.
        target: Arc<str>,
        /// The definition's setting.
        setting: &'static str,
        /// What wasmtime's `Config`, or the builder, must enable for it.
        needs: &'static str,
    },
    /// A limit of the definition's own makes no sense.
    #[error("{target}: a limit makes no sense")]
    Limits {
        /// The function.
        target: Arc<str>,
        /// Which, and why.
        source: LimitsError,
    },
    /// The pool is closed.
    #[error("{target}: the pool is closed")]
    Closed {
        /// The function.
        target: Arc<str>,
    },
}

/// Why a function was not found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LookupError {
    /// None of this name is defined.
    #[error("function {target} is not defined")]
    Unknown {
        /// The name, as it was given.
        target: String,
    },
    /// Several are; name one with its argument types.
    #[error("function {target} has several overloads: {}", overloads.join("; "))]
    Ambiguous {
        /// The name, as it was given.
        target: String,
        /// All of them, with argument types.
        overloads: Vec<String>,
    },
    /// It has another type than the handle.
    #[error("{target} is {found}, and the handle expects {expected}")]
    WrongType {
        /// The function.
        target: Arc<str>,
        /// Its export's type.
        found: String,
        /// The type of the handle.
        expected: String,
    },
}

/// No function of this name is defined.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("function {target} is not defined")]
pub struct UnknownFunction {
    /// The name, as it was given.
    pub target: String,
}

impl DefineError {
    /// The function that was to be defined: its name with its argument types.
    pub fn target(&self) -> &str {
        match self {
            Self::Name { target, .. }
            | Self::Module { target, .. }
            | Self::NoWasm { target }
            | Self::MissingExport { target, .. }
            | Self::WrongType { target, .. }
            | Self::MemoryTooLarge { target, .. }
            | Self::TableTooLarge { target, .. }
            | Self::Imports { target, .. }
            | Self::NoPlace { target, .. }
            | Self::ForeignImports { target }
            | Self::WarmUp { target, .. }
            | Self::AlreadyDefined { target }
            | Self::NotDefined { target }
            | Self::TypeChanged { target, .. }
            | Self::TooMany { target, .. }
            | Self::EngineLacks { target, .. }
            | Self::Limits { target, .. }
            | Self::Closed { target } => target,
        }
    }
}

impl LookupError {
    /// What was looked up, as it was given; or its signature, if it was found.
    pub fn target(&self) -> &str {
        match self {
            Self::Unknown { target } | Self::Ambiguous { target, .. } => target,
            Self::WrongType { target, .. } => target,
        }
    }
}

impl UnknownFunction {
    /// The name, as it was given.
    pub fn target(&self) -> &str {
        &self.target
    }
}
