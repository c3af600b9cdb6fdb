//! What `Pool::define` makes of any bytes: an error or a definition, never a panic, and no charge.
//!
//! The body of the fuzz targets, and of the seeded driver on stable (`tests/contract/fuzz.rs`, which includes
//! this file).

pub mod artifact;

use arbitrary::{Arbitrary, Result, Unstructured};
use wasm_pool::{DefineError, Definition, Dynamic, InspectError, Pool};
use wasm_smith::{Config, Module};
use wasmparser::{ExternalKind, Parser, Payload};

/// What every module begins with.
const MAGIC: &[u8] = b"\0asm\x01\0\0\0";

/// Numbers as sections have them, at the ends of their ranges and beyond.
const NUMBERS: [&[u8]; 6] = [
    b"\0",
    b"\x7f",
    b"\x80\x80\x80\x80\x08",
    b"\xff\xff\xff\xff\x0f",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80",
];

/// What became of one input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// A definition.
    Defined,
    /// Refused before its sections were read to the end.
    Unreadable,
    /// Refused for what its sections say.
    Refused,
}

/// A pool that is asked to define things.
#[derive(Debug)]
pub struct Target {
    pool: Pool,
}

impl Default for Target {
    fn default() -> Self {
        Self::new()
    }
}

impl Target {
    /// A pool without limits, which does nothing by itself.
    pub fn new() -> Self {
        let pool = Pool::builder().no_housekeeper().build();
        Self {
            pool: pool.expect("the defaults fit each other"),
        }
    }

    /// Makes bytes of wasm of these bytes, and defines what they are.
    ///
    /// # Panics
    ///
    /// If that is what the library does, if something is charged afterwards, or if a valid module was taken
    /// for an unreadable one.
    pub fn run(&self, data: &[u8]) -> Outcome {
        let (wasm, is_valid) = wasm_of(data);
        let outcome = self.define(&wasm);
        let is_read = outcome != Outcome::Unreadable;
        assert!(is_read || !is_valid, "a valid module cannot be read");
        outcome
    }

    fn define(&self, wasm: &[u8]) -> Outcome {
        let export = exported_function(wasm).unwrap_or_else(|| "f".into());
        let definition = Definition::new("fuzz").wasm(wasm).export(export);
        let typed = self.pool.define::<(i32, i32), i64>(definition.clone());
        if typed.is_ok() {
            self.remove();
        }
        let outcome = match self.pool.define::<Dynamic, Dynamic>(definition) {
            Ok(_) => {
                self.remove();
                Outcome::Defined
            }
            Err(DefineError::Module {
                source: InspectError::Malformed { .. } | InspectError::NotWasm { .. },
                ..
            }) => Outcome::Unreadable,
            Err(_) => Outcome::Refused,
        };
        let stats = self.pool.stats();
        assert_eq!(stats.modules_known, 0, "nothing is left of it");
        for (budget, report) in stats.budgets() {
            assert_eq!(report.charged, 0, "{budget}");
        }
        outcome
    }

    fn remove(&self) {
        let removed = self.pool.remove("fuzz");
        removed.expect("it was defined just now");
    }
}

/// The first byte says how the others are used: as they are, behind the magic number, as a module's changes, or
/// as what a generator makes a module of. And whether that is a valid module.
fn wasm_of(data: &[u8]) -> (Vec<u8>, bool) {
    let Some((kind, rest)) = data.split_first() else {
        return (Vec::new(), false);
    };
    let mut choices = Unstructured::new(rest);
    match kind % 6 {
        0 => (rest.to_vec(), false),
        1 => ([MAGIC, rest].concat(), false),
        2 => (sections(&mut choices).unwrap_or_default(), false),
        3 => match module(&mut choices) {
            Ok(wasm) => (wasm, true),
            Err(_) => (Vec::new(), false),
        },
        4 => (mutated_module(&mut choices).unwrap_or_default(), false),
        _ => (mutated_file(rest).unwrap_or_default(), false),
    }
}

/// Sections with right headers and any content.
fn sections(choices: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut wasm = MAGIC.to_vec();
    while !choices.is_empty() {
        let id: u8 = choices.int_in_range(0..=14)?;
        let length: u8 = choices.int_in_range(0..=60)?;
        let content = choices.bytes(usize::from(length).min(choices.len()))?;
        wasm.extend([id, content.len() as u8]);
        wasm.extend(content);
    }
    Ok(wasm)
}

fn module(choices: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut config = Config::arbitrary(choices)?;
    // One that can be defined, as often as any.
    if bool::arbitrary(choices)? {
        (config.min_funcs, config.max_funcs) = (1, config.max_funcs.max(1));
        (config.min_types, config.max_types) = (1, config.max_types.max(1));
        (config.max_imports, config.export_everything) = (0, true);
    }
    Ok(Module::new(config, choices)?.to_bytes())
}

fn mutated_module(choices: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let count = choices.int_in_range(1..=3)?;
    let mutations: Vec<Mutation> = (0..count)
        .map(|_| Mutation::arbitrary(choices))
        .collect::<Result<_>>()?;
    let mut wasm = module(choices)?;
    for mutation in &mutations {
        mutation.change(&mut wasm);
    }
    Ok(wasm)
}

/// A whole file, changed as its own last bytes say: so a corpus can have real modules.
fn mutated_file(file: &[u8]) -> Result<Vec<u8>> {
    let (wasm, tail) = file.split_at(file.len().saturating_sub(8));
    let mut choices = Unstructured::new(tail);
    let mut wasm = wasm.to_vec();
    while !choices.is_empty() {
        Mutation::arbitrary(&mut choices)?.change(&mut wasm);
    }
    Ok(wasm)
}

/// A change at a place, as a part of 65,536 of the length.
struct Mutation {
    place: u16,
    kind: u8,
    value: u8,
}

impl<'a> Arbitrary<'a> for Mutation {
    fn arbitrary(choices: &mut Unstructured<'a>) -> Result<Self> {
        Ok(Self {
            place: u16::arbitrary(choices)?,
            kind: u8::arbitrary(choices)?,
            value: u8::arbitrary(choices)?,
        })
    }
}

impl Mutation {
    fn change(&self, wasm: &mut Vec<u8>) {
        if wasm.is_empty() {
            return;
        }
        let at = (wasm.len() * usize::from(self.place)) >> 16;
        let end = wasm.len().min(at + 1 + usize::from(self.value) % 40);
        match self.kind % 6 {
            0 => wasm[at] ^= 1 << (self.value % 8),
            1 => wasm[at] = self.value,
            2 => drop(wasm.drain(at..end)),
            3 => {
                let copy = wasm[at..end].to_vec();
                drop(wasm.splice(at..at, copy));
            }
            4 => {
                let number = NUMBERS[usize::from(self.value) % NUMBERS.len()];
                drop(wasm.splice(at..=at, number.iter().copied()));
            }
            _ => wasm.truncate(at),
        }
    }
}

/// The name of the first function that it exports, as far as it can be read.
fn exported_function(wasm: &[u8]) -> Option<String> {
    for payload in Parser::new(0).parse_all(wasm) {
        let Payload::ExportSection(exports) = payload.ok()? else {
            continue;
        };
        for export in exports {
            let export = export.ok()?;
            if export.kind == ExternalKind::Func {
                return Some(export.name.to_owned());
            }
        }
    }
    None
}
