//! An async host: hundreds of tenants on tokio share few fiber stacks and little memory.
//!
//! What to read: `tenants.rs` leases and calls as a task, with three kinds of patience; `rogues.rs`
//! stops guests that never end, in three ways; `guests.rs` has the functions, one of which calls an
//! async function of the host.
//!
//! `cargo run --release --example async_host -- --help` says what can be changed.

mod args;
mod guests;
mod report;
mod rogues;
mod tenants;

#[path = "../udf_engine/reference.rs"]
#[allow(dead_code, reason = "the other example uses all of it")]
mod reference;
#[path = "../udf_engine/screen.rs"]
#[allow(dead_code, reason = "the other example uses all of it")]
mod screen;

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::{JoinSet, spawn_blocking};
use wasm_pool::{Limits, Pool};

use args::Args;
use guests::Catalogue;
use report::Report;
use screen::{Screen, mib};
use tenants::{Tally, Tenant};

/// Bytes of one fiber stack: half for the guest, half for the host functions that it calls.
const STACK: u64 = 512 << 10;
/// Guests let other tasks go on this often.
const TICK: Duration = Duration::from_millis(2);

fn main() -> ExitCode {
    let args = match Args::parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(problem) => {
            eprintln!("async_host: {problem}\nTry --help.");
            return ExitCode::from(2);
        }
    };
    if args.help {
        Screen::new(false).always(args::HELP.trim_end());
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_time()
        .build();
    let outcome = runtime
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(run(&args)));
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(problem) => {
            eprintln!("async_host: {problem}");
            ExitCode::from(2)
        }
    }
}

/// Whether all was well.
async fn run(args: &Args) -> Result<bool, Box<dyn Error>> {
    let limits = Limits::new()
        .stack(args.stacks * STACK)
        .memory(args.memory)
        .code(4 << 20);
    let pool = Pool::builder()
        .name("async_host")
        .limits(limits)
        .max_instances_per_entry(2)
        .max_wasm_stack(STACK as usize / 2)
        .async_stack_size(STACK as usize)
        .epoch_tick(TICK)
        .imports(guests::add_imports)
        .build()?;
    let catalogue = Arc::new(Catalogue::define(&pool)?);

    let mut screen = Screen::new(args.quiet);
    screen.line(&format!(
        "{} tenants on {} threads, {} fiber stacks of {}, {} of memory.",
        args.tenants,
        tokio::runtime::Handle::current().metrics().num_workers(),
        args.stacks,
        mib(STACK),
        mib(args.memory),
    ));

    let tally = Arc::new(Tally::default());
    let heartbeat = tokio::spawn(longest_stall(tally.clone()));
    let rogues = tokio::spawn(rogues::let_loose(catalogue.clone()));
    let mut tenants = JoinSet::new();
    for number in 0..args.tenants {
        let tenant = Tenant::new(number, catalogue.clone(), tally.clone());
        tenants.spawn(tenant.live(args.visits));
    }
    let visits = args.tenants * args.visits;
    report_progress(&mut tenants, visits, &tally, &pool, &mut screen).await?;
    let rogues = rogues.await?;
    heartbeat.abort();

    // It waits, as a thread does: not on one of the executor's.
    let closing = pool.clone();
    let drained = spawn_blocking(move || closing.close_and_drain(Duration::from_secs(5))).await?;
    let report = Report {
        tally: &tally,
        rogues: &rogues,
        stats: &pool.stats(),
        drained,
    };
    report.show(&mut screen);
    Ok(report.verdict(&mut screen))
}

/// Shows how far they are, until all tenants have left.
async fn report_progress(
    tenants: &mut JoinSet<()>,
    visits: u64,
    tally: &Tally,
    pool: &Pool,
    screen: &mut Screen,
) -> Result<(), Box<dyn Error>> {
    let mut redraw = tokio::time::interval(Duration::from_millis(100));
    loop {
        tokio::select! {
            left = tenants.join_next() => match left {
                Some(tenant) => tenant?,
                None => break,
            },
            _ = redraw.tick() => screen.progress(tally.visits() as usize, visits as usize, || {
                let stats = pool.stats();
                format!(
                    "{} leased, {} idle, {} waiting, {} evicted",
                    stats.leased, stats.idle, stats.waiting, stats.evictions
                )
            }),
        }
    }
    screen.clear_progress();
    Ok(())
}

/// A task that wants to run each millisecond, and notes how long it had to wait: whoever keeps the
/// executor's threads busy is seen here.
async fn longest_stall(tally: Arc<Tally>) {
    const PERIOD: Duration = Duration::from_millis(1);
    loop {
        let began = Instant::now();
        tokio::time::sleep(PERIOD).await;
        tally.stalled(began.elapsed().saturating_sub(PERIOD));
    }
}
