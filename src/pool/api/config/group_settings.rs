//! A section `[groups."name"]`: what a group is given.

use serde::{Deserialize, Serialize};

use super::quantities::{Count, CountLimit, Size, SizeLimit, Timeout};
use crate::pool::api::share::Share;
use crate::state::Budget;

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a section of a group")]
pub(super) struct FileGroup {
    memory: Option<SizeLimit>,
    code: Option<SizeLimit>,
    compile: Option<SizeLimit>,
    stack: Option<SizeLimit>,
    mappings: Option<CountLimit>,
    total: Option<SizeLimit>,
    mapped: Option<SizeLimit>,
    max_instances: Option<Count>,
    max_waiting: Option<Count>,
    max_compilations: Option<Count>,
    max_definitions: Option<Count>,
    reserve: FileReserve,
    weight: Option<Count>,
    lapses_after: Option<Timeout>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(
    default,
    deny_unknown_fields,
    expecting = "what is reserved for a group"
)]
struct FileReserve {
    memory: Option<Size>,
    code: Option<Size>,
    stack: Option<Size>,
    mappings: Option<Count>,
    total: Option<Size>,
    mapped: Option<Size>,
    instances: Option<Count>,
}

impl FileGroup {
    pub fn share(&self) -> Share {
        let bytes = |size: Option<Size>| size.map(|size| size.0);
        let reserve = &self.reserve;
        let reserved = [
            (Budget::Memory, bytes(reserve.memory)),
            (Budget::Code, bytes(reserve.code)),
            (Budget::Stack, bytes(reserve.stack)),
            (Budget::Mappings, reserve.mappings.map(|count| count.0)),
            (Budget::Total, bytes(reserve.total)),
            (Budget::Mapped, bytes(reserve.mapped)),
            (Budget::Instances, reserve.instances.map(|count| count.0)),
        ];
        let most = |size: Option<SizeLimit>| size.and_then(|size| size.0);
        let limits = [
            (Budget::Memory, most(self.memory)),
            (Budget::Code, most(self.code)),
            (Budget::Compile, most(self.compile)),
            (Budget::Stack, most(self.stack)),
            (
                Budget::Mappings,
                self.mappings.and_then(|mappings| mappings.0),
            ),
            (Budget::Total, most(self.total)),
            (Budget::Mapped, most(self.mapped)),
        ];
        let mut share = Share::new();
        for (budget, amount) in reserved {
            share = share.reserve(budget, amount.unwrap_or(0));
        }
        for (budget, limit) in limits {
            share = share.limit(budget, limit.unwrap_or(u64::MAX));
        }
        if let Some(count) = self.max_instances {
            share = share.max_instances(count.few());
        }
        if let Some(count) = self.max_waiting {
            share = share.max_waiting(count.few());
        }
        if let Some(count) = self.max_compilations {
            share = share.max_compilations(count.few());
        }
        if let Some(count) = self.max_definitions {
            share = share.max_definitions(count.few());
        }
        if let Some(weight) = self.weight {
            // What is out of range here is so there as well.
            share = share.weight(weight.few());
        }
        match self.lapses_after {
            Some(time) => share.lapses_after(time.0),
            None => share,
        }
    }
}
