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

/// How long things took: counted in buckets, sixteen for each power of two of nanoseconds, so that it takes the same memory
/// however many there are.
pub struct Latencies {
    buckets: Box<[usize; 64 * STEPS]>,
    count: usize,
    longest: Duration,
}

const STEPS: usize = 16;

impl Default for Latencies {
    fn default() -> Self {
        Self {
            buckets: Box::new([0; 64 * STEPS]),
            count: 0,
            longest: Duration::ZERO,
        }
    }
}

impl Latencies {
    fn add(&mut self, time: Duration) {
        let nanos = (time.as_nanos() as u64).max(STEPS as u64);
        let power = nanos.ilog2();
        let step = (nanos >> (power - STEPS.ilog2())) as usize % STEPS;
        self.buckets[power as usize * STEPS + step] += 1;
        self.count += 1;
        self.longest = self.longest.max(time);
    }

    pub fn count(&self) -> usize {
        self.count
    }

    pub fn longest(&self) -> Duration {
        self.longest
    }

    /// The time that so many in a thousand did not exceed, up to a sixteenth.
    pub fn permille(&self, permille: usize) -> Duration {
        let place = self.count * permille / 1000;
        let mut seen = 0;
        let reached = self.buckets.iter().position(|count| {
            seen += count;
            seen > place
        });
        reached.map_or(self.longest, |bucket| {
            let (power, step) = (bucket / STEPS, bucket % STEPS);
            let nanos = ((STEPS + step) as u64) << (power - STEPS.ilog2() as usize);
            Duration::from_nanos(nanos)
        })
    }
}
