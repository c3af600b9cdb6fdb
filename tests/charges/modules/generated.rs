//! Modules that `wasm-smith` makes of seeds.

use arbitrary::Unstructured;
use wasm_smith::{Config, Module};

use crate::common::Dice;

use super::measure::{self, Measured, Skipped};

/// What a module is made of: a seed, and how many bytes are drawn from it.
#[derive(Debug, Clone, Copy)]
pub struct Seed {
    pub seed: u64,
    pub bytes: usize,
}

/// Functions that modules may import.
const IMPORTS: &str = r#"(module
    (func (export "a") unreachable)
    (func (export "b") (param i32) unreachable)
    (func (export "c") (result i64) unreachable)
    (func (export "d") (param i32 i64 f32 f64) (result f64 i32) unreachable)
    (func (export "e") (param v128 funcref) unreachable))"#;

/// All shapes: few or many of each thing, with and without what came after the first version.
fn config(dice: &mut Dice) -> Config {
    let mut some = |choices: &[usize]| choices[dice.throw() as usize % choices.len()];
    let mut config = Config {
        max_types: some(&[1, 10, 100, 1000]),
        max_funcs: some(&[1, 10, 300]),
        max_globals: some(&[0, 10, 1000]),
        max_tables: some(&[0, 1, 10, 100]),
        max_memories: some(&[0, 1, 10, 100]),
        max_tags: some(&[0, 10, 100]),
        max_exports: some(&[1, 100, 1000]),
        max_element_segments: some(&[0, 10, 1000]),
        max_elements: some(&[1, 10, 1000]),
        max_data_segments: some(&[0, 10, 1000]),
        max_instructions: some(&[10, 100]),
        gc_enabled: some(&[0, 1]) == 1,
        exceptions_enabled: some(&[0, 1]) == 1,
        reference_types_enabled: some(&[0, 1, 1]) == 1,
        memory64_enabled: some(&[0, 1]) == 1,
        generate_custom_sections: some(&[0, 1]) == 1,
        export_everything: some(&[0, 1]) == 1,
        max_imports: 0,
        ..Config::default()
    };
    if some(&[0, 0, 1]) == 1 {
        config.max_imports = 100;
        config.available_imports = Some(crate::common::wat(IMPORTS));
    }
    if config.gc_enabled {
        config.reference_types_enabled = true;
    }
    config.min_funcs = 1;
    config.min_exports = 1;
    // Each of these may be as many as there may be.
    config.min_data_segments = some(&[0, config.max_data_segments]);
    if config.reference_types_enabled {
        config.min_tables = some(&[0, config.max_tables]) as u32;
    }
    config.min_memories = some(&[0, config.max_memories]) as u32;
    config.min_globals = some(&[0, config.max_globals]);
    config.max_memory32_bytes = 16 << 20;
    config.max_memory64_bytes = 16 << 20;
    config.max_table_elements = 50_000;
    config.wide_arithmetic_enabled = true;
    // Refused at `define`, or never left.
    config.threads_enabled = false;
    config.allow_start_export = false;
    config
}

impl Seed {
    pub fn of(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let bytes = 1 << (6 + dice.throw() % 9);
        Self { seed, bytes }
    }

    /// From `123` or `123:456`.
    pub fn parse(text: &str) -> Self {
        let (seed, bytes) = text.split_once(':').unwrap_or((text, ""));
        let seed = Self::of(seed.parse().expect("a number"));
        let bytes = bytes.parse().unwrap_or(seed.bytes);
        Self { bytes, ..seed }
    }

    /// With the name of a function that it exports.
    pub fn module(self) -> Option<(Vec<u8>, String)> {
        let mut dice = Dice(self.seed);
        dice.throw();
        let mut config = config(&mut dice);
        let words = (0..self.bytes.div_ceil(8)).map(|_| dice.throw().to_le_bytes());
        let bytes: Vec<u8> = words.flatten().take(self.bytes).collect();
        let make = |config| Module::new(config, &mut Unstructured::new(&bytes)).ok();
        let wasm = match make(config.clone()) {
            Some(module) => module.to_bytes(),
            // It would need more bytes for as much as is asked for.
            None => {
                config.min_data_segments = 0;
                config.min_tables = 0;
                config.min_memories = 0;
                config.min_globals = 0;
                make(config.clone())?.to_bytes()
            }
        };
        if let Some(export) = first_function(&wasm) {
            return Some((wasm, export));
        }
        config.export_everything = true;
        config.max_exports = 1000;
        let wasm = make(config)?.to_bytes();
        let export = first_function(&wasm)?;
        Some((wasm, export))
    }

    pub fn measure(self) -> Result<Measured, Skipped> {
        let module = self.module();
        let (wasm, export) = module.ok_or_else(|| Skipped("no module".to_owned()))?;
        measure::measure(&measure::everything(), &wasm, &export, true)
    }

    /// What is charged too little, if anything, of the smallest module that still shows it.
    pub fn shortfall(self) -> Result<Option<String>, Skipped> {
        let Some(mut shortfall) = self.measure()?.shortfall() else {
            return Ok(None);
        };
        let mut smallest = self;
        let mut less = self.bytes / 2;
        while less > 0 {
            let smaller = Self {
                bytes: smallest.bytes - less,
                ..self
            };
            match smaller
                .measure()
                .ok()
                .and_then(|measured| measured.shortfall())
            {
                Some(found) => (smallest, shortfall) = (smaller, found),
                None => less /= 2,
            }
            less = less.min(smallest.bytes / 2);
        }
        let Self { seed, bytes } = smallest;
        Ok(Some(format!("WASM_POOL_SEED={seed}:{bytes} {shortfall}")))
    }
}

fn first_function(wasm: &[u8]) -> Option<String> {
    use wasmparser::{ExternalKind, Parser, Payload};
    let payloads = Parser::new(0).parse_all(wasm).map_while(Result::ok);
    for payload in payloads {
        if let Payload::ExportSection(exports) = payload {
            let mut exports = exports.into_iter().map_while(Result::ok);
            let function = exports.find(|export| export.kind == ExternalKind::Func);
            return function.map(|export| export.name.to_owned());
        }
    }
    None
}
