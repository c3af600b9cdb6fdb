//! How long an acquire waits, and for what.

use std::time::Duration;

/// How an acquire waits, where it should differ from what the pool was built with:
/// [`Function::acquire_with`](crate::Function::acquire_with). What is not set is as the builder has it.
///
/// ```
/// # use std::time::Duration;
/// # use wasm_pool::{AcquireOptions, Definition, Function, Pool};
/// # let pool = Pool::builder().build()?;
/// # let wasm = wat::parse_str(r#"(module (func (export "f")))"#)?;
/// let f: Function<(), ()> = pool.define(Definition::new("f").wasm(wasm))?;
/// let patient = AcquireOptions::new().timeout(Duration::from_secs(1)).wait_for_room(true);
/// f.acquire_with("tenant", patient)?.call(())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
pub struct AcquireOptions {
    timeout: Option<Duration>,
    wait_for_room: Option<bool>,
}

impl AcquireOptions {
    /// As [`Function::acquire`](crate::Function::acquire) waits.
    pub fn new() -> Self {
        Self::default()
    }

    /// A deadline, instead of the builder's
    /// [`wait_timeout`](crate::PoolBuilder::wait_timeout). It holds for everything but this thread's own
    /// compilation: for other leases, for room, and for compilations of others (and those of tasks, which go
    /// on aside).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Whether to wait for room in the budgets when evicting what is idle is not enough, instead of failing
    /// at once; instead of the builder's [`wait_for_room`](crate::PoolBuilder::wait_for_room).
    ///
    /// Who waits is served first come, first served. Once 64 others have passed it, what comes free is kept
    /// for it. What can never fit fails at once all the same.
    pub fn wait_for_room(mut self, wait: bool) -> Self {
        self.wait_for_room = Some(wait);
        self
    }

    pub(crate) fn deadline(self) -> Option<Duration> {
        self.timeout
    }

    pub(crate) fn waits_for_room(self) -> Option<bool> {
        self.wait_for_room
    }
}
