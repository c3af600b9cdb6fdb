//! What is charged matches what the kernel and the allocator say: never under, and for code at
//! most 5 % over what is mapped, and twice the module's heap.

use crate::common::child::is_child;
use crate::common::{charged, check_empty, guest, heap, kernel};
use wasm_pool::{Budget, Definition, Function, Pool};

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

/// The first lease compiles, loads and instantiates. Returns the module's charge, what is mapped for it,
/// and the heap that it takes with an instance.
fn check_first(name: &str, pool: &Pool, function: &Function) -> [u64; 3] {
    let (before, heap_before) = (kernel::mapped(), heap::in_use());
    let (lease, heap_peak) = heap::peak_during(|| function.acquire(1).unwrap());
    let (after, heap) = (kernel::mapped(), heap::in_use() - heap_before);
    let code = charged(pool, Budget::Code);
    let mapped = after.code + after.images - before.code - before.images;
    let compile = pool.stats().budget(Budget::Compile).peak;
    let mappings = charged(pool, Budget::Mappings);
    let new_maps = after.mappings - before.mappings;
    println!(
        "{name}: code {code} charged, {mapped} mapped; compile {compile} reserved, heap peak \
         {heap_peak}; mappings {mappings} charged, {new_maps} new"
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
    [code, mapped, heap]
}

/// Many instances of one module: the heap that each of them takes.
fn check_instances(name: &str, pool: &Pool, function: &Function) -> u64 {
    const MANY: usize = 32;
    let first = function.acquire(1).unwrap();
    let (memory_before, heap_before) = (charged(pool, Budget::Memory), heap::in_use());
    let (before, mappings_before) = (kernel::mapped(), charged(pool, Budget::Mappings));
    let leases: Vec<_> = (0..MANY).map(|_| function.acquire(1).unwrap()).collect();
    let heap = (heap::in_use() - heap_before) / MANY as u64;
    let linear = leases[0].memory_bytes();
    let fixed = (charged(pool, Budget::Memory) - memory_before) / MANY as u64 - linear;
    let new_maps = kernel::mapped().mappings - before.mappings;
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
    heap
}

/// The code's charge is what is mapped, and what the module keeps of the heap.
fn check_code(name: &str, [code, mapped, heap]: [u64; 3], instance: u64) {
    let module = heap.saturating_sub(instance);
    println!("{name}: the loaded module {module} of heap");
    assert!(
        code >= mapped + module,
        "{name}: {code} charged, {mapped} mapped, {module} of heap"
    );
    assert!(
        code <= mapped + mapped / 20 + 2 * module,
        "{name}: {code} charged, {mapped} mapped, {module} of heap"
    );
}

#[test]
#[cfg(target_os = "linux")]
fn charges_match_the_kernel_and_the_heap() {
    if !is_child("true_sizes::charges_match_the_kernel_and_the_heap", "") {
        return;
    }
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
        // The entry's own part is the pool's.
        let _group = function.in_group(1);
        let before = kernel::mapped();
        let first = check_first(name, &pool, &function);
        let instance = check_instances(name, &pool, &function);
        check_code(name, first, instance);
        pool.close();
        check_empty(&pool);
        let after = kernel::mapped();
        let left = (after.code + after.images).saturating_sub(before.code + before.images);
        assert_eq!(
            left, 0,
            "{name}: code is charged no more, and {left} bytes are mapped"
        );
    }
}
