//! All of wasmtime: the only place that knows its types' habits, and pages.

mod bodies;
mod cancel_flag;
mod code;
mod compile_heap;
mod engine;
mod epoch;
mod epoch_state;
mod failure;
mod heap;
mod host_code;
mod import_types;
mod imports;
mod inspect;
mod instance;
mod link;
mod meter;
mod module_limits;
mod pooling;
mod raw;
mod sections;
mod signature;
mod sizes;
mod stack;
mod stack_area;
mod stack_quota;
mod system;
mod waker_cell;
#[cfg(feature = "warm-up")]
mod warm_up;

pub(crate) use cancel_flag::CancelFlag;
pub(crate) use code::{Code, CodeNeeds, LoadFailure, Unmapped, compile};
pub(crate) use compile_heap::compile_heap;
#[cfg(all(target_os = "linux", feature = "compiler"))]
pub(crate) use engine::compiler_config;
pub(crate) use engine::{EngineSettings, Runtime, gc_heap};
pub(crate) use epoch::Epoch;
pub(crate) use failure::{CallFailure, classify, share};
pub(crate) use host_code::{discard, guarded, wake};
pub(crate) use import_types::is_of_a_store;
pub(crate) use imports::{HostImports, Own, OwnItem, OwnNeeds};
pub(crate) use inspect::{Facts, TypeText, inspect};
pub(crate) use instance::{
    Allocator, CallLimits, Instance, InstantiateFailure, interrupt_each_tick, new_store,
    resolve_exports, runs_as_task_only, set_yields,
};
pub(crate) use meter::{GrowthAccount, Meter, Refusal};
pub(crate) use pooling::{Places, Unfit};
pub(crate) use signature::matches_types;
pub(crate) use sizes::{
    InstanceNeeds, MAPPINGS_PER_MODULE, READ_BUFFERS, artifact_estimate, code_estimate,
    load_estimate,
};
pub(crate) use stack::StackCheck;
pub(crate) use stack_quota::StackQuota;
pub(crate) use system::{Relief, is_scarce, refused_by_system};
pub(crate) use waker_cell::WakerCell;
#[cfg(feature = "warm-up")]
pub(crate) use warm_up::{WarmUp, WarmUpFailure};

pub use failure::{GuestTrap, Report, SharedError};
pub use imports::{ImportError, MissingImport};
pub use inspect::InspectError;
pub use instance::StoreData;
pub use module_limits::{ModuleLimit, ModuleLimits, ModuleTooLarge};
pub use pooling::PoolingAllocator;
pub use sizes::INSTANCE_OVERHEAD;
pub use stack::StackTooSmall;
pub use system::SystemError;
