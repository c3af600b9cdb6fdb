//! What things cost, in the kernel's terms.
//!
//! Estimates stand where the truth comes too late (before a compilation) or is out of reach (the
//! host heap of a store). `tests/charges/true_sizes.rs` measures them all.

use super::engine::Runtime;
use super::inspect::Facts;
use crate::state::Amounts;

/// Bytes of host heap charged for each instance beside its memories and tables.
///
/// A store with an instance of a small module takes 5 to 6 KiB of heap in wasmtime 48.
pub const INSTANCE_OVERHEAD: u64 = 8 << 10;

/// Heap for what a module declares that the overhead has room for.
const INCLUDED_BYTES: u64 = 1 << 10;
/// Host heap for a memory that is made for an instance to import: wasmtime makes an instance of its own for it, of
/// just under 2 KiB, and lists that in the store.
pub(super) const OWN_MEMORY: u64 = 2304;
/// The same for a table.
pub(super) const OWN_TABLE: u64 = 2304;
/// The same for a global, which takes no instance.
pub(super) const OWN_GLOBAL: u64 = 128;
/// An instance for which anything is made also has its functions listed one by one.
pub(super) const FUNCTION_BESIDE_OWN: u64 = 80;
/// A reference in a table.
const BYTES_PER_TABLE_ELEMENT: u64 = 8;
/// A guard before, the accessible pages, the inaccessible rest of the reservation. The guards of
/// neighbours may merge into one mapping; whether they do is the kernel's affair.
const MAPPINGS_PER_MEMORY: u64 = 3;
/// With initial data also its image, and what is accessible behind that.
const MAPPINGS_PER_MEMORY_WITH_DATA: u64 = 5;
/// What stands before the text, the text, and what stands behind it.
pub(crate) const MAPPINGS_PER_MODULE: u64 = 3;
/// The least that an allocator maps by itself (that of glibc).
const LARGE_BLOCK: u64 = 128 << 10;
/// So many lists of a loaded module may be that large, at most: one for each table, and for each kind
/// of what it declares.
const LARGE_BLOCKS_PER_MODULE: u64 = 128;
/// Kernel pages: an image is mapped in whole ones.
pub(crate) const PAGE: u64 = 4 << 10;

pub(crate) fn whole_pages(bytes: u64) -> u64 {
    bytes.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX)
}

/// Pages of this machine's kernel, which may be larger: what an allocator keeps is in whole ones.
pub(crate) fn host_page() -> u64 {
    #[cfg(unix)]
    let page = rustix::param::page_size() as u64;
    #[cfg(not(unix))]
    let page = PAGE;
    page
}

pub(super) fn whole_host_pages(bytes: u64) -> u64 {
    (bytes.checked_next_multiple_of(host_page())).unwrap_or(u64::MAX)
}

/// What a loaded module takes: its code, mapped in whole pages; the initial contents of its memories,
/// which wasmtime keeps in a file in memory to be copied on write; and its heap.
pub(crate) fn code_amounts(code: u64, image: u64, heap: u64) -> Amounts {
    // The compiler lays the image out in the code's file, or there is none.
    let bytes = whole_pages(code).saturating_add(image.min(whole_pages(code)));
    let of_heap = heap_mappings(heap).min(LARGE_BLOCKS_PER_MODULE);
    code_bytes(bytes.saturating_add(heap)).mappings(MAPPINGS_PER_MODULE + of_heap)
}

/// The allocator maps large blocks one by one.
fn heap_mappings(bytes: u64) -> u64 {
    bytes / LARGE_BLOCK
}

fn code_bytes(bytes: u64) -> Amounts {
    Amounts::ZERO.code(bytes).mappings(MAPPINGS_PER_MODULE)
}

/// What to reserve for code before it is compiled: what it took last time, or else the least that
/// it can take. Code is 2.3 to 3.8 times its wasm, so this is too little more often than not; the
/// rest is reserved when it is compiled and not mapped yet. A guess on the safe side would refuse
/// what fits and evict what may stay.
pub(crate) fn code_estimate(facts: &Facts, known: Option<u64>) -> Amounts {
    let least = || {
        let code = whole_pages(facts.body_bytes.saturating_add(3 * PAGE));
        code.saturating_add(facts.heap.module)
    };
    code_bytes(known.unwrap_or_else(least))
}

/// Heap that reading an artifact takes beside the artifact itself.
pub(crate) const READ_BUFFERS: u64 = 512 << 10;

/// Bytes of an artifact, as it is before it is compressed. Code is 2.3 to 3.8 times its wasm, and a little more for the
/// smallest; the image of its initial memory is in it, however little of that is data.
pub(crate) fn artifact_estimate(wasm: u64, facts: &Facts) -> u64 {
    let code = wasm.saturating_mul(4).saturating_add(512 << 10);
    code.saturating_add(facts.image_bytes)
}

/// Heap that loading an artifact may take: its buffers; as much as the artifact, if its store does not give a
/// file, or gives a compressed one; and what decompresses that.
pub(crate) fn load_estimate(wasm: u64, facts: &Facts) -> Amounts {
    let artifact = artifact_estimate(wasm, facts);
    #[cfg(feature = "zstd")]
    let artifact = artifact.saturating_add(crate::artifacts::decoder_bytes(artifact));
    Amounts::ZERO.compile(artifact.saturating_add(READ_BUFFERS))
}

/// What a new instance takes, by what its module declares.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InstanceNeeds {
    /// Bytes that no limiter ever hears of.
    fixed: u64,
    /// Bytes that its meter pays out as wasmtime asks for them.
    pub metered: u64,
    mappings: u64,
}

impl InstanceNeeds {
    pub fn of(facts: &Facts, runtime: &Runtime) -> Self {
        let heap = runtime.heap(facts).instance;
        let gc_heap = runtime.gc_heap(facts);
        let tables = table_bytes(facts.table_elements);
        let (of_memories, of_tables) = match runtime.places() {
            None => (mappings_on_demand(facts, gc_heap.is_some()), 0),
            // What is made for it to import is made on demand all the same.
            Some(_) => (
                u64::from(facts.own_memories) * MAPPINGS_PER_MEMORY,
                u64::from(facts.tables) * host_page(),
            ),
        };
        let overhead = INSTANCE_OVERHEAD.saturating_add(of_tables);
        Self {
            fixed: overhead.saturating_add(heap.saturating_sub(INCLUDED_BYTES)),
            metered: facts
                .memory_bytes
                .saturating_add(tables)
                .saturating_add(gc_heap.unwrap_or(0)),
            mappings: of_memories.saturating_add(heap_mappings(heap.saturating_add(tables))),
        }
    }

    /// What to reserve before it is made.
    pub fn declared(&self) -> Amounts {
        self.with_metered(self.metered)
    }

    /// What it holds when its meter has paid out so much.
    pub fn with_metered(&self, bytes: u64) -> Amounts {
        Amounts::ZERO
            .memory(self.fixed.saturating_add(bytes))
            .mappings(self.mappings)
            .instances(1)
    }
}

/// Of memories, and of a GC heap if there is one.
fn mappings_on_demand(facts: &Facts, collects: bool) -> u64 {
    let per_memory = match facts.has_data {
        true => MAPPINGS_PER_MEMORY_WITH_DATA,
        false => MAPPINGS_PER_MEMORY,
    };
    u64::from(facts.memories) * per_memory + u64::from(collects) * MAPPINGS_PER_MEMORY
}

/// A fiber stack: its bytes in whole pages, one mapping for them and one for the guard.
pub(crate) fn stack_amounts(bytes: u64) -> Amounts {
    Amounts::ZERO.stack(whole_pages(bytes)).mappings(2)
}

pub(crate) fn table_bytes(elements: u64) -> u64 {
    elements.saturating_mul(BYTES_PER_TABLE_ELEMENT)
}
