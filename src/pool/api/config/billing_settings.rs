//! The section `[billing]`: whether there are bills.

use serde::{Deserialize, Serialize};

use super::quantities::Count;
use crate::pool::api::billing::Billing;

/// What is not said is as [`Billing::new`] has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a section of bills")]
pub(super) struct FileBilling {
    #[serde(skip_serializing_if = "Option::is_none")]
    kept_groups: Option<Count>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metrics_groups: Option<Count>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exact_times: Option<bool>,
}

impl FileBilling {
    pub fn billing(&self) -> Billing {
        let count = |said: Count| usize::try_from(said.0).unwrap_or(usize::MAX);
        let b = Billing::new();
        let b = match self.kept_groups {
            Some(groups) => b.kept_groups(count(groups)),
            None => b,
        };
        let b = match self.metrics_groups {
            Some(groups) => b.metrics_groups(count(groups)),
            None => b,
        };
        match self.exact_times {
            Some(exact) => b.exact_times(exact),
            None => b,
        }
    }
}
