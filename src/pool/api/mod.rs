//! What a host sees: the handles, what it configures, and what it is told.

pub(crate) mod acquire_options;
pub(crate) mod async_reason;
pub(crate) mod bill;
pub(crate) mod billing;
pub(crate) mod budget_exceeded;
pub(crate) mod build_error;
pub(crate) mod builder;
pub(crate) mod cancel;
pub(crate) mod canceller;
mod check_compiler;
mod compile_settings;
pub(crate) mod compiled;
pub(crate) mod compiler_stats;
#[cfg(feature = "config")]
pub(crate) mod config;
pub(crate) mod define;
pub(crate) mod define_error;
pub(crate) mod definition;
pub(crate) mod dynamic;
mod engine_settings;
pub(crate) mod error;
pub(crate) mod error_kind;
pub(crate) mod exported_func;
pub(crate) mod function;
pub(crate) mod function_name;
pub(crate) mod function_type;
pub(crate) mod group_key;
pub(crate) mod group_limit;
pub(crate) mod groups;
pub(crate) mod guest_bytes;
pub(crate) mod holders;
mod hook_settings;
pub(crate) mod imports;
pub(crate) mod lease;
pub(crate) mod limits;
pub(crate) mod memory_error;
pub(crate) mod names;
mod pinned;
mod pooling;
pub(crate) mod precompile;
mod prepare;
pub(crate) mod prepared;
mod presets;
pub(crate) mod quarantine;
mod reuse;
#[cfg(feature = "serde")]
pub(crate) mod serde_fields;
#[cfg(feature = "serde")]
pub(crate) mod serde_impls;
pub(crate) mod share;
pub(crate) mod stats;
pub(crate) mod target;
pub(crate) mod values;
