//! How many instructions the warm path takes, counted by callgrind: times are noisy, counts are not.
//!
//! `cargo bench --bench instructions` counts, compares with `benches/instructions.txt`, and fails if
//! a path has grown by more than the margin. `-- --record` writes the file anew. Needs valgrind.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;
use std::{env, fs};

use wasm_pool::{Billing, Pool};

mod subjects;

use subjects::{Subject, pool_of, tasks, warm};

/// A path may take this many percent more than is recorded.
const MARGIN: u64 = 4;
/// The count of one operation is the difference of two runs, divided.
const RUNS: [u64; 2] = [20_000, 120_000];

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    if let Some(at) = args.iter().position(|arg| arg == "--child") {
        let count = args[at + 2].parse().expect("a number");
        run_one(&args[at + 1], count);
        return ExitCode::SUCCESS;
    }
    let record = args.iter().any(|arg| arg == "--record");
    let counted: Vec<(&str, u64)> = paths()
        .iter()
        .map(|subject| (subject.name, per_operation(subject.name)))
        .collect();
    if record {
        let lines = counted
            .iter()
            .map(|(name, count)| format!("{count:6}  {name}\n"));
        fs::write(record_file(), lines.collect::<String>()).expect("the file can be written");
    }
    compare(&counted)
}

/// The paths that are counted. The housekeeper's own instructions count too: let it be quiet.
fn paths() -> Vec<Subject> {
    let quiet = || {
        Pool::builder()
            .call_timeout(Duration::from_secs(3600))
            .epoch_tick(Duration::from_secs(60))
            .idle_timeout(Duration::from_secs(3600))
    };
    let (_, billed) = pool_of(quiet().billing(Billing::new()));
    let (_, add) = pool_of(quiet());
    [
        warm::counted(&add),
        vec![warm::billed(&billed)],
        tasks::counted(&add),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn run_one(name: &str, count: u64) {
    let mut paths = paths();
    let path = paths.iter_mut().find(|path| path.name == name);
    path.expect("a path's name").run(count);
}

fn per_operation(name: &str) -> u64 {
    eprintln!("counting: {name}");
    let [few, many] = RUNS.map(|count| instructions(name, count));
    (many - few) / (RUNS[1] - RUNS[0])
}

/// Instructions of a process that runs one path so many times.
fn instructions(name: &str, count: u64) -> u64 {
    let out = env::temp_dir().join(format!("wasm-pool-{}.callgrind", std::process::id()));
    let status = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(env::current_exe().expect("this program has a path"))
        .args(["--child", name, &count.to_string()])
        .stdout(Stdio::null())
        .status()
        .expect("valgrind can be started: is it installed?");
    assert!(status.success(), "{name} under valgrind: {status}");
    let profile = fs::read_to_string(&out).expect("callgrind writes its profile");
    let _ = fs::remove_file(&out);
    let total = profile
        .lines()
        .find_map(|line| line.strip_prefix("totals: "));
    total
        .and_then(|n| n.trim().parse().ok())
        .expect("callgrind's totals")
}

fn record_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.txt")
}

fn compare(counted: &[(&str, u64)]) -> ExitCode {
    let recorded = fs::read_to_string(record_file()).unwrap_or_default();
    let recorded_of = |name: &str| {
        let mut lines = recorded
            .lines()
            .filter_map(|line| line.trim().split_once("  "));
        lines
            .find(|(_, known)| *known == name)?
            .0
            .parse::<u64>()
            .ok()
    };
    let mut grown = false;
    for (name, count) in counted {
        let Some(before) = recorded_of(name) else {
            println!("{name:25} {count:6}  not recorded");
            grown = true;
            continue;
        };
        let too_many = *count > before + before * MARGIN / 100;
        grown |= too_many;
        let verdict = if too_many { "GROWN" } else { "ok" };
        println!("{name:25} {count:6}  recorded {before:6}  {verdict}");
    }
    if grown {
        println!("if that is meant: cargo bench --bench instructions -- --record");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
