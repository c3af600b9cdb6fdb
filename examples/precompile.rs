//! A deploy step: a folder of wasm becomes a folder of artifacts, so that no worker compiles anything.
//!
//! `cargo run --release --example precompile -- [FOLDER] --artifacts DIR`. A second run finds everything there.
//! Workers read it with `Pool::builder().artifacts(..)`, of an engine with the same settings: what decides about code
//! (fuel, deadlines, backtraces) is part of each artifact's key.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use wasm_pool::{Artifacts, DirStore, Limits, Pool, PrecompileOutcome, Precompiled, Report};

const USAGE: &str = "\
Usage: cargo run --release --example precompile -- [FOLDER] [options]

  FOLDER            where the .wasm files are  [examples/guests/prebuilt]
  --artifacts DIR   where the artifacts go; made if it is not there  [target/artifacts]
  --compile BYTES   heap that a compilation may be charged, at most  [4294967296]

Exit status: 0 if all is compiled, 1 if a module failed, 2 if a folder or an option makes no sense.
";

struct Args {
    folder: PathBuf,
    artifacts: PathBuf,
    compile: u64,
}

fn main() -> ExitCode {
    let args = match parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(problem) => {
            eprintln!("precompile: {problem}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(problem) => {
            eprintln!("precompile: {problem}");
            ExitCode::from(2)
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Args, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut args = Args {
        folder: root.join("examples/guests/prebuilt"),
        artifacts: root.join("target/artifacts"),
        compile: 4 << 30,
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match &*word {
            "--artifacts" => args.artifacts = value()?.into(),
            "--compile" => {
                let value = value()?;
                let number = value.parse();
                args.compile = number.map_err(|_| format!("{value:?} is no number of bytes"))?;
            }
            option if option.starts_with('-') => return Err(format!("unknown option {option}")),
            folder => args.folder = folder.into(),
        }
    }
    Ok(args)
}

/// Whether all went well.
fn run(args: &Args) -> Result<bool, String> {
    let modules = modules(&args.folder)?;
    let store = DirStore::open(&args.artifacts).map_err(|error| Report(&error).to_string())?;
    let artifacts = Artifacts::builder().store(store).build();
    let pool: Pool = Pool::builder()
        .limits(Limits::new().compile(args.compile))
        .artifacts(&artifacts)
        .build()
        .map_err(|error| Report(&error).to_string())?;

    let bar = ProgressBar::new(modules.iter().map(|(_, wasm)| wasm.len() as u64).sum());
    let style = "{bar:30} {binary_bytes}/{binary_total_bytes} of wasm, {elapsed} {msg}";
    bar.set_style(ProgressStyle::with_template(style).map_err(|error| error.to_string())?);
    bar.enable_steady_tick(Duration::from_millis(100));
    let began = Instant::now();
    let first = modules.first().map(|(name, _)| name.clone());
    bar.set_message(first.unwrap_or_default());
    let names: Vec<_> = modules.iter().map(|(name, _)| name.clone()).collect();
    let mut all = Vec::new();
    for module in pool.precompile(modules) {
        bar.inc(module.wasm_bytes);
        bar.set_message(names.get(module.index + 1).cloned().unwrap_or_default());
        bar.println(line(&module));
        all.push(module);
    }
    bar.finish_and_clear();
    // Where there is no terminal, the bar has said nothing.
    if bar.is_hidden() {
        all.iter().for_each(|module| println!("{}", line(module)));
    }
    summary(&all, began.elapsed(), &args.artifacts);
    Ok(all.iter().all(|module| module.outcome.is_ok()))
}

/// The folder's modules, by name.
fn modules(folder: &Path) -> Result<Vec<(String, Vec<u8>)>, String> {
    let failed = |path: &Path, error| format!("cannot read {}: {error}", path.display());
    let files = fs::read_dir(folder).map_err(|error| failed(folder, error))?;
    let mut modules = Vec::new();
    for file in files {
        let path = file.map_err(|error| failed(folder, error))?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "wasm")
        {
            let wasm = fs::read(&path).map_err(|error| failed(&path, error))?;
            let name = path.file_name().unwrap_or_default();
            modules.push((name.to_string_lossy().into_owned(), wasm));
        }
    }
    if modules.is_empty() {
        return Err(format!("there are no .wasm files in {}", folder.display()));
    }
    modules.sort();
    Ok(modules)
}

fn line(module: &Precompiled) -> String {
    let what = match &module.outcome {
        Ok(outcome) => outcome.to_string(),
        Err(error) => format!("FAILED: {}", Report(error)),
    };
    format!(
        "{:28} {:>12} of wasm {:>12} of code {:>9.1} ms  {what}",
        module.name,
        HumanBytes(module.wasm_bytes).to_string(),
        HumanBytes(module.artifact_bytes).to_string(),
        module.time.as_secs_f64() * 1e3,
    )
}

fn summary(all: &[Precompiled], took: Duration, folder: &Path) {
    let with = |outcome| {
        let of = |module: &&Precompiled| module.outcome.as_ref().ok() == Some(&outcome);
        all.iter().filter(of).count()
    };
    let sum = |bytes: fn(&Precompiled) -> u64| HumanBytes(all.iter().map(bytes).sum());
    println!(
        "\n{} modules in {:.1} s: {} compiled, {} there already, {} failed.\n{} of wasm are {} of code, in {}",
        all.len(),
        took.as_secs_f64(),
        with(PrecompileOutcome::Compiled),
        with(PrecompileOutcome::Present),
        all.iter().filter(|module| module.outcome.is_err()).count(),
        sum(|module| module.wasm_bytes),
        sum(|module| module.artifact_bytes),
        folder.display(),
    );
}
