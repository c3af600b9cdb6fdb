//! The section `[pooling_allocator]`.

use serde::{Deserialize, Serialize};

use super::quantities::{Count, Size};
use crate::runtime::PoolingAllocator;

/// How many instances has to be said; what else is not said is as [`PoolingAllocator::for_instances`] has it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a section of a pooling allocator")]
pub(super) struct FilePoolingAllocator {
    instances: Count,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    memories: Option<Count>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tables: Option<Count>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keep_resident: Option<Size>,
}

impl FilePoolingAllocator {
    pub fn allocator(&self) -> PoolingAllocator {
        let mut allocator = PoolingAllocator::for_instances(self.instances.few());
        if let Some(count) = self.memories {
            allocator = allocator.memories(count.few());
        }
        if let Some(count) = self.tables {
            allocator = allocator.tables(count.few());
        }
        match self.keep_resident {
            Some(bytes) => allocator.keep_resident(bytes.0),
            None => allocator,
        }
    }
}
