//! What this process takes, and may take.

use std::fs;
use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Bytes that are resident, as the kernel says.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    pub now: u64,
    pub peak: u64,
}

impl Memory {
    pub fn now() -> io::Result<Self> {
        let status = fs::read_to_string("/proc/self/status")?;
        let bytes = |key: &str| {
            let mut lines = status.lines();
            let value = lines.find_map(|line| line.strip_prefix(key)?.strip_suffix("kB"));
            let kib = value.and_then(|value| value.trim().parse::<u64>().ok());
            kib.unwrap_or(0) << 10
        };
        Ok(Self {
            now: bytes("VmRSS:"),
            peak: bytes("VmHWM:"),
        })
    }
}

/// From now on this process has no more writable memory than this: what wants more aborts it. Those that compile for it
/// have caps of their own.
pub fn cap_this_process(bytes: u64) -> io::Result<()> {
    let maximum = getrlimit(Resource::Data).maximum;
    let current = Some(bytes);
    Ok(setrlimit(Resource::Data, Rlimit { current, maximum })?)
}

/// Has glibc keep one arena for all threads, in place of one for each: what one thread has freed is there for all
/// others, and goes back to the system when all of it is free. A host that allocates in many threads at once pays
/// for that with contention; one that calls wasm does not.
pub fn keep_one_arena() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[allow(unsafe_code, reason = "an allocator is asked in C")]
    // SAFETY: it changes a setting, before there are other threads.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Asks glibc to give back what it does not use; other allocators have other means.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[allow(unsafe_code, reason = "an allocator is asked in C")]
    // SAFETY: it may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
