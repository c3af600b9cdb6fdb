//! What the tests share: real guests, small hand-written ones, and a look at the books.
#![allow(
    dead_code,
    unused_imports,
    reason = "each binary of tests uses its own part"
)]

pub mod child;
pub mod dice;
pub mod failures;
pub mod heap;
pub mod hostile;
#[cfg(target_os = "linux")]
pub mod kernel;
pub mod polling;
pub mod pools;
pub mod scene;
pub mod spans;
pub mod temp_dir;

pub use dice::Dice;
pub use pools::*;

use wasm_pool::{AcquireOptions, Budget, Pool, Stats};

/// A prebuilt guest of `examples/guests`, by file name without `.wasm`.
pub fn guest(name: &str) -> Vec<u8> {
    let path = format!(
        "{}/examples/guests/prebuilt/{name}.wasm",
        env!("CARGO_MANIFEST_DIR")
    );
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A module from its text.
pub fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("the text is valid")
}

/// A module with `pages` pages of memory, of `salt`'s own identity, whose export `f` returns 1.
pub fn memory_module(pages: u32, salt: u32) -> Vec<u8> {
    wat(&format!(
        r#"(module (memory (export "memory") {pages})
            (func (export "f") (result i32) i32.const 1)
            (func (export "salt") (result i32) i32.const {salt})
            (func (export "grow") (param i32) (result i32) local.get 0 memory.grow))"#
    ))
}

/// Every invariant of the books holds, and no budget is overdrawn.
#[track_caller]
pub fn check<T: Send + 'static>(pool: &Pool<T>) -> Stats {
    pool.recount().unwrap();
    let stats = pool.stats();
    for (budget, report) in stats.budgets() {
        assert!(report.allows(report.charged), "{budget}: {report:?}");
        assert!(report.allows(report.peak), "{budget}: {report:?}");
    }
    stats
}

/// What is charged now, budget by budget.
pub fn charges<T: Send + 'static>(pool: &Pool<T>) -> Vec<(Budget, u64)> {
    pool.stats()
        .budgets()
        .map(|(budget, report)| (budget, report.charged))
        .collect()
}

/// Waits so long, also for room in the budgets.
pub fn room_within(timeout: std::time::Duration) -> AcquireOptions {
    AcquireOptions::new().timeout(timeout).wait_for_room(true)
}

/// Nothing is charged: the pool is closed, and all leases are back.
#[track_caller]
pub fn check_empty<T: Send + 'static>(pool: &Pool<T>) {
    for (budget, charged) in charges(pool) {
        assert_eq!(charged, 0, "{budget}");
    }
}

/// Tests whose threads fill all processors for as long as they run do so one at a time: what they measure is
/// how their own threads share them.
pub fn crowd() -> std::sync::MutexGuard<'static, ()> {
    static CROWD: std::sync::Mutex<()> = std::sync::Mutex::new(());
    CROWD
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Looks again and again until the condition holds; gives up after a minute.
#[track_caller]
pub fn until(condition: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !condition() {
        assert!(began.elapsed().as_secs() < 60, "it never became true");
        std::thread::yield_now();
    }
}

/// Runs something while another thread moves the pool's epoch, as fast as it can.
pub fn with_ticks<T: Send + 'static, R>(pool: &Pool<T>, run: impl FnOnce() -> R) -> R {
    use std::sync::atomic::{AtomicBool, Ordering};
    struct Done<'a>(&'a AtomicBool);
    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                pool.tick();
                std::thread::yield_now();
            }
        });
        let _done = Done(&done);
        run()
    })
}

/// A module without memory whose export `f` returns `answer`.
pub fn answering(answer: i32) -> Vec<u8> {
    wat(&format!(
        r#"(module (func (export "f") (result i32) i32.const {answer}))"#
    ))
}

/// Yields until so many threads wait for something of the pool.
#[track_caller]
pub fn wait_for_waiters<T: Send + 'static>(pool: &Pool<T>, count: usize) {
    until(|| pool.stats().waiting == count);
}

/// Runs what would hang if the library had a certain bug; then it fails instead.
#[track_caller]
pub fn in_time<R: Send + 'static>(run: impl FnOnce() -> R + Send + 'static) -> R {
    let (done, outcome) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || done.send(run()));
    match outcome.recv_timeout(std::time::Duration::from_secs(60)) {
        Ok(outcome) => outcome,
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        // It panicked: so does this, with the same words.
        Err(_) => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(_) => unreachable!("the thread ended without an outcome"),
        },
    }
}

/// What is charged to one budget now.
pub fn charged<T: Send + 'static>(pool: &Pool<T>, budget: Budget) -> u64 {
    pool.stats().budget(budget).charged
}

/// Charged to memory for an instance of [`memory_module`].
pub fn instance_bytes(pages: u64) -> u64 {
    static WITHOUT_PAGES: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    let measured = WITHOUT_PAGES.get_or_init(|| {
        let pool = Pool::builder().no_housekeeper().build().unwrap();
        let definition = wasm_pool::Definition::new("f").wasm(memory_module(0, 0));
        let f = pool.define::<(), i32>(definition).unwrap();
        f.call(1, ()).unwrap();
        charged(&pool, Budget::Memory)
    });
    measured + pages * 65_536
}

/// Passes texts to a guest's function as pointer and length each: its parameters.
pub fn pass<P, R, T: Send + 'static>(
    lease: &mut wasm_pool::Lease<'_, P, R, T>,
    text: impl AsRef<[u8]>,
) -> Result<(i32, i32), wasm_pool::CallError> {
    Ok(lease.pass_bytes(text.as_ref())?.params())
}

/// Calls a guest's function of one text that returns a text.
pub fn text_to_text(
    function: &wasm_pool::Function<(i32, i32), i64>,
    text: impl AsRef<[u8]>,
) -> Result<Option<String>, wasm_pool::CallError> {
    let mut lease = function.acquire(1)?;
    let argument = pass(&mut lease, text)?;
    let result = lease.call(argument)?;
    lease.take_string(result)
}

/// Holds guests up in the middle of a call: where they call `env.stop`.
pub struct Stop {
    stopped: std::sync::mpsc::Receiver<()>,
    go: std::sync::mpsc::Sender<()>,
}

impl Stop {
    /// Returns when a guest has stopped.
    pub fn wait_until_stopped(&self) {
        let minute = std::time::Duration::from_secs(60);
        self.stopped.recv_timeout(minute).expect("a guest stops");
    }

    /// Lets one guest go on.
    pub fn go(&self) {
        self.go.send(()).expect("the pool has the import");
    }
}

/// Adds the import `env.stop`.
pub fn stopping(builder: wasm_pool::PoolBuilder) -> (wasm_pool::PoolBuilder, Stop) {
    use std::sync::{Mutex, mpsc};
    let (report, stopped) = mpsc::channel();
    let (go, may_go) = mpsc::channel();
    let may_go = Mutex::new(may_go);
    let stop = move || {
        report.send(()).expect("the test listens");
        may_go.lock().unwrap().recv().expect("the test lets it go");
    };
    let builder = builder.imports(move |linker| {
        linker.func_wrap("env", "stop", stop)?;
        Ok(())
    });
    (builder, Stop { stopped, go })
}

/// A module whose export `f` stops in the host, then returns `answer`.
pub fn stopping_module(answer: i32) -> Vec<u8> {
    wat(&format!(
        r#"(module (import "env" "stop" (func $stop))
            (func (export "f") (result i32) call $stop i32.const {answer}))"#
    ))
}
