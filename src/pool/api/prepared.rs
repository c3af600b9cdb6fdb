//! What a preparation has come to.

use crate::pool::api::names::named;

/// What [`Pool::prepare`](crate::Pool::prepare) has seen to.
///
/// ```
/// use wasm_pool::{CodeOrigin, Definition, Function, Pool};
///
/// # let pool = Pool::builder().build()?;
/// # let wasm = wat::parse_str(r#"(module (func (export "f")))"#)?;
/// let f: Function<(), ()> = pool.define(Definition::new("f").wasm(wasm))?;
/// let prepared = pool.prepare(&f)?;
/// assert_eq!(prepared.origin, CodeOrigin::Compiled);
/// assert!(prepared.stays && prepared.code_bytes > 0);
///
/// f.call("tenant", ())?;      // an instance is made, and nothing is compiled any more
/// assert_eq!(pool.prepare(&f)?.origin, CodeOrigin::Present);
/// assert_eq!(pool.stats().compilations, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Prepared {
    /// Where the code has come from.
    pub origin: CodeOrigin,
    /// Bytes that the code takes of the `code` budget while it is loaded.
    pub code_bytes: u64,
    /// Whether the code was kept when this returned. It is not where nothing else uses it and the policy keeps
    /// none without instances ([`Policy::Lru`](crate::Policy::Lru)). What is kept may be evicted at any later
    /// time, as all code that no instance uses.
    pub stays: bool,
}

/// Where the code of a module has come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CodeOrigin {
    /// It was loaded already.
    Present,
    /// Another caller was about to compile or load it, and this one has waited for that.
    Awaited,
    /// It was loaded from an artifact.
    Loaded,
    /// It was compiled.
    Compiled,
}

impl CodeOrigin {
    /// Every origin.
    pub const ALL: [Self; 4] = [Self::Present, Self::Awaited, Self::Loaded, Self::Compiled];

    /// Its name, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Awaited => "awaited",
            Self::Loaded => "loaded",
            Self::Compiled => "compiled",
        }
    }
}

impl std::fmt::Display for CodeOrigin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

named!(CodeOrigin, "an origin of code");
