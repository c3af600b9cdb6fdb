//! When functions are refused for what their guests do.

use std::time::Duration;

use crate::pool::api::build_error::LimitsError;
use crate::pool::time::clock::nanos;
use crate::state::QuarantineRule;

/// When a function whose guests fail again and again is refused for a while: [`PoolBuilder::quarantine`](crate::PoolBuilder::quarantine).
///
/// What counts is what a guest does: it traps, it runs out of fuel or time (in a call, or in its start function), or it is
/// refused memory or table elements beyond what *an instance* may have, each time, in one call as well as in several. What the host does does not: errors and panics of its
/// functions, calls that it cancels, futures that it drops, budgets that have no room.
///
/// When a function has failed so often within so much time, its acquires are refused
/// ([`AcquireError::Quarantined`](crate::AcquireError::Quarantined)), those that wait for an instance of it as well; leases that
/// have begun go on. When that is over, the next failure begins another quarantine, twice as long, up to a limit: so what always
/// fails runs once in each. Once there was no failure for as long as failures count, all is forgotten; so it is when the
/// function is replaced (what leases of the old code still do is not held against the new), and by
/// [`Pool::lift_quarantine`](crate::Pool::lift_quarantine).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quarantine {
    failures: u32,
    within: Duration,
    pub(super) first: Duration,
    pub(super) longest: Duration,
    by_group: bool,
}

impl Quarantine {
    /// After so many failures, 1 to 1,024, none of which is older than `within`. The first quarantine lasts a second, and none longer
    /// than five minutes, unless [`Self::backoff`] says otherwise; a function is judged in all groups together.
    pub const fn after(failures: u32, within: Duration) -> Self {
        Self {
            failures,
            within,
            first: Duration::from_secs(1),
            longest: Duration::from_secs(300),
            by_group: false,
        }
    }

    /// How long the first quarantine lasts, and the longest.
    pub const fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.first = first;
        self.longest = longest;
        self
    }

    /// Whether a function is judged, and refused, in each group by itself: where groups give it what makes it fail, and must not
    /// take it away from each other. A pair of function and group that nobody has used for long is forgotten with what is held
    /// against it, once there are some thousand others.
    pub const fn by_group(mut self, by_group: bool) -> Self {
        self.by_group = by_group;
        self
    }

    pub(crate) fn rule(&self) -> QuarantineRule {
        QuarantineRule {
            failures: self.failures,
            within: nanos(self.within),
            first: nanos(self.first),
            longest: nanos(self.longest),
            by_group: self.by_group,
        }
    }

    /// # Errors
    /// Nothing would be refused, or too much would have to be remembered.
    pub(crate) fn validate(&self) -> Result<(), LimitsError> {
        let zero = |field| Err(LimitsError::Zero { field });
        match self {
            Self { failures: 0, .. } => zero("quarantine.failures"),
            Self { failures, .. } if *failures > MOST_FAILURES => Err(LimitsError::TooLarge {
                field: "quarantine.failures",
                value: u64::from(*failures),
                max: u64::from(MOST_FAILURES),
            }),
            Self { within, .. } if within.is_zero() => zero("quarantine.within"),
            Self { first, .. } if first.is_zero() => zero("quarantine.first"),
            Self { first, longest, .. } if longest < first => Err(LimitsError::TooSmall {
                field: "quarantine.longest",
                value: nanos(*longest),
                min: nanos(*first),
            }),
            _ => Ok(()),
        }
    }
}

/// Each failure is remembered by its time: 8 bytes.
const MOST_FAILURES: u32 = 1024;
