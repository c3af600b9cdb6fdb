//! Reads the sections of a module, from the first to the last. Of function bodies it looks only at what a limit could refuse.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use wasmparser::{
    AbstractHeapType, CompositeInnerType, ConstExpr, CustomSectionReader, Data, DataKind, Element,
    ElementItems, ElementKind, ExternalKind, FuncType, FunctionBody, Global, HeapType, Import,
    KnownCustom, MemoryType, Name, Operator, Payload, RefType, SubType, Table, TableInit, TypeRef,
    ValType,
};

use super::bodies::{self, Arity, Scan, Signatures};
use super::heap;
use super::inspect::{Facts, InspectError};
use super::module_limits::{ModuleLimit, ModuleLimits};
use super::sizes::{self, PAGE};

/// wasmtime keeps images of tables with so many elements at most.
const LARGEST_TABLE_IMAGE: u64 = 1 << 20;

#[derive(Default)]
pub(super) struct Reader<'a> {
    limits: ModuleLimits,
    facts: Facts,
    types: Vec<Type>,
    /// Plain function types, by their place among the function types of `facts`.
    plain: HashTable<usize>,
    hasher: RandomState,
    /// Every function, imported ones first.
    functions: Vec<Function>,
    imports: u64,
    /// Data and element segments.
    segments: u64,
    /// The function whose body comes next.
    next_body: u32,
    scan: Scan,
    function_names: u64,
    /// Every table, imported ones first.
    tables: Vec<TableImage>,
    imported_memories: u32,
    /// Bytes of its own memories.
    memories: Vec<u64>,
    exports: Vec<(&'a str, Option<u32>)>,
    /// The module that was imported from last.
    import_module: &'a str,
    /// Initial data, by memory.
    images: BTreeMap<u32, Image>,
    /// Some initial data is not part of an image.
    loose: bool,
}

#[derive(Default)]
struct Type {
    /// Its place among the function types of `facts`.
    function: Option<usize>,
    /// How many supertypes it has.
    depth: u64,
    /// Whether exceptions of this type have one of their own.
    thrown: bool,
}

struct Function {
    ty: u32,
    /// Whether an instance has to have something to refer to it by.
    referenced: bool,
}

/// What is known of a table's first contents before there is an instance.
#[derive(Default)]
struct TableImage {
    elements: u64,
    /// Up to where they are known.
    filled: u64,
}

/// Initial data of a memory, from its first to behind its last byte.
struct Image {
    start: u64,
    end: u64,
    /// Without what lies between segments.
    data: u64,
}

impl<'a> Reader<'a> {
    pub fn new(limits: &ModuleLimits) -> Self {
        Self {
            limits: *limits,
            ..Self::default()
        }
    }

    /// What a section says that it has is checked before it is read.
    pub fn payload(&mut self, payload: Payload<'a>) -> Result<(), InspectError> {
        self.check(&payload)?;
        match payload {
            Payload::TypeSection(groups) => {
                for group in groups {
                    let group = group?;
                    let alone = !group.is_explicit_rec_group();
                    for ty in group.into_types() {
                        self.ty(ty, alone);
                        let types = self.types.len() as u64;
                        self.limits.check(ModuleLimit::Types, types)?;
                    }
                }
            }
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    self.imports += 1;
                    self.limits.check(ModuleLimit::Imports, self.imports)?;
                    self.import(&import?)?;
                }
            }
            Payload::FunctionSection(functions) => {
                self.next_body = self.functions.len() as u32;
                for ty in functions {
                    self.function(ty?, heap::FUNCTION);
                }
            }
            Payload::CodeSectionEntry(body) => self.body(&body)?,
            Payload::TableSection(tables) => {
                for table in tables {
                    self.table(&table?)?;
                }
            }
            Payload::MemorySection(memories) => {
                for memory in memories {
                    self.memory(&memory?)?;
                }
            }
            Payload::TagSection(tags) => {
                for tag in tags {
                    self.facts.heap.add(1, heap::TAG);
                    self.tag(tag?.func_type_idx);
                }
            }
            Payload::GlobalSection(globals) => {
                for global in globals {
                    self.global(&global?)?;
                }
            }
            Payload::ExportSection(exports) => {
                for export in exports {
                    self.export(&export?);
                }
            }
            Payload::ElementSection(segments) => {
                for segment in segments {
                    self.elements(segment?)?;
                }
            }
            Payload::CodeSectionStart { size, .. } => self.facts.body_bytes = u64::from(size),
            Payload::DataSection(segments) => {
                self.facts.has_data = segments.count() > 0;
                for segment in segments {
                    self.data(&segment?)?;
                }
            }
            Payload::CustomSection(section) => self.names(&section),
            _ => {}
        }
        Ok(())
    }

    fn check(&mut self, payload: &Payload<'_>) -> Result<(), InspectError> {
        let (what, count) = match payload {
            Payload::TypeSection(section) => (ModuleLimit::Types, section.count()),
            Payload::FunctionSection(section) => (ModuleLimit::Functions, section.count()),
            Payload::TableSection(section) => (ModuleLimit::Tables, section.count()),
            Payload::MemorySection(section) => (ModuleLimit::Memories, section.count()),
            Payload::GlobalSection(section) => (ModuleLimit::Globals, section.count()),
            Payload::ExportSection(section) => (ModuleLimit::Exports, section.count()),
            Payload::ElementSection(section) => (ModuleLimit::Segments, section.count()),
            Payload::DataSection(section) => (ModuleLimit::Segments, section.count()),
            _ => return Ok(()),
        };
        let mut count = u64::from(count);
        if what == ModuleLimit::Segments {
            self.segments += count;
            count = self.segments;
        }
        Ok(self.limits.check(what, count)?)
    }

    /// Operators are read only where there may be too many of those that are limited: of an ordinary module, where
    /// limits are not strict, of few bodies.
    fn body(&mut self, body: &FunctionBody<'a>) -> Result<(), InspectError> {
        let function = Some(self.next_body);
        self.next_body += 1;
        let bytes = body.range().len() as u64;
        self.facts.largest_body = self.facts.largest_body.max(bytes);
        let check = |what, found| self.limits.check_in(what, found, function);
        check(ModuleLimit::BodyBytes, bytes)?;
        check(ModuleLimit::Locals, bodies::locals_of(body)?)?;
        // A block takes three bytes, an entry one.
        let may_nest = bytes / 3 > self.limits.get(ModuleLimit::Nesting);
        if may_nest || bytes > self.limits.get(ModuleLimit::BrTableEntries) {
            let counted = self
                .scan
                .body(body, Arity::default(), &Signatures::default())?;
            check(ModuleLimit::Nesting, counted.nesting)?;
            check(ModuleLimit::BrTableEntries, counted.br_table_entries)?;
        }
        Ok(())
    }

    /// `alone`: in no group whose types refer to each other.
    fn ty(&mut self, ty: SubType, alone: bool) {
        self.facts.heap.add(1, heap::TYPE_INDEX);
        let supertype = ty.supertype_idx.map(|index| index.unpack());
        let supertype = supertype.and_then(|index| index.as_module_index());
        let plain = alone && ty.is_final && supertype.is_none();
        let depth = supertype.map_or(0, |supertype| {
            let supertype = self.types.get(supertype as usize);
            supertype.map_or(1, |supertype| supertype.depth + 1)
        });
        if depth > 0 {
            self.facts.heap.add_supertypes(depth);
        }
        let function = match ty.composite_type.inner {
            CompositeInnerType::Func(function) => Some(self.function_type(function, plain)),
            CompositeInnerType::Array(_) => {
                self.collected_type(1);
                None
            }
            CompositeInnerType::Struct(structure) => {
                self.collected_type(structure.fields.len());
                None
            }
            CompositeInnerType::Cont(_) => {
                self.collected_type(0);
                None
            }
        };
        self.types.push(Type {
            function,
            depth,
            thrown: false,
        });
    }

    fn function_type(&mut self, function: FuncType, plain: bool) -> usize {
        let values = || function.params().iter().chain(function.results());
        self.facts.collects |= values().any(|value| is_collected(*value));
        let simple = values().all(|value| is_simple(*value));
        let types = &mut self.facts.types;
        let hash = |function: &FuncType| self.hasher.hash_one(function);
        let is_known = |place: &usize| types[*place] == function;
        if plain && simple {
            // Equal ones are one.
            let hash_of = |place: &usize| hash(&types[*place]);
            match self.plain.entry(hash(&function), is_known, hash_of) {
                hashbrown::hash_table::Entry::Occupied(known) => return *known.get(),
                hashbrown::hash_table::Entry::Vacant(new) => new.insert(types.len()),
            };
        }
        self.facts.type_count += 1 + u64::from(!simple);
        self.facts
            .heap
            .add_function_type(values().count() as u64, !simple);
        types.push(function);
        types.len() - 1
    }

    fn collected_type(&mut self, fields: usize) {
        self.facts.collects = true;
        self.facts.type_count += 1;
        self.facts.heap.add_collected_type(fields as u64);
    }

    fn import(&mut self, import: &Import<'a>) -> Result<(), InspectError> {
        let heap = &mut self.facts.heap;
        heap.add(1, heap::IMPORT);
        if import.module != self.import_module {
            heap.add_name(import.module);
            self.import_module = import.module;
        }
        heap.add_name(import.name);
        match import.ty {
            TypeRef::Func(ty) | TypeRef::FuncExact(ty) => {
                self.function(ty, heap::IMPORTED_FUNCTION);
                // That is part of the import.
                if let Some(function) = self.functions.last_mut() {
                    function.referenced = true;
                }
            }
            TypeRef::Memory(memory) => {
                refuse_uncountable(&memory)?;
                self.imported_memories += 1;
            }
            TypeRef::Table(table) => {
                self.facts.collects |= is_collected(ValType::Ref(table.element_type));
                self.tables.push(TableImage::default());
            }
            TypeRef::Global(global) => {
                self.facts.collects |= is_collected(global.content_type);
            }
            TypeRef::Tag(tag) => self.tag(tag.func_type_idx),
        }
        Ok(())
    }

    fn function(&mut self, ty: u32, heap: heap::Heap) {
        self.facts.heap.add(1, heap);
        self.functions.push(Function {
            ty,
            referenced: false,
        });
    }

    fn refer_to(&mut self, function: u32) {
        if let Some(function) = self.functions.get_mut(function as usize)
            && !function.referenced
        {
            function.referenced = true;
            self.facts.referenced_functions += 1;
            self.facts.heap.add(1, heap::REFERENCED_FUNCTION);
        }
    }

    /// Functions that the value of an expression may be.
    fn expression(&mut self, expression: &ConstExpr<'_>) -> Result<(), InspectError> {
        for operator in expression.get_operators_reader() {
            if let Operator::RefFunc { function_index } = operator? {
                self.refer_to(function_index);
            }
        }
        Ok(())
    }

    fn table(&mut self, table: &Table<'_>) -> Result<(), InspectError> {
        let elements = table.ty.initial;
        let facts = &mut self.facts;
        facts.heap.add(1, heap::TABLE);
        facts.tables = facts.tables.saturating_add(1);
        facts.table_elements = facts.table_elements.saturating_add(elements);
        facts.largest_table = facts.largest_table.max(elements);
        facts.collects |= is_collected(ValType::Ref(table.ty.element_type));
        let mut image = TableImage {
            elements,
            filled: 0,
        };
        if let TableInit::Expr(expression) = &table.init {
            self.expression(expression)?;
            if elements <= LARGEST_TABLE_IMAGE {
                image.filled = elements;
            }
        }
        self.tables.push(image);
        Ok(())
    }

    fn memory(&mut self, memory: &MemoryType) -> Result<(), InspectError> {
        refuse_uncountable(memory)?;
        const PAGE: u64 = 64 << 10;
        let bytes = memory.initial.saturating_mul(PAGE);
        self.memories.push(bytes);
        let facts = &mut self.facts;
        facts.memories = facts.memories.saturating_add(1);
        facts.heap.add(1, heap::MEMORY);
        facts.memory_bytes = facts.memory_bytes.saturating_add(bytes);
        facts.largest_memory = facts.largest_memory.max(bytes);
        Ok(())
    }

    /// Each type of exceptions has a type of objects.
    fn tag(&mut self, ty: u32) {
        self.facts.collects = true;
        let Some(ty) = self.types.get_mut(ty as usize) else {
            return;
        };
        if let (Some(function), false) = (ty.function, ty.thrown) {
            ty.thrown = true;
            let params = self.facts.types[function].params().len();
            self.collected_type(params);
        }
    }

    fn global(&mut self, global: &Global<'_>) -> Result<(), InspectError> {
        self.facts.heap.add(1, heap::GLOBAL);
        self.facts.collects |= is_collected(global.ty.content_type);
        self.expression(&global.init_expr)
    }

    fn export(&mut self, export: &wasmparser::Export<'a>) {
        self.facts.heap.add(1, heap::EXPORT);
        self.facts.heap.add_name(export.name);
        let is_function = matches!(export.kind, ExternalKind::Func | ExternalKind::FuncExact);
        let function = is_function.then_some(export.index);
        self.exports.push((export.name, function));
        if let Some(function) = function {
            self.refer_to(function);
        }
    }

    fn elements(&mut self, segment: Element<'_>) -> Result<(), InspectError> {
        let count = match segment.items {
            ElementItems::Functions(items) => {
                let count = items.count();
                for function in items {
                    self.refer_to(function?);
                }
                count
            }
            ElementItems::Expressions(ty, items) => {
                self.facts.collects |= is_collected(ValType::Ref(ty));
                let count = items.count();
                for expression in items {
                    self.expression(&expression?)?;
                }
                count
            }
        };
        match segment.kind {
            ElementKind::Passive => self.facts.heap.add_passive_elements(u64::from(count)),
            ElementKind::Active {
                table_index,
                offset_expr,
            } => {
                let table = self.tables.get_mut(table_index.unwrap_or(0) as usize);
                if let (Some(table), Some(start)) = (table, constant(&offset_expr)?) {
                    let end = start.saturating_add(u64::from(count));
                    if end <= table.elements.min(LARGEST_TABLE_IMAGE) {
                        table.filled = table.filled.max(end);
                    }
                }
            }
            ElementKind::Declared => {}
        }
        Ok(())
    }

    /// Widens its memory's image by a segment that is placed when the instance is made.
    fn data(&mut self, segment: &Data<'_>) -> Result<(), InspectError> {
        let DataKind::Active {
            memory_index,
            offset_expr,
        } = &segment.kind
        else {
            self.facts.heap.add(1, heap::DATA_SEGMENT);
            return Ok(());
        };
        self.facts.active_segments += 1;
        let Some(start) = constant(offset_expr)? else {
            // Known only to the host: then there is no image.
            self.loose = true;
            return Ok(());
        };
        let data = segment.data.len() as u64;
        let end = start.saturating_add(data);
        let memory = memory_index.checked_sub(self.imported_memories);
        let memory = memory.and_then(|index| self.memories.get(index as usize));
        self.loose |= memory.is_none_or(|bytes| end > *bytes);
        if data > 0 {
            let image = self.images.entry(*memory_index).or_insert(Image {
                start,
                end,
                data: 0,
            });
            image.start = image.start.min(start);
            image.end = image.end.max(end);
            image.data += data;
        }
        Ok(())
    }

    /// What names cannot be read are none.
    fn names(&mut self, section: &CustomSectionReader<'a>) {
        let KnownCustom::Name(names) = section.as_known() else {
            return;
        };
        for name in names.into_iter().map_while(Result::ok) {
            match name {
                Name::Module { name, .. } => self.facts.heap.add_name(name),
                Name::Function(names) => self.function_names += u64::from(names.count()),
                _ => {}
            }
        }
    }

    pub fn into_facts(self) -> Facts {
        let Self {
            mut facts,
            types,
            functions,
            exports,
            images,
            ..
        } = self;
        facts.heap.add(1, heap::MODULE);
        let names = self.function_names.min(functions.len() as u64);
        facts.heap.add(names, heap::FUNCTION_NAME);
        let filled = self.tables.iter().map(|table| table.filled);
        filled.for_each(|elements| {
            facts.heap.add_table_image(elements);
            facts.table_image = facts.table_image.saturating_add(elements);
        });

        let pages = |image: &Image| sizes::whole_pages(image.end - image.start / PAGE * PAGE);
        if !self.loose {
            facts.image_bytes = images.values().map(pages).fold(0, u64::saturating_add);
        }
        let sparse = images.values().filter_map(|image| {
            let extent = image.end - image.start;
            (extent >= image.data.saturating_mul(2)).then_some(extent)
        });
        facts.sparse_image = (!self.loose).then(|| sparse.max().unwrap_or(0));

        let type_of = |function: u32| {
            let function = functions.get(function as usize)?;
            types.get(function.ty as usize)?.function
        };
        let exports = exports.into_iter();
        facts.exports = exports
            .map(|(name, f)| (name.to_owned(), f.and_then(type_of)))
            .collect();
        facts
    }
}

/// The value of an expression that is one constant.
fn constant(expression: &ConstExpr<'_>) -> Result<Option<u64>, InspectError> {
    let mut operators = expression.get_operators_reader();
    let value = match operators.read()? {
        Operator::I32Const { value } => u64::from(value.cast_unsigned()),
        Operator::I64Const { value } => value.cast_unsigned(),
        _ => return Ok(None),
    };
    Ok(matches!(operators.read()?, Operator::End).then_some(value))
}

/// Whether such a value may be a reference to something on a GC heap. For types that the module
/// defines, their definitions say so.
fn is_collected(ty: ValType) -> bool {
    let ValType::Ref(reference) = ty else {
        return false;
    };
    match reference.heap_type() {
        HeapType::Abstract { ty, .. } => !matches!(
            ty,
            AbstractHeapType::Func
                | AbstractHeapType::NoFunc
                | AbstractHeapType::Cont
                | AbstractHeapType::NoCont
        ),
        HeapType::Concrete(_) | HeapType::Exact(_) => false,
    }
}

/// Whether the host's calls pass such values as they are.
fn is_simple(ty: ValType) -> bool {
    const SIMPLE: [RefType; 5] = [
        RefType::FUNCREF,
        RefType::EXTERNREF,
        RefType::ANYREF,
        RefType::EXNREF,
        RefType::CONTREF,
    ];
    match ty {
        ValType::Ref(reference) => SIMPLE.contains(&reference),
        _ => true,
    }
}

/// The limiter does not hear of a shared memory's growth, and cannot tell which failures of a
/// memory with pages of its own size come before its consent and which after.
fn refuse_uncountable(memory: &MemoryType) -> Result<(), InspectError> {
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
