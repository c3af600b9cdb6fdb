//! What wasmtime keeps on the heap for what a module declares: upper bounds, known before anything is
//! compiled.
//!
//! Each follows from the records that wasmtime 48 makes (`wasmtime_environ::Module`, its type registry,
//! `VMContext`), at the fullest that their tables get. `tests/charges/modules` compares them with a
//! counting allocator.

use std::sync::Arc;

use crate::sync::AtomicU64;
use crate::sync::Ordering::Relaxed;

/// Bytes of heap: once for the loaded module, and again for each of its instances.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Heap {
    pub module: u64,
    pub instance: u64,
}

impl Heap {
    const fn new(module: u64, instance: u64) -> Self {
        Self { module, instance }
    }

    /// Counts are what the module claims: nothing has checked them yet.
    pub fn add(&mut self, count: u64, each: Self) {
        let add = |sum: u64, each: u64| sum.saturating_add(count.saturating_mul(each));
        self.module = add(self.module, each.module);
        self.instance = add(self.instance, each.instance);
    }

    /// A table of 4 bytes an element, which wasmtime fills lazily from what the module keeps.
    pub fn add_table_image(&mut self, elements: u64) {
        self.add(elements, Self::new(4, 0));
    }

    /// A name, which is kept once however often it occurs.
    pub fn add_name(&mut self, name: &str) {
        self.add(1, Self::new(80 + name.len() as u64, 0));
    }

    /// A passive element segment: its elements are evaluated for each instance.
    pub fn add_passive_elements(&mut self, elements: u64) {
        self.add(1, Self::new(24, 32));
        if elements > 0 {
            // Their vector has room for four at least.
            self.add(elements.max(4), Self::new(0, 16));
        }
    }

    /// A function type that is unlike all others; twice if calls of the host go through a simpler one.
    pub fn add_function_type(&mut self, values: u64, simpler: bool) {
        let types = 1 + u64::from(simpler);
        self.add(types, TYPE);
        self.add(types.saturating_mul(values), Self::new(48, 0));
    }

    /// A type of what is collected: a struct, an array, an exception.
    pub fn add_collected_type(&mut self, fields: u64) {
        self.add(1, TYPE);
        self.add(1, Self::new(128, 0));
        self.add(fields, Self::new(72, 0));
    }

    /// All the supertypes of a type are kept with it.
    pub fn add_supertypes(&mut self, depth: u64) {
        self.add(1, Self::new(32, 0));
        self.add(depth, Self::new(4, 0));
    }
}

/// What every module takes that declares next to nothing.
pub(crate) const MODULE: Heap = Heap::new(4 << 10, 0);
/// A type in the engine's registry and in the module's lists.
const TYPE: Heap = Heap::new(400, 0);
/// An index of a type, be it like another or not; and its place among the trampolines.
pub(crate) const TYPE_INDEX: Heap = Heap::new(16, 0);
/// An import beside its names and its type.
pub(crate) const IMPORT: Heap = Heap::new(160, 32);
/// What an imported function takes more.
pub(crate) const IMPORTED_FUNCTION: Heap = Heap::new(12, 48);
pub(crate) const FUNCTION: Heap = Heap::new(24, 0);
/// A function of the module's own that something outside of its code can hold: exported, in an element
/// segment, in a global. It has a `VMFuncRef` in each instance, and an entry for the host.
pub(crate) const REFERENCED_FUNCTION: Heap = Heap::new(12, 32);
pub(crate) const FUNCTION_NAME: Heap = Heap::new(12, 0);
/// An export beside its name.
pub(crate) const EXPORT: Heap = Heap::new(72, 0);
pub(crate) const GLOBAL: Heap = Heap::new(72, 16);
pub(crate) const TAG: Heap = Heap::new(16, 8);
/// Beside its pages, or elements.
pub(crate) const MEMORY: Heap = Heap::new(160, 256);
pub(crate) const TABLE: Heap = Heap::new(80, 80);
/// A data segment that the instance must find: a passive one, or one that is not part of an image.
pub(crate) const DATA_SEGMENT: Heap = Heap::new(8, 12);
/// A collector and its heap's records.
pub(crate) const COLLECTOR: Heap = Heap::new(0, 1 << 10);

/// Counts the types that loaded modules have registered with the engine. Each module keeps a list as
/// long as the highest number that one of its types got, or twice that: numbers are given again, so
/// none is higher than the most types that there ever were at once.
#[derive(Debug, Default)]
pub(crate) struct TypeRegistry {
    now: AtomicU64,
    most: AtomicU64,
}

/// In steps of so many types, so that modules are seldom charged by what others are loaded; `MODULE` has
/// room for one step.
const TYPES: u64 = 128;

/// A module's types, until it is gone.
pub(crate) struct RegisteredTypes {
    registry: Arc<TypeRegistry>,
    types: u64,
    /// Bytes of the module's list.
    pub list: u64,
}

impl TypeRegistry {
    pub fn register(self: &Arc<Self>, types: u64) -> RegisteredTypes {
        let now = self.now.fetch_add(types, Relaxed).saturating_add(types);
        let most = self.most.fetch_max(now, Relaxed).max(now);
        RegisteredTypes {
            registry: self.clone(),
            types,
            list: most / TYPES * (TYPES * 8),
        }
    }
}

impl Drop for RegisteredTypes {
    fn drop(&mut self) {
        self.registry.now.fetch_sub(self.types, Relaxed);
    }
}
