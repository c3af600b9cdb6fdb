//! What Linux says of this process.

use std::fs;

struct Region {
    from: u64,
    to: u64,
    rights: String,
    /// Neither a file's nor the kernel's own.
    anonymous: bool,
}

fn regions() -> Vec<Region> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let parse = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let (from, to) = words[0].split_once('-').unwrap();
        let address = |hex| u64::from_str_radix(hex, 16).unwrap();
        Region {
            from: address(from),
            to: address(to),
            rights: words[1].to_owned(),
            anonymous: words.len() == 5,
        }
    };
    maps.lines().map(parse).collect()
}

/// Mappings of stacks of so many bytes, each with a guard of one page below it. What lies above may
/// have become one mapping with it, so they must be larger than a thread's.
pub fn mapped_stacks(bytes: u64) -> u64 {
    let is_stack = |pair: &&[Region]| {
        let (guard, stack) = (&pair[0], &pair[1]);
        guard.to == stack.from
            && guard.to - guard.from == 4096
            && (guard.rights.as_str(), stack.rights.as_str()) == ("---p", "rw-p")
            && stack.to - stack.from >= bytes
    };
    regions().windows(2).filter(is_stack).count() as u64
}

/// Mappings of code that is in no file.
pub fn mapped_code() -> usize {
    let is_code = |region: &&Region| region.anonymous && region.rights == "r-xp";
    regions().iter().filter(is_code).count()
}

/// Threads of this process whose names begin so.
pub fn threads(name: &str) -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|comm| comm.starts_with(name)).count()
}

/// Mappings of this process; bytes of those that loaded code and what belongs to it take; bytes of the files
/// in memory that wasmtime keeps as initial contents of linear memories.
pub struct Mapped {
    pub mappings: u64,
    pub code: u64,
    pub images: u64,
}

pub fn mapped() -> Mapped {
    let regions = regions();
    let is_code = |region: &&Region| matches!(region.rights.as_str(), "r-xp" | "r--p");
    Mapped {
        mappings: regions.len() as u64,
        code: regions
            .iter()
            .filter(is_code)
            .map(|code| code.to - code.from)
            .sum(),
        images: images(),
    }
}

fn images() -> u64 {
    use std::os::unix::fs::MetadataExt;
    let files = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let images = files.filter(|file| {
        let target = fs::read_link(file.path()).unwrap_or_default();
        target.to_string_lossy().contains("memfd:")
    });
    images
        .map(|image| fs::metadata(image.path()).unwrap().blocks() * 512)
        .sum()
}

/// Large parts of the address space that this process has mapped.
pub fn large_areas() -> Vec<(u64, u64)> {
    let large = |region: &Region| region.to - region.from >= 1 << 20;
    let regions = regions().into_iter().filter(large);
    regions.map(|region| (region.from, region.to)).collect()
}

/// Bytes in these parts of the address space that are resident and of no file.
pub fn anonymous_within(areas: &[(u64, u64)]) -> u64 {
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
    let (mut counts, mut bytes) = (false, 0);
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if let Some((from, to)) = first.split_once('-').filter(|_| !first.ends_with(':')) {
            let address = |hex| u64::from_str_radix(hex, 16).unwrap();
            let (from, to) = (address(from), address(to));
            counts = areas.iter().any(|area| area.0 <= from && to <= area.1);
        } else if first == "Anonymous:" && counts {
            bytes += words.next().unwrap().parse::<u64>().unwrap() << 10;
        }
    }
    bytes
}
