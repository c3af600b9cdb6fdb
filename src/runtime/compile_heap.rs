//! How much heap compiling a module takes at most: an upper bound for ordinary modules, and for all that strict limits
//! admit, not a law.
//!
//! With one thread, as here, functions are compiled one after the other, in the same contexts: what these grow to follows
//! from the most that any one body has of each thing. What is compiled stays until all is: that follows the whole module. The
//! weights are bytes, fitted on measured peaks (DESIGN.md, "Heap of compilations").

use wasmparser::{
    CompositeInnerType, ConstExpr, DataKind, Element, ElementItems, ElementKind, FunctionBody,
    Operator, Parser, Payload, TypeRef,
};
use wasmtime::Engine;

use super::bodies::{Arity, Body, Scan, Signatures};
use super::engine::keeps_images;
use super::inspect::Facts;

/// What the smallest module takes.
const LEAST: u64 = 256 << 10;
/// A byte of wasm that is not code.
const BYTE: u64 = 4;
const CODE_BYTE: u64 = 44;
const FUNCTION: u64 = 5_600;
/// One that the host may call, or a table may hold.
const REFERENCED_FUNCTION: u64 = 7_000;
const TYPE: u64 = 768;
/// A parameter or result.
const TYPE_VALUE: u64 = 600;
/// A parameter or result of the widest type, beside that.
const WIDEST_TYPE_VALUE: u64 = 2_200;
/// Of what is collected.
const FIELD: u64 = 64;
const IMPORT: u64 = 512;
const EXPORT: u64 = 288;
/// An operator of an initial value or a place: the compiler makes a function that computes them all.
const INITIAL_OPERATOR: u64 = 3_000;
const ELEMENT_SEGMENT: u64 = 4_800;
/// An element of a segment that is not part of a table's first contents.
const ELEMENT: u64 = 4_000;
const DATA_SEGMENT: u64 = 96;
/// A segment that is copied by the function that begins an instance.
const COPIED_SEGMENT: u64 = 36_000;
/// Two bytes of an image of initial data.
const TWO_IMAGE_BYTES: u64 = 11;
/// A memory, whose image is made by itself.
const MEMORY: u64 = 40_000;
/// An element of a table's first contents.
const IMAGE_ELEMENT: u64 = 18;

const OPERATOR: u64 = 1_280;
const LOOP: u64 = 60_000;
const BRANCH: u64 = 128;
const LIBCALL: u64 = 34_000;
const CALL: u64 = 1_152;
const INDIRECT_CALL: u64 = 36_000;
const CALL_VALUE: u64 = 800;
const TWO_SLOTS: u64 = 9;
const PHI_ARGUMENT: u64 = 40;
const LOCAL: u64 = 96;
/// Where fuel is counted: before what may go another way.
const FUEL: u64 = 7_200;

/// Heap that compiling it takes, by one look at all of its operators: some 10 to 50 ms for each MB, where compiling it
/// takes seconds. So nobody looks before something is to be compiled.
pub(crate) fn compile_heap(wasm: &[u8], facts: &Facts, engine: &Engine) -> u64 {
    let mut module = Module::default();
    for payload in Parser::new(0).parse_all(wasm) {
        // Of what cannot be read, nothing is compiled.
        let read = payload.and_then(|payload| module.payload(payload));
        if read.is_err() {
            break;
        }
    }
    let initial = match keeps_images(engine, facts) {
        true => facts
            .image_bytes
            .div_ceil(2)
            .saturating_mul(TWO_IMAGE_BYTES),
        false => facts.active_segments.saturating_mul(COPIED_SEGMENT),
    };
    let fuel = match engine.get_consume_fuel() {
        true => module.widest.turns().saturating_mul(FUEL),
        false => 0,
    };
    let of_facts = [
        (u64::from(facts.memories), MEMORY),
        (facts.referenced_functions, REFERENCED_FUNCTION),
        (facts.table_image, IMAGE_ELEMENT),
        (initial, 1),
        (fuel, 1),
    ];
    weigh(module.heap(wasm.len() as u64), &of_facts)
}

#[derive(Default)]
struct Module {
    signatures: Signatures,
    scan: Scan,
    code_bytes: u64,
    functions: u64,
    /// The function whose body comes next.
    next: u32,
    type_values: u64,
    widest_type: u64,
    fields: u64,
    imports: u64,
    exports: u64,
    element_segments: u64,
    elements: u64,
    data_segments: u64,
    initial_operators: u64,
    /// The most that any body has of each thing.
    widest: Body,
}

impl Module {
    fn payload(&mut self, payload: Payload<'_>) -> wasmparser::Result<()> {
        match payload {
            Payload::TypeSection(groups) => {
                for group in groups {
                    for ty in group?.into_types() {
                        self.ty(&ty.composite_type.inner);
                    }
                }
            }
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    self.imports += 1;
                    if let TypeRef::Func(ty) | TypeRef::FuncExact(ty) = import?.ty {
                        self.signatures.functions.push(ty);
                    }
                }
                self.next = self.signatures.functions.len() as u32;
            }
            Payload::FunctionSection(functions) => {
                self.functions = u64::from(functions.count());
                for ty in functions {
                    self.signatures.functions.push(ty?);
                }
            }
            Payload::TableSection(tables) => {
                for table in tables {
                    if let wasmparser::TableInit::Expr(value) = &table?.init {
                        self.initial(value)?;
                    }
                }
            }
            Payload::GlobalSection(globals) => {
                for global in globals {
                    self.initial(&global?.init_expr)?;
                }
            }
            Payload::ExportSection(exports) => self.exports = u64::from(exports.count()),
            Payload::ElementSection(segments) => {
                for segment in segments {
                    self.segment(segment?)?;
                }
            }
            Payload::DataSection(segments) => {
                self.data_segments = u64::from(segments.count());
                for segment in segments {
                    if let DataKind::Active { offset_expr, .. } = &segment?.kind {
                        self.initial(offset_expr)?;
                    }
                }
            }
            Payload::CodeSectionStart { size, .. } => self.code_bytes = u64::from(size),
            Payload::CodeSectionEntry(body) => self.body(&body)?,
            _ => {}
        }
        Ok(())
    }

    fn ty(&mut self, ty: &CompositeInnerType) {
        let arity = match ty {
            CompositeInnerType::Func(ty) => Arity {
                params: ty.params().len() as u64,
                results: ty.results().len() as u64,
            },
            CompositeInnerType::Struct(ty) => {
                self.fields += ty.fields.len() as u64;
                Arity::default()
            }
            _ => Arity::default(),
        };
        self.type_values += arity.values();
        self.widest_type = self.widest_type.max(arity.values());
        self.signatures.types.push(arity);
    }

    /// A single constant is no code.
    fn initial(&mut self, value: &ConstExpr<'_>) -> wasmparser::Result<()> {
        let mut operators = 0;
        let mut is_constant = true;
        for operator in value.get_operators_reader() {
            operators += 1;
            is_constant &= matches!(
                operator?,
                Operator::I32Const { .. }
                    | Operator::I64Const { .. }
                    | Operator::F32Const { .. }
                    | Operator::F64Const { .. }
                    | Operator::End
            );
        }
        if !is_constant || operators > 2 {
            self.initial_operators += operators;
        }
        Ok(())
    }

    fn segment(&mut self, segment: Element<'_>) -> wasmparser::Result<()> {
        self.element_segments += 1;
        let count = match &segment.items {
            ElementItems::Functions(items) => items.count(),
            ElementItems::Expressions(_, items) => {
                for value in items.clone() {
                    self.initial(&value?)?;
                }
                items.count()
            }
        };
        let is_image = match (&segment.kind, &segment.items) {
            (ElementKind::Declared, _) => true,
            (ElementKind::Active { offset_expr, .. }, ElementItems::Functions(_)) => {
                let before = self.initial_operators;
                self.initial(offset_expr)?;
                self.initial_operators == before
            }
            _ => false,
        };
        if !is_image {
            self.elements += u64::from(count);
        }
        Ok(())
    }

    fn body(&mut self, body: &FunctionBody<'_>) -> wasmparser::Result<()> {
        let arity = self.signatures.of_function(self.next);
        self.next += 1;
        let counted = self.scan.body(body, arity, &self.signatures)?;
        self.widest = self.widest.widest(&counted);
        Ok(())
    }

    fn heap(&self, wasm: u64) -> u64 {
        let body = &self.widest;
        let parts = [
            (wasm.saturating_sub(self.code_bytes), BYTE),
            (self.code_bytes, CODE_BYTE),
            (self.functions, FUNCTION),
            (self.signatures.types.len() as u64, TYPE),
            (self.type_values, TYPE_VALUE),
            (self.widest_type, WIDEST_TYPE_VALUE),
            (self.fields, FIELD),
            (self.imports, IMPORT),
            (self.exports, EXPORT),
            (self.initial_operators, INITIAL_OPERATOR),
            (self.element_segments, ELEMENT_SEGMENT),
            (self.elements, ELEMENT),
            (self.data_segments, DATA_SEGMENT),
            (body.operators, OPERATOR),
            (body.loops, LOOP),
            (body.branches, BRANCH),
            (body.libcalls, LIBCALL),
            (body.calls, CALL),
            (body.indirect_calls, INDIRECT_CALL),
            (body.call_values, CALL_VALUE),
            (body.slots.div_ceil(2), TWO_SLOTS),
            (body.phi_arguments, PHI_ARGUMENT),
            (body.locals, LOCAL),
        ];
        weigh(LEAST, &parts)
    }
}

/// Bytes beside these: so many of each, times the bytes of one.
fn weigh(bytes: u64, parts: &[(u64, u64)]) -> u64 {
    parts.iter().fold(bytes, |sum, (count, each)| {
        sum.saturating_add(count.saturating_mul(*each))
    })
}
