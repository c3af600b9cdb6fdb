//! Presets: figures that somebody has chosen for a host of some kind, each in one place.

use std::time::Duration;

use crate::pool::api::billing::Billing;
use crate::pool::api::builder::PoolBuilder;
use crate::pool::api::limits::Limits;
use crate::pool::api::quarantine::Quarantine;
use crate::runtime::ModuleLimits;
use crate::state::Reuse;

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

    /// For modules that nobody has looked at, from people whom nobody knows:
    ///
    /// | | |
    /// |---|---|
    /// | [`Self::module_limits`] | [`ModuleLimits::strict`]: what is dear to compile is refused when it is defined |
    /// | [`Limits::compile`] | 256 MiB: what the strict limits admit is compiled within it, or refused with numbers |
    /// | [`Limits::code`] | 128 MiB |
    /// | [`Limits::memory`] | 256 MiB, for instances |
    /// | [`Limits::stack`] | 64 MiB, for tasks |
    /// | [`Self::max_group_memory`], [`Self::max_group_stack`] | 64 MiB, 16 MiB: a quarter each |
    /// | [`Self::max_group_waiting`], [`Self::max_group_definitions`] | 64 each |
    /// | [`Self::max_compilations`] | 1: others' turns come when it is over |
    /// | [`Self::compile_cooldown`] | 60 s |
    /// | [`Self::max_instance_memory`] | 16 MiB |
    /// | [`Self::max_table_elements`] | 10,000 |
    /// | [`Self::max_instances_per_entry`] | 2 |
    /// | [`Self::reuse`] | [`Reuse::Pristine`]: every lease has an instance that nobody has used |
    /// | [`Self::call_timeout`] | 1 s |
    /// | [`Self::cancellable_calls`] | yes: [`Pool::cancel_group`](crate::Pool::cancel_group) stops what runs |
    /// | [`Self::wait_timeout`] | 10 s |
    /// | [`Self::quarantine`] | after 8 failures within a minute: for a second at first, for five minutes at most |
    /// | [`Self::billing`] | [`Billing::new`]: who has used what |
    ///
    /// A module that passes may still take seconds to compile, and nothing in this process can stop that.
    ///
    /// Set after it what should differ.
    ///
    /// ```
    /// use wasm_pool::{Budget, Pool};
    /// let pool = Pool::builder().strangers().build()?;
    /// assert_eq!(pool.limits().get(Budget::Compile), Some(256 << 20));
    /// # Ok::<(), wasm_pool::BuildError>(())
    /// ```
    pub fn strangers(self) -> Self {
        let limits = Limits::new().compile(256 << 20).code(128 << 20);
        self.limits(limits.memory(256 << 20).stack(64 << 20))
            .module_limits(ModuleLimits::strict())
            .max_group_memory(64 << 20)
            .max_group_stack(16 << 20)
            .max_group_waiting(64)
            .max_group_definitions(64)
            .max_compilations(1)
            .compile_cooldown(Duration::from_secs(60))
            .max_instance_memory(16 << 20)
            .max_table_elements(10_000)
            .max_instances_per_entry(2)
            .reuse(Reuse::Pristine)
            .call_timeout(Duration::from_secs(1))
            .cancellable_calls(true)
            .wait_timeout(Duration::from_secs(10))
            .quarantine(Quarantine::after(8, Duration::from_secs(60)))
            .billing(Billing::new())
    }
}
