//! Who holds most of a budget, in the host's terms.

use std::fmt;
use std::sync::Arc;

use crate::pool::api::function_name::name_of;
use crate::state::Group;

/// Holders that an error names.
pub(crate) const IN_AN_ERROR: usize = 4;
/// Holders that `stats` names, for each budget.
pub(crate) const IN_STATS: usize = 8;

/// What one holder has of a budget: see [`BudgetExceeded::holders`](crate::BudgetExceeded::holders) and
/// [`Stats::holders`](crate::Stats::holders).
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Holder {
    /// The function's name with its argument types, as in `math.add(bigint, bigint)`; for code, of one of
    /// those that share it.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::pool::api::serde_fields::text")
    )]
    pub signature: Arc<str>,
    /// The group whose instances these are. `None` for code, which all groups share.
    pub group: Option<Group>,
    /// Bytes (or mappings) of leased instances and of requests under way, or of code that they need.
    pub leased: u64,
    /// Bytes (or mappings) of idle instances, or of code that only those need, or nobody.
    pub idle: u64,
}

impl Holder {
    /// The function's name, without its argument types.
    pub fn name(&self) -> &str {
        name_of(&self.signature)
    }

    /// The function's name with its argument types.
    pub fn signature(&self) -> &str {
        &self.signature
    }

    /// Leased and idle together.
    pub fn amount(&self) -> u64 {
        self.leased.saturating_add(self.idle)
    }

    /// The end of a sentence about what is charged.
    pub(crate) fn write_all(f: &mut fmt::Formatter<'_>, all: &[Self], charged: u64) -> fmt::Result {
        let Some((first, others)) = all.split_first() else {
            return Ok(());
        };
        write!(f, ". Held by {first}")?;
        for holder in others {
            write!(f, "; {holder}")?;
        }
        let named = all.iter().map(Self::amount).sum();
        match charged.saturating_sub(named) {
            0 => Ok(()),
            rest => write!(f, "; others: {rest}"),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.group {
            Some(group) => write!(f, "{} in group {group}: ", self.signature)?,
            None => write!(f, "code of {}: ", self.signature)?,
        }
        match (self.leased, self.idle) {
            (leased, 0) => write!(f, "{leased} in use"),
            (0, idle) => write!(f, "{idle} idle"),
            (leased, idle) => write!(f, "{leased} in use and {idle} idle"),
        }
    }
}
