//! Which module's code is worth least.
//!
//! Instances are evicted by recency alone; this is about modules. The default is the "EWMA gap"
//! policy that simulation on real traces found within a few per cent of the best and simple to
//! state (DESIGN.md, "What to evict").

use core::fmt;

use super::recency::Stamp;

/// Which module's code goes when the code budget needs room, and whether code stays when its last
/// instance goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Policy {
    /// A module's code is dropped with its last instance, and the least recently used module goes
    /// first: what ScyllaDB's cache does, without its wasted evictions.
    Lru,
    /// Code stays until its room is needed; the least recently used module goes first.
    ModuleLru,
    /// Code stays until its room is needed. The module goes whose code saves least: the cost of
    /// bringing it back, per byte, over the expected time to its next use.
    #[default]
    CostAware,
}

impl Policy {
    /// Every policy.
    pub const ALL: [Self; 3] = [Self::Lru, Self::ModuleLru, Self::CostAware];

    /// Its name, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lru => "lru",
            Self::ModuleLru => "module_lru",
            Self::CostAware => "cost_aware",
        }
    }

    /// Whether code outlives the last instance made from it.
    pub const fn retains_code(self) -> bool {
        !matches!(self, Self::Lru)
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a module was used, and what it costs to lose. Times in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    pub last_used: Stamp,
    /// Moving average of the gaps between uses that the pool has seen; 0 before the second.
    mean_gap: u64,
    /// What the last compilation or load took.
    pub cost: u64,
}

impl History {
    /// Notes a use.
    pub fn used(&mut self, stamp: Stamp) {
        self.used_often(stamp, 1);
    }

    /// Notes uses since the last one that was noted. Those of warm instances are seen late, and in batches, of which
    /// it is known how many there were and when the last one ended: between them lies the mean of their gaps.
    pub fn used_often(&mut self, last: Stamp, uses: u64) {
        if last <= self.last_used {
            return;
        }
        let all = last.at.saturating_sub(self.last_used.at);
        if self.last_used != Stamp::default() && all > 0 {
            let gap = (all / uses.max(1)).max(1);
            // Weight 1/4 to each gap; of more than 16, what was before has 1 %.
            for _ in 0..uses.clamp(1, 16) {
                self.mean_gap = match self.mean_gap {
                    0 => gap,
                    mean => mean - mean / 4 + gap / 4,
                };
            }
        }
        self.last_used = last;
    }

    /// The worth of keeping `bytes` of this module's code, at time `now`. The least goes first.
    pub fn worth(&self, policy: Policy, bytes: u64, now: u64) -> Worth {
        let value = match policy {
            Policy::Lru | Policy::ModuleLru => 0.0,
            Policy::CostAware => {
                let age = now.saturating_sub(self.last_used.at);
                // The mean of the hopeful guess (next use when the mean gap is over, if it is not
                // over yet) and the cautious one (the gap starts anew).
                let late = self.mean_gap.max(age) / 2;
                let wait = late.saturating_add(self.mean_gap / 2 + age / 2);
                self.cost as f64 / bytes.max(1) as f64 / wait.max(1) as f64
            }
        };
        Worth {
            value,
            last_used: self.last_used,
        }
    }
}

/// Orders modules by value, then by last use.
#[derive(Clone, Copy, Debug)]
pub struct Worth {
    value: f64,
    last_used: Stamp,
}

impl Worth {
    pub fn total_cmp(&self, other: &Self) -> core::cmp::Ordering {
        (self.value.total_cmp(&other.value)).then(self.last_used.cmp(&other.last_used))
    }
}
