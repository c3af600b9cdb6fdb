//! Eight instances that ask for 32 MiB each while all are in use, under a budget of 64 MiB. Each
//! contender runs in a process of its own, so that it is charged for nothing but itself.

mod cached;
mod caches;
mod fillers;

use std::fs;
use std::process::Command;
use std::sync::Barrier;
use std::thread;

use crate::table;

pub const BUDGET: u64 = 64 << 20;
pub const INSTANCES: usize = 8;

/// As the first argument, makes this process a contender: its name follows.
pub const CHILD: &str = "--budget-of";

/// The table, from one process for each contender.
pub fn table() -> String {
    let head = [
        "kept by",
        "granted",
        "charged",
        "resident, in use",
        "resident, idle",
    ];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    for name in fillers::NAMES {
        eprintln!("budget: {name}");
        let program = std::env::current_exe().expect("this program has a path");
        let child = Command::new(program).args([CHILD, name]).output();
        let child = child.expect("this program can be run");
        assert!(
            child.status.success(),
            "{name}: {}",
            String::from_utf8_lossy(&child.stderr)
        );
        let line = String::from_utf8(child.stdout).expect("it prints text");
        lines.push(line.trim().split('\t').map(str::to_owned).collect());
    }
    table::markdown(&lines)
}

/// What the contender's process does: fill, look, release, look again.
pub fn child(name: &str) {
    let filler = fillers::named(name);
    // Everything is there but the memory: code, engine, threads of the contender's own.
    assert!(filler.fill(u64::MAX, 0, &|| ()), "{name} takes a small one");
    filler.forget(u64::MAX);
    // Not everywhere allowed; the peak then includes what compiling took.
    let _ = fs::write("/proc/self/clear_refs", "5");
    let before = resident();
    let (full, seen) = (Barrier::new(INSTANCES + 1), Barrier::new(INSTANCES + 1));
    let (granted, in_use) = thread::scope(|scope| {
        let fill = |group| {
            let (filler, full, seen) = (&filler, &full, &seen);
            move || {
                let hold = || {
                    full.wait();
                    seen.wait();
                };
                filler.fill(group, 511, &hold)
            }
        };
        let threads: Vec<_> = (0..INSTANCES as u64)
            .map(|group| scope.spawn(fill(group)))
            .collect();
        full.wait();
        let in_use = peak().max(resident()).saturating_sub(before);
        seen.wait();
        let granted = threads
            .into_iter()
            .map(|thread| thread.join().expect("a thread has failed"))
            .filter(|granted| *granted)
            .count();
        (granted, in_use)
    });
    filler.settle();
    let idle = resident().saturating_sub(before);
    let charged = filler.charged().map_or("—".to_owned(), |b| mib(b / 1024));
    println!(
        "{name}\t{granted} of {INSTANCES}\t{charged}\t{}\t{}",
        mib(in_use),
        mib(idle)
    );
}

fn mib(kib: u64) -> String {
    format!("{:.1} MiB", kib as f64 / 1024.0)
}

/// KiB resident now.
fn resident() -> u64 {
    field("/proc/self/smaps_rollup", "Rss:")
}

/// The most KiB that were resident since the mark was cleared.
fn peak() -> u64 {
    field("/proc/self/status", "VmHWM:")
}

fn field(path: &str, name: &str) -> u64 {
    let text = fs::read_to_string(path).expect("Linux tells what is resident");
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.split_whitespace().next())
        .and_then(|kib| kib.parse().ok())
        .expect("in kB")
}
