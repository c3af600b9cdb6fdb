//! What the numbers depend on: machine, compiler, versions.

use std::fs;
use std::process::Command;

const LOCK: &str = include_str!("../Cargo.lock");

/// First line of what a command prints, or a question mark.
fn ask(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().ok();
    let text = output.and_then(|output| String::from_utf8(output.stdout).ok());
    let line = text.and_then(|text| text.lines().next().map(str::to_owned));
    line.unwrap_or_else(|| "?".to_owned())
}

fn file(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

pub fn date() -> String {
    ask("date", &["-u", "+%Y-%m-%d %H:%M UTC"])
}

pub fn load() -> String {
    file("/proc/loadavg")
        .split(' ')
        .next()
        .unwrap_or("?")
        .to_owned()
}

/// CPU, cores, kernel, compiler, commit.
pub fn description() -> String {
    let cpuinfo = file("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let commit = env!("WASM_POOL_COMMIT");
    format!(
        "{}, {cores} logical cores, Linux {}; {}; wasm-pool at {commit}",
        model.map_or("unknown CPU", |(_, model)| model),
        file("/proc/sys/kernel/osrelease").trim(),
        ask("rustc", &["--version"]),
    )
}

/// `name version` of a package in Cargo.lock, and which wasmtime it brings if that is another.
pub fn version(name: &str) -> String {
    let found = LOCK.split("[[package]]").find_map(|package| {
        let named = package.contains(&format!("\nname = \"{name}\"\n"));
        let version = package.split("version = \"").nth(1)?.split('"').next()?;
        named.then_some((package, version))
    });
    let Some((package, version)) = found else {
        return format!("{name} ?");
    };
    let own = package
        .split("\"wasmtime ")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    match own {
        Some(own) if name != "wasm-pool" => format!("{name} {version} (on wasmtime {own})"),
        Some(own) => format!("{name} {version}, wasmtime {own}"),
        None => format!("{name} {version}"),
    }
}
