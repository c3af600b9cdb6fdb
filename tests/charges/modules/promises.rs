//! What was charged too little, or too much, when the pool was attacked.

use wasm_pool::{Budget, Definition, Function, Pool};

use super::extremes;
use super::measure::{self, Mark, everything};
use crate::common::child::is_child;
use crate::common::{charged, check_empty, guest, heap, wat};

fn define(pool: &Pool, name: &str, text: &str) -> Function {
    let definition = Definition::new(name.to_owned()).wasm(wat(text)).export("f");
    pool.define(definition).unwrap()
}

#[test]
fn promise_05_what_is_empty_in_the_module_takes_heap_in_each_instance() {
    if !is_child(
        "modules::promises::promise_05_what_is_empty_in_the_module_takes_heap_in_each_instance",
        "",
    ) {
        return;
    }
    super::check(&extremes::some(&[
        "empty passive data",
        "active data",
        "empty memories",
        "empty tables",
        "passive elements",
    ]));
}

#[test]
fn promise_05_functions_that_nothing_refers_to_are_not_charged_to_instances() {
    if !is_child(
        "modules::promises::promise_05_functions_that_nothing_refers_to_are_not_charged_to_instances",
        "",
    ) {
        return;
    }
    let instance = |text: &str| {
        let pool = measure::builder(&everything()).build().unwrap();
        let lease = define(&pool, "f", text).acquire(1).unwrap();
        let memory = charged(&pool, Budget::Memory);
        drop(lease);
        memory
    };
    let plain = instance("(module (func (export \"f\")))");
    let many = "(func)".repeat(4000);
    assert_eq!(
        instance(&format!("(module (func (export \"f\")) {many})")),
        plain
    );
    // Each of these can be held by the host.
    let exported: String = (0..4000)
        .map(|n| format!("(func (export \"{n}\"))"))
        .collect();
    let held = instance(&format!("(module (func (export \"f\")) {exported})"));
    assert!(held >= plain + 3900 * 32, "{held}");
}

#[test]
fn promise_05_an_instance_and_its_entry_take_no_more_than_the_instance_is_charged() {
    const GROUPS: u64 = 1000;
    if !is_child(
        "modules::promises::promise_05_an_instance_and_its_entry_take_no_more_than_the_instance_is_charged",
        "",
    ) {
        return;
    }
    let pool = measure::builder(&everything())
        .max_instances_per_entry(8)
        .build()
        .unwrap();
    let texts = [
        ("nothing", "(module (func (export \"f\")))"),
        (
            "one_of_each",
            "(module (memory 0) (table 0 funcref) (global i32 (i32.const 1)) (func (export \"f\")))",
        ),
    ];
    for (name, text) in texts {
        let function = define(&pool, name, text);
        drop(function.acquire(GROUPS).unwrap());
        let mut leases = Vec::with_capacity(GROUPS as usize);
        let mut mark = Mark::now(&pool);
        leases.extend((0..GROUPS).map(|group| function.acquire(group).unwrap()));
        let since = mark.since(&pool);
        let [charged, taken] = [since.memory, since.heap].map(|bytes| bytes / GROUPS);
        println!("{name}: {charged} bytes charged, {taken} of heap with its entry");
        assert!(charged >= taken, "{name}: {charged} charged, {taken} taken");
    }
}

/// Keeps as many structs as it is told to.
const STRUCTS: &str = r#"(module
    (type $node (struct (field (ref null $node)) (field i64)))
    (global $list (mut (ref null $node)) (ref.null $node))
    (func (export "f") (param $n i32)
        (loop $again
            (global.set $list (struct.new $node (global.get $list) (i64.const 1)))
            (local.set $n (i32.sub (local.get $n) (i32.const 1)))
            (br_if $again (local.get $n)))))"#;

#[test]
fn promise_06_the_mappings_of_gc_heaps_are_charged() {
    const INSTANCES: usize = 50;
    if !is_child(
        "modules::promises::promise_06_the_mappings_of_gc_heaps_are_charged",
        "",
    ) {
        return;
    }
    let pool = measure::builder(&everything())
        .max_instances_per_entry(INSTANCES)
        .build()
        .unwrap();
    measure::warm_up(&pool);
    let function = pool
        .define::<i32, ()>(Definition::new("f").wasm(wat(STRUCTS)))
        .unwrap();
    let mut mark = Mark::now(&pool);
    let mut leases = Vec::with_capacity(INSTANCES);
    for _ in 0..INSTANCES {
        let mut lease = function.acquire(1).unwrap();
        lease.call(1000).unwrap();
        leases.push(lease);
    }
    let since = mark.since(&pool);
    println!("{} mappings charged, {} new", since.mappings, since.maps);
    assert!(since.maps > INSTANCES as u64, "the test makes GC heaps");
    assert!(since.mappings >= since.maps);
    drop(leases);
    pool.close();
    check_empty(&pool);
}

#[test]
fn promise_06_modules_that_collect_nothing_are_charged_no_gc_heap() {
    if !is_child(
        "modules::promises::promise_06_modules_that_collect_nothing_are_charged_no_gc_heap",
        "",
    ) {
        return;
    }
    let mappings = |text: &str| {
        let pool = measure::builder(&everything()).build().unwrap();
        let function = define(&pool, "f", text);
        let one = function.acquire(1).unwrap();
        let with_one = charged(&pool, Budget::Mappings);
        let two = function.acquire(1).unwrap();
        let each = charged(&pool, Budget::Mappings) - with_one;
        drop((one, two));
        each
    };
    assert_eq!(mappings("(module (func (export \"f\")))"), 0);
    let old = "(module (memory 1) (table 1 funcref) (global i64 (i64.const 1))
        (elem (i32.const 0) func 0) (func (export \"f\")))";
    assert_eq!(mappings(old), 3);
    let references = "(module (type (func)) (type (func (param (ref null 0))))
        (global (ref null 0) (ref.null 0)) (func (export \"f\")))";
    assert_eq!(mappings(references), 0);
    assert_eq!(
        mappings("(module (table 1 externref) (func (export \"f\")))"),
        3
    );
}

#[test]
fn promise_07_the_heap_of_loaded_modules_is_charged_and_not_twice() {
    if !is_child(
        "modules::promises::promise_07_the_heap_of_loaded_modules_is_charged_and_not_twice",
        "",
    ) {
        return;
    }
    let guests = [
        ("math_add", "add"),
        ("text_levenshtein", "levenshtein"),
        ("json_extract", "extract"),
        ("text_markdown", "markdown"),
        ("text_regex_match", "regex_match"),
    ];
    for (name, export) in guests {
        let measured = measure::measure(&everything(), &guest(name), export, true);
        let measured = measured.unwrap_or_else(|skipped| panic!("{name}: {skipped:?}"));
        println!("{}", super::describe(name, &measured));
        assert_eq!(measured.shortfall(), None, "{name}");
        let heap = measured.code - measured.mapped;
        assert!(heap <= 2 * measured.module_heap, "{name}: {heap} charged");
    }
}

#[test]
fn promise_07_what_many_types_take_is_charged_to_all_modules_that_are_loaded() {
    const OTHERS: i32 = 50;
    if !is_child(
        "modules::promises::promise_07_what_many_types_take_is_charged_to_all_modules_that_are_loaded",
        "",
    ) {
        return;
    }
    let pool = measure::builder(&everything()).build().unwrap();
    measure::warm_up(&pool);
    let many = extremes::different_types(20_000);
    let many = define(
        &pool,
        "many",
        &format!("(module {many} (func (export \"f\")))"),
    );
    let others: Vec<Function> = (0..OTHERS)
        .map(|n| {
            // Each has a type of its own, which gets a high number.
            let params = "i32 ".repeat(n as usize + 20);
            let text =
                format!("(module (func (export \"f\")) (func (export \"g\") (param {params})))");
            define(&pool, &format!("other_{n}"), &text)
        })
        .collect();
    let mut mark = Mark::now(&pool);
    drop(many.acquire(1).unwrap());
    let with_many = mark.since(&pool);
    for other in &others {
        drop(other.acquire(1).unwrap());
    }
    let with_others = mark.since(&pool);
    println!(
        "many types: {} charged, {} heap; {OTHERS} others: {} charged, {} mapped, {} heap",
        with_many.code, with_many.heap, with_others.code, with_others.mapped, with_others.heap
    );
    // What stays of each is idle, and charged to memory.
    let taken = with_others.mapped + with_others.heap;
    assert!(with_others.code + with_others.memory >= taken);

    // Gone, they are charged no more; what the engine's registry keeps for the next is little.
    let before_them = heap::in_use() - with_many.heap - with_others.heap;
    drop((many, others));
    pool.retain(|_| false);
    let names = (0..OTHERS).map(|n| format!("other_{n}"));
    for name in names.chain(["many".to_owned(), "first".to_owned()]) {
        pool.remove(&name).unwrap();
    }
    assert_eq!(charged(&pool, Budget::Code), 0);
    let kept = heap::in_use().saturating_sub(before_them);
    println!("{kept} bytes of heap are kept");
    assert!(kept <= with_many.code / 4, "{kept} bytes are kept");
    drop(pool);
}

#[test]
fn promise_07_code_that_has_no_room_for_its_heap_is_not_loaded() {
    if !is_child(
        "modules::promises::promise_07_code_that_has_no_room_for_its_heap_is_not_loaded",
        "",
    ) {
        return;
    }
    let types = extremes::different_types(2000);
    let text = format!("(module {types} (func (export \"f\")))");
    let engine = everything();
    let needed = {
        let pool = measure::builder(&engine).build().unwrap();
        drop(define(&pool, "f", &text).acquire(1).unwrap());
        charged(&pool, Budget::Code)
    };
    let pool = measure::builder(&engine)
        .limits(wasm_pool::Limits::new().code(needed - 1))
        .build()
        .unwrap();
    let error = define(&pool, "f", &text).acquire(1).unwrap_err();
    assert!(
        matches!(error, wasm_pool::AcquireError::BudgetExceeded(_)),
        "{error}"
    );
    assert_eq!(pool.stats().loads, 0);
}
