//! Places for instances, made ahead by wasmtime's pooling allocator.

use wasmtime::{InstanceAllocationStrategy, PoolingAllocationConfig};

use super::sizes::whole_pages;
use crate::state::Amounts;

/// Bytes of address space that wasmtime sets aside for a memory, whatever allocator makes it.
const RESERVATION: u64 = 4 << 30;
/// A memory in its place, with initial data: what is accessible before that, the data, what is accessible behind it,
/// and the rest of the place. Empty places keep what their last instance had.
const MAPPINGS_PER_MEMORY: u64 = 4;
/// Each in a place of its own, with its guard.
const MAPPINGS_PER_STACK: u64 = 2;
/// The three areas: memories, tables and stacks.
const AREAS: u64 = 3;

/// Wasmtime's pooling allocator, for the pool's own engine: memories, tables and fiber stacks lie in places that are
/// made when the pool is built, so that an instance costs a few microseconds, and takes and gives back no mapping of the
/// process. See [`PoolBuilder::pooling_allocator`](crate::PoolBuilder::pooling_allocator).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolingAllocator {
    instances: u32,
    memories: u32,
    tables: u32,
    keep_resident: u64,
}

/// The allocator of an engine, with what the pool's other settings say of its places.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places {
    pub allocator: PoolingAllocator,
    /// Bytes that one memory may have.
    pub max_memory: u64,
    /// Elements that one table may have.
    pub table_elements: u64,
}

impl PoolingAllocator {
    /// Places for so many instances at once, idle ones included: 1 to 32,768. Each takes 4 GiB of address space, of
    /// which a process has 128 TiB.
    pub const fn for_instances(count: u32) -> Self {
        Self {
            instances: count,
            memories: 1,
            tables: 1,
            keep_resident: 0,
        }
    }

    /// Linear memories that an instance may have in its place, its GC heap counted as one: 1 to 100. Default: 1. A module that
    /// declares more is refused when it is defined.
    pub const fn memories(mut self, count: u32) -> Self {
        self.memories = count;
        self
    }

    /// Tables that an instance may have in its place, 0 to 100. Default: 1.
    pub const fn tables(mut self, count: u32) -> Self {
        self.tables = count;
        self
    }

    /// Bytes at the start of each memory that stay resident when its instance is destroyed: they are overwritten then, and the next
    /// instance in the place finds them without a page fault. All that lies behind goes back to the kernel. Rounded up to
    /// whole pages; default: 0. So much of every place is charged to the memory budget, occupied or not.
    pub const fn keep_resident(mut self, bytes: u64) -> Self {
        self.keep_resident = bytes;
        self
    }

    pub(crate) const fn counts(&self) -> (u32, u32, u32) {
        (self.instances, self.memories, self.tables)
    }
}

impl Places {
    /// What they take for as long as the engine is, empty or not.
    pub fn amounts(&self) -> Amounts {
        let (instances, memories, _) = self.allocator.counts();
        let (instances, memories) = (u64::from(instances), u64::from(memories));
        let kept = self.kept_bytes();
        let mappings = memories * MAPPINGS_PER_MEMORY + MAPPINGS_PER_STACK;
        Amounts::ZERO
            .memory((instances * memories).saturating_mul(kept))
            .mappings(instances * mappings + AREAS)
    }

    /// The most that a memory can have in its place.
    fn memory_bytes(&self) -> u64 {
        self.max_memory.min(RESERVATION)
    }

    /// Bytes of each that stay resident.
    fn kept_bytes(&self) -> u64 {
        let kept = self.allocator.keep_resident.min(self.memory_bytes());
        whole_pages(kept)
    }

    /// What wasmtime is told. Not its scan of the page map, which takes a page that the kernel is moving, or has
    /// swapped out, for one that nobody has written to: the next instance then reads what the last one wrote.
    pub(super) fn strategy(&self) -> InstanceAllocationStrategy {
        let (instances, memories, tables) = self.allocator.counts();
        let bytes = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        let mut config = PoolingAllocationConfig::new();
        config
            .total_stacks(instances)
            .total_memories(instances.saturating_mul(memories))
            .total_tables(instances.saturating_mul(tables))
            .max_memories_per_module(memories)
            .max_tables_per_module(tables)
            .max_memory_size(bytes(self.memory_bytes()))
            .table_elements(bytes(self.table_elements))
            .linear_memory_keep_resident(bytes(self.kept_bytes()))
            // A place keeps the mapping of its last module's data; whether it does is charged for.
            .max_unused_warm_slots(instances)
            // The budgets bound what follows, as on demand.
            .total_core_instances(u32::MAX)
            .max_core_instance_size(1 << 30);
        InstanceAllocationStrategy::Pooling(config)
    }
}
