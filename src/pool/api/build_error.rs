//! Why a pool could not be built, or its limits not changed.

use crate::pool::api::share::ShareError;
use crate::runtime::SharedError;

/// A limit, or a set of limits, that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitsError {
    /// A limit of zero lets nothing in.
    #[error("{field} is zero: nothing could ever be served")]
    Zero {
        /// Which setting.
        field: &'static str,
    },
    /// More than any machine has, or can be reckoned with.
    #[error("{field} is {value}, which is too much: at most {max}")]
    TooLarge {
        /// Which setting.
        field: &'static str,
        /// What it was set to.
        value: u64,
        /// The largest value allowed.
        max: u64,
    },
    /// Less than makes sense.
    #[error("{field} is {value}, which is too little: at least {min}")]
    TooSmall {
        /// Which setting.
        field: &'static str,
        /// What it was set to; times are in nanoseconds.
        value: u64,
        /// The smallest value allowed.
        min: u64,
    },
    /// Not even one instance could be had.
    #[error(
        "{field} is {value} {unit}, but {what} needs {needed}: no instance could ever be made",
        unit = if *field == "mappings" { field } else { "bytes" }
    )]
    NeverFits {
        /// Which setting.
        field: &'static str,
        /// What it was set to, in bytes, or mappings.
        value: u64,
        /// What does not fit.
        what: &'static str,
        /// What that needs, in the same unit.
        needed: u64,
    },
}

#[cfg(feature = "config")]
impl LimitsError {
    /// Which setting.
    pub(crate) fn field(&self) -> &'static str {
        match self {
            Self::Zero { field }
            | Self::TooLarge { field, .. }
            | Self::TooSmall { field, .. }
            | Self::NeverFits { field, .. } => field,
        }
    }
}

/// Why a pool could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A limit makes no sense.
    #[error(transparent)]
    Limits(#[from] LimitsError),
    /// Wasmtime refused the engine's settings, or the imports.
    #[error("wasmtime refused the engine's settings or imports")]
    Engine(#[source] SharedError),
    /// The linker belongs to another engine than the pool's.
    #[error("the linker was made with another engine than the pool's")]
    ForeignLinker,
    /// The host's engine lacks what a setting of the builder needs.
    #[error("{setting} is set, but the engine was configured without {needs}")]
    EngineLacks {
        /// The builder's setting.
        setting: &'static str,
        /// What wasmtime's `Config` must enable for it.
        needs: &'static str,
    },
    /// [`PoolBuilder::pooling_allocator`](crate::PoolBuilder::pooling_allocator) is for the pool's own engine.
    #[error("a pooling allocator is set, and an engine of the host's own, which has an allocator")]
    EngineHasAllocator,
    /// The host's engine has a pooling allocator with a setting under which no pool can keep its promises.
    #[error("the engine's pooling allocator has {setting} set, and {why}")]
    UnfitAllocator {
        /// What of wasmtime's `PoolingAllocationConfig`.
        setting: &'static str,
        /// Why that cannot be.
        why: &'static str,
    },
    /// What a group is given makes no sense: see [`PoolBuilder::group`](crate::PoolBuilder::group).
    #[error("what a group is given makes no sense")]
    Share(#[source] ShareError),
    /// The artifacts that a configuration describes could not be opened.
    #[cfg(feature = "config")]
    #[error("the artifacts of the configuration")]
    Artifacts(#[source] crate::pool::api::config::ConfigError),
    /// Modules are to be compiled in processes, and none could be had that does.
    #[error("modules cannot be compiled in a process of their own")]
    Compiler(#[source] crate::compiler::CompilerError),
    /// The housekeeper's thread could not be started.
    #[error("the housekeeper's thread could not be started")]
    Housekeeper(#[source] std::io::Error),
}
