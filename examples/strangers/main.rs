//! A host that compiles what strangers upload, under a memory cap of its own.
//!
//! Three parties use one pool at the same time. Strangers upload modules that are dear to compile, broken, or
//! good. A tenant calls its functions all the while, and must not notice. Another tenant uploads good modules, and
//! must have its first answer soon. Every compilation runs in a process of its own: this program's, started once
//! more.
//!
//! What to read: `main` begins with `serve_compiler`; `pool` says where to compile; `uploads.rs` shows what an
//! upload handler sees of it.
//!
//! `cargo run --release --features compiler --example strangers -- --help` says what can be changed.

mod args;
mod memory;
mod report;
mod tenants;
mod uploads;

#[path = "../udf_engine/screen.rs"]
#[allow(dead_code, reason = "the other example uses all of it")]
mod screen;

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use wasm_pool::{CompilerProcess, Limits, Pool};

use args::Args;
use memory::Memory;
use report::Report;
use screen::{Screen, mib};
use tenants::{Caller, Uploader};
use uploads::Uploads;

/// Bytes that compilations may take together, each in a process of its own.
const COMPILE: u64 = 192 << 20;
/// Compilations at a time: as many as this host has processors to spare.
const COMPILATIONS: usize = 2;
/// Bytes that one of them may take for itself: so there is always room for one that is small.
const MOST: u64 = COMPILE / (COMPILATIONS as u64 + 1);
/// How long it may take.
const TIME_LIMIT: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    // A process that is to compile goes no further than this.
    wasm_pool::serve_compiler();
    let args = match Args::parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(problem) => {
            eprintln!("strangers: {problem}\nTry --help.");
            return ExitCode::from(2);
        }
    };
    if args.help {
        Screen::new(false).always(args::HELP.trim_end());
        return ExitCode::SUCCESS;
    }
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(problem) => {
            eprintln!("strangers: {problem}");
            ExitCode::from(2)
        }
    }
}

/// A pool that compiles in other processes. `longest` is told of the compilation that takes most time: nanoseconds.
fn pool(longest: &Arc<AtomicU64>) -> Result<Pool, wasm_pool::BuildError> {
    let longest = longest.clone();
    let compiler = CompilerProcess::this_program()
        .time_limit(TIME_LIMIT)
        .max_cap(MOST)
        .warm(COMPILATIONS);
    Pool::builder()
        .name("strangers")
        .limits(
            Limits::new()
                .compile(COMPILE)
                .code(64 << 20)
                .memory(64 << 20),
        )
        .max_compilations(COMPILATIONS)
        .compile_in(compiler)
        .on_compiled(move |compiled| {
            longest.fetch_max(compiled.time.as_nanos() as u64, Ordering::Relaxed);
            // What passed through this process on the way is small, and goes back at once.
            memory::give_back();
        })
        .build()
}

/// Whether all was well.
fn run(args: &Args) -> Result<bool, Box<dyn Error>> {
    memory::cap_this_process(args.cap)?;
    memory::keep_one_arena();
    let longest = Arc::new(AtomicU64::new(0));
    let pool = pool(&longest)?;
    let mut screen = Screen::new(args.quiet);
    screen.line(&format!(
        "{} uploads by strangers; compilations may take {} together and {TIME_LIMIT:?} each; this process has a cap of {}.",
        args.uploads,
        mib(COMPILE),
        mib(args.cap),
    ));

    let mut caller = Caller::new(&pool)?;
    let mut uploader = Uploader::new(&pool);
    let uploads = Uploads::new(args.uploads, args.largest);
    let before = Memory::now()?;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let tenants = [
            scope.spawn(|| caller.call_until(&over)),
            scope.spawn(|| uploader.upload_until(&over)),
        ];
        let strangers: Vec<_> = (0..COMPILATIONS + 1)
            .map(|_| scope.spawn(|| uploads.upload_all(&pool)))
            .collect();
        while !strangers.iter().all(|stranger| stranger.is_finished()) {
            screen.progress(uploads.done(), args.uploads, || in_flight(&pool));
            thread::sleep(Duration::from_millis(50));
        }
        over.store(true, Ordering::Relaxed);
        drop((strangers, tenants));
    });
    screen.clear_progress();
    let after = Memory::now()?;
    let drained = pool.close_and_drain(Duration::from_secs(5));
    let report = Report {
        uploads: &uploads,
        caller: &caller,
        uploader: &uploader,
        memory: [before, after],
        longest: Duration::from_nanos(longest.load(Ordering::Relaxed)),
        stats: &pool.stats(),
        drained,
    };
    report.show(&mut screen);
    Ok(report.verdict(&mut screen))
}

/// What is compiled at this moment.
fn in_flight(pool: &Pool) -> String {
    let stats = pool.stats();
    let compilations = stats.compilations_in_flight.iter().map(|compilation| {
        let memory = compilation.memory_bytes.unwrap_or(0);
        format!(
            "{} {} of {}",
            compilation.name(),
            mib(memory),
            mib(compilation.reserved_bytes)
        )
    });
    compilations.collect::<Vec<_>>().join("; ")
}
