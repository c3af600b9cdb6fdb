//! What a hostile module is made of, as a list that can be kept, read and changed: `loop 10 4` is ten loops in each
//! other, of four values each.

use std::fmt;
use std::str::FromStr;

/// Something that a module or a function body can have much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shape {
    /// `count` blocks in each other around all that follows, each with `width` parameters and results.
    Block,
    /// The same of loops.
    Loop,
    /// The same of ifs, each with an else.
    If,
    /// `count` branches to any label; before each, `width` of the locals change.
    BrIf,
    /// `width` tables of `count` entries, to any label.
    BrTable,
    /// `width` expressions, each of `count` operands that are on the stack together.
    Operands,
    /// `count` operators in a row, each with the result of the one before.
    Chain,
    /// `count` locals, which all change `width` times.
    Locals,
    /// `count` calls, with `width` parameters and results.
    Call,
    /// The same through a table.
    CallIndirect,
    /// `count` operators on vectors.
    Simd,
    /// `count` constants of 64 bits, all different.
    Constants,
    /// `count` loads and stores.
    Access,
    /// `count` operators that may trap.
    Trap,
    /// `count` selections between locals.
    Select,
    /// `count` operators that the host's code carries out.
    Bulk,
    /// The body so often.
    Functions,
    /// `count` different function types of `width` parameters.
    Types,
    /// `count` exports with names of `width` bytes.
    Exports,
    /// `count` imported functions with names of `width` bytes.
    Imports,
    /// `count` globals.
    Globals,
    /// `count` active data segments of one byte, which lie `width` KiB apart.
    Data,
    /// `count` passive data segments of `width` bytes.
    Passive,
    /// `count` element segments of `width` functions.
    Elements,
    /// A custom section of `count` KiB.
    Custom,
}

use Shape::*;

impl Shape {
    pub const ALL: [(Self, &'static str); 25] = [
        (Block, "block"),
        (Loop, "loop"),
        (If, "if"),
        (BrIf, "br_if"),
        (BrTable, "br_table"),
        (Operands, "operands"),
        (Chain, "chain"),
        (Locals, "locals"),
        (Call, "call"),
        (CallIndirect, "call_indirect"),
        (Simd, "simd"),
        (Constants, "constants"),
        (Access, "access"),
        (Trap, "trap"),
        (Select, "select"),
        (Bulk, "bulk"),
        (Functions, "functions"),
        (Types, "types"),
        (Exports, "exports"),
        (Imports, "imports"),
        (Globals, "globals"),
        (Data, "data"),
        (Passive, "passive"),
        (Elements, "elements"),
        (Custom, "custom"),
    ];

    pub fn name(self) -> &'static str {
        let known = Self::ALL.iter().find(|(shape, _)| *shape == self);
        known.expect("all are listed").1
    }
}

/// So much of one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    pub shape: Shape,
    pub count: u32,
    pub width: u32,
}

/// The parts, in the order in which they stand in the function body.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recipe(pub Vec<Part>);

impl Recipe {
    pub fn with(mut self, shape: Shape, count: u32, width: u32) -> Self {
        self.0.push(Part {
            shape,
            count,
            width,
        });
        self
    }

    /// The most that is asked of something that the whole module has.
    pub fn most(&self, shape: Shape) -> Part {
        let none = Part {
            shape,
            count: 0,
            width: 0,
        };
        let parts = self.0.iter().filter(|part| part.shape == shape);
        parts.max_by_key(|part| part.count).copied().unwrap_or(none)
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.0 {
            writeln!(f, "{} {} {}", part.shape.name(), part.count, part.width)?;
        }
        Ok(())
    }
}

impl FromStr for Recipe {
    type Err = String;

    /// One part in a line.
    fn from_str(text: &str) -> Result<Self, String> {
        let part = |line: &str| {
            let words: Vec<_> = line.split_whitespace().collect();
            let [name, count, width] = words[..] else {
                return None;
            };
            let (shape, _) = *Shape::ALL.iter().find(|(_, known)| *known == name)?;
            Some(Part {
                shape,
                count: count.parse().ok()?,
                width: width.parse().ok()?,
            })
        };
        let lines = text.lines().filter(|line| !line.is_empty());
        let parts = lines.map(|line| part(line).ok_or_else(|| line.to_owned()));
        parts.collect::<Result<_, _>>().map(Self)
    }
}
