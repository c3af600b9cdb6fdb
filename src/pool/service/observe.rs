//! What can be seen from outside: metrics, and the host's eviction listener.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, histogram};

use crate::pool::api::function_name::name_of;
use crate::runtime::guarded;
use crate::state::{Group, RemovalReason};

/// An instance left the pool, and its memory has been freed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Eviction {
    /// The function's name with its argument types, as in `math.add(bigint, bigint)`.
    pub signature: Arc<str>,
    /// The group it was made for.
    pub group: Group,
    /// Why it left.
    pub reason: RemovalReason,
    /// Bytes of linear memory that it had.
    pub memory_bytes: u64,
    /// Leases that it served.
    pub uses: u64,
}

impl Eviction {
    /// The function's name, without its argument types.
    pub fn name(&self) -> &str {
        name_of(&self.signature)
    }

    /// The function's name with its argument types.
    pub fn signature(&self) -> &str {
        &self.signature
    }
}

pub(crate) type Listener = dyn Fn(&Eviction) + Send + Sync;

/// Names of the pool's metrics. All carry the label `pool`.
pub(crate) mod name {
    pub const HITS: &str = "wasm_pool_hits_total";
    pub const MISSES: &str = "wasm_pool_misses_total";
    pub const BLOCKS: &str = "wasm_pool_blocks_total";
    pub const REFUSALS: &str = "wasm_pool_budget_refusals_total";
    pub const EVICTIONS: &str = "wasm_pool_evictions_total";
    pub const CODE_DROPPED: &str = "wasm_pool_code_dropped_total";
    pub const COMPILATIONS: &str = "wasm_pool_compilations_total";
    pub const COMPILE_FAILURES: &str = "wasm_pool_compile_failures_total";
    pub const GUEST_FAILURES: &str = "wasm_pool_guest_failures_total";
    pub const COMPILE_SECONDS: &str = "wasm_pool_compile_seconds";
    pub const LOAD_SECONDS: &str = "wasm_pool_load_seconds";
    pub const WAIT_SECONDS: &str = "wasm_pool_wait_seconds";
    pub const CHARGED: &str = "wasm_pool_charged";
    pub const LIMIT: &str = "wasm_pool_limit";
    pub const INSTANCES: &str = "wasm_pool_instances";
    pub const MODULES: &str = "wasm_pool_modules_loaded";
}

/// Tells whoever listens: the `metrics` recorder, and the host's closure.
pub(crate) struct Observer {
    pub pool: Arc<str>,
    listener: Option<Box<Listener>>,
}

impl Observer {
    pub fn new(pool: Arc<str>, listener: Option<Box<Listener>>) -> Self {
        describe();
        Self { pool, listener }
    }

    /// Calls the host's listener, outside of any lock. Its panic must not cost the pool the thread
    /// that happened to evict something.
    pub fn evicted(&self, eviction: &Eviction) {
        record(|| {
            let (pool, reason) = (self.pool.clone(), eviction.reason.name());
            counter!(name::EVICTIONS, "pool" => pool, "reason" => reason).increment(1);
        });
        if let Some(listener) = &self.listener {
            guarded("the eviction listener", || listener(eviction));
        }
    }

    pub fn code_dropped(&self) {
        record(|| counter!(name::CODE_DROPPED, "pool" => self.pool.clone()).increment(1));
    }

    pub fn compiled(&self, compiling: Duration, loading: Duration) {
        record(|| {
            counter!(name::COMPILATIONS, "pool" => self.pool.clone()).increment(1);
            histogram!(name::COMPILE_SECONDS, "pool" => self.pool.clone()).record(compiling);
            histogram!(name::LOAD_SECONDS, "pool" => self.pool.clone()).record(loading);
        });
    }

    pub fn compile_failed(&self) {
        record(|| counter!(name::COMPILE_FAILURES, "pool" => self.pool.clone()).increment(1));
    }

    pub fn guest_failed(&self, kind: &'static str) {
        record(|| {
            let pool = self.pool.clone();
            counter!(name::GUEST_FAILURES, "pool" => pool, "kind" => kind).increment(1);
        });
    }

    pub fn waited(&self, time: Duration, outcome: &'static str) {
        record(|| {
            let pool = self.pool.clone();
            histogram!(name::WAIT_SECONDS, "pool" => pool, "outcome" => outcome).record(time);
        });
    }
}

/// The recorder is the host's, and called in the middle of everything.
fn record(metric: impl FnOnce()) {
    guarded("the metrics recorder", metric);
}

fn describe() {
    describe_counter!(name::HITS, Unit::Count, "Leases served by an idle instance");
    describe_counter!(
        name::MISSES,
        Unit::Count,
        "Acquires that set out to make an instance"
    );
    describe_counter!(
        name::BLOCKS,
        Unit::Count,
        "Leases that waited for an instance"
    );
    describe_counter!(
        name::REFUSALS,
        Unit::Count,
        "Requests that a budget refused"
    );
    describe_counter!(
        name::EVICTIONS,
        Unit::Count,
        "Instances that left the pool, by reason"
    );
    describe_counter!(
        name::CODE_DROPPED,
        Unit::Count,
        "Modules whose code was unmapped"
    );
    describe_counter!(
        name::COMPILATIONS,
        Unit::Count,
        "Modules compiled and loaded"
    );
    describe_counter!(
        name::COMPILE_FAILURES,
        Unit::Count,
        "Modules that failed to compile or link"
    );
    describe_counter!(
        name::GUEST_FAILURES,
        Unit::Count,
        "Guest calls that failed, by kind"
    );
    describe_histogram!(
        name::COMPILE_SECONDS,
        Unit::Seconds,
        "Time to compile a module"
    );
    describe_histogram!(
        name::LOAD_SECONDS,
        Unit::Seconds,
        "Time to map and link compiled code"
    );
    describe_histogram!(
        name::WAIT_SECONDS,
        Unit::Seconds,
        "Time that a blocked acquire waited"
    );
    describe_gauge!(name::CHARGED, "Charged to a budget: bytes, or mappings");
    describe_gauge!(name::LIMIT, "Limit of a budget: bytes, or mappings");
    describe_gauge!(name::INSTANCES, Unit::Count, "Instances, by state");
    describe_gauge!(name::MODULES, Unit::Count, "Modules whose code is mapped");
}
