//! Why a budget refused: how much, of what, for whom, and who holds it.

use std::fmt;
use std::sync::Arc;

use crate::pool::api::holders::Holder;
use crate::pool::api::target::Target;
use crate::state::{Budget, Shortage};

/// A budget cannot be met, even by evicting everything that is idle. Nothing was evicted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct BudgetExceeded {
    /// The budget that lacks most of what was asked of it.
    pub budget: Budget,
    /// What was asked of this budget.
    pub requested: u64,
    /// Its limit.
    pub limit: u64,
    /// What is charged to it now.
    pub charged: u64,
    /// What evicting every idle instance and all unused code would free.
    pub evictable: u64,
    /// What of it is kept, or will be, for a request that has waited for room and was passed by too many
    /// others: they are refused now.
    pub promised: u64,
    /// What of it is idle, and was left because it is reserved for other groups ([`Share`](crate::Share)), or pinned
    /// ([`Definition::pinned`](crate::Definition::pinned)).
    pub reserved: u64,
    /// Whether it is the limit of the group that asked ([`Share::limit`](crate::Share::limit)), or of the one that answers for the
    /// function ([`Definition::accountable`](crate::Definition::accountable)), and not the pool's: then what
    /// is charged, evictable and held is in that group's share alone.
    pub of_group: bool,
    /// Who asked.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::pool::api::serde_fields::shared")
    )]
    pub target: Arc<Target>,
    /// Who holds most of what is charged, the largest first, four at the most. Empty where it does not
    /// matter: more was asked for than the limit.
    pub holders: Box<[Holder]>,
}

impl BudgetExceeded {
    pub(crate) fn new(shortage: Shortage, target: Arc<Target>, holders: Vec<Holder>) -> Self {
        Self {
            holders: holders.into(),
            budget: shortage.budget,
            requested: shortage.requested,
            limit: shortage.limit,
            charged: shortage.charged,
            evictable: shortage.evictable,
            promised: shortage.promised,
            reserved: shortage.reserved,
            of_group: shortage.of_group,
            target,
        }
    }
}

impl fmt::Display for BudgetExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            budget,
            requested,
            limit,
            charged,
            evictable,
            promised,
            reserved,
            of_group,
            target,
            holders,
        } = self;
        let whose = if *of_group { " of its group" } else { "" };
        let unit = budget.unit();
        write!(
            f,
            "{target} needs {requested} {unit} of the {budget} budget{whose}, which has {limit}: {charged} \
             are charged, and evicting everything idle{whose} would free {evictable}"
        )?;
        if *promised > 0 {
            let kept = "are kept for a request that has waited for them";
            write!(f, ". {promised} {unit} {kept}")?;
        }
        if *reserved > 0 {
            write!(
                f,
                ". {reserved} {unit} are idle, and reserved for other groups or pinned"
            )?;
        }
        let in_use = charged.saturating_sub(*evictable).saturating_sub(*reserved);
        if requested > limit {
            write!(
                f,
                ". It can never fit: raise the {budget} limit{whose} to at least {requested}"
            )
        } else {
            write!(
                f,
                ". The other {in_use} are in use: try again later, or raise the limit{whose}"
            )?;
            Holder::write_all(f, holders, *charged)
        }
    }
}

impl std::error::Error for BudgetExceeded {}
