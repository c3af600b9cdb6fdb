//! What a group is given: how much of the budgets is reserved for it, and how much it may have.

use std::time::Duration;

use crate::pool::time::clock::nanos;
use crate::state::{self, Budget, CountLimits, Group, MAX_WEIGHT, PerBudget, ShareTerms};

/// What a group is given of a pool's budgets: see [`Pool::set_group`](crate::Pool::set_group).
///
/// A **limit** is what it may have at most: of a budget ([`Share::limit`]), instances
/// ([`Share::max_instances`]), requests that wait ([`Share::max_waiting`]), compilations ([`Share::max_compilations`]), functions
/// ([`Share::max_definitions`]).
///
/// A **reservation** is what others cannot take from the group. It is not kept free: as long as the group does not
/// use it, others do. But what the group holds of it stays, however much others ask for:
///
/// - its **instances**, idle ones too, count in [`Memory`](Budget::Memory), [`Stack`](Budget::Stack),
///   [`Mappings`](Budget::Mappings), [`Total`](Budget::Total) and [`Instances`](Budget::Instances);
/// - the **code** of each module that it has made an instance of since that was loaded counts in
///   [`Code`](Budget::Code), [`Mapped`](Budget::Mapped), [`Mappings`](Budget::Mappings) and [`Total`](Budget::Total), with or
///   without an instance now. Code is charged to the pool once, and each group that uses it answers for all of it, as
///   each process does for the pages of a shared library: what three groups hold of it may add up to three times its size.
///
/// A group's own requests take what others hold beyond their reservations, and then what is its own. While it stays within its
/// reservation with all that it asks for, and nothing else is enough, they take what others have reserved, too. What is
/// *leased* cannot be taken from anybody, reserved or not. Idle timeouts, [`Pool::retain`](crate::Pool::retain), lowered limits, and a system
/// that has no memory or mappings left take from everybody.
///
/// A reservation **lapses** when nobody has used the group for a while, and is back at its next use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    reserved: PerBudget<u64>,
    limits: PerBudget<u64>,
    counts: CountLimits,
    weight: Option<u32>,
    lapses_after: Option<Duration>,
}

impl Share {
    /// How long a reservation is kept for a group that nobody uses, unless told otherwise: five minutes.
    pub const DEFAULT_LAPSE: Duration = Duration::from_secs(300);

    /// Nothing is reserved, and nothing limited.
    pub const fn new() -> Self {
        Self {
            reserved: PerBudget::of(0),
            limits: PerBudget::of(u64::MAX),
            counts: CountLimits::NONE,
            weight: None,
            lapses_after: Some(Self::DEFAULT_LAPSE),
        }
    }

    /// Reserves so much of a budget, in its unit; 0 for nothing. Of [`Budget::Compile`] nothing can be: what a
    /// compilation takes is never evicted.
    pub fn reserve(mut self, budget: Budget, amount: u64) -> Self {
        self.reserved.set(budget, amount);
        self
    }

    /// The group may have so much of a budget at most, in its unit; 0 for nothing, `u64::MAX` for any amount, as by default.
    /// What counts is what its instances take, idle, leased and in the making; what its compilations take; and the code
    /// that it uses, in full, as for a reservation.
    ///
    /// A group at its limit gives up its own for what it asks for: idle instances, the longest idle first; and code, with its own idle
    /// instances of it. Code that it gives up is not taken from others who use it, and may stay in the pool's cache; the group answers for it
    /// no more, until it has an instance of it again. If that is not enough, the
    /// request is refused at once ([`BudgetExceeded::of_group`](crate::BudgetExceeded::of_group)), even if it would wait for
    /// room: what it lacks nobody else can give it. (So a limit of [`Budget::Compile`] refuses what would be the second compilation at
    /// once, where [`Self::max_compilations`] lets it wait.) What the group has beyond a limit that is set later stays until it asks for
    /// more, or is evicted.
    ///
    /// Of [`Budget::Instances`] it is the same as [`Self::max_instances`], which waits.
    pub fn limit(mut self, budget: Budget, amount: u64) -> Self {
        if budget == Budget::Instances {
            return self.max_instances(u32::try_from(amount).unwrap_or(u32::MAX));
        }
        self.limits.set(budget, amount);
        self
    }

    /// The group may have so many instances at once, of all its functions, leased, idle and in the making together; and so
    /// no more leases. 0 for none, `u32::MAX` for any number, as by default.
    ///
    /// A group that has as many gives up what it has idle for what it asks for, the longest idle first. With none idle, an
    /// acquire waits as for a function that has as many instances as it may: until any lease of the group has ended, first come, first
    /// served ([`WaitingFor::GroupInstance`](crate::WaitingFor::GroupInstance)). A group that may have none is refused at
    /// once ([`GroupLimit::Instances`](crate::GroupLimit::Instances)). What a group has beyond a limit that is set later goes: at once if it is idle, and
    /// otherwise when its lease ends.
    pub fn max_instances(mut self, count: u32) -> Self {
        self.counts.instances = count;
        self
    }

    /// So many of its acquires may wait at once: for an instance, for room, for a compilation, or for a turn to compile. 0 for none,
    /// `u32::MAX` for any number, as by default. Further ones are refused where they would have to wait
    /// ([`GroupLimit::Waiting`](crate::GroupLimit::Waiting)); those that wait already are not. One that finds what it needs being destroyed waits
    /// for that moment all the same.
    pub fn max_waiting(mut self, count: u32) -> Self {
        self.counts.waiting = count;
        self
    }

    /// So many modules may be compiled for it at once, 1 or more; `u32::MAX` for any number, as by default, within
    /// [`PoolBuilder::max_compilations`](crate::PoolBuilder::max_compilations). Further ones wait for a turn, which others of the
    /// pool may have meanwhile. What is prepared or precompiled is compiled for no group.
    pub fn max_compilations(mut self, count: u32) -> Self {
        self.counts.compilations = count;
        self
    }

    /// So many functions may be defined on its behalf ([`Definition::owner`](crate::Definition::owner)), each overload for itself; 0 for none,
    /// `u32::MAX` for any number, as by default. More is [`DefineError::TooMany`](crate::DefineError::TooMany). What there is beyond a
    /// limit that is set later stays.
    pub fn max_definitions(mut self, count: u32) -> Self {
        self.counts.definitions = count;
        self
    }

    /// The reservation lapses when the group has not been used for so long, as of a sweep; with `None`, never. Default:
    /// [`Self::DEFAULT_LAPSE`].
    pub fn lapses_after(mut self, time: impl Into<Option<Duration>>) -> Self {
        self.lapses_after = time.into();
        self
    }

    /// What is reserved of a budget.
    pub fn reserved(&self, budget: Budget) -> u64 {
        self.reserved[budget]
    }

    /// How many turns it gets for each of a group without a weight, when both wait for room
    /// ([`AcquireOptions::wait_for_room`](crate::AcquireOptions::wait_for_room)): 1 to 1,000.
    ///
    /// Unless any group has a weight, room goes to who came first. If one has, turns go between groups by weight (by start-time
    /// fair queueing), and within a group to who came first: so however many wait of one group, they delay one of another by a turn.
    /// An instance that is handed on within a group, to whoever waits for that, is a turn of the group, too. Who waits for an *instance*
    /// waits for one of its own group, first come, first served.
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = Some(weight);
        self
    }

    /// The limit of a budget, if it has one.
    pub fn limit_of(&self, budget: Budget) -> Option<u64> {
        limit_of(&self.limits, &self.counts, budget)
    }

    pub(super) fn terms(&self) -> ShareTerms {
        ShareTerms {
            reserved: self.reserved,
            limits: self.limits,
            counts: self.counts,
            weight: self.weight.unwrap_or(0),
            lapses_after: self.lapses_after.map(nanos),
        }
    }

    pub(super) fn validate(&self) -> Result<(), ShareError> {
        if self.reserved[Budget::Compile] > 0 {
            let budget = Budget::Compile;
            return Err(ShareError::NotReservable { budget });
        }
        if let Some(weight) = self
            .weight
            .filter(|weight| !(1..=MAX_WEIGHT).contains(weight))
        {
            return Err(ShareError::Weight { weight });
        }
        if self.counts.compilations == 0 {
            return Err(ShareError::NoCompilations);
        }
        match self.lapses_after {
            Some(Duration::ZERO) => Err(ShareError::LapsesAtOnce),
            _ => Ok(()),
        }
    }
}

/// The limit of a budget, if it has one: that of instances is kept among the counts.
fn limit_of(limits: &PerBudget<u64>, counts: &CountLimits, budget: Budget) -> Option<u64> {
    match budget {
        Budget::Instances => limited(counts.instances).map(u64::from),
        _ => Some(limits[budget]).filter(|limit| *limit < u64::MAX),
    }
}

fn limited(count: u32) -> Option<u32> {
    Some(count).filter(|count| *count < u32::MAX)
}

impl Default for Share {
    fn default() -> Self {
        Self::new()
    }
}

/// A [`Share`] that makes no sense; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShareError {
    /// More would be reserved of a budget than it has.
    #[error(
        "{requested} {unit} of the {budget} budget are to be reserved for group {group}, and {reserved} are for others: it \
         has {limit}",
        unit = budget.unit()
    )]
    Overcommitted {
        /// For whom.
        group: Group,
        /// Which budget.
        budget: Budget,
        /// What was to be reserved of it.
        requested: u64,
        /// What others have reserved of it, lapsed or not.
        reserved: u64,
        /// Its limit, without what is charged for as long as the pool is: places of a pooling allocator, compilers that stand by.
        limit: u64,
    },
    /// Nothing of this budget can be reserved.
    #[error("nothing of the {budget} budget is ever evicted, so nothing of it can be reserved")]
    NotReservable {
        /// Which budget.
        budget: Budget,
    },
    /// A weight that is none.
    #[error("{weight} is no weight: 1 to {MAX_WEIGHT}")]
    Weight {
        /// What was set.
        weight: u32,
    },
    /// A group for which nothing may be compiled would wait for ever.
    #[error("a group for which nothing is compiled would wait for ever: 1 or more")]
    NoCompilations,
    /// Whatever were reserved would not be, from the first sweep on.
    #[error("a reservation that lapses after no time at all reserves nothing")]
    LapsesAtOnce,
}

/// A group that has something reserved or limited, or a weight, in [`Stats::groups`](crate::Stats::groups).
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct GroupStats {
    /// Which.
    pub group: Group,
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::pool::api::serde_fields::by_budget")
    )]
    reserved: PerBudget<u64>,
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::pool::api::serde_fields::by_budget")
    )]
    holds: PerBudget<u64>,
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::pool::api::serde_fields::by_budget")
    )]
    limits: PerBudget<Option<u64>>,
    /// Instances that it has, those in the making included.
    pub instances: usize,
    /// Instances that it may have, if that is limited.
    pub max_instances: Option<u32>,
    /// Its acquires that wait.
    pub waiting: usize,
    /// Acquires of it that may wait, if that is limited.
    pub max_waiting: Option<u32>,
    /// Compilations that may run for it at once, if that is limited.
    pub max_compilations: Option<u32>,
    /// Functions that are defined on its behalf.
    pub definitions: usize,
    /// Functions that may be, if that is limited.
    pub max_definitions: Option<u32>,
    /// Its weight among those who wait for room, if it has one.
    pub weight: Option<u32>,
    /// Nobody has used it for so long that nothing is reserved for it, until it is used again.
    pub lapsed: bool,
}

impl GroupStats {
    pub(crate) fn all<H: state::Types>(state: &state::State<H>) -> Vec<Self> {
        let waiting = state.waiting_of_groups();
        let waiting = |id| waiting.get(&id).copied().unwrap_or(0);
        let shares = state.shares();
        let of = |(id, share): (_, &state::Share<H>)| {
            Self::of(share, waiting(id), state.definitions_of(&share.group))
        };
        shares.map(of).collect()
    }

    fn of<H: state::Types>(share: &state::Share<H>, waiting: usize, definitions: usize) -> Self {
        let holds = share.holds();
        let counts = share.terms.counts;
        Self {
            group: share.group.clone(),
            reserved: share.terms.reserved,
            holds: PerBudget::from_fn(|budget| holds.get(budget)),
            limits: PerBudget::from_fn(|budget| limit_of(&share.terms.limits, &counts, budget)),
            instances: share.seats,
            max_instances: limited(counts.instances),
            waiting,
            max_waiting: limited(counts.waiting),
            max_compilations: limited(counts.compilations),
            definitions,
            max_definitions: limited(counts.definitions),
            weight: Some(share.terms.weight).filter(|weight| *weight > 0),
            lapsed: share.lapsed,
        }
    }

    /// What is reserved for it of a budget.
    pub fn reserved(&self, budget: Budget) -> u64 {
        self.reserved[budget]
    }

    /// What it may have of a budget, if that is limited.
    pub fn limit(&self, budget: Budget) -> Option<u64> {
        self.limits[budget]
    }

    /// What it holds of a budget: its instances, and the code that it uses, all of it.
    pub fn holds(&self, budget: Budget) -> u64 {
        self.holds[budget]
    }
}
