//! What is charged matches what the kernel and the allocator say: never under, and for code at
//! most 5 % over.
//!
//! One test, in a process of its own: it looks at the process's memory maps and heap.

mod common;

use common::{guest, heap};
use wasm_pool::{Budget, Definition, Function, Pool};

#[global_allocator]
static ALLOCATOR: heap::Counting = heap::Counting;

const GUESTS: [(&str, &str); 10] = [
    ("math_add", "add"),
    ("geo_haversine", "haversine"),
    ("text_levenshtein", "levenshtein"),
    ("text_soundex", "soundex"),
    ("hash_sha256", "sha256"),
    ("json_extract", "extract"),
    ("text_markdown", "markdown"),
    ("text_regex_match", "regex_match"),
    ("state_counter", "next"),
    ("rogue_leak", "leak"),
];

/// The number of mappings of this process, and bytes of those that the closure wants.
fn maps(wanted: impl Fn(&str) -> bool) -> (u64, u64) {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let bytes = |line: &str| {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let address = |hex| u64::from_str_radix(hex, 16).unwrap();
        address(to) - address(from)
    };
    let sum = maps.lines().filter(|line| wanted(line)).map(bytes).sum();
    (maps.lines().count() as u64, sum)
}

/// Bytes of the files in memory that wasmtime keeps as initial contents of linear memories.
fn images() -> u64 {
    use std::os::unix::fs::MetadataExt;
    let files = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let images = files.filter(|file| {
        let target = std::fs::read_link(file.path()).unwrap_or_default();
        target.to_string_lossy().contains("memfd:")
    });
    images
        .map(|image| std::fs::metadata(image.path()).unwrap().blocks() * 512)
        .sum()
}

fn is_code(line: &str) -> bool {
    line.contains(" r-xp ") || line.contains(" r--p ")
}

fn charged(pool: &Pool, budget: Budget) -> u64 {
    pool.stats().budget(budget).charged
}

/// The first lease compiles, loads and instantiates.
fn check_first(name: &str, pool: &Pool, function: &Function) {
    let (maps_before, mapped_before) = maps(is_code);
    let images_before = images();
    let (lease, heap_peak) = heap::peak_during(|| function.acquire(1).unwrap());
    let (maps_after, mapped_after) = maps(is_code);
    let code = charged(pool, Budget::Code);
    let mapped = mapped_after - mapped_before + images() - images_before;
    let compile = pool.stats().budget(Budget::Compile).peak;
    let mappings = charged(pool, Budget::Mappings);
    let new_maps = maps_after - maps_before;
    println!(
        "{name}: code {code} charged, {mapped} mapped; compile {compile} reserved, heap peak \
         {heap_peak}; mappings {mappings} charged, {new_maps} new"
    );
    assert!(code >= mapped, "{name}: {code} charged, {mapped} mapped");
    assert!(
        code <= mapped + mapped / 20,
        "{name}: {code} charged, {mapped} mapped"
    );
    assert!(
        compile >= heap_peak,
        "{name}: {compile} reserved, {heap_peak} used"
    );
    assert!(
        mappings >= new_maps,
        "{name}: {mappings} charged, {new_maps} new"
    );
    drop(lease);
}

/// Many instances of one module: what each of them takes.
fn check_instances(name: &str, pool: &Pool, function: &Function) {
    const MANY: usize = 32;
    let first = function.acquire(1).unwrap();
    let (memory_before, heap_before) = (charged(pool, Budget::Memory), heap::in_use());
    let (maps_before, mappings_before) = (maps(is_code).0, charged(pool, Budget::Mappings));
    let leases: Vec<_> = (0..MANY).map(|_| function.acquire(1).unwrap()).collect();
    let heap = (heap::in_use() - heap_before) / MANY as u64;
    let linear = leases[0].memory_bytes();
    let fixed = (charged(pool, Budget::Memory) - memory_before) / MANY as u64 - linear;
    let new_maps = maps(is_code).0 - maps_before;
    let mappings = charged(pool, Budget::Mappings) - mappings_before;
    println!(
        "{name}: each instance {fixed} charged beside its memory, heap {heap}; {MANY} instances: \
         mappings {mappings} charged, {new_maps} new"
    );
    assert!(fixed >= heap, "{name}: {fixed} charged, {heap} taken");
    assert!(
        mappings >= new_maps,
        "{name}: {mappings} charged, {new_maps} new"
    );
    drop((first, leases));
}

#[test]
#[cfg(target_os = "linux")]
fn charges_match_the_kernel_and_the_heap() {
    // The first call on a thread maps wasmtime's signal stack: the thread's, not the pool's.
    let warm_up = Pool::builder().no_housekeeper().build().unwrap();
    let definition = Definition::new("add").wasm(guest("math_add"));
    let add: Function<(i64, i64), i64> = warm_up.define(definition).unwrap();
    assert_eq!(add.call(1, (1, 2)).unwrap(), 3);
    drop((add, warm_up));

    for (name, export) in GUESTS {
        let pool = Pool::builder()
            .max_instances_per_entry(40)
            .no_housekeeper()
            .build()
            .unwrap();
        let definition = Definition::new(name).wasm(guest(name)).export(export);
        let function: Function = pool.define(definition).unwrap();
        let before = maps(is_code).1 + images();
        check_first(name, &pool, &function);
        check_instances(name, &pool, &function);
        pool.close();
        common::check_empty(&pool);
        let left = (maps(is_code).1 + images()).saturating_sub(before);
        assert_eq!(
            left, 0,
            "{name}: code is charged no more, and {left} bytes are mapped"
        );
    }
}
