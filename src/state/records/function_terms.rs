//! What a function has of its own, of what others have from the pool. Each function has one of these: it is small.

use core::fmt;
use core::num::NonZeroU16;

/// Whether an instance is leased again.
///
/// What one lease leaves in an instance (its memories, globals, tables, the host's data) the next one may find. Within a
/// group that is what makes a warm instance fast; where the callers of one group do not trust each other, it is a leak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reuse {
    /// Again and again, until something ends it.
    #[default]
    Warm,
    /// Never: each lease has an instance in its first state. After it the instance is destroyed, off the caller's
    /// thread, where a spare is made for the next lease too.
    Pristine,
}

impl Reuse {
    /// Every way.
    pub const ALL: [Self; 2] = [Self::Warm, Self::Pristine];

    /// Its name, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Pristine => "pristine",
        }
    }
}

impl fmt::Display for Reuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a definition says of the instances of its function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionTerms {
    /// Instances that each of its entries may have at once, at most what the pool lets any entry have; `None` for as many as that.
    pub max_instances: Option<NonZeroU16>,
    pub idle: IdleTime,
    pub reuse: Reuse,
    /// Whether its code and one instance stay, whoever else needs the room.
    pub pinned: bool,
}

impl Default for FunctionTerms {
    fn default() -> Self {
        Self {
            max_instances: None,
            idle: IdleTime::OF_THE_POOL,
            reuse: Reuse::Warm,
            pinned: false,
        }
    }
}

/// How long an instance may be idle, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleTime(u32);

/// Of one unit. In tests time passes by the nanosecond.
const NANOS: u64 = if cfg!(test) { 1 } else { 1_000_000 };

impl IdleTime {
    /// As long as the pool says of all of which nothing else is said.
    pub const OF_THE_POOL: Self = Self(0);
    /// For any time.
    pub const FOREVER: Self = Self(u32::MAX);

    /// So many nanoseconds, in whole milliseconds, at least one; 49 days and more are for ever.
    pub fn of_nanos(nanos: u64) -> Self {
        let millis = nanos.div_ceil(NANOS).max(1);
        Self(u32::try_from(millis).unwrap_or(u32::MAX))
    }

    pub fn is_own(self) -> bool {
        self != Self::OF_THE_POOL
    }

    /// Nanoseconds; `None` for any time, and where it is the pool's.
    pub fn own_nanos(self) -> Option<u64> {
        match self {
            Self::OF_THE_POOL | Self::FOREVER => None,
            Self(millis) => Some(u64::from(millis) * NANOS),
        }
    }
}
