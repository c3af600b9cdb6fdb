//! What is charged is at least what it takes, for modules of all shapes.
//!
//! `WASM_POOL_MODULES=10000` tries so many generated modules, and the extreme ones at full size;
//! `WASM_POOL_SEED=…` tries one again.
#![cfg(target_os = "linux")]

mod extremes;
mod generated;
mod measure;
mod promises;
#[cfg(feature = "warm-up")]
mod warmed_up;

use std::collections::BTreeMap;

use crate::common::child::is_child;
use generated::Seed;
use measure::{Measured, everything};

/// How many generated modules are tried, unless the environment says otherwise.
const MODULES: u64 = 300;

fn modules() -> Option<u64> {
    let modules = std::env::var("WASM_POOL_MODULES").ok()?;
    Some(modules.parse().expect("a number"))
}

fn describe(name: &str, measured: &Measured) -> String {
    let Measured {
        wasm,
        code,
        mapped,
        module_heap,
        instance,
        instance_heap,
        mappings,
        maps,
    } = measured;
    format!(
        "{name}: wasm {wasm}; code {code} charged, {mapped} mapped, heap {module_heap}; an \
         instance {instance} charged, heap {instance_heap}; mappings {mappings:?} charged, \
         {maps:?} new"
    )
}

#[test]
fn promise_09_extreme_modules_are_charged_for_what_they_take() {
    if !is_child(
        "modules::promise_09_extreme_modules_are_charged_for_what_they_take",
        "",
    ) {
        return;
    }
    // A tenth of what there may be finds the same.
    let part = if modules().is_some() { 1 } else { 10 };
    check(&extremes::all(part));
}

/// None of the modules is charged too little.
#[track_caller]
fn check(modules: &[extremes::Named]) {
    let mut short = Vec::new();
    for (name, wasm) in modules {
        let measured = measure::measure(&everything(), wasm, "f", true);
        let measured = measured.unwrap_or_else(|skipped| panic!("{name}: {skipped:?}"));
        println!("{}", describe(name, &measured));
        if let Some(shortfall) = measured.shortfall() {
            short.push(format!("{name}: {shortfall}"));
        }
    }
    assert!(short.is_empty(), "{}", short.join("\n"));
}

#[test]
fn promise_09_generated_modules_are_charged_for_what_they_take() {
    if !is_child(
        "modules::promise_09_generated_modules_are_charged_for_what_they_take",
        "",
    ) {
        return;
    }
    let one = std::env::var("WASM_POOL_SEED").ok();
    let seeds: Vec<Seed> = match &one {
        Some(seed) => vec![Seed::parse(seed)],
        None => (0..modules().unwrap_or(MODULES)).map(Seed::of).collect(),
    };
    let mut measured = 0;
    let mut skipped = BTreeMap::<String, u64>::new();
    let mut short = Vec::new();
    for seed in &seeds {
        if one.is_some() {
            println!("{:?}", seed.measure());
        }
        match seed.shortfall() {
            Ok(None) => measured += 1,
            Ok(Some(shortfall)) => short.push(shortfall),
            Err(why) => {
                let mut why = why.0;
                why.truncate(60);
                *skipped.entry(why).or_default() += 1;
            }
        }
    }
    println!("{measured} modules; skipped: {skipped:#?}");
    assert!(short.is_empty(), "{}", short.join("\n"));
    assert!(one.is_some() || measured * 2 > seeds.len(), "{skipped:#?}");
}
