//! What a function has of its own: what its definition says, or what a file says of its name before there are functions.

use std::collections::HashMap;
use std::num::NonZeroU16;
use std::time::Duration;

use crate::pool::api::build_error::LimitsError;
use crate::pool::api::limits::{check_lease, check_range};
use crate::pool::defined::Defined;
use crate::pool::time::clock::nanos;
use crate::state::{FunctionTerms, IdleTime, Reuse};

/// What the leases and the instances of a function have, as far as somebody said it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FunctionLimits {
    pub fuel: Option<u64>,
    pub timeout: Option<Duration>,
    /// Bytes of an instance's linear memories and GC heap.
    pub max_memory: Option<u64>,
    /// Leases of an instance.
    pub max_uses: Option<u64>,
    /// Instances that each group may have at once.
    pub max_instances: Option<u64>,
    /// Whether an instance is leased again.
    pub reuse: Option<Reuse>,
    /// Whether its code and one instance stay.
    pub pinned: Option<bool>,
    /// How long an instance may be idle; `Some(None)` for any time.
    pub idle_timeout: Option<Option<Duration>>,
}

impl FunctionLimits {
    /// What is not said here is as the other has it.
    pub fn or(self, other: Self) -> Self {
        Self {
            fuel: self.fuel.or(other.fuel),
            timeout: self.timeout.or(other.timeout),
            max_memory: self.max_memory.or(other.max_memory),
            max_uses: self.max_uses.or(other.max_uses),
            max_instances: self.max_instances.or(other.max_instances),
            reuse: self.reuse.or(other.reuse),
            pinned: self.pinned.or(other.pinned),
            idle_timeout: self.idle_timeout.or(other.idle_timeout),
        }
    }

    /// What the core is told.
    pub fn terms(&self) -> FunctionTerms {
        let idle = match self.idle_timeout {
            None => IdleTime::OF_THE_POOL,
            Some(None) => IdleTime::FOREVER,
            Some(Some(time)) => IdleTime::of_nanos(nanos(time)),
        };
        // One more than there are numbers for is as many as any entry may have.
        let most = self.max_instances.map(u16::try_from);
        FunctionTerms {
            max_instances: most.and_then(Result::ok).and_then(NonZeroU16::new),
            idle,
            reuse: self.reuse.unwrap_or_default(),
            pinned: self.pinned.unwrap_or(false),
        }
    }

    pub fn is_pristine(&self) -> bool {
        self.reuse == Some(Reuse::Pristine)
    }

    /// Leases that an instance may have.
    pub fn max_uses(&self) -> u64 {
        match self.is_pristine() {
            true => Defined::PRISTINE,
            false => self.max_uses.unwrap_or(u64::MAX),
        }
    }

    /// That a guest can run at all, and that its instances stay within what any function of the pool may have.
    pub fn check(&self, most_memory: u64, most_instances: usize) -> Result<(), LimitsError> {
        check_lease(self.fuel, self.timeout)?;
        check_range("max_uses", self.max_uses.unwrap_or(u64::MAX))?;
        check_most("max_memory", self.max_memory, most_memory)?;
        check_most("max_instances", self.max_instances, most_instances as u64)
    }
}

fn check_most(field: &'static str, value: Option<u64>, max: u64) -> Result<(), LimitsError> {
    match value {
        Some(0) => Err(LimitsError::Zero { field }),
        Some(value) if value > max => Err(LimitsError::TooLarge { field, value, max }),
        _ => Ok(()),
    }
}

/// By name, and by name and argument types. Asked when a function is defined, and never by a lease.
#[derive(Debug, Clone, Default)]
pub(crate) struct FunctionSettings(HashMap<String, Overloads>);

#[derive(Debug, Clone, Default)]
struct Overloads {
    all: FunctionLimits,
    by_arguments: HashMap<String, FunctionLimits>,
}

impl FunctionSettings {
    /// For all overloads of a name, or for one; what was said of the same before, and is not said again, stays.
    #[cfg(feature = "config")]
    pub fn set(&mut self, name: &str, arguments: Option<&str>, settings: FunctionLimits) {
        let overloads = self.0.entry(name.to_owned()).or_default();
        let place = match arguments {
            None => &mut overloads.all,
            Some(arguments) => overloads
                .by_arguments
                .entry(arguments.to_owned())
                .or_default(),
        };
        *place = settings.or(*place);
    }

    /// What is said of its argument types counts before what is said of its name.
    pub fn of(&self, name: &str, arguments: &str) -> FunctionLimits {
        let Some(overloads) = self.0.get(name) else {
            return FunctionLimits::default();
        };
        let own = overloads.by_arguments.get(arguments).copied();
        own.unwrap_or_default().or(overloads.all)
    }

    /// Whether any function has fuel, or a time, of its own.
    pub fn any(&self, said: impl Fn(&FunctionLimits) -> bool) -> bool {
        let one = |o: &Overloads| said(&o.all) || o.by_arguments.values().any(&said);
        self.0.values().any(one)
    }
}
