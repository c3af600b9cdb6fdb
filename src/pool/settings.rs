//! What the builder decides, for the life of a pool.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::pool::Limits;
use crate::pool::api::billing::Billing;
use crate::pool::api::quarantine::Quarantine;
use crate::pool::api::share::Share;
use crate::pool::defined::InstanceLimits;
use crate::pool::function_settings::{FunctionLimits, FunctionSettings};
use crate::pool::time::clock::nanos;
use crate::runtime::{CallLimits, ModuleLimits, Places, PoolingAllocator, Runtime};
use crate::state::{self, Expiry, Group, Policy, Reuse, ShareTerms};

/// How many leases and reservations pass a request that waits for room before room is kept for it. Fewer would
/// give up warm instances for what comes free by itself in a moment; many more would be no promise. The
/// model checker would take too long to get there.
const MAX_OVERTAKES: u64 = if cfg!(test) { 4 } else { 64 };

/// Pairs of (function, group) that a pool remembers though nothing uses them. Each takes 1.6 KiB with the
/// usual eight seats, which nobody is charged for; to make one anew takes a microsecond, and the
/// instance that it is made for takes many.
const MAX_UNUSED_ENTRIES: usize = 1024;

/// Slots that an entry begins with, if it may have as many. Most entries never need more.
pub(crate) const FIRST_SLOTS: usize = 8;

#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub limits: Limits,
    /// Of the pool's own engine; `None`: instances are made on demand.
    pub allocator: Option<PoolingAllocator>,
    /// What that makes, or the host's own engine has.
    pub places: Option<Places>,
    pub instance: InstanceLimits,
    pub modules: ModuleLimits,
    /// Bytes of memory that an instance may keep when idle.
    pub max_idle_memory: u64,
    pub max_instances_per_entry: usize,
    pub max_compilations: usize,
    pub max_uses: u64,
    pub reuse: Reuse,
    /// Spares of an entry whose instances are leased once.
    pub max_spares: usize,
    pub max_lifetime: Option<Duration>,
    pub idle_timeout: Option<Duration>,
    pub code_idle_timeout: Option<Duration>,
    pub wait_timeout: Duration,
    pub wait_for_room: bool,
    pub compile_cooldown: Duration,
    pub fuel: Option<u64>,
    /// Units of fuel after which a task lets others go on.
    pub fuel_yield: Option<u64>,
    pub call_timeout: Option<Duration>,
    pub epoch_tick: Duration,
    /// Whether the calls of threads can be cancelled by others.
    pub cancellable: bool,
    pub policy: Policy,
    /// The limits of a group of which nothing else is said.
    pub group_terms: ShareTerms,
    /// What some groups are given.
    pub shares: Vec<(Group, Share)>,
    /// When functions are refused for what their guests do.
    pub quarantine: Option<Quarantine>,
    /// Whether there are bills.
    pub billing: Option<Billing>,
    /// Of some functions, by name.
    pub functions: FunctionSettings,
}

impl Settings {
    pub fn core(&self) -> state::Config {
        state::Config {
            policy: self.policy,
            seats_per_entry: self.max_instances_per_entry,
            first_seats: FIRST_SLOTS,
            max_unused_entries: MAX_UNUSED_ENTRIES,
            max_compilations: self.max_compilations,
            max_overtakes: MAX_OVERTAKES,
            keeps_ages: self.max_lifetime.is_some(),
            quarantine: self.quarantine.map(|quarantine| quarantine.rule()),
            group_terms: self.group_terms,
            max_spares: self.max_spares,
            bills: self.billing.map(|billing| billing.kept()),
        }
    }

    /// How often the housekeeper looks for what is idle for too long. Four times within T, so that
    /// with a clock as coarse as that, eviction still comes between T and 2T.
    pub fn sweep_period(&self) -> Duration {
        let shortest = [self.idle_timeout, self.max_lifetime, self.code_idle_timeout];
        let shortest = shortest.into_iter().flatten().min();
        let period = shortest.map_or(Duration::MAX, |timeout| timeout / 4);
        period.clamp(Duration::from_millis(1), Duration::from_secs(1))
    }

    /// With a coarse clock, the last use may have been a period later than it says.
    pub fn expiry(&self, coarse: bool) -> Expiry {
        let slack = if coarse {
            self.sweep_period()
        } else {
            Duration::ZERO
        };
        let expiry = |timeout: Option<Duration>| timeout.map(|t| nanos(t.saturating_add(slack)));
        Expiry {
            idle: expiry(self.idle_timeout),
            slack: nanos(slack),
            lifetime: self.max_lifetime.map(nanos),
            code_idle: expiry(self.code_idle_timeout),
        }
    }

    /// Whether code must count fuel.
    pub fn counts_fuel(&self) -> bool {
        let own = || self.functions.any(|function| function.fuel.is_some());
        self.fuel.is_some() || self.fuel_yield.is_some() || own()
    }

    /// Whether code must look at the epoch.
    pub fn interrupts(&self) -> bool {
        let own = || self.functions.any(|function| function.timeout.is_some());
        self.call_timeout.is_some() || self.cancellable || own()
    }

    /// What a function has: what its definition says, what is said of its name, what all have.
    pub fn of_function(&self, own: FunctionLimits, name: &str, arguments: &str) -> FunctionLimits {
        let all = FunctionLimits {
            fuel: self.fuel,
            timeout: self.call_timeout,
            max_memory: Some(self.instance.memory),
            max_uses: Some(self.max_uses),
            max_instances: Some(self.max_instances_per_entry as u64),
            reuse: Some(self.reuse),
            pinned: None,
            idle_timeout: None,
        };
        own.or(self.functions.of(name, arguments)).or(all)
    }

    /// The limits of a lease that has so much fuel and time. A new store has neither: what the engine
    /// counts must be set, if only to all there is.
    pub fn call_limits(
        &self,
        fuel: Option<u64>,
        timeout: Option<Duration>,
        runtime: &Runtime,
    ) -> CallLimits {
        let fuel = fuel.map_or(NonZeroU64::MAX, |units| {
            NonZeroU64::new(units).unwrap_or(NonZeroU64::MIN)
        });
        let ticks = timeout.map_or(CallLimits::EVER, |limit| self.ticks(limit));
        CallLimits {
            fuel: runtime.meters_fuel().then_some(fuel),
            ticks: runtime.interrupts().then_some(ticks),
        }
    }

    /// The tick under way does not count: it may be over at once.
    fn ticks(&self, limit: Duration) -> NonZeroU64 {
        let ticks = limit.as_nanos().div_ceil(self.epoch_tick.as_nanos().max(1));
        let ticks = u64::try_from(ticks).unwrap_or(u64::MAX);
        NonZeroU64::MIN.saturating_add(ticks).min(CallLimits::EVER)
    }
}
