//! Modules that strangers might send: small on the wire, dear to compile, or broken. The same kind, seed and size are the
//! same bytes, always.
//!
//! [`hostile`] makes one of a kind; a [`Recipe`] says what a module is made of, so that a search can change it and a corpus
//! keep it.

mod body;
mod recipe;

use std::borrow::Cow;
use std::collections::BTreeMap;

use wasm_encoder::{
    CodeSection, ConstExpr, CustomSection, DataSection, ElementSection, Elements, EntityType,
    ExportKind, ExportSection, Function, FunctionSection, GlobalSection, GlobalType, ImportSection,
    MemorySection, MemoryType, Module, RefType, TableSection, TableType, TypeSection, ValType,
};

use super::Dice;
use body::{Body, Names, WIDEST};
pub use recipe::{Part, Recipe, Shape};

/// What is extreme about a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Blocks, loops and ifs in each other.
    Nesting,
    /// Expressions of thousands of operands.
    Operands,
    /// One huge body of ordinary operators.
    HugeBody,
    /// Thousands of locals that all change in loops.
    Locals,
    /// `br_table`s of thousands of entries.
    BrTables,
    /// Loops with many parameters, and branches from everywhere to everywhere.
    Branches,
    /// Calls with huge signatures.
    Calls,
    /// Vectors.
    Simd,
    /// Constants that are all different.
    Constants,
    /// Operators of several blocks each.
    Traps,
    /// Function types.
    Types,
    /// Exports.
    Exports,
    /// Imports.
    Imports,
    /// Functions.
    Functions,
    /// Data and element segments, and globals.
    Segments,
    /// Data segments whose image is much larger than they are.
    FarData,
    /// Some of everything.
    Mixed,
    /// A good module that ends too early.
    Truncated,
    /// A good module with a few bits turned.
    Flipped,
}

impl Kind {
    pub const ALL: [Self; 19] = [
        Self::Nesting,
        Self::Operands,
        Self::HugeBody,
        Self::Locals,
        Self::BrTables,
        Self::Branches,
        Self::Calls,
        Self::Simd,
        Self::Constants,
        Self::Traps,
        Self::Types,
        Self::Exports,
        Self::Imports,
        Self::Functions,
        Self::Segments,
        Self::FarData,
        Self::Mixed,
        Self::Truncated,
        Self::Flipped,
    ];

    /// Whether it is a valid module, as long as its size is reasonable. Those with imports need a host that has them.
    pub fn is_valid(self) -> bool {
        !matches!(self, Self::Truncated | Self::Flipped)
    }
}

/// Such a module of about so many bytes (less where a third of them is more than WebAssembly allows; a mixed one may have any
/// size). It exports a function `f` without parameters and results, unless it is broken.
pub fn hostile(kind: Kind, seed: u64, bytes: u32) -> Vec<u8> {
    let mut dice = Dice(seed ^ (u64::from(kind as u8) << 48));
    match kind {
        Kind::Truncated => {
            let mut wasm = good(&mut dice, bytes);
            wasm.truncate(dice.below(wasm.len() as u64) as usize);
            wasm
        }
        Kind::Flipped => {
            let mut wasm = good(&mut dice, bytes);
            for _ in 0..=dice.below(4) {
                // Behind what says that it is a module.
                let bit = 64 + dice.below(wasm.len() as u64 * 8 - 64) as usize;
                wasm[bit / 8] ^= 1 << (bit % 8);
            }
            wasm
        }
        _ => recipe(kind, &mut dice, bytes).module(dice.throw()),
    }
}

/// The `n`th of an endless list of all kinds and of sizes between a hundred bytes and `most`, the small ones as often as
/// the large.
pub fn nth(n: u64, most: u32) -> (Kind, Vec<u8>) {
    let kind = Kind::ALL[(n % Kind::ALL.len() as u64) as usize];
    let mut dice = Dice(n);
    let doublings = u64::from(most.max(101) / 100).ilog2() + 1;
    let bytes = 100_u32 << dice.below(u64::from(doublings));
    (kind, hostile(kind, dice.throw(), bytes.min(most)))
}

/// A guest of the tree, or a valid module of another kind.
fn good(dice: &mut Dice, bytes: u32) -> Vec<u8> {
    const GUESTS: [&str; 3] = ["math_add", "text_soundex", "state_counter"];
    match dice.below(2) {
        0 => super::guest(GUESTS[dice.below(GUESTS.len() as u64) as usize]),
        _ => {
            let kind = Kind::ALL[dice.below(17) as usize];
            recipe(kind, dice, bytes).module(dice.throw())
        }
    }
}

/// What such a module of about so many bytes is made of.
pub fn recipe(kind: Kind, dice: &mut Dice, bytes: u32) -> Recipe {
    use Shape as S;
    let empty = Recipe::default();
    let mut some = |choices: &[u32]| choices[dice.below(choices.len() as u64) as usize];
    // So many that take so many bytes each.
    let of = |each: u32| (bytes / each).max(1);
    match kind {
        Kind::Nesting => {
            let shape = [S::Block, S::Loop, S::If][some(&[0, 1, 2]) as usize];
            let width = some(&[0, 0, 1, 8]).min(bytes / 16);
            let each = if shape == S::If { 6 } else { 3 };
            empty.with(shape, of(each + u32::from(width > 0)), width)
        }
        Kind::Operands => {
            let expressions = some(&[1, 1, 10]);
            empty.with(S::Operands, of(4 * expressions), expressions)
        }
        Kind::HugeBody => empty
            .with(S::Chain, of(9), 0)
            .with(S::Access, of(27), 0)
            .with(S::Select, of(27), 0),
        Kind::Locals => {
            let locals = some(&[1000, 10_000, 50_000]);
            let branches = empty.with(S::Loop, some(&[1, 10, 100]).min(of(9)), 0);
            branches.with(S::Locals, locals, 0).with(S::BrIf, of(13), 1)
        }
        Kind::BrTables => {
            let tables = some(&[1, 1, 30]);
            let width = some(&[0, 4]);
            let blocks = empty.with(S::Block, some(&[10, 100]).min(of(12)), width);
            blocks.with(S::BrTable, of(2 * tables), tables)
        }
        Kind::Branches => {
            let depth = some(&[3, 30, 300]).min(of(12));
            let width = some(&[0, 4, 30, 300]).min(of(12));
            let loops = empty.with(S::Loop, depth, width);
            let blocks = loops.with(S::Block, depth, width);
            blocks.with(S::Locals, 8, 1).with(S::BrIf, of(15), 1)
        }
        Kind::Calls => {
            let width = some(&[10, 100, 1000]).min(of(12));
            let shape = [S::Call, S::CallIndirect][some(&[0, 1]) as usize];
            empty.with(shape, of(4 * width + 4), width)
        }
        Kind::Simd => empty.with(S::Simd, of(12), 0),
        Kind::Constants => empty.with(S::Constants, of(14), 0),
        Kind::Traps => empty.with(S::Trap, of(10), 0).with(S::Bulk, of(40), 0),
        Kind::Types => {
            let width = some(&[20, 100]);
            empty.with(S::Types, of(width + 4), width)
        }
        Kind::Exports => {
            let width = some(&[10, 100]);
            empty.with(S::Exports, of(width + 4), width)
        }
        Kind::Imports => {
            let width = some(&[10, 100]);
            empty.with(S::Imports, of(width + 8), width)
        }
        Kind::Functions => {
            let operators = some(&[1, 10, 100]);
            empty
                .with(S::Chain, operators, 0)
                .with(S::Functions, of(4 * operators + 24), 0)
        }
        Kind::Segments => empty
            .with(S::Globals, of(18), 0)
            .with(S::Passive, of(24), some(&[0, 1, 4]))
            .with(S::Elements, of(24), some(&[0, 1, 4])),
        Kind::FarData => {
            let count = some(&[2, 2, 100]).min(of(8));
            empty.with(S::Data, count, some(&[100, 1000, 15_000]) / count)
        }
        Kind::Mixed => {
            let parts = some(&[2, 4, 8]);
            (0..parts).fold(empty, |recipe, _| {
                let shapes = Shape::ALL.len() as u64;
                let (shape, _) = Shape::ALL[dice.below(shapes) as usize];
                let count = dice.below(u64::from(of(10 * parts))) as u32 + 1;
                recipe.with(shape, count.min(100), dice.below(8) as u32)
            })
        }
        Kind::Truncated | Kind::Flipped => empty,
    }
}

/// What bodies refer to.
#[derive(Default)]
struct Index {
    types: TypeSection,
    /// By their width.
    alike: BTreeMap<u32, u32>,
    /// Functions that return what they get, by their width.
    functions: BTreeMap<u32, u32>,
    imports: u32,
}

impl Names for Index {
    fn ty(&mut self, width: u32) -> u32 {
        let values = || (0..width).map(|_| ValType::I64);
        let types = &mut self.types;
        *self.alike.entry(width).or_insert_with(|| {
            types.ty().function(values(), values());
            types.len() - 1
        })
    }

    fn function(&mut self, width: u32) -> u32 {
        let next = self.imports + 1 + self.functions.len() as u32;
        *self.functions.entry(width).or_insert(next)
    }
}

impl Recipe {
    /// The module: `f`, the functions that it calls, and as many like it as the recipe says.
    pub fn module(&self, seed: u64) -> Vec<u8> {
        let mut index = Index {
            imports: self.most(Shape::Imports).count,
            ..Index::default()
        };
        let nothing = index.ty(0);
        let bodies = self.bodies(seed, &mut index);
        self.add_types(&mut index);
        let mut functions = FunctionSection::new();
        let widths: Vec<_> = index.functions.clone().into_iter().collect();
        functions.function(nothing);
        let mut callees: Vec<_> = widths.iter().map(|(width, at)| (*at, *width)).collect();
        callees.sort_unstable();
        for (_, width) in &callees {
            functions.function(index.ty(*width));
        }
        let copies = self.most(Shape::Functions).count;
        (0..copies).for_each(|_| _ = functions.function(nothing));

        let mut code = CodeSection::new();
        code.function(&bodies);
        for (_, width) in &callees {
            let mut callee = Function::new([]);
            let mut body = callee.instructions();
            (0..*width).for_each(|n| _ = body.local_get(n));
            body.end();
            code.function(&callee);
        }
        (0..copies).for_each(|_| _ = code.function(&bodies));

        let mut module = Module::new();
        module.section(&index.types);
        if index.imports > 0 {
            module.section(&self.imports(nothing));
        }
        module.section(&functions);
        self.add_declarations(&mut module, index.imports);
        let data = self.data();
        if !data.is_empty() {
            module.section(&wasm_encoder::DataCountSection { count: data.len() });
        }
        module.section(&code);
        if !data.is_empty() {
            module.section(&data);
        }
        let custom = self.most(Shape::Custom).count;
        if custom > 0 {
            module.section(&CustomSection {
                name: Cow::Borrowed("x"),
                data: Cow::Owned(vec![7; custom as usize * 1024]),
            });
        }
        module.finish()
    }

    fn bodies(&self, seed: u64, index: &mut Index) -> Function {
        Body::of(self, seed, index)
    }

    fn add_types(&self, index: &mut Index) {
        let Part { count, width, .. } = self.most(Shape::Types);
        for n in 0..count {
            let bits = 20.min(width);
            let kind = |bit: u32| match n >> bit & 1 {
                0 => ValType::I32,
                _ => ValType::F64,
            };
            let plain = (bits..width.min(WIDEST)).map(|_| ValType::I64);
            let params: Vec<_> = (0..bits).map(kind).chain(plain).collect();
            index.types.ty().function(params, []);
        }
    }

    fn imports(&self, ty: u32) -> ImportSection {
        let Part { count, width, .. } = self.most(Shape::Imports);
        let mut imports = ImportSection::new();
        for n in 0..count {
            imports.import("host", &name(n, width), EntityType::Function(ty));
        }
        imports
    }

    /// Tables, memory, globals, exports and elements.
    fn add_declarations(&self, module: &mut Module, function: u32) {
        let mut tables = TableSection::new();
        tables.table(TableType {
            element_type: RefType::FUNCREF,
            table64: false,
            minimum: 10,
            maximum: None,
            shared: false,
        });
        module.section(&tables);
        let mut memories = MemorySection::new();
        memories.memory(MemoryType {
            minimum: self.memory_bytes().div_ceil(64 << 10).max(1),
            maximum: None,
            memory64: false,
            shared: false,
            page_size_log2: None,
        });
        module.section(&memories);
        let count = self.most(Shape::Globals).count;
        if count > 0 {
            let ty = GlobalType {
                val_type: ValType::I64,
                mutable: true,
                shared: false,
            };
            let mut globals = GlobalSection::new();
            (0..count).for_each(|n| _ = globals.global(ty, &ConstExpr::i64_const(i64::from(n))));
            module.section(&globals);
        }
        let mut exports = ExportSection::new();
        exports.export("f", ExportKind::Func, function);
        let Part { count, width, .. } = self.most(Shape::Exports);
        for n in 0..count {
            exports.export(&name(n, width.max(2)), ExportKind::Func, function);
        }
        module.section(&exports);
        let Part { count, width, .. } = self.most(Shape::Elements);
        if count > 0 {
            let mut elements = ElementSection::new();
            let functions = vec![function; width as usize];
            for _ in 0..count {
                elements.passive(Elements::Functions(Cow::Borrowed(&functions)));
            }
            module.section(&elements);
        }
    }

    fn memory_bytes(&self) -> u64 {
        let Part { count, width, .. } = self.most(Shape::Data);
        (u64::from(count) * u64::from(width) * 1024 + 1).min(1 << 31)
    }

    fn data(&self) -> DataSection {
        let mut data = DataSection::new();
        let Part { count, width, .. } = self.most(Shape::Data);
        for n in 0..count {
            let at = (u64::from(n) * u64::from(width) * 1024).min((1 << 31) - 1);
            data.active(0, &ConstExpr::i32_const(at as i32), [7]);
        }
        let Part { count, width, .. } = self.most(Shape::Passive);
        for _ in 0..count {
            data.passive(vec![7; width as usize]);
        }
        data
    }
}

/// A name of so many bytes, unlike that of any other number.
fn name(n: u32, bytes: u32) -> String {
    format!("{n:_>width$}", width = bytes as usize)
}
