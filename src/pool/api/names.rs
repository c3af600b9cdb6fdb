//! Names of plain values, and back.

use crate::runtime::ModuleLimit;
use crate::state::{Budget, Policy, RemovalReason, Reuse};

/// A text that names no value of some type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not {what}: one of {}", names.join(", "))]
pub struct UnknownName {
    /// The text: its beginning, if it is long.
    pub given: String,
    /// What it should have named: `a budget`, for example.
    pub what: &'static str,
    /// The names that there are.
    pub names: Vec<&'static str>,
}

/// The value of this name.
pub(crate) fn find<V: Copy>(
    what: &'static str,
    all: &[V],
    name: fn(V) -> &'static str,
    given: &str,
) -> Result<V, UnknownName> {
    let named = all.iter().find(|value| name(**value) == given);
    named.copied().ok_or_else(|| UnknownName {
        given: given.chars().take(64).collect(),
        what,
        names: all.iter().map(|value| name(*value)).collect(),
    })
}

/// Reads values of a type that has `ALL` and `name` from their names; with the feature `serde`, their names are
/// what is written and read.
macro_rules! named {
    ($ty:ty, $what:literal) => {
        impl std::str::FromStr for $ty {
            type Err = $crate::pool::api::names::UnknownName;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                $crate::pool::api::names::find($what, &Self::ALL, Self::name, text)
            }
        }

        #[cfg(feature = "serde")]
        impl serde::Serialize for $ty {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        #[cfg(feature = "serde")]
        impl<'de> serde::Deserialize<'de> for $ty {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let name = <String as serde::Deserialize>::deserialize(from)?;
                name.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

pub(crate) use named;

named!(Budget, "a budget");
named!(ModuleLimit, "a limit of modules");
named!(Policy, "a policy");
named!(RemovalReason, "a reason");
named!(Reuse, "a way to use instances again");
