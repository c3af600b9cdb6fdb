//! What cannot be derived for `serde`: see the crate's documentation, "Features".

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::pool::api::function_name::FunctionName;
use crate::pool::api::limits::Limits;
use crate::runtime::{ModuleLimit, ModuleLimits};
use crate::state::{Budget, Group};

/// By budget: a number, or null where there is none.
impl Serialize for Limits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(Budget::ALL.map(|budget| (budget.name(), self.get(budget))))
    }
}

/// A budget that is not named is as [`Limits::new`] has it.
impl<'de> Deserialize<'de> for Limits {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let given = BTreeMap::<String, Option<u64>>::deserialize(from)?;
        let limits = given
            .into_iter()
            .try_fold(Self::new(), |limits, (name, limit)| {
                let budget = name.parse().map_err(D::Error::custom)?;
                Ok(limits.with(budget, limit))
            })?;
        limits.validate().map_err(D::Error::custom)?;
        Ok(limits)
    }
}

/// By limit.
impl Serialize for ModuleLimits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(ModuleLimit::ALL.map(|limit| (limit.name(), self.get(limit))))
    }
}

/// A limit that is not named is as [`ModuleLimits::new`] has it.
impl<'de> Deserialize<'de> for ModuleLimits {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let given = BTreeMap::<String, u64>::deserialize(from)?;
        let set = |limits: Self, (name, most): (String, u64)| {
            let limit = name.parse().map_err(D::Error::custom)?;
            Ok(limits.with(limit, most))
        };
        given.into_iter().try_fold(Self::new(), set)
    }
}

/// As it was given.
impl Serialize for FunctionName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.given())
    }
}

impl<'de> Deserialize<'de> for FunctionName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(String::deserialize(from)?.as_str().into())
    }
}

/// A number, or a text. Nobody is null.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum GroupText<'a> {
    Number(u64),
    Name(Cow<'a, str>),
}

impl Serialize for Group {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self.number(), self.name()) {
            (Some(number), _) => Some(GroupText::Number(number)),
            (None, name) => name.map(|name| GroupText::Name(name.into())),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Group {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(match Option::<GroupText<'_>>::deserialize(from)? {
            Some(GroupText::Number(number)) => number.into(),
            Some(GroupText::Name(name)) => (&*name).into(),
            None => Self::NOBODY,
        })
    }
}
