//! Presets: figures that somebody has chosen for a host of some kind, each in one place.

use std::time::Duration;

use crate::pool::api::builder::PoolBuilder;
use crate::pool::api::limits::Limits;

impl<T: Send + 'static> PoolBuilder<T> {
    /// ScyllaDB's figures for its WebAssembly functions, whose cache is this pool's ancestor:
    ///
    /// | | |
    /// |---|---|
    /// | [`Limits::mapped`] | 40 MiB: of the 50 MiB that it sets aside for code and stacks, 40 may be used, and the rest is head-room for compiling |
    /// | [`Limits::compile`] | 100 MiB: here, that head-room is heap, and has a budget of its own, by estimate for 1 MB of wasm |
    /// | [`Limits::memory`] | 100 MB, for instances |
    /// | [`Self::max_instance_memory`] | 2 MiB |
    /// | [`Self::max_idle_memory`] | 1 MiB: larger instances are not kept |
    /// | [`Self::idle_timeout`] | 5 s |
    ///
    /// Set after it what should differ. [`Pool::limits`](crate::Pool::limits) says what the limits are.
    ///
    /// ```
    /// use wasm_pool::{Budget, Pool};
    /// let pool = Pool::builder().scylla().build()?;
    /// assert_eq!(pool.limits().get(Budget::Mapped), Some(40 << 20));
    /// assert_eq!(pool.limits().get(Budget::Total), None);
    /// # Ok::<(), wasm_pool::BuildError>(())
    /// ```
    pub fn scylla(self) -> Self {
        let limits = Limits::new().mapped(40 << 20).compile(100 << 20);
        self.limits(limits.memory(100_000_000))
            .max_instance_memory(2 << 20)
            .max_idle_memory(1 << 20)
            .idle_timeout(Duration::from_secs(5))
    }
}
