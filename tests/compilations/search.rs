//! Looks for the module that is worst for what is reserved, and for the one that takes longest, among those that the strict
//! limits admit: it changes recipes, and keeps what is worse than what it has.
//!
//! `WASM_POOL_SEARCH_SECONDS=600 cargo test --test compilations -- --ignored search --nocapture`; with `WASM_POOL_SEARCH_KEEP=1` it writes
//! the worst into `fuzz/corpus/compile`, which tests replay.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use wasm_pool::{Compiled, Pool};

use crate::common::Dice;
use crate::common::hostile::{Kind, Part, Recipe, Shape, recipe};
use crate::measured::{Meter, describe, tightness};

/// How many of the worst it goes on from.
const KEPT: usize = 12;

/// What is worst about a compilation.
type Measure = (&'static str, fn(&Compiled) -> f64);

const MEASURES: [Measure; 2] = [
    ("ratio", tightness),
    ("time", |compiled| {
        compiled.time.as_secs_f64() / compiled.wasm_bytes as f64
    }),
];

fn mutated(recipe: &Recipe, dice: &mut Dice) -> Recipe {
    let mut parts = recipe.0.clone();
    for _ in 0..=dice.below(2) {
        let at = dice.below(parts.len().max(1) as u64) as usize;
        match dice.below(6) {
            0 if parts.len() > 1 => drop(parts.remove(at)),
            1 | 2 if parts.len() < 8 => parts.insert(at, any_part(dice)),
            _ if parts.is_empty() => parts.push(any_part(dice)),
            3 => parts[at].width = (dice.below(20) as u32).pow(1 + dice.below(2) as u32),
            4 => parts[at].count = parts[at].count * (50 + dice.below(150) as u32) / 100 + 1,
            _ => {
                let other = dice.below(parts.len() as u64) as usize;
                parts.swap(at, other);
            }
        }
    }
    Recipe(parts)
}

fn any_part(dice: &mut Dice) -> Part {
    let (shape, _) = Shape::ALL[dice.below(Shape::ALL.len() as u64) as usize];
    Part {
        shape,
        count: 1 << dice.below(11),
        width: dice.below(12) as u32,
    }
}

#[test]
#[ignore = "a search, which takes as long as it is let"]
fn search_for_the_worst() {
    let seconds = std::env::var("WASM_POOL_SEARCH_SECONDS").ok();
    let seconds = seconds.map_or(60, |seconds| seconds.parse().unwrap());
    let ends = Instant::now() + Duration::from_secs(seconds);
    let meter = Meter::new(Pool::builder().strangers());
    let mut dice = Dice(std::env::var("WASM_POOL_SEARCH_SEED").map_or(1, |s| s.parse().unwrap()));
    let mut worst: [Vec<(f64, Recipe, String)>; 2] = Default::default();
    let (mut tried, mut refused) = (0, 0);
    while Instant::now() < ends {
        let which = dice.below(2) as usize;
        let known = worst[which].len() as u64;
        let next = match known {
            0 => None,
            _ if dice.below(8) == 0 => None,
            _ => Some(worst[which][dice.below(known) as usize].1.clone()),
        };
        let next = match next {
            Some(recipe) => mutated(&recipe, &mut dice),
            None => {
                let kind = Kind::ALL[dice.below(17) as usize];
                let bytes = 200 << dice.below(6);
                recipe(kind, &mut dice, bytes)
            }
        };
        let wasm = next.module(1);
        // What would take minutes says nothing that less does not say as well.
        if wasm.len() > 40_000 {
            continue;
        }
        let Ok(compiled) = meter.compile("search", &wasm) else {
            refused += 1;
            continue;
        };
        tried += 1;
        for ((name, measure), kept) in MEASURES.iter().zip(&mut worst) {
            let value = measure(&compiled);
            if kept.iter().any(|(_, recipe, _)| *recipe == next) {
                continue;
            }
            kept.push((value, next.clone(), describe(&compiled)));
            kept.sort_by(|(a, ..), (b, ..)| b.total_cmp(a));
            if kept[0].1 == next {
                println!("worse in {name}, {tried} tried: {}\n{next}", kept[0].2);
            }
            kept.truncate(KEPT);
        }
    }
    println!("{tried} tried, {refused} refused");
    for ((name, _), kept) in MEASURES.iter().zip(&worst) {
        for (n, (_, recipe, what)) in kept.iter().take(4).enumerate() {
            println!("{name} {n}: {what}\n{recipe}");
            if std::env::var("WASM_POOL_SEARCH_KEEP").is_ok() {
                let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/compile");
                fs::write(folder.join(format!("{name}-{n}.txt")), recipe.to_string()).unwrap();
            }
        }
    }
    assert!(tried > 0);
}
