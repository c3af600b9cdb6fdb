//! What strangers upload, and what becomes of it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use wasm_pool::{AcquireError, Definition, Function, ModuleError, Pool};

use dice::Dice;
use hostile::Kind;

#[path = "../../tests/common/dice.rs"]
mod dice;
#[path = "../../tests/common/hostile/mod.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod hostile;

/// For the generator: a guest of the tree.
fn guest(name: &str) -> Vec<u8> {
    let guests: [(&str, &[u8]); 3] = [
        (
            "math_add",
            include_bytes!("../guests/prebuilt/math_add.wasm"),
        ),
        (
            "text_soundex",
            include_bytes!("../guests/prebuilt/text_soundex.wasm"),
        ),
        (
            "state_counter",
            include_bytes!("../guests/prebuilt/state_counter.wasm"),
        ),
    ];
    let found = guests.iter().find(|(known, _)| *known == name);
    found.map(|(_, wasm)| wasm.to_vec()).unwrap_or_default()
}

/// What an upload came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It can be called.
    Compiled,
    /// It was refused when it was defined, and nothing was compiled.
    Refused,
    /// The compiler refused it.
    Invalid,
    /// Compiling it takes more memory than there can be.
    TooExpensive,
    /// Compiling it took too long.
    TooSlow,
    /// Anything else.
    Other,
}

/// Uploads of one kind, by outcome.
#[derive(Debug, Default)]
pub struct Tally {
    pub outcomes: BTreeMap<Outcome, usize>,
    /// Bytes of the largest.
    pub largest: usize,
    pub longest: Duration,
    /// The first refusal, in words.
    pub words: Option<String>,
}

/// All uploads of one run.
pub struct Uploads {
    count: usize,
    largest: u32,
    next: AtomicUsize,
    done: AtomicUsize,
    pub tallies: Mutex<BTreeMap<Kind, Tally>>,
}

impl Uploads {
    pub fn new(count: usize, largest: u32) -> Self {
        Self {
            count,
            largest,
            next: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            tallies: Mutex::default(),
        }
    }

    pub fn done(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }

    /// Uploads what nobody else has yet.
    pub fn upload_all(&self, pool: &Pool) {
        loop {
            let n = self.next.fetch_add(1, Ordering::Relaxed);
            if n >= self.count {
                break;
            }
            let (kind, wasm) = hostile::nth(n as u64, self.largest);
            let (bytes, began) = (wasm.len(), Instant::now());
            let (outcome, words) = upload(pool, &format!("stranger.{n}"), wasm);
            let took = began.elapsed();
            let mut tallies = self.tallies.lock().expect("nobody panics in here");
            let tally = tallies.entry(kind).or_default();
            *tally.outcomes.entry(outcome).or_default() += 1;
            tally.largest = tally.largest.max(bytes);
            tally.longest = tally.longest.max(took);
            if tally.words.is_none() {
                tally.words = words;
            }
            self.done.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What an upload handler does; and the words for the stranger.
fn upload(pool: &Pool, name: &str, wasm: Vec<u8>) -> (Outcome, Option<String>) {
    let defined: Result<Function<(), ()>, _> =
        pool.define(Definition::new(name).wasm(wasm).export("f"));
    let function = match defined {
        Ok(function) => function,
        Err(error) => {
            return (
                Outcome::Refused,
                Some(wasm_pool::Report(&error).to_string()),
            );
        }
    };
    let prepared = function.prepare();
    // Each is uploaded once, and nobody calls it.
    let _ = pool.remove(name);
    match prepared {
        Ok(_) => (Outcome::Compiled, None),
        Err(error) => (
            outcome_of(&error),
            Some(wasm_pool::Report(&error).to_string()),
        ),
    }
}

fn outcome_of(error: &AcquireError) -> Outcome {
    match error {
        AcquireError::Module { source, .. } => match **source {
            ModuleError::Compile(_) => Outcome::Invalid,
            ModuleError::TooExpensive { .. } => Outcome::TooExpensive,
            ModuleError::TooSlow { .. } => Outcome::TooSlow,
            _ => Outcome::Other,
        },
        AcquireError::BudgetExceeded(_) => Outcome::TooExpensive,
        _ => Outcome::Other,
    }
}
