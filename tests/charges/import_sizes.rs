//! What an instance takes for memories, tables and globals that are made for it to import: never more
//! than is charged.

use crate::common::child::is_child;
use crate::common::{check, check_empty, heap, wat};
use wasm_pool::{Budget, Definition, Function, ManualClock, Pool, StoreData};
use wasmtime::{Linker, Val};

const MANY: u64 = 200;

fn mappings() -> u64 {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().count() as u64
}

/// Imports of one kind, or of all, so many of each.
fn module(kind: &str, count: usize) -> Vec<u8> {
    let import = |n: usize| {
        let of = |kind: &str, ty: &str| format!(r#"(import "{kind}" "{n}" ({kind} {ty}))"#);
        match kind {
            "memory" => of(kind, "1"),
            "table" => of(kind, "10 funcref"),
            "global" => of(kind, "(mut i64)"),
            "func" if n == 0 => of("memory", "1"),
            "func" => of(kind, ""),
            "data" => {
                let data = format!(r#"(data (memory {n}) (i32.const 70000) "of its own")"#);
                format!("{} {data}", of("memory", "2"))
            }
            _ => [
                of("memory", "1"),
                of("table", "10 funcref"),
                of("global", "(mut i64)"),
            ]
            .concat(),
        }
    };
    let (imports, data): (Vec<_>, Vec<_>) = (0..count)
        .map(import)
        .map(|text| match text.split_once(" (data") {
            Some((import, data)) => (import.to_owned(), format!("(data{data}")),
            None => (text, String::new()),
        })
        .unzip();
    let (imports, data) = (imports.concat(), data.concat());
    wat(&format!(
        r#"(module {imports} {data} (func (export "f") (result i32) i32.const 1))"#
    ))
}

#[test]
#[cfg(target_os = "linux")]
fn promise_26_charges_cover_what_is_made_to_be_imported() {
    if !is_child(
        "import_sizes::promise_26_charges_cover_what_is_made_to_be_imported",
        "",
    ) {
        return;
    }
    let functions = |linker: &mut Linker<StoreData<()>>| {
        (0..90).try_for_each(|n: i32| linker.func_wrap("func", &n.to_string(), || ()).map(drop))
    };
    for kind in ["memory", "data", "table", "global", "func", "all"] {
        for count in [1, 2, 5, 9, 17, 33, 65, 90] {
            let pool = Pool::builder()
                .clock(ManualClock::new())
                .max_instances_per_entry(1 + MANY as usize)
                .imports(functions)
                .no_housekeeper()
                .build()
                .unwrap();
            let mut imports = pool.imports();
            for n in (0..count).map(|n| n.to_string()) {
                imports = imports.memory("memory", &n).table("table", &n).global(
                    "global",
                    &n,
                    Val::I64(1),
                );
            }
            let imports = imports.build().unwrap();
            let definition = Definition::new("f").wasm(module(kind, count));
            let function: Function<(), i32> = pool.define(definition.imports(&imports)).unwrap();
            let first = function.acquire(1).unwrap();
            let charged = |budget| pool.stats().budget(budget).charged;
            let before = (charged(Budget::Memory), charged(Budget::Mappings));
            let (heap, maps) = (heap::in_use(), mappings());
            let many = if count > 10 { MANY / 10 } else { MANY };
            let leases: Vec<_> = (0..many).map(|_| function.acquire(1).unwrap()).collect();
            let taken = (heap::in_use() - heap) / many;
            let new_maps = mappings() - maps;
            let linear: u64 = leases[0].memory_bytes();
            let memory = (charged(Budget::Memory) - before.0) / many - linear;
            let mapped = charged(Budget::Mappings) - before.1;
            println!(
                "{count} x {kind}: {memory} charged beside linear memory, heap {taken}; mappings \
                 {mapped} charged, {new_maps} new"
            );
            assert!(
                memory >= taken,
                "{count} x {kind}: {memory} charged, {taken} taken"
            );
            assert!(
                mapped >= new_maps,
                "{count} x {kind}: {mapped} charged, {new_maps} new"
            );
            drop((first, leases));
            check(&pool);
            pool.close();
            check_empty(&pool);
        }
    }
}
