//! What a module says of itself, read from its sections before anything is compiled.

use std::collections::BTreeMap;
use std::fmt;

use wasmparser::{Encoding, FuncType, Parser, Payload};

use super::heap::Heap;
use super::imports::OwnNeeds;
use super::module_limits::{ModuleLimit, ModuleLimits, ModuleTooLarge};
use super::sections::Reader;

/// Declared minimums and exports. Reading them, and the hash, cost less than a microsecond
/// for each kilobyte of wasm.
#[derive(Debug, Default, Clone)]
pub(crate) struct Facts {
    pub memories: u32,
    /// Of those, what is made for each instance to import.
    pub own_memories: u32,
    /// Tables that it declares.
    pub tables: u32,
    /// Sum of the declared minimums of its own memories.
    pub memory_bytes: u64,
    /// The largest of them.
    pub largest_memory: u64,
    /// Sum of the declared minimums of its own tables.
    pub table_elements: u64,
    /// The largest of them.
    pub largest_table: u64,
    /// What wasmtime keeps of it on the heap.
    pub heap: Heap,
    /// Types that it registers with the engine, at most.
    pub type_count: u64,
    /// Whether it may have references to what is collected: then its instances have a GC heap.
    pub collects: bool,
    /// Functions of its own that something outside of its code can hold.
    pub referenced_functions: u64,
    /// Elements of tables whose first contents are known before there is an instance.
    pub table_image: u64,
    /// Active data segments.
    pub active_segments: u64,
    /// The largest image of initial data of which less than half is data; `None` if the segments do
    /// not make images.
    pub sparse_image: Option<u64>,
    /// The length of the code section.
    pub body_bytes: u64,
    /// Bytes of the largest body in it.
    pub largest_body: u64,
    pub has_data: bool,
    /// From the first to the last page that initial data touches, over all memories: the most that
    /// wasmtime keeps as copy-on-write images.
    pub image_bytes: u64,
    /// Exports by name; a function's with the place of its type in `types`.
    pub(super) exports: BTreeMap<String, Option<usize>>,
    pub(super) types: Vec<FuncType>,
}

/// Why bytes were not taken for a module, without compiling them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InspectError {
    /// The bytes do not begin as WebAssembly does.
    #[error("not WebAssembly: {found}")]
    NotWasm {
        /// What was found instead.
        found: String,
    },
    /// A component where a core module is needed.
    #[error("a WebAssembly component, where a core module is needed")]
    Component,
    /// The sections cannot be read: cut short, or garbage.
    #[error("malformed or truncated WebAssembly at byte {offset}: {message}")]
    Malformed {
        /// Where reading failed, in bytes from the start.
        offset: u64,
        /// What the parser says.
        message: String,
    },
    /// More of something than the pool's limits on modules allow: see
    /// [`PoolBuilder::module_limits`](crate::PoolBuilder::module_limits).
    #[error("the module is too large: {0}")]
    TooLarge(ModuleTooLarge),
    /// Valid WebAssembly that a budget could not hold to account.
    #[error("{what} cannot be charged to a budget, so it is not supported")]
    Unsupported {
        /// The feature.
        what: &'static str,
    },
}

pub(crate) fn inspect(wasm: &[u8], limits: &ModuleLimits) -> Result<Facts, InspectError> {
    limits.check(ModuleLimit::WasmBytes, wasm.len() as u64)?;
    if !wasm.starts_with(b"\0asm") {
        let head = &wasm[..wasm.len().min(4)];
        let found = match head {
            [] => "no bytes at all".into(),
            b"\x7fELF" => "an ELF file, perhaps a compiled artifact".into(),
            _ => format!("bytes {head:02x?}, perhaps text"),
        };
        return Err(InspectError::NotWasm { found });
    }
    let mut reader = Reader::new(limits);
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload?;
        if let Payload::Version {
            encoding: Encoding::Component,
            ..
        } = payload
        {
            return Err(InspectError::Component);
        }
        reader.payload(payload)?;
    }
    Ok(reader.into_facts())
}

impl From<ModuleTooLarge> for InspectError {
    fn from(error: ModuleTooLarge) -> Self {
        Self::TooLarge(error)
    }
}

impl From<wasmparser::BinaryReaderError> for InspectError {
    fn from(error: wasmparser::BinaryReaderError) -> Self {
        Self::Malformed {
            offset: error.offset() as u64,
            message: error.message().to_owned(),
        }
    }
}

impl Facts {
    /// The type of an exported function.
    pub fn export(&self, name: &str) -> Option<&FuncType> {
        self.types.get((*self.exports.get(name)?)?)
    }

    /// What each instance gets of its own, to import, is charged as what the module declares.
    pub fn add_own(&mut self, own: &OwnNeeds) {
        self.memories = self.memories.saturating_add(own.memories);
        self.own_memories = own.memories;
        self.memory_bytes = self.memory_bytes.saturating_add(own.memory_bytes);
        self.table_elements = self.table_elements.saturating_add(own.table_elements);
        self.largest_table = self.largest_table.max(own.largest_table);
        self.heap.instance = self.heap.instance.saturating_add(own.heap_bytes);
    }

    /// Bytes by which one module is told to be smaller to compile than another, without a look at its operators: the
    /// compiler's heap and its time grow with the code, and much faster with the largest body.
    pub fn compile_rank(&self) -> u64 {
        let (all, largest) = (self.body_bytes, self.largest_body);
        all.saturating_mul(40)
            .saturating_add(largest.saturating_mul(1_000))
    }

    /// Forgets what only the check of an export needs.
    pub fn forget_exports(&mut self) {
        self.exports.clear();
        self.types = Vec::new();
    }

    /// The exported functions with their types, for an error that says what there is.
    pub fn describe_exports(&self) -> String {
        const SHOWN: usize = 8;
        let functions = || {
            let exports = self.exports.iter();
            exports.filter_map(|(name, ty)| Some((name, self.types.get((*ty)?)?)))
        };
        let shown = functions().take(SHOWN);
        let mut names: Vec<_> = shown
            .map(|(name, ty)| format!("{name}{}", TypeText(ty)))
            .collect();
        match functions().count() {
            0 => names.push("none".into()),
            count if count > SHOWN => names.push(format!("and {} more", count - SHOWN)),
            _ => {}
        }
        names.join(", ")
    }
}

/// A function type as people write it: `(i64, i64) -> i64`.
pub(crate) struct TypeText<'a>(pub &'a FuncType);

impl fmt::Display for TypeText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |types: &[wasmparser::ValType]| {
            const SHOWN: usize = 16;
            let more = (types.len() > SHOWN).then(|| format!("{} more", types.len() - SHOWN));
            let shown = types.iter().take(SHOWN).map(ToString::to_string);
            shown.chain(more).collect::<Vec<_>>().join(", ")
        };
        write!(f, "({}) -> ", list(self.0.params()))?;
        match self.0.results() {
            [] => f.write_str("()"),
            [one] => write!(f, "{one}"),
            many => write!(f, "({})", list(many)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_minimums_add_up() {
        let wasm = wat::parse_str(
            r#"(module (memory 1 9) (table 10 funcref) (table 5 funcref)
               (func (export "f") (param i64 f32) (result i32) unreachable))"#,
        );
        let facts = inspect(&wasm.expect("valid text"), &ModuleLimits::new()).expect("a module");
        assert_eq!(
            (facts.memories, facts.memory_bytes, facts.table_elements),
            (1, 65_536, 15)
        );
        assert_eq!(facts.describe_exports(), "f(i64, f32) -> i32");
    }

    #[test]
    fn a_module_that_initializes_an_imported_memory_has_no_image() {
        let image = |import: &str| {
            let wasm = wat::parse_str(format!(
                r#"(module {import} (memory $own 1) (data (memory $own) (i32.const 0) "own"))"#
            ));
            inspect(&wasm.expect("valid text"), &ModuleLimits::new())
                .expect("a module")
                .image_bytes
        };
        let import = r#"(import "env" "memory" (memory 1))"#;
        assert_eq!(image(""), 4096);
        assert_eq!(image(import), 4096);
        assert_eq!(
            image(&format!(r#"{import} (data (memory 0) (i32.const 0) "x")"#)),
            0
        );
    }

    #[test]
    fn every_truncation_is_an_error_or_a_smaller_module() {
        let wasm = include_bytes!("../../examples/guests/prebuilt/math_add.wasm");
        for cut in 0..wasm.len() {
            let _ = inspect(&wasm[..cut], &ModuleLimits::new());
        }
        assert!(matches!(
            inspect(&wasm[..60], &ModuleLimits::new()),
            Err(InspectError::Malformed { .. })
        ));
    }
}
