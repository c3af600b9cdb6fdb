//! The section `[quarantine]`: when functions are refused for what their guests do.

use serde::{Deserialize, Serialize};

use super::quantities::{Count, Time};
use crate::pool::api::quarantine::Quarantine;

/// Both of the first are needed; what else is not said is as [`Quarantine::after`] has it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a section of a quarantine")]
pub(super) struct FileQuarantine {
    failures: Count,
    within: Time,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    longest: Option<Time>,
    #[serde(default)]
    by_group: bool,
}

impl FileQuarantine {
    pub fn quarantine(&self) -> Quarantine {
        // What is out of range here is so there as well.
        let failures = u32::try_from(self.failures.0).unwrap_or(u32::MAX);
        let mut quarantine = Quarantine::after(failures, self.within.0).by_group(self.by_group);
        quarantine.first = self.first.map_or(quarantine.first, |time| time.0);
        quarantine.longest = self.longest.map_or(quarantine.longest, |time| time.0);
        quarantine
    }
}
