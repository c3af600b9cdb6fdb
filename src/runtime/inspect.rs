//! What a module says of itself, read from its sections before anything is compiled.

use std::collections::BTreeMap;
use std::fmt;

use wasmparser::{
    CompositeInnerType, Data, DataKind, ElementItems, ElementKind, Encoding, ExternalKind,
    FuncType, Operator, Parser, Payload, TypeRef,
};

use super::imports::OwnNeeds;
use super::sizes::{self, PAGE};

/// Declared minimums and exports. Reading them, and the hash, cost less than a microsecond
/// for each kilobyte of wasm.
#[derive(Debug, Default, Clone)]
pub(crate) struct Facts {
    pub memories: u32,
    /// Sum of the declared minimums of its own memories.
    pub memory_bytes: u64,
    /// Sum of the declared minimums of its own tables, and the largest of them.
    pub table_elements: u64,
    pub largest_table: u64,
    /// Own and imported.
    pub functions: u32,
    /// What globals, imports, tags and passive element segments take in each instance.
    pub fixed_bytes: u64,
    /// The length of the code section.
    pub body_bytes: u64,
    pub has_data: bool,
    /// From the first to the last page that initial data touches, over all memories: the most that
    /// wasmtime keeps as copy-on-write images.
    pub image_bytes: u64,
    /// Exports by name; a function's with the place of its type in `types`.
    exports: BTreeMap<String, Option<usize>>,
    types: Vec<FuncType>,
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
    /// Valid WebAssembly that a budget could not hold to account.
    #[error("{what} cannot be charged to a budget, so it is not supported")]
    Unsupported {
        /// The feature.
        what: &'static str,
    },
}

pub(crate) fn inspect(wasm: &[u8]) -> Result<Facts, InspectError> {
    if !wasm.starts_with(b"\0asm") {
        let head = &wasm[..wasm.len().min(4)];
        let found = match head {
            [] => "no bytes at all".into(),
            b"\x7fELF" => "an ELF file, perhaps a compiled artifact".into(),
            _ => format!("bytes {head:02x?}, perhaps text"),
        };
        return Err(InspectError::NotWasm { found });
    }
    let mut reader = Reader::default();
    for payload in Parser::new(0).parse_all(wasm) {
        reader.payload(payload?)?;
    }
    Ok(reader.into_facts())
}

#[derive(Default)]
struct Reader<'a> {
    facts: Facts,
    /// The place of each type among the function types of `facts`.
    types: Vec<Option<usize>>,
    /// Type index of every function, imported ones first.
    functions: Vec<u32>,
    exports: Vec<(&'a str, Option<u32>)>,
    /// They come first in the order of memories.
    imported_memories: u32,
    /// First and last byte of initial data, by memory.
    images: BTreeMap<u32, (u64, u64)>,
}

impl<'a> Reader<'a> {
    fn payload(&mut self, payload: Payload<'a>) -> Result<(), InspectError> {
        match payload {
            Payload::Version {
                encoding: Encoding::Component,
                ..
            } => {
                return Err(InspectError::Component);
            }
            Payload::TypeSection(groups) => {
                for group in groups {
                    for ty in group?.into_types() {
                        let function = match ty.composite_type.inner {
                            CompositeInnerType::Func(function) => {
                                self.facts.types.push(function);
                                Some(self.facts.types.len() - 1)
                            }
                            _ => None,
                        };
                        self.types.push(function);
                    }
                }
            }
            Payload::ImportSection(imports) => {
                self.fixed(imports.count(), 64);
                for import in imports.into_imports() {
                    match import?.ty {
                        TypeRef::Func(ty) | TypeRef::FuncExact(ty) => self.functions.push(ty),
                        TypeRef::Memory(memory) => {
                            refuse_uncountable(&memory)?;
                            self.imported_memories = self.imported_memories.saturating_add(1);
                        }
                        _ => {}
                    }
                }
            }
            Payload::FunctionSection(functions) => {
                for ty in functions {
                    self.functions.push(ty?);
                }
            }
            Payload::TableSection(tables) => {
                for table in tables {
                    let elements = table?.ty.initial;
                    let facts = &mut self.facts;
                    facts.table_elements = facts.table_elements.saturating_add(elements);
                    facts.largest_table = facts.largest_table.max(elements);
                }
            }
            Payload::MemorySection(memories) => {
                for memory in memories {
                    self.memory(&memory?)?;
                }
            }
            Payload::CodeSectionStart { size, .. } => {
                self.facts.body_bytes = u64::from(size);
            }
            Payload::DataSection(segments) => {
                self.facts.has_data = segments.count() > 0;
                for segment in segments {
                    self.data(&segment?)?;
                }
            }
            Payload::GlobalSection(globals) => self.fixed(globals.count(), 16),
            Payload::TagSection(tags) => self.fixed(tags.count(), 16),
            Payload::ElementSection(segments) => {
                for segment in segments {
                    let segment = segment?;
                    let elements = match &segment.items {
                        ElementItems::Functions(items) => items.count(),
                        ElementItems::Expressions(_, items) => items.count(),
                    };
                    // Evaluated for each instance, and kept until it drops them.
                    if matches!(segment.kind, ElementKind::Passive) {
                        self.fixed(elements, 16);
                        self.fixed(1, 64);
                    }
                }
            }
            Payload::ExportSection(exports) => {
                for export in exports {
                    let export = export?;
                    let function =
                        matches!(export.kind, ExternalKind::Func | ExternalKind::FuncExact)
                            .then_some(export.index);
                    self.exports.push((export.name, function));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Counts are what the module claims: nothing has checked them yet.
    fn fixed(&mut self, count: u32, bytes: u64) {
        let more = u64::from(count).saturating_mul(bytes);
        self.facts.fixed_bytes = self.facts.fixed_bytes.saturating_add(more);
    }

    fn memory(&mut self, memory: &wasmparser::MemoryType) -> Result<(), InspectError> {
        refuse_uncountable(memory)?;
        const PAGE: u64 = 64 << 10;
        self.facts.memories = self.facts.memories.saturating_add(1);
        let bytes = memory.initial.saturating_mul(PAGE);
        self.facts.memory_bytes = self.facts.memory_bytes.saturating_add(bytes);
        Ok(())
    }

    /// Widens its memory's image by a segment that is placed when the instance is made.
    fn data(&mut self, segment: &Data<'_>) -> Result<(), InspectError> {
        let DataKind::Active {
            memory_index,
            offset_expr,
        } = &segment.kind
        else {
            return Ok(());
        };
        let start = match offset_expr.get_operators_reader().read()? {
            Operator::I32Const { value } => u64::from(value.cast_unsigned()),
            Operator::I64Const { value } => value.cast_unsigned(),
            // Known only to the host: then there is no image.
            _ => return Ok(()),
        };
        let end = start.saturating_add(segment.data.len() as u64);
        let image = self.images.entry(*memory_index).or_insert((start, end));
        *image = (image.0.min(start), image.1.max(end));
        Ok(())
    }

    fn into_facts(self) -> Facts {
        let Self {
            mut facts,
            types,
            functions,
            exports,
            imported_memories,
            images,
        } = self;
        let pages = |(start, end): &(u64, u64)| sizes::whole_pages(end - start / PAGE * PAGE);
        // Wasmtime keeps no images of a module that initializes a memory which is not its own: its data is
        // copied into each instance.
        let is_imported = |memory: &u32| *memory < imported_memories;
        if !images.keys().any(is_imported) {
            facts.image_bytes = images.values().map(pages).fold(0, u64::saturating_add);
        }
        facts.functions = u32::try_from(functions.len()).unwrap_or(u32::MAX);
        let type_of = |function: u32| {
            let ty = *functions.get(function as usize)?;
            *types.get(ty as usize)?
        };
        let exports = exports.into_iter();
        facts.exports = exports
            .map(|(name, f)| (name.to_owned(), f.and_then(type_of)))
            .collect();
        facts
    }
}

/// The limiter does not hear of a shared memory's growth, and cannot tell which failures of a
/// memory with pages of its own size come before its consent and which after.
fn refuse_uncountable(memory: &wasmparser::MemoryType) -> Result<(), InspectError> {
    if memory.shared {
        return Err(InspectError::Unsupported {
            what: "a shared memory",
        });
    }
    if memory.page_size_log2.is_some() {
        return Err(InspectError::Unsupported {
            what: "a memory with a page size of its own",
        });
    }
    Ok(())
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
        self.memory_bytes = self.memory_bytes.saturating_add(own.memory_bytes);
        self.table_elements = self.table_elements.saturating_add(own.table_elements);
        self.largest_table = self.largest_table.max(own.largest_table);
        self.fixed_bytes = self.fixed_bytes.saturating_add(own.heap_bytes);
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
            .map(|(name, ty)| format!("{name}{}", Types(ty)))
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
pub(crate) struct Types<'a>(pub &'a FuncType);

impl fmt::Display for Types<'_> {
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
        let facts = inspect(&wasm.expect("valid text")).expect("a module");
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
            inspect(&wasm.expect("valid text"))
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
            let _ = inspect(&wasm[..cut]);
        }
        assert!(matches!(
            inspect(&wasm[..60]),
            Err(InspectError::Malformed { .. })
        ));
    }
}
