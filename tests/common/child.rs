//! Tests that may end their process, or change what all of it shares, run in a process of their own.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const CHILD: &str = "WASM_POOL_CHILD";

/// Whether this process is a [`command`] of this test.
pub fn runs(test: &str) -> bool {
    std::env::var(CHILD).is_ok_and(|running| running == test)
}

/// The same test of the same binary, alone, for whoever wants more of it than [`is_child`] does: to kill it, or several
/// at once. In it, [`runs`] is true.
pub fn command(test: &str) -> Command {
    let own = std::env::current_exe().expect("a test has a file");
    let mut command = Command::new(own);
    command
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, test)
        .stdin(Stdio::null());
    command
}

/// Whether this is the child, which is to run the test's body. In the parent this runs the child: the
/// same test of the same binary, alone, under `limits` (shell commands such as `ulimit -v 1000000`;
/// none if empty); it fails unless the child passes within three minutes (compiling what is extreme takes one on a slow machine).
///
/// `test` is the test's full name, with its modules, as `cargo test -- --list` shows it.
#[track_caller]
pub fn is_child(test: &str, limits: &str) -> bool {
    if runs(test) {
        return true;
    }
    // A child that finds no test of this name runs none, and passes.
    let thread = std::thread::current();
    let running = thread.name().unwrap_or_default();
    assert!([test, "main"].contains(&running), "{running} is not {test}");
    let own = std::env::current_exe().expect("a test has a file");
    let script = match limits {
        "" => r#"exec "$0" "$@""#.to_owned(),
        limits => format!(r#"{limits}; exec "$0" "$@""#),
    };
    let mut child = Command::new("sh")
        .arg("-c")
        .arg(script)
        .arg(own)
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, test)
        .stdin(Stdio::null())
        .spawn()
        .expect("a child can be started");
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            break status;
        }
        if began.elapsed() > Duration::from_secs(180) {
            let _ = child.kill();
            panic!("{test} hangs in its child");
        }
        std::thread::park_timeout(Duration::from_millis(10));
    };
    assert!(status.success(), "{test} in its child: {status}");
    false
}
