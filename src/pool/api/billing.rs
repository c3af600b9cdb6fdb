//! Whether a pool keeps bills, and how.

use crate::pool::PoolBuilder;

/// How a pool keeps the bills of its groups and functions: [`PoolBuilder::billing`].
///
/// ```
/// use wasm_pool::{Billing, Budget, Definition, Function, Pool};
///
/// let pool = Pool::builder().billing(Billing::new()).build()?;
/// let wasm = wat::parse_str(r#"(module (memory 1) (func (export "f")))"#)?;
/// let f: Function<(), ()> = pool.define(Definition::new("f").wasm(wasm))?;
/// f.call("tenant", ())?;
/// f.call("tenant", ())?;
///
/// let bills = pool.stats().bills.ok_or("there are some")?;
/// let bill = bills.group("tenant").ok_or("it has called")?;
/// assert_eq!((bill.calls, bill.misses, bill.hits), (2, 1, 1));
/// // Bytes times nanoseconds: what it holds, idle or leased, for as long as it does.
/// assert_eq!(bill.held(Budget::Memory), bill.leased(Budget::Memory) + bill.idle(Budget::Memory));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Billing {
    kept_groups: usize,
    metrics_groups: usize,
    exact_times: bool,
}

impl Billing {
    /// Bills of groups that nothing uses any more are kept for 1,024 of them, metrics have none by group, and time in guest code
    /// is measured by the pool's coarse clock.
    pub const fn new() -> Self {
        Self {
            kept_groups: 1024,
            metrics_groups: 0,
            exact_times: false,
        }
    }

    /// Groups that nothing uses any more whose bills are kept apart: of those that were used last. What others had is
    /// summed up in [`Bills::other_groups`](crate::Bills::other_groups). Each takes half a kilobyte, which nobody is charged for.
    pub const fn kept_groups(mut self, groups: usize) -> Self {
        self.kept_groups = groups;
        self
    }

    /// Groups that have series of their own among the metrics (`wasm_pool_group_…`), at most at once: those that hold most memory. What
    /// others use has the label `other`. A group keeps its series until its bill is kept no more. (One that is named `other` shares the series of
    /// the others, and a number and a name that look alike share theirs.) Each sweep then looks at every
    /// instance and at every bill, under the pool's lock.
    pub const fn metrics_groups(mut self, groups: usize) -> Self {
        self.metrics_groups = groups;
        self
    }

    /// Whether the system is asked for the time when a guest's code begins and when it ends, which may cost more than the whole
    /// of a warm lease. Otherwise time in guest code is counted in beats of the pool's clock thread: too much for one call, nothing
    /// for many others, and right on average. (A pool without threads of its own, or with a clock of the host's, has no other clock
    /// than the exact one.)
    pub const fn exact_times(mut self, exact: bool) -> Self {
        self.exact_times = exact;
        self
    }

    pub(crate) fn kept(&self) -> usize {
        self.kept_groups
    }

    pub(crate) fn in_metrics(&self) -> usize {
        self.metrics_groups
    }

    pub(crate) fn has_exact_times(&self) -> bool {
        self.exact_times
    }
}

impl Default for Billing {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Send + 'static> PoolBuilder<T> {
    /// Keeps bills: what each group and each function has used, and what it has held for how long
    /// ([`Stats::bills`](crate::Stats::bills)). A warm lease takes some nanoseconds longer (README has the figure), and each seat of an entry a cache line
    /// more. Default: none; [`Billing::new`] in [`Self::strangers`].
    pub fn billing(mut self, billing: impl Into<Option<Billing>>) -> Self {
        self.settings.billing = billing.into();
        self
    }
}
