//! What the host gives to modules that import, and whether a module can be linked with it: asked of
//! the module's sections, before anything is compiled.

use std::collections::HashMap;
use std::fmt;

use wasmparser::{
    AbstractHeapType as Abstract, CompositeInnerType, FuncType, HeapType as Declared, MemoryType,
    Parser, Payload, RecGroup, TableType, TypeRef, ValType as DeclaredValue,
};
use wasmtime::{
    Engine, Extern, Finality, Global, GlobalType, HeapType, InstancePre, Linker, Module,
    Mutability, Store, Val, ValType,
};

use super::inspect::Types;
use super::instance::StoreData;

/// What modules may import. It does not change once it is made, so that what links now links for ever.
pub(crate) struct HostImports<T: 'static> {
    linker: Linker<StoreData<T>>,
    /// What the linker has, by module and name.
    items: HashMap<Box<str>, HashMap<Box<str>, Item>>,
}

/// What the linker has under a name.
enum Item {
    Function(wasmtime::FuncType),
    /// Made in a store of the host's: no instance of the pool can have it.
    OfAStore(&'static str),
}

/// An import that the host provides nothing for.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    #[error("the module imports what the host does not provide: {}{}", list(imports), AndMore(*more))]
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
    pub fn new(linker: Linker<StoreData<T>>) -> Self {
        let items = items_of(&linker);
        Self { linker, items }
    }

    pub fn engine(&self) -> &Engine {
        self.linker.engine()
    }

    /// Fails if something is missing or of another type: then it always will.
    pub fn link(&self, module: &Module) -> wasmtime::Result<InstancePre<StoreData<T>>> {
        self.linker.instantiate_pre(module)
    }

    /// Whether a module's imports, by name and type, are all there. What only the compiler can compare
    /// (types of recursive groups, and references to such types) is left to the link.
    pub fn check(&self, wasm: &[u8]) -> Result<(), ImportError> {
        let mut check = Check {
            host: self,
            types: Vec::new(),
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

    fn find(&self, module: &str, name: &str) -> Option<&Item> {
        self.items.get(module)?.get(name)
    }
}

/// Everything in the linker, with its type. A store that holds nothing of the host's serves: nothing
/// is called.
fn items_of<T: 'static>(
    linker: &Linker<StoreData<T>>,
) -> HashMap<Box<str>, HashMap<Box<str>, Item>> {
    let mut store = Store::new(linker.engine(), StoreData::vacant());
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
            Some(Item::OfAStore(what)) => {
                let found = format!("a {what} that belongs to a store of the host's");
                self.mismatch(import, found);
            }
            Some(Item::Function(host)) => {
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

    fn verdict(self) -> Result<(), ImportError> {
        if !self.missing.is_empty() {
            return Err(ImportError::Missing {
                imports: self.missing,
                more: self.more,
            });
        }
        self.mismatch.map_or(Ok(()), Err)
    }

    fn describe(&self, ty: TypeRef) -> String {
        match ty {
            TypeRef::Func(index) | TypeRef::FuncExact(index) => match self.function(index) {
                Some((ty, _)) => format!("function {}", Types(ty)),
                None => "function".into(),
            },
            TypeRef::Memory(ty) => describe_memory(&ty),
            TypeRef::Table(ty) => describe_table(&ty),
            TypeRef::Global(ty) => describe_global(&ty),
            TypeRef::Tag(_) => "exception tag".into(),
        }
    }
}

/// Whether the host's function can be of the declared type. Function types are compared by identity:
/// one that stands alone is the same as any other that stands alone and has the same structure.
fn may_be(declared: &FuncType, host: &wasmtime::FuncType) -> bool {
    let plain = host.finality() == Finality::Final && host.supertype().is_none();
    let all = |declared: &[DeclaredValue], host: &mut dyn ExactSizeIterator<Item = ValType>| {
        declared.len() == host.len() && declared.iter().zip(host).all(|(d, h)| may_be_value(*d, &h))
    };
    !plain
        || all(declared.params(), &mut host.params())
            && all(declared.results(), &mut host.results())
}

/// Whether a type of the module can be the same as one of the host's.
fn may_be_value(declared: DeclaredValue, host: &ValType) -> bool {
    match (declared, host) {
        (DeclaredValue::I32, ValType::I32)
        | (DeclaredValue::I64, ValType::I64)
        | (DeclaredValue::F32, ValType::F32)
        | (DeclaredValue::F64, ValType::F64)
        | (DeclaredValue::V128, ValType::V128) => true,
        (DeclaredValue::Ref(declared), ValType::Ref(host)) => {
            declared.is_nullable() == host.is_nullable()
                && may_be_heap(declared.heap_type(), host.heap_type())
        }
        _ => false,
    }
}

fn may_be_heap(declared: Declared, host: &HeapType) -> bool {
    let Declared::Abstract { ty, .. } = declared else {
        // A type of the module's own: the host's must be one as well.
        return host.is_concrete();
    };
    match ty {
        Abstract::Func => matches!(host, HeapType::Func),
        Abstract::NoFunc => matches!(host, HeapType::NoFunc),
        Abstract::Extern => matches!(host, HeapType::Extern),
        Abstract::NoExtern => matches!(host, HeapType::NoExtern),
        Abstract::Any => matches!(host, HeapType::Any),
        Abstract::Eq => matches!(host, HeapType::Eq),
        Abstract::I31 => matches!(host, HeapType::I31),
        Abstract::Struct => matches!(host, HeapType::Struct),
        Abstract::Array => matches!(host, HeapType::Array),
        Abstract::None => matches!(host, HeapType::None),
        _ => true,
    }
}

/// Pages of wasm.
const PAGE: u64 = 64 << 10;

fn describe_memory(ty: &MemoryType) -> String {
    let index = if ty.memory64 { "64-bit " } else { "" };
    let bytes = |pages: u64| u128::from(pages) * u128::from(PAGE);
    let least = bytes(ty.initial);
    match ty.maximum {
        Some(pages) => format!("{index}memory of {least} to {} bytes", bytes(pages)),
        None => format!("{index}memory of {least} bytes or more"),
    }
}

fn describe_table(ty: &TableType) -> String {
    let index = if ty.table64 { "64-bit " } else { "" };
    let (element, least) = (ty.element_type, ty.initial);
    match ty.maximum {
        Some(most) => format!("{index}table of {least} to {most} {element}"),
        None => format!("{index}table of {least} {element} or more"),
    }
}

fn describe_global(ty: &wasmparser::GlobalType) -> String {
    let mutable = if ty.mutable { "mutable " } else { "" };
    format!("{mutable}global {}", ty.content_type)
}
