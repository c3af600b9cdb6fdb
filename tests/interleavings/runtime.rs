//! `src/runtime` without its compiler. Stores, instances, meters and calls are wasmtime's own: they
//! cost microseconds, and no scheduling point lies within them.

#[path = "../../src/runtime/bodies.rs"]
mod bodies;
#[path = "../../src/runtime/cancel_flag.rs"]
mod cancel_flag;
#[path = "../../src/runtime/compile_heap.rs"]
mod compile_heap;
#[path = "../../src/runtime/engine.rs"]
mod engine;
#[path = "../../src/runtime/epoch.rs"]
mod epoch;
#[path = "../../src/runtime/epoch_state.rs"]
mod epoch_state;
#[path = "../../src/runtime/failure.rs"]
mod failure;
#[path = "../../src/runtime/heap.rs"]
mod heap;
#[path = "../../src/runtime/host_code.rs"]
mod host_code;
#[path = "../../src/runtime/import_types.rs"]
mod import_types;
#[path = "../../src/runtime/imports.rs"]
mod imports;
#[path = "../../src/runtime/inspect.rs"]
mod inspect;
#[path = "../../src/runtime/instance.rs"]
mod instance;
#[path = "../../src/runtime/link.rs"]
mod link;
#[path = "../../src/runtime/meter.rs"]
mod meter;
#[path = "../../src/runtime/module_limits.rs"]
mod module_limits;
#[path = "../../src/runtime/pooling.rs"]
mod pooling;
#[path = "../../src/runtime/raw.rs"]
mod raw;
#[path = "../../src/runtime/sections.rs"]
mod sections;
#[path = "../../src/runtime/signature.rs"]
mod signature;
#[path = "../../src/runtime/sizes.rs"]
mod sizes;
#[path = "../../src/runtime/stack.rs"]
mod stack;
#[path = "../../src/runtime/stack_area.rs"]
mod stack_area;
#[path = "../../src/runtime/stack_quota.rs"]
mod stack_quota;
#[path = "../../src/runtime/system.rs"]
mod system;
#[path = "../../src/runtime/waker_cell.rs"]
mod waker_cell;
#[cfg(feature = "warm-up")]
#[path = "../../src/runtime/warm_up.rs"]
mod warm_up;

#[path = "code.rs"]
mod code;

pub(crate) use cancel_flag::CancelFlag;
pub(crate) use code::{
    Code, CodeNeeds, LoadFailure, STACK, Unmapped, attempts, compile, prepare, shared_engine,
};
pub(crate) use compile_heap::compile_heap;
pub(crate) use engine::{EngineSettings, Runtime, compiler_config, gc_heap};
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
