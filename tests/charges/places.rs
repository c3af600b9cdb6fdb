//! Places for instances, made ahead: what is charged for them, and in them, is at least what the kernel says.

use std::time::Duration;

use crate::common::child::is_child;
use crate::common::{charged, guest, heap, kernel, wat};
use pollster::block_on;
use wasm_pool::{Budget, Definition, Function, Limits, Pool, PoolingAllocator, Reuse};

const PLACES: u32 = 24;
const KEPT: u64 = 16 << 10;

fn build(keep_resident: u64) -> Pool {
    // Two of its own, and a GC heap.
    let allocator = PoolingAllocator::for_instances(PLACES)
        .memories(3)
        .tables(2);
    Pool::builder()
        .no_housekeeper()
        .max_instances_per_entry(PLACES as usize)
        .pooling_allocator(allocator.keep_resident(keep_resident))
        .limits(Limits::new().mappings(10_000))
        .build()
        .unwrap()
}

/// Modules whose instances lie differently in their places: without a memory, with data or none, at its start, in the
/// middle and behind; two memories, tables, and a GC heap.
fn modules() -> Vec<(String, Vec<u8>)> {
    let texts = [
        "",
        "(memory 0)",
        "(memory 3) (table 10 funcref)",
        r#"(memory 3) (data (i32.const 0) "x")"#,
        r#"(memory 30) (data (i32.const 500000) "x") (table 5000 funcref)"#,
        r#"(memory 2) (data (i32.const 131071) "x") (memory 1) (data (memory 1) (i32.const 9) "x")"#,
        "(memory 1) (memory 1) (table 1 funcref) (table 1000 externref)",
    ];
    let grow = |text: &str| match text.contains("memory") {
        // A page here and there is written to, in what it has at first and in what it gets.
        true => {
            r#"(drop (memory.grow (i32.const 5)))
            (loop $next
                (i32.store (local.get $at) (i32.const 1))
                (local.set $at (i32.add (local.get $at) (i32.const 8192)))
                (br_if $next (i32.lt_u (local.get $at) (i32.mul (memory.size) (i32.const 65536)))))"#
        }
        false => "",
    };
    let of_text = |(n, text): (usize, &&str)| {
        let code = grow(text);
        let wasm = format!(r#"(module {text} (func (export "f") (local $at i32) {code}))"#);
        (format!("module{n}"), wat(&wasm))
    };
    texts.iter().enumerate().map(of_text).collect()
}

fn maps() -> u64 {
    kernel::mapped().mappings
}

#[test]
fn places_take_no_more_mappings_than_they_are_charged_for() {
    if !is_child(
        "places::places_take_no_more_mappings_than_they_are_charged_for",
        "",
    ) {
        return;
    }
    // The first call on a thread maps wasmtime's signal stack: the thread's, not the pool's.
    let warm_up: Pool = build(0);
    let definition = Definition::new("add").wasm(guest("math_add"));
    let add: Function<(i64, i64), i64> = warm_up.define(definition).unwrap();
    assert_eq!(add.call(1, (1, 2)).unwrap(), 3);
    assert_eq!(block_on(add.call_async(1, (1, 2))).unwrap(), 3);
    drop((add, warm_up));

    let before = maps();
    let pool = build(0);
    let of_places = charged(&pool, Budget::Mappings);
    let mut most = maps() - before;
    for (name, wasm) in modules() {
        let definition = Definition::new(name.as_str()).export("f").wasm(wasm);
        let f: Function<(), ()> = pool.define(definition).unwrap();
        for is_task in [false, true] {
            let leases: Vec<_> = (0..PLACES)
                .map(|_| {
                    let mut lease = f.acquire(1).unwrap();
                    match is_task {
                        true => block_on(lease.call_async(())).unwrap(),
                        false => lease.call(()).unwrap(),
                    }
                    lease
                })
                .collect();
            let (now, charge) = (maps() - before, charged(&pool, Budget::Mappings));
            println!("{name:?}: {charge} mappings charged, {now} there");
            assert!(now <= charge, "{name:?}: {charge} charged, {now} there");
            most = most.max(now);
            leases.into_iter().for_each(|lease| lease.discard());
            let (now, charge) = (maps() - before, charged(&pool, Budget::Mappings));
            assert!(
                now <= charge,
                "{name:?}, empty: {charge} charged, {now} there"
            );
        }
    }
    println!("{PLACES} places: {of_places} charged, at most {most} with modules");
    assert!(
        most * 2 > of_places,
        "charged for much more than there ever is"
    );
}

#[test]
fn empty_places_keep_no_more_than_they_are_charged_for() {
    if !is_child(
        "places::empty_places_keep_no_more_than_they_are_charged_for",
        "",
    ) {
        return;
    }
    for keep in [0, KEPT] {
        let before = kernel::large_areas();
        let pool = build(keep);
        let mut areas = kernel::large_areas();
        areas.retain(|area| !before.contains(area));
        let of_places = charged(&pool, Budget::Memory);
        assert_eq!(of_places, (u64::from(PLACES) * 3 + 8) * keep);
        let mut most_left = 0;
        for (name, wasm) in modules().into_iter().chain(modules()) {
            let f: Function<(), ()> = pool
                .define(Definition::new(name.as_str()).export("f").wasm(wasm))
                .unwrap();
            let mut leases: Vec<_> = (0..PLACES).map(|_| f.acquire(1).unwrap()).collect();
            for lease in &mut leases {
                block_on(lease.call_async(())).unwrap();
            }
            let live = kernel::anonymous_within(&areas);
            let charge = charged(&pool, Budget::Memory) + charged(&pool, Budget::Stack);
            assert!(live <= charge, "{name}: {charge} charged, {live} resident");
            leases.into_iter().for_each(|lease| lease.discard());
            let left = kernel::anonymous_within(&areas);
            println!("{name}: {live} resident of {charge}, empty {left} of {of_places}");
            assert!(
                left <= of_places,
                "{name}: {of_places} charged, {left} left"
            );
            most_left = most_left.max(left);
            pool.remove(name).unwrap();
        }
        assert!(
            most_left >= of_places / 2,
            "{most_left} kept, {of_places} charged"
        );
        pool.close();
        assert_eq!(charged(&pool, Budget::Memory), of_places);
    }
}

#[test]
fn an_instance_in_a_place_takes_no_more_heap_than_it_is_charged() {
    if !is_child(
        "places::an_instance_in_a_place_takes_no_more_heap_than_it_is_charged",
        "",
    ) {
        return;
    }
    let pool = build(0);
    for (name, wasm) in modules() {
        let definition = Definition::new(name.as_str()).export("f").wasm(wasm);
        let f: Function<(), ()> = pool.define(definition).unwrap();
        let first = f.acquire(1).unwrap();
        let (heap_before, memory_before) = (heap::in_use(), charged(&pool, Budget::Memory));
        let leases: Vec<_> = (1..PLACES).map(|_| f.acquire(1).unwrap()).collect();
        let heap = heap::in_use() - heap_before;
        let linear: u64 = leases.iter().map(|lease| lease.memory_bytes()).sum();
        let charge = charged(&pool, Budget::Memory) - memory_before - linear;
        println!("{name:?}: {charge} charged beside memories, {heap} of heap");
        assert!(heap <= charge, "{name:?}: {charge} charged, {heap} of heap");
        drop((first, leases));
        pool.remove(name.as_str()).unwrap();
    }
}

#[test]
fn spares_in_places_come_and_go_without_a_mapping() {
    if !is_child("places::spares_in_places_come_and_go_without_a_mapping", "") {
        return;
    }
    let allocator = PoolingAllocator::for_instances(PLACES);
    let builder = Pool::builder().no_housekeeper().reuse(Reuse::Pristine);
    let pool = builder.pooling_allocator(allocator).build().unwrap();
    let wasm = wat(r#"(module (memory 2) (data (i32.const 0) "x") (func (export "f")))"#);
    let f: Function<(), ()> = pool.define(Definition::new("f").wasm(wasm)).unwrap();
    let round = || {
        for _ in 0..50 {
            let leases: Vec<_> = (0..4).map(|_| f.acquire(1).unwrap()).collect();
            drop(leases);
            pool.sweep();
        }
    };
    round();
    let before = maps();
    let places = charged(&pool, Budget::Mappings);
    round();
    assert!(maps() <= before + 8, "{} mappings more", maps() - before);
    assert_eq!(charged(&pool, Budget::Mappings), places);
    assert!(pool.close_and_drain(Duration::from_secs(60)));
}
