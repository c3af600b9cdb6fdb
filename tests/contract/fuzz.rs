//! Any bytes are a definition or an error, never a panic: seeded inputs for the body of `fuzz/`, on stable.
//!
//! `WASM_POOL_FUZZ_SECONDS` tries for so long (2,000 inputs otherwise), `WASM_POOL_FUZZ_SEED` others than
//! usual. An input that fails is written to a file; `WASM_POOL_FUZZ_INPUT=file` tries it alone.

#[path = "../../fuzz/src/lib.rs"]
mod body;

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::common::{Dice, guest};
use body::{Outcome, Target};

const INPUTS: u64 = 2_000;
/// Of an input, unless it begins with a file.
const MOST_BYTES: u64 = 4_096;

/// Says which input it was, and keeps it.
fn run(target: &Target, data: &[u8], name: &str) -> Outcome {
    match catch_unwind(AssertUnwindSafe(|| target.run(data))) {
        Ok(outcome) => outcome,
        Err(_) => {
            let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz-input");
            fs::write(&file, data).unwrap();
            let file = file.display();
            panic!(
                "{name} fails; again: WASM_POOL_FUZZ_INPUT={file} cargo test --test contract fuzz::"
            );
        }
    }
}

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let folder = folder.join(target);
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path());
    let mut files: Vec<_> = files
        .map(|file| (file.clone(), fs::read(&file).unwrap()))
        .collect();
    files.sort();
    files
}

fn number(variable: &str) -> Option<u64> {
    let number = std::env::var(variable).ok()?;
    Some(
        number
            .parse()
            .unwrap_or_else(|_| panic!("{variable} is a number")),
    )
}

#[test]
fn the_corpus_never_panics() {
    let target = Target::new();
    if let Some(file) = std::env::var_os("WASM_POOL_FUZZ_INPUT") {
        let outcome = target.run(&fs::read(file).unwrap());
        println!("{outcome:?}");
        return;
    }
    let corpus = corpus("define");
    assert!(!corpus.is_empty());
    for (file, data) in corpus {
        run(&target, &data, &file.display().to_string());
    }
}

/// Bytes to begin with: any, or a guest or a member of the corpus, some of whose bytes are others.
fn input(dice: &mut Dice, seeds: &[Vec<u8>]) -> Vec<u8> {
    if dice.below(2) == 0 {
        // As often short as long.
        let most = MOST_BYTES >> dice.below(8);
        let length = 1 + dice.below(most);
        return (0..length).map(|_| dice.throw() as u8).collect();
    }
    let mut data = seeds[dice.below(seeds.len() as u64) as usize].clone();
    // Its last bytes are what changes it.
    data.extend(dice.throw().to_le_bytes());
    for _ in 0..dice.below(4) {
        let at = dice.below(data.len() as u64) as usize;
        data[at] = dice.throw() as u8;
    }
    data
}

#[test]
fn seeded_bytes_never_panic() {
    let mut seeds: Vec<_> = corpus("define").into_iter().map(|(_, data)| data).collect();
    for name in ["math_add", "state_counter", "rogue_spin", "geo_haversine"] {
        seeds.push([&[5], &*guest(name)].concat());
    }
    let target = Target::new();
    let outcomes = throw(|dice, name| run(&target, &input(dice, &seeds), name));
    // Too tame, or too wild, if one of them is missing.
    assert_eq!(outcomes.len(), 3, "{outcomes:?}");
}

/// As many inputs as are asked for; what became of how many.
fn throw<O: Ord + std::fmt::Debug>(try_one: impl Fn(&mut Dice, &str) -> O) -> BTreeMap<O, u64> {
    let seed = number("WASM_POOL_FUZZ_SEED").unwrap_or(1);
    let time = number("WASM_POOL_FUZZ_SECONDS").map(Duration::from_secs);
    let mut dice = Dice(seed);
    let (began, mut outcomes) = (Instant::now(), BTreeMap::new());
    for count in 0.. {
        let is_over = match time {
            Some(time) => began.elapsed() >= time,
            None => count == INPUTS,
        };
        if is_over {
            break;
        }
        let outcome = try_one(&mut dice, &format!("input {count} of seed {seed}"));
        *outcomes.entry(outcome).or_default() += 1;
    }
    println!("seed {seed}: {outcomes:?}");
    outcomes
}

/// An artifact, or some of one, with some bytes of its footer changed, or of its body.
fn artifact(dice: &mut Dice, seeds: &[Vec<u8>]) -> Vec<u8> {
    const FOOTER: u64 = 4096;
    let mut data = seeds[dice.below(seeds.len() as u64) as usize].clone();
    if dice.below(8) == 0 {
        data.truncate(dice.below(data.len() as u64) as usize);
    }
    let length = data.len() as u64;
    for _ in 0..dice.below(4) {
        // Where a footer has its fields, more often than anywhere.
        let at = match dice.below(4) {
            0 => dice.below(length.max(1)),
            _ => length.saturating_sub(FOOTER) + dice.below(128),
        };
        if let Some(byte) = data.get_mut(at as usize) {
            *byte = [0, 1, 0xff, dice.throw() as u8][dice.below(4) as usize];
        }
    }
    // Half of them are proved again.
    if let Some(last) = data.last_mut() {
        *last = dice.below(2) as u8;
    }
    data
}

#[test]
fn seeded_artifacts_never_panic() {
    let seeds: Vec<_> = corpus("artifact")
        .into_iter()
        .map(|(_, data)| data)
        .collect();
    let target = body::artifact::Target::new();
    let outcomes = throw(|dice, name| {
        let data = artifact(dice, &seeds);
        catch_unwind(AssertUnwindSafe(|| target.run(&data))).unwrap_or_else(|_| {
            let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz-artifact");
            fs::write(&file, data).unwrap();
            panic!("{name} fails: {}", file.display());
        })
    });
    assert_eq!(outcomes.len(), 3, "{outcomes:?}");
}
