//! Modules that are warmed up are charged what their snapshots take, and what taking them takes.

use wasm_pool::{Budget, Definition, Function};

use super::measure::{self, Mark, everything};
use crate::common::child::is_child;
use crate::common::{charged, check_empty, heap, wat};

/// Fills a memory that it grows for that: every `step`th byte of so many pages.
fn filling(pages: u32, step: u32) -> Vec<u8> {
    wat(&format!(
        r#"(module (memory (export "memory") 1)
            (func (export "warm") (local $at i32)
                (drop (memory.grow (i32.const {})))
                (loop $next
                    (i32.store8 (local.get $at) (i32.const 7))
                    (local.set $at (i32.add (local.get $at) (i32.const {step})))
                    (br_if $next (i32.lt_u (local.get $at) (i32.const {})))))
            (func (export "f") (result i32) (i32.load8_u (i32.const 0))))"#,
        pages - 1,
        u64::from(pages) * 65_536 - u64::from(step),
    ))
}

/// Bytes of data in each page of a memory: all of them, few, and each beside a zero.
const SHAPES: [(&str, u32, u32); 5] = [
    ("dense", 32, 1),
    ("every other byte", 32, 2),
    ("every seventh byte", 32, 7),
    ("few bytes a page", 64, 2048),
    ("small", 1, 1000),
];

#[test]
fn warmed_up_modules_are_charged_what_the_kernel_maps_for_them() {
    const OTHERS: u64 = 3;
    if !is_child(
        "modules::warmed_up::warmed_up_modules_are_charged_what_the_kernel_maps_for_them",
        "",
    ) {
        return;
    }
    for (shape, pages, step) in SHAPES {
        let pool = measure::builder(&everything()).build().unwrap();
        measure::warm_up(&pool);
        let definition = Definition::new("f")
            .wasm(filling(pages, step))
            .fuel(1 << 40);
        let f: Function<(), i32> = pool.define(definition.warm_up("warm")).unwrap();
        let mut leases = Vec::with_capacity(16);
        let mut mark = Mark::now(&pool);
        leases.push(f.acquire(1).unwrap());
        let one = mark.since(&pool);
        leases.extend((0..OTHERS).map(|_| f.acquire(1).unwrap()));
        let others = mark.since(&pool);
        assert_eq!(leases[0].memory_bytes(), u64::from(pages) * 65_536);
        assert_eq!(leases[0].call(()).unwrap(), 7);

        let instance_heap = others.heap.div_ceil(OTHERS);
        let taken = one.mapped + one.heap.saturating_sub(instance_heap);
        println!(
            "{shape}: code {} charged, {} mapped, {taken} taken; an instance {} of {}; mappings {} of {}",
            one.code,
            one.mapped,
            others.memory / OTHERS,
            instance_heap,
            one.mappings,
            one.maps
        );
        assert!(
            one.code >= taken,
            "{shape}: {} of {taken} charged",
            one.code
        );
        assert!(one.mappings >= one.maps, "{shape}: mappings");
        assert!(
            others.mappings >= others.maps,
            "{shape}: mappings of others"
        );
        let linear = u64::from(pages) * 65_536;
        assert!(others.memory / OTHERS >= linear + instance_heap, "{shape}");
        drop(leases);
        pool.close();
        check_empty(&pool);
    }
}

#[test]
fn the_heap_of_a_warm_up_and_of_compiling_its_snapshot_is_reserved() {
    if !is_child(
        "modules::warmed_up::the_heap_of_a_warm_up_and_of_compiling_its_snapshot_is_reserved",
        "",
    ) {
        return;
    }
    for (shape, pages, step) in SHAPES.into_iter().chain([
        ("much, dense", 400, 1),
        ("much, every other byte", 200, 2),
        ("much, every seventh byte", 200, 7),
    ]) {
        let pool = measure::builder(&everything()).build().unwrap();
        measure::warm_up(&pool);
        let definition = Definition::new("f")
            .wasm(filling(pages, step))
            .fuel(1 << 40);
        let f: Function<(), i32> = pool.define(definition.warm_up("warm")).unwrap();
        let (lease, peak) = heap::peak_during(|| f.acquire(1).unwrap());
        let reserved = pool.stats().budget(Budget::Compile).peak;
        let kept = charged(&pool, Budget::Code);
        println!("{shape}: {peak} of heap at most, {reserved} reserved, and {kept} of code");
        assert!(reserved >= peak, "{shape}: {reserved} of {peak} reserved");
        drop(lease);
        assert_eq!(charged(&pool, Budget::Compile), 0);
    }
}
