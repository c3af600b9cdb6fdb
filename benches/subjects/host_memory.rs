//! What compilations leave in the host: in a process of the bench's own for each way to compile, so that nothing else has
//! been there before.

use std::process::Command;
use std::{env, fs};

use wasm_pool::{Definition, Function, Pool, PoolBuilder};

use super::{ADD, JSON};

#[allow(dead_code, reason = "of the example, which uses all of it")]
#[path = "../../examples/strangers/memory.rs"]
mod memory;

/// The argument that makes this program such a process; the way and the number of modules follow.
const CHILD: &str = "--host-memory";

/// Where modules are compiled, and what the host does about what that leaves.
pub const WAYS: [&str; 3] = ["here", "here, trimmed", "in a process"];

/// Bytes that the host itself has more after so many modules were compiled and dropped than before.
pub fn left_by(way: &str, modules: usize) -> i64 {
    let program = env::current_exe().expect("this program");
    let mut child = Command::new(program);
    child.args([CHILD, way, &modules.to_string()]);
    // One arena for all threads: what is left is then no question of which thread compiled.
    let output = child
        .env("MALLOC_ARENA_MAX", "1")
        .output()
        .expect("a process");
    let said = String::from_utf8_lossy(&output.stdout);
    (said.trim().parse())
        .unwrap_or_else(|_| panic!("{said}{}", String::from_utf8_lossy(&output.stderr)))
}

/// Whether this process is one of those; then it has done its work.
pub fn is_child() -> bool {
    let mut args = env::args().skip_while(|arg| arg != CHILD);
    let (Some(_), Some(way), Some(modules)) = (args.next(), args.next(), args.next()) else {
        return false;
    };
    let modules = modules.parse().expect("a number");
    println!("{}", compile(&way, modules));
    true
}

fn compile(way: &str, modules: usize) -> i64 {
    let pool = builder(way).no_housekeeper().build().expect("a plain pool");
    // What an engine and a compiler keep once and for all, whatever they compile.
    call(&pool, ADD, 0);
    let before = resident();
    for salt in 1..=modules {
        call(&pool, JSON, salt);
    }
    drop(pool);
    resident() - before
}

fn builder(way: &str) -> PoolBuilder {
    match way {
        "here" => Pool::builder(),
        "here, trimmed" => Pool::builder().on_compiled(|_| memory::give_back()),
        _ => in_process(),
    }
}

#[cfg(all(target_os = "linux", feature = "compiler"))]
fn in_process() -> PoolBuilder {
    let helper = env!("CARGO_BIN_EXE_wasm-pool-compiler");
    Pool::builder().compile_in(wasm_pool::CompilerProcess::helper(helper))
}

#[cfg(not(all(target_os = "linux", feature = "compiler")))]
fn in_process() -> PoolBuilder {
    panic!("there are no such processes here");
}

/// Another module each time: its salt is in a section that nobody reads.
fn call(pool: &Pool, wasm: &[u8], salt: usize) {
    let salt = salt.to_le_bytes();
    let section = [&[0, salt.len() as u8 + 1, 0][..], &salt].concat();
    let export = if wasm == ADD { "add" } else { "extract" };
    let definition = Definition::new("f")
        .export(export)
        .wasm([wasm, &section].concat());
    let function: Function = pool.define(definition).expect("a good guest");
    drop(function.acquire(0).expect("room"));
    assert!(pool.remove(function.name()).is_ok() && pool.stats().modules_known == 0);
}

/// Bytes of this process's own memory, as the kernel says: not of files, nor of what is shared.
fn resident() -> i64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<i64>().ok());
    kib.map_or(0, |kib| kib << 10)
}
