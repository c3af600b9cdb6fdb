//! Places for instances, made ahead by wasmtime's pooling allocator.

use wasmtime::{Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::inspect::Facts;
use super::sizes::whole_host_pages;
use crate::state::Amounts;

/// A memory in its place, with initial data: what is accessible before that, the data, what is accessible behind it,
/// and the rest of the place. Empty places keep what their last instance had.
const MAPPINGS_PER_MEMORY: u64 = 4;
/// Each in a place of its own, with its guard.
const MAPPINGS_PER_STACK: u64 = 2;
/// Bytes of address space that wasmtime sets aside for a memory, whatever allocator makes it.
const RESERVATION: u64 = 4 << 30;
/// The three areas: memories, tables and stacks.
const AREAS: u64 = 3;
/// Places of the pool's own engine beyond those of its instances: where code goes, the allocator takes one for a moment itself, and
/// of many it may miss one that comes free while it looks at others. Each thread that does so has one at a time.
const EXTRA_PLACES: u32 = 8;
const BYTES_PER_TABLE_ELEMENT: u64 = 8;

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

/// The places of an engine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places {
    /// Instances for which there is room whatever they have; `None` where nobody has seen to that.
    pub instances: Option<u32>,
    memories: u32,
    tables: u32,
    stacks: u32,
    /// GC heaps, each of which takes the place of a memory as well.
    pub gc_heaps: u32,
    pub memories_per_instance: u32,
    pub tables_per_instance: u32,
    /// Bytes that one memory may have.
    pub max_memory: u64,
    /// Elements that one table may have.
    pub table_elements: u64,
    /// Bytes of each that stay resident.
    memory_keeps: u64,
    table_keeps: u64,
    stack_keeps: u64,
}

/// What a pooling allocator must not be told, and why.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unfit {
    pub setting: &'static str,
    pub why: &'static str,
}

/// What a module needs, and an allocator has not made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lack {
    pub what: &'static str,
    pub needed: u64,
    pub there: u64,
}

impl PoolingAllocator {
    /// Places for so many instances at once, idle ones included, and 8 more, for moments in which the allocator holds one itself: 1 to
    /// 32,000, and as many as the mappings budget has room for (some 8,180, by default). Each memory takes 4 GiB of address space, of
    /// which a process has 128 TiB. With more than 1,000, functions with a GC heap are refused: wasmtime has so many, unless it
    /// is told otherwise.
    pub const fn for_instances(count: u32) -> Self {
        Self {
            instances: count,
            memories: 1,
            tables: 1,
            keep_resident: 0,
        }
    }

    /// Linear memories that an instance may have in its place, its GC heap counted as one: 1 to 100. Default: 1. A module that
    /// needs more is refused when it is defined.
    pub const fn memories(mut self, count: u32) -> Self {
        self.memories = count;
        self
    }

    /// Tables that an instance may have in its place, 0 to 100. Default: 1. Each takes address space for
    /// [`PoolBuilder::max_table_elements`](crate::PoolBuilder::max_table_elements).
    pub const fn tables(mut self, count: u32) -> Self {
        self.tables = count;
        self
    }

    /// Bytes at the start of each memory that stay resident when its instance is destroyed: they are overwritten then, and the next
    /// instance in the place finds them without a page fault. All that lies behind goes back to the kernel. Rounded up to
    /// whole pages; default: 0. So much of every place is charged to the memory budget, occupied or not, of the 8 more as well.
    pub const fn keep_resident(mut self, bytes: u64) -> Self {
        self.keep_resident = bytes;
        self
    }

    pub(crate) const fn counts(&self) -> (u32, u32, u32) {
        (self.instances, self.memories, self.tables)
    }
}

impl Places {
    /// As the pool's own engine is to have them, for memories and tables of up to so much.
    pub fn planned(allocator: PoolingAllocator, max_memory: u64, table_elements: u64) -> Self {
        let (instances, memories, tables) = allocator.counts();
        let max_memory = max_memory.min(RESERVATION);
        let all = |each: u32| instances.saturating_mul(each).saturating_add(EXTRA_PLACES);
        Self {
            instances: Some(instances),
            memories: all(memories),
            tables: all(tables),
            stacks: all(1),
            gc_heaps: 0,
            memories_per_instance: memories,
            tables_per_instance: tables,
            max_memory,
            table_elements,
            memory_keeps: whole_host_pages(allocator.keep_resident.min(max_memory)),
            table_keeps: 0,
            stack_keeps: 0,
        }
    }

    /// Those of an engine, if it has any.
    pub fn of(engine: &Engine) -> Option<Self> {
        let config = engine.get_pooling_config()?;
        let max_memory = config.get_max_memory_size() as u64;
        let table_elements = config.get_table_elements() as u64;
        let table_bytes = table_elements.saturating_mul(BYTES_PER_TABLE_ELEMENT);
        let kept = |bytes: usize, of: u64| whole_host_pages((bytes as u64).min(of));
        Some(Self {
            instances: None,
            memories: config.get_total_memories(),
            tables: config.get_total_tables(),
            stacks: config.get_total_stacks(),
            gc_heaps: config.get_total_gc_heaps(),
            memories_per_instance: config.get_max_memories_per_module(),
            tables_per_instance: config.get_max_tables_per_module(),
            max_memory,
            table_elements,
            memory_keeps: kept(config.get_memory_keep_resident(), max_memory),
            table_keeps: kept(config.get_table_keep_resident(), table_bytes),
            // (Stacks that are not cleared keep what their last call has left, which nobody knows.)
            stack_keeps: match engine.get_async_stack_zeroing() {
                true => kept(
                    config.get_async_stack_keep_resident(),
                    engine.get_async_stack_size() as u64,
                ),
                false => 0,
            },
        })
    }

    /// Why no pool can keep its promises with this engine's places, if that is so.
    pub fn unfit(engine: &Engine) -> Option<Unfit> {
        let config = engine.get_pooling_config()?;
        if !matches!(config.get_pagemap_scan(), Enabled::No) {
            let setting = "pagemap_scan";
            // A page that the kernel is moving, or has swapped out, is taken for one that nobody has written to.
            let why = "what one instance has written, the next may then read";
            return Some(Unfit { setting, why });
        }
        if config.get_decommit_batch_size() > 1 {
            let setting = "decommit_batch_size";
            let why = "memory that waits to be given back is charged to nobody";
            return Some(Unfit { setting, why });
        }
        None
    }

    /// What an instance of a module needs, and no place has. What is made for it to import lies elsewhere.
    pub fn lack(&self, facts: &Facts, collects: bool) -> Option<Lack> {
        // Of a host's engine a GC heap only takes one place more, and there may be enough of either.
        let heaps = self.instances.filter(|_| collects).unwrap_or(0);
        let own_heap = u64::from(heaps > 0);
        let count = |number: u32| u64::from(number);
        let needs = [
            (
                count(facts.memories) + own_heap,
                count(self.memories_per_instance),
                "memories for an instance (a GC heap is one)",
            ),
            (
                count(facts.tables),
                count(self.tables_per_instance),
                "tables for an instance",
            ),
            (facts.largest_memory, self.max_memory, "bytes for a memory"),
            (
                facts.largest_table,
                self.table_elements,
                "elements for a table",
            ),
            (
                count(heaps),
                count(self.gc_heaps),
                "GC heaps, one for each instance",
            ),
        ];
        let mut lacks = needs
            .into_iter()
            .filter(|(needed, there, _)| needed > there);
        let (needed, there, what) = lacks.next()?;
        Some(Lack {
            what,
            needed,
            there,
        })
    }

    /// What they take for as long as the engine is, empty or not.
    pub fn amounts(&self) -> Amounts {
        let all = |count: u32, each: u64| u64::from(count).saturating_mul(each);
        let memory = all(self.memories, self.memory_keeps);
        let memory = memory.saturating_add(all(self.tables, self.table_keeps));
        let mappings = all(self.memories, MAPPINGS_PER_MEMORY);
        let mappings = mappings + all(self.stacks, MAPPINGS_PER_STACK) + AREAS;
        Amounts::ZERO
            .memory(memory)
            .stack(all(self.stacks, self.stack_keeps))
            .mappings(mappings)
    }

    /// What wasmtime is told. Not its scan of the page map: see [`Self::unfit`].
    pub(super) fn strategy(&self) -> InstanceAllocationStrategy {
        let bytes = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        let mut config = PoolingAllocationConfig::new();
        config
            .total_stacks(self.stacks)
            .total_memories(self.memories)
            .total_tables(self.tables)
            .max_memories_per_module(self.memories_per_instance)
            .max_tables_per_module(self.tables_per_instance)
            .max_memory_size(bytes(self.max_memory))
            .table_elements(bytes(self.table_elements))
            .linear_memory_keep_resident(bytes(self.memory_keeps))
            // A place keeps the mapping of its last module's data; whether it does is charged for.
            .max_unused_warm_slots(self.memories)
            // The budgets bound what follows, as on demand.
            .total_core_instances(u32::MAX)
            .max_core_instance_size(1 << 30);
        InstanceAllocationStrategy::Pooling(config)
    }

    pub(super) fn stacks(&self) -> u32 {
        self.stacks
    }
}
