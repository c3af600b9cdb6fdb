//! A loaded module and what it imports.

use std::sync::Arc;

use wasmtime::{
    Extern, ExternType, Global, GlobalType, InstancePre, Memory, MemoryType, MemoryTypeBuilder,
    Module, Ref, Store, Table, TableType, Val,
};

use super::import_types::PAGE;
use super::imports::{HostImports, Item, Own};
use super::instance::StoreData;

/// A module with its imports, ready to be instantiated in any store.
pub(crate) enum Linked<T: 'static> {
    /// It imports functions alone, which belong to no store.
    Functions(InstancePre<StoreData<T>>),
    /// Each instance gets memories, tables or globals of its own.
    WithItems(WithItems<T>),
}

pub(crate) struct WithItems<T: 'static> {
    module: Module,
    host: Arc<HostImports<T>>,
    /// What is made for each instance, and under which names it is imported.
    items: Vec<NewItem>,
    names: Arc<[ImportNames]>,
    /// For each import: its place in `items`; `None` for a function.
    imports: Vec<Option<usize>>,
}

struct ImportNames {
    module: Box<str>,
    name: Box<str>,
}

/// What was made for an instance to import.
pub(super) struct Imported {
    names: Arc<[ImportNames]>,
    items: Box<[Extern]>,
}

impl Imported {
    pub fn find(&self, module: &str, name: &str) -> Option<Extern> {
        let mut items = self.names.iter().zip(&self.items);
        let found = items.find(|(names, _)| (&*names.module, &*names.name) == (module, name));
        found.map(|(_, item)| item.clone())
    }
}

/// What is made in a store before its instance.
enum NewItem {
    Memory(MemoryType),
    Table(TableType),
    Global(GlobalType, Val),
}

/// A new instance.
pub(crate) struct Instantiated {
    pub instance: wasmtime::Instance,
    /// The first memory that was made for it.
    pub memory: Option<Memory>,
}

impl<T: 'static> Linked<T> {
    /// Fails if something is missing or of another type: then it always will.
    pub fn new(host: &Arc<HostImports<T>>, module: &Module) -> wasmtime::Result<Self> {
        let gives_items = |import: wasmtime::ImportType<'_>| {
            matches!(
                host.find(import.module(), import.name()),
                Some(Item::Own(_))
            )
        };
        if module.imports().any(gives_items) {
            return Ok(Self::WithItems(WithItems::new(host, module)?));
        }
        Ok(Self::Functions(host.linker().instantiate_pre(module)?))
    }

    pub fn instantiate(&self, store: &mut Store<StoreData<T>>) -> wasmtime::Result<Instantiated> {
        match self {
            Self::Functions(pre) => Ok(Instantiated {
                instance: pre.instantiate(store)?,
                memory: None,
            }),
            Self::WithItems(linked) => {
                let (imports, memory) = linked.imports(store)?;
                Ok(Instantiated {
                    instance: wasmtime::Instance::new(store, &linked.module, &imports)?,
                    memory,
                })
            }
        }
    }

    /// As `instantiate`, with the start function on a fiber.
    pub async fn instantiate_async(
        &self,
        store: &mut Store<StoreData<T>>,
    ) -> wasmtime::Result<Instantiated>
    where
        T: Send,
    {
        match self {
            Self::Functions(pre) => Ok(Instantiated {
                instance: pre.instantiate_async(store).await?,
                memory: None,
            }),
            Self::WithItems(linked) => {
                let (imports, memory) = linked.imports(store)?;
                let instance = wasmtime::Instance::new_async(store, &linked.module, &imports);
                Ok(Instantiated {
                    instance: instance.await?,
                    memory,
                })
            }
        }
    }
}

impl<T: 'static> WithItems<T> {
    fn new(host: &Arc<HostImports<T>>, module: &Module) -> wasmtime::Result<Self> {
        let mut items: Vec<NewItem> = Vec::new();
        let mut names = Vec::new();
        // An item that is imported twice is made once: its place in `items`, by its place at the host.
        let mut places = vec![None; host.own_items()];
        let mut imports = Vec::new();
        for import in module.imports() {
            let (module, name) = (import.module(), import.name());
            let fits = match (host.find(module, name), import.ty()) {
                (Some(Item::Own(own)), ty) => {
                    let place = *places[*own].get_or_insert(items.len());
                    imports.push(Some(place));
                    match items.get_mut(place) {
                        Some(item) => item.narrow(&ty),
                        None => NewItem::of(host.own(*own), ty).map(|item| {
                            items.push(item);
                            names.push(ImportNames {
                                module: module.into(),
                                name: name.into(),
                            });
                        }),
                    }
                }
                (Some(Item::Function(found)), ExternType::Func(expected)) => {
                    imports.push(None);
                    found.matches(&expected).then_some(())
                }
                _ => None,
            };
            if fits.is_none() {
                let message = format!("incompatible import type for `{module}::{name}`");
                return Err(wasmtime::Error::msg(message));
            }
        }
        Ok(Self {
            module: module.clone(),
            host: host.clone(),
            items,
            names: names.into(),
            imports,
        })
    }

    /// What the instance of this store imports, in order, and its first memory.
    fn imports(
        &self,
        store: &mut Store<StoreData<T>>,
    ) -> wasmtime::Result<(Vec<Extern>, Option<Memory>)> {
        let mut made = Vec::with_capacity(self.items.len());
        for item in &self.items {
            made.push(item.make(store)?);
        }
        let memory = made.iter().find_map(|item| item.clone().into_memory());
        store.data_mut().set_imported(Imported {
            names: self.names.clone(),
            items: made.clone().into(),
        });
        let mut externs = Vec::with_capacity(self.imports.len());
        for (import, place) in self.module.imports().zip(&self.imports) {
            externs.push(match place {
                Some(place) => made[*place].clone(),
                None => {
                    let (module, name) = (import.module(), import.name());
                    self.host.linker().get(&mut *store, module, name)?
                }
            });
        }
        Ok((externs, memory))
    }
}

impl NewItem {
    /// `None` if the module imports something else.
    fn of(own: &Own, ty: ExternType) -> Option<Self> {
        Some(match (own, ty) {
            (Own::Memory { minimum }, ExternType::Memory(ty)) => {
                let least = ty.minimum().max(minimum.div_ceil(PAGE));
                Self::Memory(memory_type(&ty, least, ty.maximum())?)
            }
            (Own::Table { minimum }, ExternType::Table(ty)) => {
                let least = ty.minimum().max(*minimum);
                Self::Table(table_type(&ty, least, ty.maximum())?)
            }
            (Own::Global(value), ExternType::Global(ty)) => Self::Global(ty, *value),
            _ => return None,
        })
    }

    /// The module imports the same item once more: it must be of both types.
    fn narrow(&mut self, again: &ExternType) -> Option<()> {
        match (&mut *self, again) {
            (Self::Memory(ty), ExternType::Memory(again)) => {
                let least = ty.minimum().max(again.minimum());
                *ty = memory_type(ty, least, tighter(ty.maximum(), again.maximum()))?;
            }
            (Self::Table(ty), ExternType::Table(again)) => {
                let least = ty.minimum().max(again.minimum());
                *ty = table_type(ty, least, tighter(ty.maximum(), again.maximum()))?;
            }
            // Wasmtime compares the rest for each instance.
            (Self::Global(..), ExternType::Global(_)) => {}
            _ => return None,
        }
        Some(())
    }

    fn make<T: 'static>(&self, store: &mut Store<StoreData<T>>) -> wasmtime::Result<Extern> {
        Ok(match self {
            Self::Memory(ty) => Memory::new(store, ty.clone())?.into(),
            Self::Table(ty) => {
                let empty = Ref::null(ty.element().heap_type());
                Table::new(store, ty.clone(), empty)?.into()
            }
            Self::Global(ty, value) => Global::new(store, ty.clone(), *value)?.into(),
        })
    }
}

fn tighter(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.into_iter().chain(other).min()
}

fn memory_type(ty: &MemoryType, least: u64, most: Option<u64>) -> Option<MemoryType> {
    let mut builder = MemoryTypeBuilder::new();
    builder.memory64(ty.is_64()).min(least).max(most);
    builder.build().ok()
}

fn table_type(ty: &TableType, least: u64, most: Option<u64>) -> Option<TableType> {
    if most.is_some_and(|most| most < least) {
        return None;
    }
    let element = ty.element().clone();
    if ty.is_64() {
        return Some(TableType::new64(element, least, most));
    }
    let least = u32::try_from(least).ok()?;
    let most = most.map(|most| u32::try_from(most).unwrap_or(u32::MAX));
    Some(TableType::new(element, least, most))
}
