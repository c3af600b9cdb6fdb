//! The budgets, as the host sets them.

use std::time::Duration;

use crate::pool::api::build_error::LimitsError;
use crate::runtime::INSTANCE_OVERHEAD;
use crate::state::{Budget, PerBudget};

/// Limits of the pool's budgets. What is not set is not limited, except mappings.
///
/// ```
/// use wasm_pool::Limits;
/// let limits = Limits::new()
///     .memory(100 << 20)  // 100 MiB of linear memories, tables, instances
///     .code(40 << 20)     // 40 MiB of compiled code
///     .total(160 << 20);  // and no more than 160 MiB of everything together
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits(PerBudget<Option<u64>>);

/// What the core has where there is no limit.
const NONE: u64 = u64::MAX;

/// Sums of limits stay far from the end of 64 bits.
pub(crate) const LARGEST: u64 = 1 << 56;

impl Limits {
    /// Mappings that a pool takes unless told otherwise: three quarters of the 65,530 that Linux
    /// gives a process by default. At the system's limit the host's own allocations fail too.
    pub const DEFAULT_MAPPINGS: u64 = 49_152;

    /// No limits but [`Self::DEFAULT_MAPPINGS`].
    pub fn new() -> Self {
        let none = Self(PerBudget::from_fn(|_| None));
        none.mappings(Self::DEFAULT_MAPPINGS)
    }

    /// Bytes of linear memories, tables and instances, idle and leased.
    pub fn memory(self, bytes: u64) -> Self {
        self.with(Budget::Memory, Some(bytes))
    }

    /// Bytes of compiled code.
    pub fn code(self, bytes: u64) -> Self {
        self.with(Budget::Code, Some(bytes))
    }

    /// Bytes of heap that compilations in flight may need, by an estimate: what the largest functions make the compiler do,
    /// and 44 bytes for each byte of code. It was above what was taken for almost all that was measured, and is no proof; see
    /// [`PoolBuilder::strangers`](crate::PoolBuilder::strangers), and for what is known better
    /// [`PoolBuilder::compile_probe`](crate::PoolBuilder::compile_probe).
    pub fn compile(self, bytes: u64) -> Self {
        self.with(Budget::Compile, Some(bytes))
    }

    /// Bytes of fiber stacks. Synchronous calls run on the caller's stack and need none.
    pub fn stack(self, bytes: u64) -> Self {
        self.with(Budget::Stack, Some(bytes))
    }

    /// Memory mappings (VMAs).
    pub fn mappings(self, count: u64) -> Self {
        self.with(Budget::Mappings, Some(count))
    }

    /// Bytes of memory, code, compile and stack together.
    pub fn total(self, bytes: u64) -> Self {
        self.with(Budget::Total, Some(bytes))
    }

    /// Bytes of code and fiber stacks together, for a host with one cap on what is mapped.
    pub fn mapped(self, bytes: u64) -> Self {
        self.with(Budget::Mapped, Some(bytes))
    }

    /// Instances at once, of all functions and groups: idle, leased and in the making.
    pub fn instances(self, count: u64) -> Self {
        self.with(Budget::Instances, Some(count))
    }

    /// The limit of one budget; `None` when it has none.
    pub fn get(&self, budget: Budget) -> Option<u64> {
        self.0[budget]
    }

    /// Sets, or with `None` lifts, the limit of one budget: for settings that are read from somewhere.
    /// `u64::MAX`, which nothing ever reaches, is none.
    pub fn with(mut self, budget: Budget, limit: Option<u64>) -> Self {
        self.0.set(budget, limit.filter(|limit| *limit != NONE));
        self
    }

    /// As the core has them.
    pub(crate) fn per_budget(&self) -> PerBudget<u64> {
        PerBudget::from_fn(|budget| self.0[budget].unwrap_or(NONE))
    }

    /// From what the core has.
    pub(crate) fn of_core(limits: &PerBudget<u64>) -> Self {
        Self(PerBudget::from_fn(|budget| {
            Some(limits[budget]).filter(|limit| *limit != NONE)
        }))
    }

    /// A stack budget is for stacks of `bytes` each, one for each lease that an entry may have.
    pub(crate) fn validate_stacks(&self, bytes: u64, leases: u64) -> Result<(), LimitsError> {
        let value = self.0[Budget::Stack].unwrap_or(NONE);
        let needed = bytes.saturating_mul(leases);
        if value < needed {
            return Err(LimitsError::NeverFits {
                field: "stack",
                value,
                what: "a fiber stack for each of max_instances_per_entry",
                needed,
            });
        }
        Ok(())
    }

    /// Every limit makes sense, alone and with the others.
    pub(crate) fn validate(&self) -> Result<(), LimitsError> {
        for (budget, limit) in self.per_budget().iter() {
            check_range(budget.name(), limit)?;
        }
        for budget in [Budget::Memory, Budget::Total] {
            let limit = self.0[budget].unwrap_or(NONE);
            if limit < INSTANCE_OVERHEAD {
                return Err(LimitsError::NeverFits {
                    field: budget.name(),
                    value: limit,
                    what: "the smallest instance",
                    needed: INSTANCE_OVERHEAD,
                });
            }
        }
        Ok(())
    }

    /// An instance as large as it may get must fit.
    pub(crate) fn validate_instance(&self, max_memory: u64) -> Result<(), LimitsError> {
        let needed = max_memory.saturating_add(INSTANCE_OVERHEAD);
        for budget in [Budget::Memory, Budget::Total] {
            let limit = self.0[budget].unwrap_or(NONE);
            if needed > limit {
                return Err(LimitsError::NeverFits {
                    field: budget.name(),
                    value: limit,
                    what: "an instance grown to max_instance_memory",
                    needed,
                });
            }
        }
        Ok(())
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new()
    }
}

/// Not zero, and either unlimited or a number that can be reckoned with.
pub(crate) fn check_range(field: &'static str, value: u64) -> Result<(), LimitsError> {
    match value {
        0 => Err(LimitsError::Zero { field }),
        1..=LARGEST | NONE => Ok(()),
        _ => Err(LimitsError::TooLarge {
            field,
            value,
            max: LARGEST,
        }),
    }
}

/// Not zero, and no more than this.
pub(crate) fn check_at_most(field: &'static str, value: u64, max: u64) -> Result<(), LimitsError> {
    match value {
        0 => Err(LimitsError::Zero { field }),
        _ if value > max => Err(LimitsError::TooLarge { field, value, max }),
        _ => Ok(()),
    }
}

/// What every lease starts with lets a guest run at all.
pub(crate) fn check_lease(fuel: Option<u64>, time: Option<Duration>) -> Result<(), LimitsError> {
    let zero = |field| Err(LimitsError::Zero { field });
    match (fuel, time) {
        (Some(0), _) => zero("fuel"),
        (_, Some(Duration::ZERO)) => zero("call_timeout"),
        _ => Ok(()),
    }
}
