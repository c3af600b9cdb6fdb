//! Four tenants of one pool: a quiet one, one that floods it, one that leaks memory, one that crashes.
//!
//! They run twice for some seconds: with one budget for all, and with shares. Then the quiet tenant's code and
//! instances are reserved for it, the others' memory is limited, and who crashes again and again is refused for a while.
//!
//! What to read: `pool` is all that is set; `tenants.rs` has what each of them does and sees.
//!
//! `cargo run --release --example tenants -- --help` says what can be changed.

mod chart;
mod guests;
mod tenants;

#[path = "../udf_engine/screen.rs"]
#[allow(dead_code, reason = "the other example uses all of it")]
mod screen;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use wasm_pool::{Billing, Budget, Limits, Pool, Quarantine, Share};

use guests::Guests;
use screen::Screen;
use tenants::{Seen, percent};

const HELP: &str = "\
A quiet tenant calls its twelve functions. Beside it one calls a hundred and twenty as fast as it can, one leaks memory,
one crashes. Once with one budget for all, and once with shares.

Usage: cargo run --release --example tenants -- [options]

  --seconds N   how long each of the two runs takes   [4; 1 with --short]
  --chart FILE  where the drawing goes                [target/tenants.svg]
  --short       some seconds in all
  --quiet       only the closing table
  --help        this text

Exit status: 0 if all is well; 1 if an answer was wrong, a budget was exceeded, something was left behind, or the quiet
tenant's calls found their code and an instance less often than in nine of ten cases with shares; 2 if an option makes no sense.";

/// Modules whose code there is room for. The quiet tenant has a half as many, the flood five times as many.
const MODULES: u64 = 24;
/// Bytes of memory for all instances, of which each but the leaky one's takes 1 MiB.
const MEMORY: u64 = 52 << 20;

struct Args {
    time: Duration,
    chart: String,
    quiet: bool,
}

fn main() -> ExitCode {
    let args = match parse(std::env::args().skip(1)) {
        Ok(Some(args)) => args,
        Ok(None) => {
            Screen::new(false).always(HELP);
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            eprintln!("tenants: {problem}\nTry --help.");
            return ExitCode::from(2);
        }
    };
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(problem) => {
            eprintln!("tenants: {problem}");
            ExitCode::from(2)
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Args>, String> {
    let (mut seconds, mut short) = (None, false);
    let mut chart = "target/tenants.svg".to_owned();
    let mut quiet = false;
    while let Some(option) = words.next() {
        let mut value = || (words.next()).ok_or_else(|| format!("{option} needs a value"));
        match option.as_str() {
            "--seconds" => {
                let number = value()?.parse().ok().filter(|n| (1..=3600).contains(n));
                seconds = Some(number.ok_or("--seconds takes a number from 1 to 3600")?);
            }
            "--chart" => chart = value()?,
            "--short" => short = true,
            "--quiet" => quiet = true,
            "--help" | "-h" => return Ok(None),
            _ => return Err(format!("unknown option {option:?}")),
        }
    }
    let time = Duration::from_secs(seconds.unwrap_or(if short { 1 } else { 4 }));
    Ok(Some(Args { time, chart, quiet }))
}

/// The pool, with shares or without; and so much code for each module.
fn pool(shares: bool, code: u64) -> Result<Pool, wasm_pool::BuildError> {
    let limits = Limits::new().memory(MEMORY).code(MODULES * code);
    let builder = Pool::builder()
        .limits(limits)
        .max_instance_memory(4 << 20)
        .billing(Billing::new())
        .call_timeout(Duration::from_secs(1));
    if !shares {
        return builder.build();
    }
    let quiet = Share::new()
        .reserve(Budget::Code, MODULES * code / 2)
        .reserve(Budget::Memory, MEMORY / 4);
    builder
        .group("quiet", quiet)
        .max_group_memory(MEMORY / 4)
        .quarantine(Quarantine::after(3, Duration::from_secs(1)))
        .build()
}

fn run(args: &Args) -> Result<bool, Box<dyn Error>> {
    let mut screen = Screen::new(args.quiet);
    let code = guests::code_of_one()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()?;
    let mut seen = Vec::new();
    for shares in [false, true] {
        let name = if shares {
            "with shares"
        } else {
            "one budget for all"
        };
        screen.heading(name);
        let pool = pool(shares, code)?;
        let guests = Guests::define(&pool)?;
        let one = runtime.block_on(tenants::run(name, &pool, guests, args.time, &mut screen));
        for line in one.lines() {
            screen.line(&line);
        }
        seen.push(one);
    }
    // Where cargo builds elsewhere, there is no `target`.
    if let Some(folder) = Path::new(&args.chart).parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&args.chart, chart::draw(&seen))?;
    screen.line("");
    screen.always_table("lrrrrr", &closing(&seen));
    screen.line(&format!("drawn in {}", args.chart));
    let with_shares = &seen[1];
    let mut well = true;
    for (is_well, problem) in [
        (
            seen.iter().all(Seen::is_right),
            "an answer was wrong, or something is left",
        ),
        (
            with_shares.hit_ratio() >= 0.9,
            "what was reserved did not hold",
        ),
    ] {
        if !is_well {
            screen.always(&format!("NOT WELL: {problem}"));
        }
        well &= is_well;
    }
    Ok(well)
}

fn closing(seen: &[Seen]) -> Vec<Vec<String>> {
    let heads = [
        "the quiet tenant",
        "calls",
        "warm",
        "failed",
        "p50, µs",
        "p99, µs",
    ];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for one in seen {
        let micros = |share| format!("{:.0}", one.latency(share).as_secs_f64() * 1e6);
        rows.push(vec![
            one.name.to_owned(),
            one.calls.len().to_string(),
            percent(one.hit_ratio()),
            one.failed().to_string(),
            micros(0.5),
            micros(0.99),
        ]);
    }
    rows
}
