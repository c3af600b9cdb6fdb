//! What is reserved for compiling is an upper bound: of guests, of modules that others built, of hostile ones that the
//! strict limits admit, and of what a search has found among those.
//!
//! `WASM_POOL_MODULES=1000` tries so many hostile modules, and larger ones; `WASM_POOL_WASM=folder` the modules of a folder.

use std::fs;
use std::path::{Path, PathBuf};

use wasm_pool::{Limits, Pool};
use wasmtime::{Config, Engine};

use crate::common::child::is_child;
use crate::common::hostile::{Kind, Recipe, hostile, nth};
use crate::measured::{Meter, check};

/// Those of a folder that are of this kind, by name.
fn files(folder: &Path, extension: &str) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(folder).unwrap();
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|ext| ext == extension));
    files.sort();
    let named = files.into_iter().map(|file| {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        (name, fs::read(&file).unwrap())
    });
    named.collect()
}

fn in_tree(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)
}

/// What the strict limits admit, with room for all of it.
fn strict() -> Meter {
    Meter::new(Pool::builder().strangers().limits(Limits::new()))
}

#[test]
fn guests_and_modules_of_others_take_no_more_than_is_reserved() {
    let test = "bound::guests_and_modules_of_others_take_no_more_than_is_reserved";
    if !is_child(test, "") {
        return;
    }
    let mut modules = files(&in_tree("examples/guests/prebuilt"), "wasm");
    modules.extend(files(&in_tree("tests/real"), "wasm"));
    if let Ok(folder) = std::env::var("WASM_POOL_WASM") {
        modules = files(Path::new(&folder), "wasm");
    }
    check(&Meter::new(Pool::builder()), modules);
}

#[test]
fn guests_take_no_more_than_is_reserved_where_fuel_is_counted() {
    let test = "bound::guests_take_no_more_than_is_reserved_where_fuel_is_counted";
    if !is_child(test, "") {
        return;
    }
    let mut modules = files(&in_tree("examples/guests/prebuilt"), "wasm");
    modules.retain(|(_, wasm)| wasm.len() < 300_000);
    modules.extend(files(&in_tree("tests/real"), "wasm"));
    let backtraces = Pool::builder().backtraces(true);
    check(&Meter::new(backtraces.fuel(1_000_000)), modules);
}

#[test]
fn hostile_modules_take_no_more_than_is_reserved() {
    let test = "bound::hostile_modules_take_no_more_than_is_reserved";
    if !is_child(test, "") {
        return;
    }
    let modules: Vec<_> = match std::env::var("WASM_POOL_MODULES") {
        Ok(count) => (0..count.parse().unwrap())
            .map(|n| nth(n, 60_000))
            .map(|(kind, wasm)| (format!("{kind:?}"), wasm))
            .collect(),
        Err(_) => (Kind::ALL.iter())
            .flat_map(|kind| [300, 1500].map(|bytes| (*kind, bytes)))
            .map(|(kind, bytes)| (format!("{kind:?} {bytes}"), hostile(kind, 3, bytes)))
            .collect(),
    };
    check(&strict(), modules);
}

#[test]
fn what_a_search_has_found_takes_no_more_than_is_reserved() {
    let test = "bound::what_a_search_has_found_takes_no_more_than_is_reserved";
    if !is_child(test, "") {
        return;
    }
    let recipes = files(&in_tree("fuzz/corpus/compile"), "txt");
    assert!(!recipes.is_empty());
    let module = |(name, text): (String, Vec<u8>)| {
        let recipe: Recipe = String::from_utf8(text).unwrap().parse().unwrap();
        (name, recipe.module(1))
    };
    check(&strict(), recipes.into_iter().map(module));
}

#[test]
fn extreme_declarations_take_no_more_than_is_reserved() {
    let test = "bound::extreme_declarations_take_no_more_than_is_reserved";
    if !is_child(test, "") {
        return;
    }
    let mut config = Config::new();
    config
        .wasm_gc(true)
        .wasm_function_references(true)
        .wasm_exceptions(true)
        .epoch_interruption(true)
        .memory_may_move(false);
    let builder = Pool::builder().engine(Engine::new(&config).unwrap());
    let modules = crate::extremes::all(100);
    let named = modules
        .into_iter()
        .map(|(name, wasm)| (name.to_owned(), wasm));
    check(&Meter::new(builder), named);
}
