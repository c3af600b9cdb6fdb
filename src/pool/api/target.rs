//! On whose behalf something was asked for.

use std::fmt;
use std::sync::Arc;

use crate::pool::api::function_name::name_of;
use crate::state::Group;

/// A function on whose behalf, and in whose group, something was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Target {
    /// The function's name with its argument types, as in `math.add(bigint, bigint)`.
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "crate::pool::api::serde_fields::text")
    )]
    pub signature: Arc<str>,
    /// The scheduling group, tenant or role; [`Group::NOBODY`] where there is none.
    pub group: Group,
}

impl Target {
    /// The function's name, without its argument types.
    pub fn name(&self) -> &str {
        name_of(&self.signature)
    }

    /// The function's name with its argument types.
    pub fn signature(&self) -> &str {
        &self.signature
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.group == Group::NOBODY {
            true => f.write_str(&self.signature),
            false => write!(f, "{} in group {}", self.signature, self.group),
        }
    }
}
