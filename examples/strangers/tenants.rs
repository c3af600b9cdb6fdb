//! Two tenants who share the pool with strangers: one calls, one uploads good modules.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use wasm_pool::{DefineError, Definition, Function, Pool};

const ADD: &[u8] = include_bytes!("../guests/prebuilt/math_add.wasm");

/// Calls the same function all the time.
pub struct Caller {
    add: Function<(i64, i64), i64>,
    pub calls: Latencies,
    pub wrong: Vec<String>,
}

impl Caller {
    pub fn new(pool: &Pool) -> Result<Self, Box<dyn std::error::Error>> {
        let add: Function<(i64, i64), i64> =
            pool.define(Definition::new("math.add").wasm(ADD).export("add"))?;
        add.prepare()?;
        Ok(Self {
            add,
            calls: Latencies::default(),
            wrong: Vec::new(),
        })
    }

    pub fn call_until(&mut self, over: &AtomicBool) {
        for n in 0.. {
            if over.load(Ordering::Relaxed) {
                break;
            }
            let began = Instant::now();
            let answer = self.add.call("caller", (n, 1));
            self.calls.add(began.elapsed());
            if !matches!(answer, Ok(sum) if sum == n + 1) {
                self.wrong.push(format!("{n} + 1 is {answer:?}"));
            }
            // It calls often, and leaves the processor to others in between.
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

/// Uploads one good module after the other, each with other bytes, and calls it once.
pub struct Uploader {
    pool: Pool,
    /// From the upload to the first answer.
    pub answers: Latencies,
    pub wrong: Vec<String>,
}

impl Uploader {
    pub fn new(pool: &Pool) -> Self {
        Self {
            pool: pool.clone(),
            answers: Latencies::default(),
            wrong: Vec::new(),
        }
    }

    pub fn upload_until(&mut self, over: &AtomicBool) {
        for n in 0.. {
            if over.load(Ordering::Relaxed) {
                break;
            }
            let began = Instant::now();
            let answer = self.upload(n);
            self.answers.add(began.elapsed());
            match answer {
                Ok(answer) if answer == n => {}
                other => self.wrong.push(format!("module {n} answers {other:?}")),
            }
        }
    }

    fn upload(&self, n: i64) -> Result<i64, Box<dyn std::error::Error>> {
        let wasm = wat::parse_str(format!(
            r#"(module (func (export "answer") (result i64) i64.const {n}))"#
        ))?;
        let name = format!("good.{n}");
        let answer: Result<Function<(), i64>, DefineError> = self
            .pool
            .define(Definition::new(name.as_str()).wasm(wasm).export("answer"));
        let answer = answer?.call("uploader", ())?;
        self.pool.remove(&name)?;
        Ok(answer)
    }
}

/// How long things took.
#[derive(Default)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The time that so many in a thousand did not exceed.
    pub fn permille(&self, permille: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort();
        let place = sorted.len() * permille / 1000;
        sorted
            .get(place.min(sorted.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    }
}
