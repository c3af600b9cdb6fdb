//! What a host is told of a compilation.

use std::sync::Arc;
use std::time::Duration;

use crate::pool::api::function_name::name_of;
use crate::state::Group;

/// A compilation that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Compiled {
    /// The function whose acquire has led to it, with its argument types; or the name of a module that was precompiled.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::pool::api::serde_fields::text")
    )]
    pub signature: Arc<str>,
    /// The group for which it was asked for.
    pub group: Group,
    /// Bytes of wasm.
    pub wasm_bytes: u64,
    /// Bytes that are reserved for it in `compile`, still.
    pub reserved_bytes: u64,
    /// Bytes of heap that it took at its peak: if the host measures that (see
    /// [`PoolBuilder::compile_probe`](crate::PoolBuilder::compile_probe)), or a process of its own has compiled it.
    pub heap_bytes: Option<u64>,
    /// Real time that it took.
    pub time: Duration,
    /// Whether there is code.
    pub succeeded: bool,
}

impl Compiled {
    /// The function's name, without its argument types.
    pub fn name(&self) -> &str {
        name_of(&self.signature)
    }
}
