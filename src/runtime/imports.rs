//! What the host gives to modules that import, and whether a module can be linked with it: asked of
//! the module's sections, before anything is compiled.

use std::collections::HashMap;
use std::fmt;

use wasmparser::{
    CompositeInnerType, FuncType, MemoryType, Parser, Payload, RecGroup, TableType, TypeRef,
};
use wasmtime::{Engine, Extern, Global, GlobalType, Linker, Mutability, Store, Val, ValType};

use super::import_types::{
    PAGE, both, describe_global, describe_memory, describe_table, is_possible, may_be, may_hold,
    value_name,
};
use super::inspect::TypeText;
use super::instance::StoreData;
use super::sizes;

/// What modules may import. It does not change once it is made, so that what links now links for ever.
pub(crate) struct HostImports<T: 'static> {
    linker: Linker<StoreData<T>>,
    /// What each instance gets of its own.
    own: Vec<OwnItem>,
    /// All of it, by module and name.
    items: HashMap<Box<str>, HashMap<Box<str>, Item>>,
    /// Names these imports among all that there are.
    uid: u64,
}

/// What there is under a name.
pub(super) enum Item {
    Function(wasmtime::FuncType),
    /// Made for each instance: its place in `own`.
    Own(usize),
    /// Made in a store of the host's: no instance of the pool can have it.
    OfAStore(&'static str),
}

/// Something that is made for each instance, and under which names.
pub(crate) struct OwnItem {
    pub module: Box<str>,
    pub name: Box<str>,
    pub own: Own,
}

/// What is made for each instance, of the type that its module asks for.
pub(crate) enum Own {
    /// Of so many bytes at least.
    Memory { minimum: u64 },
    /// Of so many elements at least, all of them null.
    Table { minimum: u64 },
    /// Of this value at first.
    Global(Val),
}

/// What a module gets of its own for each instance, in numbers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct OwnNeeds {
    pub memories: u32,
    pub memory_bytes: u64,
    pub table_elements: u64,
    pub largest_table: u64,
    /// Host heap that wasmtime takes for making them.
    pub heap_bytes: u64,
}

/// An import that the host provides nothing for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct MissingImport {
    /// The import's module name.
    pub module: String,
    /// The import's name.
    pub name: String,
    /// What the module expects, as in `function (i32) -> ()`.
    pub expected: String,
}

impl fmt::Display for MissingImport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            module,
            name,
            expected,
        } = self;
        write!(f, "{module:?} {name:?} ({expected})")
    }
}

/// Why a module can never be linked with what the host provides.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The host provides nothing under these names.
    #[error(
        "the module imports what the host does not provide: {}{}. What the pool's linker lacks, be it \
         functions, memories, tables or globals, a definition can be given by `Pool::imports`",
        list(imports),
        AndMore(*more)
    )]
    Missing {
        /// The first eight.
        imports: Vec<MissingImport>,
        /// How many more are missing.
        more: usize,
    },
    /// What the host provides is of another type.
    #[error("the module imports {module:?} {name:?} as {expected}, and the host provides {found}")]
    Mismatch {
        /// The import's module name.
        module: String,
        /// The import's name.
        name: String,
        /// What the module expects.
        expected: String,
        /// What the host has under this name.
        found: String,
    },
}

fn list(imports: &[MissingImport]) -> String {
    let imports: Vec<_> = imports.iter().map(ToString::to_string).collect();
    imports.join(", ")
}

/// The end of a list that is not shown whole.
struct AndMore(usize);

impl fmt::Display for AndMore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl<T: 'static> HostImports<T> {
    pub fn new(linker: Linker<StoreData<T>>, own: Vec<OwnItem>, uid: u64) -> Self {
        let mut items = items_of(&linker);
        for (place, item) in own.iter().enumerate() {
            let names = items.entry(item.module.clone()).or_default();
            names.insert(item.name.clone(), Item::Own(place));
        }
        Self {
            linker,
            own,
            items,
            uid,
        }
    }

    pub fn uid(&self) -> u64 {
        self.uid
    }

    pub fn linker(&self) -> &Linker<StoreData<T>> {
        &self.linker
    }

    pub(super) fn own_items(&self) -> usize {
        self.own.len()
    }

    pub(super) fn own(&self, place: usize) -> &Own {
        &self.own[place].own
    }

    pub fn engine(&self) -> &Engine {
        self.linker.engine()
    }

    /// Whether a module's imports, by name and type, are all there; and what of it each instance gets of
    /// its own. What only the compiler can compare (types of recursive groups, and references to such
    /// types) is left to the link.
    pub fn check(&self, wasm: &[u8]) -> Result<OwnNeeds, ImportError> {
        let mut check = Check {
            host: self,
            types: Vec::new(),
            own: vec![None; self.own.len()],
            functions: 0,
            missing: Vec::new(),
            more: 0,
            mismatch: None,
        };
        for payload in Parser::new(0).parse_all(wasm) {
            // Types and imports come first. What cannot be read is not this function's to report.
            match payload {
                Ok(Payload::TypeSection(groups)) => {
                    groups
                        .into_iter()
                        .flatten()
                        .for_each(|group| check.types(group));
                }
                Ok(Payload::ImportSection(imports)) => {
                    let imports = imports.into_imports().flatten();
                    imports.for_each(|import| check.import(&import));
                }
                Ok(Payload::FunctionSection(_) | Payload::CodeSectionStart { .. }) | Err(_) => {
                    break;
                }
                Ok(_) => {}
            }
        }
        check.verdict()
    }

    pub(super) fn find(&self, module: &str, name: &str) -> Option<&Item> {
        self.items.get(module)?.get(name)
    }
}

/// Everything in the linker, with its type. A store that holds nothing of the host's serves: nothing
/// is called.
fn items_of<T: 'static>(
    linker: &Linker<StoreData<T>>,
) -> HashMap<Box<str>, HashMap<Box<str>, Item>> {
    let mut store = Store::new(linker.engine(), StoreData::vacant(linker.engine()));
    let found: Vec<_> = linker.iter(&mut store).collect();
    let mut items: HashMap<Box<str>, HashMap<Box<str>, Item>> = HashMap::new();
    for (module, name, item) in found {
        let item = match item {
            Extern::Func(function) => {
                // Only a value of this store passes for one: that is the question.
                let ty = GlobalType::new(ValType::FUNCREF, Mutability::Const);
                match Global::new(&mut store, ty, Val::FuncRef(Some(function))) {
                    Ok(_) => Item::Function(function.ty(&store)),
                    Err(_) => Item::OfAStore("function"),
                }
            }
            Extern::Memory(_) | Extern::SharedMemory(_) => Item::OfAStore("memory"),
            Extern::Table(_) => Item::OfAStore("table"),
            Extern::Global(_) => Item::OfAStore("global"),
            _ => Item::OfAStore("tag"),
        };
        items
            .entry(module.into())
            .or_default()
            .insert(name.into(), item);
    }
    items
}

/// Goes through a module's imports.
struct Check<'a, T: 'static> {
    host: &'a HostImports<T>,
    /// The module's function types, by index; and whether their identity is their structure.
    types: Vec<Option<(FuncType, bool)>>,
    /// The type of each item that is made for each instance, if the module imports it.
    own: Vec<Option<TypeRef>>,
    /// How many functions it imports.
    functions: u64,
    missing: Vec<MissingImport>,
    more: usize,
    /// The first.
    mismatch: Option<ImportError>,
}

impl<T: 'static> Check<'_, T> {
    fn types(&mut self, group: RecGroup) {
        let alone = group.types().len() == 1;
        for ty in group.into_types() {
            let plain = alone && ty.is_final && ty.supertype_idx.is_none();
            self.types.push(match ty.composite_type.inner {
                CompositeInnerType::Func(function) => Some((function, plain)),
                _ => None,
            });
        }
    }

    fn import(&mut self, import: &wasmparser::Import<'_>) {
        match self.host.find(import.module, import.name) {
            None => self.miss(import),
            Some(Item::Own(place)) => {
                let own = self.host.own(*place);
                let before = self.own[*place];
                match own.made_for(import.ty).and_then(|ty| both(before, ty)) {
                    Some(ty) => self.own[*place] = Some(ty),
                    None => self.mismatch(import, own.describe()),
                }
            }
            Some(Item::OfAStore(what)) => {
                let found = format!("a {what} that belongs to a store of the host's");
                self.mismatch(import, found);
            }
            Some(Item::Function(host)) => {
                self.functions += 1;
                let agrees = match import.ty {
                    TypeRef::Func(index) | TypeRef::FuncExact(index) => {
                        // An index that leads nowhere is for the compiler to report.
                        self.function(index)
                            .is_none_or(|(declared, plain)| !plain || may_be(declared, host))
                    }
                    _ => false,
                };
                if !agrees {
                    self.mismatch(import, format!("function {host}"));
                }
            }
        }
    }

    fn function(&self, index: u32) -> Option<&(FuncType, bool)> {
        self.types.get(index as usize)?.as_ref()
    }

    fn miss(&mut self, import: &wasmparser::Import<'_>) {
        const SHOWN: usize = 8;
        if self.missing.len() == SHOWN {
            self.more += 1;
            return;
        }
        self.missing.push(MissingImport {
            module: import.module.to_owned(),
            name: import.name.to_owned(),
            expected: self.describe(import.ty),
        });
    }

    fn mismatch(&mut self, import: &wasmparser::Import<'_>, found: String) {
        if self.mismatch.is_none() {
            self.mismatch = Some(ImportError::Mismatch {
                module: import.module.to_owned(),
                name: import.name.to_owned(),
                expected: self.describe(import.ty),
                found,
            });
        }
    }

    fn verdict(self) -> Result<OwnNeeds, ImportError> {
        if !self.missing.is_empty() {
            return Err(ImportError::Missing {
                imports: self.missing,
                more: self.more,
            });
        }
        match self.mismatch {
            None => Ok(OwnNeeds::of(self.own.iter().flatten(), self.functions)),
            Some(error) => Err(error),
        }
    }

    fn describe(&self, ty: TypeRef) -> String {
        match ty {
            TypeRef::Func(index) | TypeRef::FuncExact(index) => match self.function(index) {
                Some((ty, _)) => format!("function {}", TypeText(ty)),
                None => "function".into(),
            },
            TypeRef::Memory(ty) => describe_memory(&ty),
            TypeRef::Table(ty) => describe_table(&ty),
            TypeRef::Global(ty) => describe_global(&ty),
            TypeRef::Tag(_) => "exception tag".into(),
        }
    }
}

impl Own {
    /// The type of what is made for an import of this type; `None` if nothing can be.
    fn made_for(&self, ty: TypeRef) -> Option<TypeRef> {
        let ty = match (self, ty) {
            (Self::Memory { minimum }, TypeRef::Memory(ty)) => TypeRef::Memory(MemoryType {
                initial: ty.initial.max(minimum.div_ceil(PAGE)),
                ..ty
            }),
            (Self::Table { minimum }, TypeRef::Table(ty)) => TypeRef::Table(TableType {
                initial: ty.initial.max(*minimum),
                ..ty
            }),
            (Self::Global(value), TypeRef::Global(ty)) if may_hold(ty.content_type, value) => {
                TypeRef::Global(ty)
            }
            _ => return None,
        };
        is_possible(&ty).then_some(ty)
    }

    fn describe(&self) -> String {
        match self {
            Self::Memory { minimum: 0 } => "memory".into(),
            Self::Memory { minimum } => format!("memory of {minimum} bytes or more"),
            Self::Table { minimum: 0 } => "table of nulls".into(),
            Self::Table { minimum } => format!("table of {minimum} nulls or more"),
            Self::Global(value) => format!("global {}", value_name(value)),
        }
    }
}

impl OwnNeeds {
    fn of<'a>(types: impl Iterator<Item = &'a TypeRef>, functions: u64) -> Self {
        let mut needs = Self::default();
        for ty in types {
            let heap = match ty {
                TypeRef::Memory(ty) => {
                    let bytes = ty.initial.saturating_mul(PAGE);
                    needs.memories += 1;
                    needs.memory_bytes = needs.memory_bytes.saturating_add(bytes);
                    sizes::OWN_MEMORY
                }
                TypeRef::Table(ty) => {
                    needs.table_elements = needs.table_elements.saturating_add(ty.initial);
                    needs.largest_table = needs.largest_table.max(ty.initial);
                    sizes::OWN_TABLE
                }
                _ => sizes::OWN_GLOBAL,
            };
            needs.heap_bytes = needs.heap_bytes.saturating_add(heap);
        }
        if needs != Self::default() {
            let heap = functions.saturating_mul(sizes::FUNCTION_BESIDE_OWN);
            needs.heap_bytes = needs.heap_bytes.saturating_add(heap);
        }
        needs
    }
}
