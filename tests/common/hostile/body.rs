//! The function body of a recipe. It is valid, whatever the recipe; it is made to be compiled, not to be run.

use wasm_encoder::{BlockType, Function, Ieee64, InstructionSink, MemArg, ValType};

use super::Dice;
use super::recipe::{Recipe, Shape};

/// As many parameters and results as there may be.
pub const WIDEST: u32 = 1000;
/// As many locals as there may be.
const MOST_LOCALS: u32 = 50_000;
/// Locals of 64 bits, then those of the other types.
const NUMBERS: u32 = 4;
const CONDITION: u32 = 4;
const FLOAT: u32 = 5;
const VECTOR: u32 = 6;
/// Those that only recipes with locals have.
const FIRST_EXTRA: u32 = 7;

/// Where in the module to find what the body refers to.
pub trait Names {
    /// A function type of so many parameters and results.
    fn ty(&mut self, width: u32) -> u32;
    /// A function of that type.
    fn function(&mut self, width: u32) -> u32;
}

/// A block that is open.
struct Label {
    /// Values that a branch to it takes.
    width: u32,
    /// Values on the stack when it was opened, which are out of reach in it.
    below: u32,
    is_if: bool,
    /// The outermost of its part: what it leaves is dropped.
    outermost: bool,
}

pub struct Body<'a, N> {
    code: Vec<u8>,
    dice: Dice,
    names: &'a mut N,
    labels: Vec<Label>,
    /// Values of 64 bits on the stack that this block may use.
    on_stack: u32,
    extra: u32,
}

impl<'a, N: Names> Body<'a, N> {
    pub fn of(recipe: &Recipe, seed: u64, names: &'a mut N) -> Function {
        let extra: u32 = recipe
            .0
            .iter()
            .filter(|part| part.shape == Shape::Locals)
            .fold(0, |sum, part| sum.saturating_add(part.count));
        let mut body = Self {
            code: Vec::new(),
            dice: Dice(seed),
            names,
            labels: Vec::new(),
            on_stack: 0,
            extra: extra.min(MOST_LOCALS - FIRST_EXTRA),
        };
        for part in &recipe.0 {
            body.part(part.shape, part.count, part.width);
        }
        body.close();
        let mut function = Function::new([
            (NUMBERS, ValType::I64),
            (1, ValType::I32),
            (1, ValType::F64),
            (1, ValType::V128),
            (body.extra, ValType::I64),
        ]);
        body.code().end();
        function.raw(body.code);
        function
    }

    fn code(&mut self) -> InstructionSink<'_> {
        InstructionSink::new(&mut self.code)
    }

    fn part(&mut self, shape: Shape, count: u32, width: u32) {
        match shape {
            Shape::Block | Shape::Loop | Shape::If => self.open(shape, count, width.min(WIDEST)),
            Shape::BrIf => (0..count).for_each(|_| self.br_if(width)),
            Shape::BrTable => (0..width.max(1)).for_each(|_| self.br_table(count)),
            Shape::Operands => (0..width.max(1)).for_each(|_| self.operands(count)),
            Shape::Locals => {
                for _ in 0..width {
                    (0..self.extra).for_each(|n| self.change(FIRST_EXTRA + n));
                }
            }
            Shape::Call => (0..count).for_each(|_| self.call(width.min(WIDEST), false)),
            Shape::CallIndirect => (0..count).for_each(|_| self.call(width.min(WIDEST), true)),
            Shape::Simd => (0..count).for_each(|_| self.simd()),
            Shape::Chain => {
                self.code().local_get(0);
                (0..count).for_each(|_| self.operator());
                self.code().local_set(0);
            }
            Shape::Constants => (0..count).for_each(|_| self.constant()),
            Shape::Access => (0..count).for_each(|_| self.access()),
            Shape::Trap => (0..count).for_each(|_| self.trap()),
            Shape::Select => (0..count).for_each(|_| self.select()),
            Shape::Bulk => (0..count).for_each(|_| self.bulk()),
            // Of the whole module.
            Shape::Functions
            | Shape::Types
            | Shape::Exports
            | Shape::Imports
            | Shape::Globals
            | Shape::Data
            | Shape::Passive
            | Shape::Elements
            | Shape::Custom => {}
        }
    }

    fn local(&mut self) -> u32 {
        match self.dice.below(u64::from(NUMBERS + self.extra)) as u32 {
            n if n < NUMBERS => n,
            n => FIRST_EXTRA + n - NUMBERS,
        }
    }

    fn push(&mut self, count: u32) {
        for _ in 0..count {
            let local = self.local();
            self.code().local_get(local);
        }
    }

    /// One more operand for what is on the stack, and an operator.
    fn operator(&mut self) {
        let (local, choice) = (self.local(), self.dice.below(6));
        let mut code = self.code();
        code.local_get(local);
        match choice {
            0 => code.i64_add(),
            1 => code.i64_xor(),
            2 => code.i64_mul(),
            3 => code.i64_rotl(),
            4 => code.i64_sub(),
            _ => code.i64_shr_u(),
        };
    }

    fn change(&mut self, local: u32) {
        self.push(1);
        self.code().i64_const(1).i64_add().local_set(local);
    }

    fn open(&mut self, shape: Shape, count: u32, width: u32) {
        self.push(width);
        let ty = match width {
            0 => BlockType::Empty,
            width => BlockType::FunctionType(self.names.ty(width)),
        };
        for n in 0..count {
            let mut code = self.code();
            match shape {
                Shape::Block => code.block(ty),
                Shape::Loop => code.loop_(ty),
                _ => code.local_get(CONDITION).if_(ty),
            };
            self.labels.push(Label {
                width,
                below: self.on_stack,
                is_if: shape == Shape::If,
                outermost: n == 0,
            });
            self.on_stack = width;
        }
        if count == 0 {
            (0..width).for_each(|_| _ = self.code().drop());
        }
    }

    fn close(&mut self) {
        while let Some(label) = self.labels.pop() {
            let mut code = self.code();
            if label.is_if {
                code.else_();
            }
            code.end();
            if label.outermost {
                for n in 0..label.width {
                    self.code().local_set(n % NUMBERS);
                }
            }
            self.on_stack = label.below;
        }
    }

    /// Any label, as a depth, and the values that a branch to it takes. The function's own is the last.
    fn label(&mut self) -> (u32, u32) {
        let depth = self.dice.below(self.labels.len() as u64 + 1) as usize;
        let label = self.labels.iter().rev().nth(depth);
        (depth as u32, label.map_or(0, |label| label.width))
    }

    fn br_if(&mut self, changes: u32) {
        for _ in 0..changes {
            let local = self.local();
            self.change(local);
        }
        let (depth, width) = self.label();
        let missing = match width <= self.on_stack {
            true => 0,
            false => width,
        };
        self.push(missing);
        let mut code = self.code();
        code.local_get(CONDITION).br_if(depth);
        (0..missing).for_each(|_| _ = code.drop());
    }

    fn br_table(&mut self, count: u32) {
        self.code().block(BlockType::Empty);
        let (depth, width) = self.label();
        self.push(width);
        let labels = self.labels.iter().rev().map(|label| label.width);
        let alike: Vec<_> = (labels.chain([0]).enumerate())
            .filter(|(_, other)| *other == width)
            .map(|(depth, _)| depth as u32 + 1)
            .collect();
        let dice = &mut self.dice;
        let any = |_| alike[dice.below(alike.len() as u64) as usize];
        let depths: Vec<_> = (0..count).map(any).collect();
        let mut code = self.code();
        code.local_get(CONDITION).br_table(depths, depth + 1).end();
    }

    fn operands(&mut self, count: u32) {
        self.push(count.max(1));
        let operators = count.max(1) - 1;
        let mut code = self.code();
        (0..operators).for_each(|_| _ = code.i64_xor());
        code.local_set(0);
    }

    fn call(&mut self, width: u32, indirect: bool) {
        let missing = match width <= self.on_stack {
            true => 0,
            false => width,
        };
        self.push(missing);
        if indirect {
            let ty = self.names.ty(width);
            self.code().local_get(CONDITION).call_indirect(0, ty);
        } else {
            let function = self.names.function(width);
            self.code().call(function);
        }
        (0..missing).for_each(|n| _ = self.code().local_set(n % NUMBERS));
    }

    fn simd(&mut self) {
        let (choice, bits) = (self.dice.below(6), self.dice.throw());
        let lanes = std::array::from_fn(|n| (bits >> (n * 4)) as u8 % 32);
        let mut code = self.code();
        code.local_get(VECTOR);
        match choice {
            0 => code.local_get(VECTOR).i8x16_shuffle(lanes),
            1 => code.v128_const(i128::from(bits) << 7).v128_xor(),
            2 => code.local_get(VECTOR).i8x16_swizzle(),
            3 => code.local_get(VECTOR).i64x2_mul(),
            4 => code.local_get(CONDITION).i8x16_shl(),
            _ => code.f64x2_sqrt().i32x4_trunc_sat_f64x2_u_zero(),
        };
        code.local_set(VECTOR);
    }

    fn constant(&mut self) {
        let bits = self.dice.throw();
        let mut code = self.code();
        match bits % 2 {
            0 => code
                .local_get(0)
                .i64_const(bits.cast_signed())
                .i64_xor()
                .local_set(0),
            _ => code
                .local_get(FLOAT)
                .f64_const(Ieee64::new(bits))
                .f64_add()
                .local_set(FLOAT),
        };
    }

    fn access(&mut self) {
        let (local, bits) = (self.local(), self.dice.throw());
        let place = MemArg {
            offset: bits >> 34,
            align: 0,
            memory_index: 0,
        };
        let mut code = self.code();
        code.local_get(CONDITION);
        match bits % 3 {
            0 => code.local_get(local).i64_store(place),
            1 => code.i64_load32_s(place).local_set(local),
            _ => code.i64_load(place).local_set(local),
        };
    }

    fn trap(&mut self) {
        let (local, choice) = (self.local(), self.dice.below(4));
        let mut code = self.code();
        match choice {
            0 => code
                .local_get(local)
                .local_get(0)
                .i64_div_s()
                .local_set(local),
            1 => code.local_get(FLOAT).i64_trunc_f64_s().local_set(local),
            2 => code.local_get(FLOAT).i64_trunc_f64_u().local_set(local),
            _ => code
                .local_get(local)
                .local_get(1)
                .i64_rem_u()
                .local_set(local),
        };
    }

    fn select(&mut self) {
        let (one, other) = (self.local(), self.local());
        let mut code = self.code();
        code.local_get(one).local_get(other).local_get(CONDITION);
        code.select().local_set(one);
    }

    fn bulk(&mut self) {
        let choice = self.dice.below(5);
        let mut code = self.code();
        code.local_get(CONDITION);
        match choice {
            0 => code.memory_grow(0).local_set(CONDITION),
            1 => code.i32_const(0).i32_const(9).memory_fill(0),
            2 => code.i32_const(0).local_get(CONDITION).memory_copy(0, 0),
            3 => code.i32_const(0).i32_const(0).table_copy(0, 0),
            _ => code.table_get(0).ref_is_null().local_set(CONDITION),
        };
    }
}
