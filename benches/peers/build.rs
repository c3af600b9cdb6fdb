//! Records which wasm-pool this program is built with: its commit, and whether it has been changed.

use std::process::Command;

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

fn main() {
    for path in [
        "build.rs",
        "../../src",
        "../../Cargo.toml",
        "../../.git/logs/HEAD",
    ] {
        println!("cargo::rerun-if-changed={path}");
    }
    let commit = git(&["rev-parse", "--short", "HEAD"]).unwrap_or_else(|| "no commit".into());
    let changes = git(&[
        "status",
        "--porcelain",
        "--",
        "../../src",
        "../../Cargo.toml",
    ]);
    let changed = if changes.is_none_or(|changes| changes.is_empty()) {
        ""
    } else {
        " with changes"
    };
    println!("cargo::rustc-env=WASM_POOL_COMMIT={commit}{changed}");
}
