//! What leases of some functions have, if their definitions do not say it: from a file, before there are functions.

use std::collections::HashMap;
use std::time::Duration;

/// What a lease of a function has, as far as somebody said it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LeaseSettings {
    pub fuel: Option<u64>,
    pub timeout: Option<Duration>,
}

impl LeaseSettings {
    /// What is not said here is as the other has it.
    pub fn or(self, other: Self) -> Self {
        Self {
            fuel: self.fuel.or(other.fuel),
            timeout: self.timeout.or(other.timeout),
        }
    }
}

/// By name, and by name and argument types. Asked when a function is defined, and never by a lease.
#[derive(Debug, Clone, Default)]
pub(crate) struct FunctionSettings(HashMap<String, Overloads>);

#[derive(Debug, Clone, Default)]
struct Overloads {
    all: LeaseSettings,
    by_arguments: HashMap<String, LeaseSettings>,
}

impl FunctionSettings {
    /// For all overloads of a name, or for one; what was said of the same before, and is not said again, stays.
    #[cfg(feature = "config")]
    pub fn set(&mut self, name: &str, arguments: Option<&str>, settings: LeaseSettings) {
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
    pub fn of(&self, name: &str, arguments: &str) -> LeaseSettings {
        let Some(overloads) = self.0.get(name) else {
            return LeaseSettings::default();
        };
        let own = overloads.by_arguments.get(arguments).copied();
        own.unwrap_or_default().or(overloads.all)
    }

    /// Whether any function has fuel, or a time, of its own.
    pub fn any(&self, said: impl Fn(&LeaseSettings) -> bool) -> bool {
        let one = |o: &Overloads| said(&o.all) || o.by_arguments.values().any(&said);
        self.0.values().any(one)
    }
}
