//! What the kernel says of another process.

use std::fs;

/// What the kernel says that it has, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct MemoryUse {
    /// Address space.
    pub space: u64,
    /// The most address space that it ever had.
    pub peak_space: u64,
    /// Of it, what it can write to and shares with nobody: what `RLIMIT_DATA` limits.
    pub data: u64,
    /// Memory that belongs to no file.
    pub anonymous: u64,
}

/// What a process has, if it is there and is not dead.
pub(crate) fn memory_of(pid: u32) -> Option<MemoryUse> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let bytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        kib.checked_mul(1 << 10)
    };
    Some(MemoryUse {
        space: bytes("VmSize:")?,
        peak_space: bytes("VmPeak:")?,
        data: bytes("VmData:")?,
        anonymous: bytes("RssAnon:")?,
    })
}

/// Seconds that a process has run, rounded up.
#[cfg(target_os = "linux")]
pub(super) fn cpu_seconds(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name may have anything in it, and ends with the last parenthesis.
    let fields = text.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let mut ticks = fields.split(' ').skip(11).take(2);
    let mut next = || ticks.next().and_then(|ticks| ticks.parse::<u64>().ok());
    let ticks = next().unwrap_or(0) + next().unwrap_or(0);
    ticks.div_ceil(rustix::param::clock_ticks_per_second())
}
