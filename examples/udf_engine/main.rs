//! A small query engine whose functions are WebAssembly: what a memory-budgeted pool is for.
//!
//! `cargo run --release --example udf_engine -- --help` says what can be changed.

mod args;
mod checks;
mod engine;
mod functions;
mod phases;
mod queries;
mod reference;
mod report;
mod results;
mod rogues;
mod screen;
mod table;
mod workload;

use std::process::ExitCode;

use wasm_pool::{Artifacts, DirStore, Group, Limits, Report};

use args::Args;
use checks::Checks;
use engine::Engine;
use phases::Run;
use queries::Context;
use screen::{Screen, grouped};
use table::Airport;
use workload::Workload;

/// The table that comes with the example.
const AIRPORTS: &str = include_str!("../data/airports.csv");
const SHORT_ROWS: usize = 240;

fn main() -> ExitCode {
    let args = match Args::parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(problem) => {
            eprintln!("udf_engine: {problem}\nTry --help.");
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
            eprintln!("udf_engine: {problem}");
            ExitCode::from(2)
        }
    }
}

/// Whether all was well; the error is a message for the user.
fn run(args: &Args) -> Result<bool, String> {
    let airports = load(args)?;
    let rows = match (args.rows, args.short) {
        (Some(rows), _) => rows,
        (None, true) => SHORT_ROWS,
        (None, false) => airports.len(),
    };
    let rows = table::sample(&airports, rows);
    let groups = groups(args.groups);
    let context = Context::new(&airports);
    // Both at once, so that budgets that make no sense are refused before the work begins.
    let kept = args.artifacts.as_deref().map(artifacts).transpose()?;
    let kept = kept.as_ref();
    let roomy = Engine::open("roomy", roomy_limits(args), args, &groups, kept)?;
    let tight = Engine::open("tight", args.tight_limits(), args, &groups, kept)?;

    let mut screen = Screen::new(args.quiet);
    let mut checks = Checks::default();
    let rounds = if args.short { 1 } else { 2 };
    let run = Run {
        args,
        groups: &groups,
        airports: &airports,
        artifacts: kept,
        workload: Workload::new(&context, &rows, &groups, args.threads, rounds),
        context: &context,
        rows: &rows,
    };
    introduce(&mut screen, args, &groups, &rows);
    let phases = run.all(&roomy, &tight, &mut screen, &mut checks)?;

    screen.heading("5. Closing tables");
    for (phase, stats) in &phases {
        report::closing_table(&mut screen, phase, stats);
    }
    if let (Some(file), Some((_, stats))) = (&args.json, phases.last()) {
        std::fs::write(file, report::json(stats))
            .map_err(|error| format!("cannot write {file:?}: {error}"))?;
    }
    Ok(verdict(&mut screen, &checks))
}

fn load(args: &Args) -> Result<Vec<Airport>, String> {
    let Some(file) = &args.data else {
        return table::parse(AIRPORTS).map_err(|error| format!("the built-in table: {error}"));
    };
    let text =
        std::fs::read_to_string(file).map_err(|error| format!("cannot read {file:?}: {error}"))?;
    table::parse(&text).map_err(|error| format!("{file}: {error}"))
}

/// Compiled code, kept in a directory.
fn artifacts(directory: &str) -> Result<Artifacts, String> {
    let store = DirStore::open(directory).map_err(|error| Report(&error).to_string())?;
    Ok(Artifacts::builder().store(store).build())
}

fn groups(count: usize) -> Vec<Group> {
    let named = ["interactive", "reports", "batch"].map(Group::from);
    let more = (4..).map(|n: u64| Group::from(format!("tenant-{n}")));
    named.into_iter().chain(more).take(count).collect()
}

/// Room for all instances that there may be, and more than all code needs.
fn roomy_limits(args: &Args) -> Limits {
    let instances =
        args.groups * args.threads.min(args.instances_per_entry) * queries::QUERIES.len();
    Limits::new()
        .memory((instances as u64 + 32) * (2 << 20))
        .code(32 << 20)
}

fn introduce(screen: &mut Screen, args: &Args, groups: &[Group], rows: &[Airport]) {
    let names: Vec<_> = groups.iter().take(6).map(Group::to_string).collect();
    let more = if groups.len() > 6 { ", ..." } else { "" };
    screen.line(&format!(
        "{} rows, {} functions, {} groups ({}{more}) on {} threads.\nAll numbers are bytes unless \
         said otherwise.",
        grouped(rows.len() as u64),
        queries::QUERIES.len(),
        groups.len(),
        names.join(", "),
        args.threads,
    ));
}

fn verdict(screen: &mut Screen, checks: &Checks) -> bool {
    screen.always("");
    for complaint in &checks.complaints {
        screen.always(&format!("WRONG: {complaint}"));
    }
    let passed = grouped(checks.passed);
    match checks.failed {
        0 => screen.always(&format!(
            "All {passed} checks passed: every answer was right, and no peak exceeded its limit."
        )),
        failed => screen.always(&format!(
            "{} checks failed, {passed} passed.",
            grouped(failed)
        )),
    }
    checks.failed == 0
}
