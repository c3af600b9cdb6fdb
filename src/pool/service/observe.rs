//! What can be seen from outside: metrics, and the host's removal listener.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, histogram};

use crate::pool::api::compiler_stats::KillReason;
use crate::pool::api::function_name::name_of;
use crate::runtime::guarded;
use crate::state::{Group, RemovalReason};

/// An instance left the pool, and its memory has been freed.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Removal {
    /// The function's name with its argument types, as in `math.add(bigint, bigint)`.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::pool::api::serde_fields::text")
    )]
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

impl Removal {
    /// The function's name, without its argument types.
    pub fn name(&self) -> &str {
        name_of(&self.signature)
    }

    /// The function's name with its argument types.
    pub fn signature(&self) -> &str {
        &self.signature
    }
}

pub(crate) type Listener = dyn Fn(&Removal) + Send + Sync;

/// Names of the pool's metrics. All carry the label `pool`.
pub(crate) mod name {
    pub const HITS: &str = "wasm_pool_hits_total";
    pub const MISSES: &str = "wasm_pool_misses_total";
    pub const BLOCKS: &str = "wasm_pool_blocks_total";
    pub const REFUSALS: &str = "wasm_pool_refusals_total";
    pub const GROWTH_REFUSALS: &str = "wasm_pool_growth_refusals_total";
    pub const SPARES: &str = "wasm_pool_spares_total";
    pub const QUARANTINES: &str = "wasm_pool_quarantines_total";
    pub const EVICTIONS: &str = "wasm_pool_evictions_total";
    pub const RETIREMENTS: &str = "wasm_pool_retirements_total";
    pub const COMPILATIONS: &str = "wasm_pool_compilations_total";
    pub const LOADS: &str = "wasm_pool_loads_total";
    pub const MODULE_FAILURES: &str = "wasm_pool_module_failures_total";
    pub const WARM_UPS: &str = "wasm_pool_warm_ups_total";
    pub const COMPILER_KILLS: &str = "wasm_pool_compiler_kills_total";
    pub const COMPILER_CRASHES: &str = "wasm_pool_compiler_crashes_total";
    pub const CODE_DROPPED: &str = "wasm_pool_code_dropped_total";
    pub const GUEST_FAILURES: &str = "wasm_pool_guest_failures_total";
    pub const COMPILE_SECONDS: &str = "wasm_pool_compile_seconds";
    pub const COMPILE_PEAK: &str = "wasm_pool_compile_peak_percent";
    pub const LOAD_SECONDS: &str = "wasm_pool_load_seconds";
    pub const WAIT_SECONDS: &str = "wasm_pool_wait_seconds";
    pub const CHARGED: &str = "wasm_pool_charged";
    pub const LIMIT: &str = "wasm_pool_limit";
    pub const INSTANCES: &str = "wasm_pool_instances";
    pub const MODULES_LOADED: &str = "wasm_pool_modules_loaded";
    pub const GROUP_CALLS: &str = "wasm_pool_group_calls_total";
    pub const GROUP_FAILURES: &str = "wasm_pool_group_failures_total";
    pub const GROUP_REFUSALS: &str = "wasm_pool_group_refusals_total";
    pub const GROUP_GUEST_TIME: &str = "wasm_pool_group_guest_microseconds_total";
    pub const GROUP_MEMORY: &str = "wasm_pool_group_memory_byte_seconds_total";
}

enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// What a metric is, as the recorder is told, and as the table in `lib.rs` says.
struct Metric {
    name: &'static str,
    kind: Kind,
    unit: Option<Unit>,
    what: &'static str,
}

const METRICS: &[Metric] = &[
    Metric {
        name: name::HITS,
        kind: Kind::Counter,
        unit: Some(Unit::Count),
        what: "Leases of an instance that was there: idle, or handed over by the lease before",
    },
    Metric {
        name: name::MISSES,
        kind: Kind::Counter,
        unit: Some(Unit::Count),
        what: "Acquires that set out to make an instance, whether there was room for it or not",
    },
    Metric {
        name: name::BLOCKS,
        kind: Kind::Counter,
        unit: Some(Unit::Count),
        what: "Acquires that queued for an instance",
    },
    Metric {
        name: name::REFUSALS,
        kind: Kind::Counter,
        unit: Some(Unit::Count),
        what: "Acquires and preparations that a budget refused, or a limit of their group",
    },
    Metric {
        name: name::GROWTH_REFUSALS,
        kind: Kind::Counter,
        unit: Some(Unit::Count),
        what: "Times that growth of an instance was refused: the guest saw −1",
    },
    Metric {
        name: name::SPARES,
        kind: Kind::Counter,
        unit: Some(Unit::Count),
        what: "Instances that were made before anybody asked for them",
    },
    Metric {
        name: name::QUARANTINES,
        kind: Kind::Counter,
        unit: Some(Unit::Count),
        what: "Times that a function was refused from then on, for what its guests had done",
    },
    Metric {
        name: name::EVICTIONS,
        kind: Kind::Counter,
        unit: Some(Unit::Count),
        what: "Idle instances evicted: for room, for idleness, or as not retained",
    },
    Metric {
        name: name::RETIREMENTS,
        kind: Kind::Counter,
        unit: Some(Unit::Count),
        what: "Instances that left for any other reason",
    },
    Metric {
        name: name::COMPILATIONS,
        kind: Kind::Counter,
        unit: Some(Unit::Count),
        what: "Modules compiled, whether there was then room for them or not",
    },
    Metric {
        name: name::LOADS,
        kind: Kind::Counter,
        unit: Some(Unit::Count),
        what: "Times that compiled code was mapped and linked",
    },
    Metric {
        name: name::MODULE_FAILURES,
        kind: Kind::Counter,
        unit: Some(Unit::Count),
        what: "Modules that could not be compiled, mapped or linked",
    },
    Metric {
        name: name::WARM_UPS,
        kind: Kind::Counter,
        unit: Some(Unit::Count),
        what: "Instances that were warmed up and snapshotted",
    },
    Metric {
        name: name::COMPILER_KILLS,
        kind: Kind::Counter,
        unit: Some(Unit::Count),
        what: "Compilations in processes of their own that were ended before they were done",
    },
    Metric {
        name: name::COMPILER_CRASHES,
        kind: Kind::Counter,
        unit: Some(Unit::Count),
        what: "Processes that died while they compiled, and that nobody of the pool's has ended",
    },
    Metric {
        name: name::CODE_DROPPED,
        kind: Kind::Counter,
        unit: Some(Unit::Count),
        what: "Modules whose code was evicted or dropped out",
    },
    Metric {
        name: name::GUEST_FAILURES,
        kind: Kind::Counter,
        unit: Some(Unit::Count),
        what: "Calls, start functions and warm-ups of guests that failed",
    },
    Metric {
        name: name::COMPILE_SECONDS,
        kind: Kind::Histogram,
        unit: Some(Unit::Seconds),
        what: "Time to compile a module",
    },
    Metric {
        name: name::COMPILE_PEAK,
        kind: Kind::Histogram,
        unit: Some(Unit::Percent),
        what: "Of what was reserved for a compilation in a process of its own, how much it had at its peak",
    },
    Metric {
        name: name::LOAD_SECONDS,
        kind: Kind::Histogram,
        unit: Some(Unit::Seconds),
        what: "Time to map and link compiled code",
    },
    Metric {
        name: name::WAIT_SECONDS,
        kind: Kind::Histogram,
        unit: Some(Unit::Seconds),
        what: "Time of one wait of an acquire or a preparation: for an instance, for room, or for a compilation",
    },
    Metric {
        name: name::CHARGED,
        kind: Kind::Gauge,
        unit: None,
        what: "Charged to a budget: bytes, or a count",
    },
    Metric {
        name: name::LIMIT,
        kind: Kind::Gauge,
        unit: None,
        what: "Limit of a budget that has one: bytes, or a count",
    },
    Metric {
        name: name::INSTANCES,
        kind: Kind::Gauge,
        unit: Some(Unit::Count),
        what: "Instances that are idle, and that are leased",
    },
    Metric {
        name: name::MODULES_LOADED,
        kind: Kind::Gauge,
        unit: Some(Unit::Count),
        what: "Modules whose code is mapped",
    },
    Metric {
        name: name::GROUP_CALLS,
        kind: Kind::Counter,
        unit: Some(Unit::Count),
        what: "Calls of guests, of groups with series of their own and of all others",
    },
    Metric {
        name: name::GROUP_FAILURES,
        kind: Kind::Counter,
        unit: Some(Unit::Count),
        what: "Calls and start functions that failed, likewise",
    },
    Metric {
        name: name::GROUP_REFUSALS,
        kind: Kind::Counter,
        unit: Some(Unit::Count),
        what: "Requests that a budget refused, or a limit of their group, likewise",
    },
    Metric {
        name: name::GROUP_GUEST_TIME,
        kind: Kind::Counter,
        unit: Some(Unit::Microseconds),
        what: "Time in guest code, likewise",
    },
    Metric {
        name: name::GROUP_MEMORY,
        kind: Kind::Counter,
        unit: Some(Unit::Count),
        what: "Bytes of memory, times the seconds that instances held them, likewise",
    },
];

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
    pub fn tell(&self, removal: &Removal) {
        if let Some(listener) = &self.listener {
            guarded("the removal listener", || listener(removal));
        }
    }

    /// An instance has left the pool, and is about to be destroyed.
    pub fn removed(&self, reason: RemovalReason) {
        record(|| {
            let (pool, label) = (self.pool.clone(), reason.name());
            let counter = match reason.is_eviction() {
                true => counter!(name::EVICTIONS, "pool" => pool, "reason" => label),
                false => counter!(name::RETIREMENTS, "pool" => pool, "reason" => label),
            };
            counter.increment(1);
        });
    }

    /// Code is about to be unmapped.
    pub fn code_dropped(&self) {
        record(|| counter!(name::CODE_DROPPED, "pool" => self.pool.clone()).increment(1));
    }

    pub fn compiled(&self, time: Duration) {
        record(|| {
            counter!(name::COMPILATIONS, "pool" => self.pool.clone()).increment(1);
            histogram!(name::COMPILE_SECONDS, "pool" => self.pool.clone()).record(time);
        });
    }

    /// Of so many bytes that were reserved, so many were there at the peak.
    pub fn compiled_in_process(&self, peak: u64, reserved: u64) {
        let percent = peak as f64 / reserved.max(1) as f64 * 100.0;
        record(|| {
            histogram!(name::COMPILE_PEAK, "pool" => self.pool.clone()).record(percent);
        });
    }

    pub fn compiler_killed(&self, reason: KillReason) {
        record(|| {
            let (pool, label) = (self.pool.clone(), reason.name());
            counter!(name::COMPILER_KILLS, "pool" => pool, "reason" => label).increment(1);
        });
    }

    pub fn compiler_crashed(&self) {
        record(|| counter!(name::COMPILER_CRASHES, "pool" => self.pool.clone()).increment(1));
    }

    pub fn loaded(&self, time: Duration) {
        record(|| {
            counter!(name::LOADS, "pool" => self.pool.clone()).increment(1);
            histogram!(name::LOAD_SECONDS, "pool" => self.pool.clone()).record(time);
        });
    }

    pub fn module_failed(&self) {
        record(|| counter!(name::MODULE_FAILURES, "pool" => self.pool.clone()).increment(1));
    }

    #[cfg(feature = "warm-up")]
    pub fn warmed_up(&self) {
        record(|| counter!(name::WARM_UPS, "pool" => self.pool.clone()).increment(1));
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
    for metric in METRICS {
        let Metric { name, what, .. } = *metric;
        match (&metric.kind, metric.unit) {
            (Kind::Counter, Some(unit)) => describe_counter!(name, unit, what),
            (Kind::Counter, None) => describe_counter!(name, what),
            (Kind::Gauge, Some(unit)) => describe_gauge!(name, unit, what),
            (Kind::Gauge, None) => describe_gauge!(name, what),
            (Kind::Histogram, Some(unit)) => describe_histogram!(name, unit, what),
            (Kind::Histogram, None) => describe_histogram!(name, what),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of `lib.rs`, without what it says of `Stats`: name, kind, unit, label, what it counts.
    fn table() -> Vec<[&'static str; 5]> {
        let docs = include_str!("../../lib.rs").lines();
        let rows = docs.filter(|line| line.starts_with("//! | `wasm_pool_"));
        let cells = rows.map(|row| {
            row.split('|')
                .skip(1)
                .map(|cell| cell.trim_matches([' ', '`']))
        });
        cells
            .map(|mut cells| std::array::from_fn(|_| cells.next().unwrap_or_default()))
            .collect()
    }

    #[test]
    fn the_table_of_metrics_is_that_of_the_documentation() {
        let described = METRICS.iter().map(|metric| {
            let kind = match metric.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            let unit = match metric.unit {
                Some(Unit::Count) => "",
                Some(unit) => unit.as_str(),
                None => "bytes, or a count",
            };
            (metric.name, kind, unit, metric.what)
        });
        let told = table();
        let told = told
            .iter()
            .map(|[name, kind, unit, _, what]| (*name, *kind, *unit, *what));
        assert_eq!(told.collect::<Vec<_>>(), described.collect::<Vec<_>>());
    }

    #[test]
    fn metrics_have_the_labels_that_the_table_says() {
        let source = [include_str!("observe.rs"), include_str!("../report.rs")].concat();
        let mut used = std::collections::BTreeMap::new();
        // Not those of this test.
        let call = concat!("!(", "name::");
        for (at, _) in source.match_indices(call) {
            let arguments = &source[at + call.len()..];
            let mut depth = 1;
            let end = arguments.find(|c| {
                depth += i32::from(c == '(') - i32::from(c == ')');
                depth == 0
            });
            let arguments = &arguments[..end.unwrap_or_default()];
            let (constant, labels) = arguments.split_once(',').expect("each has a label");
            let (_, name) = source
                .split_once(&format!("pub const {constant}: &str = \""))
                .expect("it is a constant");
            let name = name.split('"').next().unwrap_or_default();
            let labels = labels
                .split(" =>")
                .filter_map(|before| before.rsplit('"').nth(1));
            let labels: Vec<_> = labels.collect();
            used.insert(name, labels);
        }
        let told = table().into_iter().map(|[name, _, _, label, _]| {
            let labels = ["pool", label]
                .into_iter()
                .filter(|label| !label.is_empty());
            (name, labels.collect::<Vec<_>>())
        });
        assert_eq!(used, told.collect());
    }
}
