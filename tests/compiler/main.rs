//! Compiling in processes of their own: what they may take, how they end, and that nothing is left of them.
//!
//! A binary of its own: tests count this process's descriptors and children, so one runs at a time.
#![cfg(target_os = "linux")]

#[path = "../common/mod.rs"]
mod common;

mod bounds;
mod builds;
mod children;
mod ends;
mod liars;
mod strangers;
mod use_of_artifacts;

use std::collections::BTreeSet;
use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};

use wasm_pool::{CompilerProcess, Function, Limits, Pool, PoolBuilder};

use common::hostile::{Kind, hostile};

/// The program that this crate builds.
pub fn helper() -> CompilerProcess {
    CompilerProcess::helper(env!("CARGO_BIN_EXE_wasm-pool-compiler"))
}

/// A pool that compiles in processes, with so many bytes for that.
pub fn builder(compile: u64, process: CompilerProcess) -> PoolBuilder {
    Pool::builder()
        .no_housekeeper()
        .limits(Limits::new().compile(compile))
        .compile_in(process)
}

/// The process is everybody's: one test at a time.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    common::until(|| children().is_empty());
    alone
}

/// Processes that this one has started and that are there still, dead or alive.
pub fn children() -> BTreeSet<u32> {
    children_of(std::process::id())
}

/// The same of any process.
pub fn children_of(parent: u32) -> BTreeSet<u32> {
    let threads = fs::read_dir(format!("/proc/{parent}/task"));
    let lists = threads.into_iter().flatten().flatten().map(|thread| {
        let children = thread.path().join("children");
        fs::read_to_string(children).unwrap_or_default()
    });
    let all: Vec<String> = lists.collect();
    let numbers = all.iter().flat_map(|list| list.split_whitespace());
    numbers.map(|pid| pid.parse().unwrap()).collect()
}

/// Descriptors that this process has open.
pub fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// One line of what the kernel says of a process's memory, in bytes.
pub fn memory(pid: u32, line: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix(line))?;
    let kib: u64 = line.trim_end_matches(" kB").trim().parse().ok()?;
    Some(kib << 10)
}

/// A function of a module that takes minutes and gigabytes to compile, if it may.
pub fn define_bomb(pool: &Pool) -> Function<(), ()> {
    let wasm = hostile(Kind::Locals, 1, 60_000);
    pool.define(common::definition("f", wasm)).unwrap()
}
