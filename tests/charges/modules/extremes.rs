//! Modules that have as much of one thing as there may be, or a part of that. Each exports `f`.

use crate::common::wat;

pub type Named = (&'static str, Vec<u8>);

/// A text for each number below `count`, one after the other.
fn each(count: usize, text: impl Fn(usize) -> String) -> String {
    (0..count).map(text).collect()
}

/// A text for each bit of a number.
fn bits(n: usize, count: usize, zero: &str, one: &str) -> String {
    each(count, |bit| [zero, one][n >> (bit % 60) & 1].to_owned())
}

/// Fields that come before the function, or after it; `$f` is the function.
fn before(fields: &str) -> Vec<u8> {
    wat(&format!(r#"(module {fields} (func $f (export "f")))"#))
}

fn after(fields: &str) -> Vec<u8> {
    wat(&format!(r#"(module (func $f (export "f")) {fields})"#))
}

/// Some of those that there may be, as many as there may be.
#[allow(dead_code, reason = "each binary of tests uses its own part")]
pub fn some(names: &[&str]) -> Vec<Named> {
    let mut modules: Vec<_> = [data, tables].iter().flat_map(|list| list(1)).collect();
    modules.retain(|(name, _)| names.contains(name));
    assert_eq!(modules.len(), names.len());
    modules
}

/// All of them; of what there may be thousands of, one in `part`.
pub fn all(part: usize) -> Vec<Named> {
    let lists = [data, tables, functions, globals, names, types, collected];
    lists.iter().flat_map(|list| list(part)).collect()
}

fn data(part: usize) -> Vec<Named> {
    let many = 99_000 / part;
    let far = |n| format!("(data (i32.const {}) \"a\")", n * 65_000);
    let computed = |n| {
        let offset = format!("(offset (i32.add (i32.const {n}) (i32.const 1)))");
        format!("(data {offset} \"a\")")
    };
    let with_data = |n| format!("(memory $m{n} 1) (data (memory $m{n}) (i32.const 9) \"x\")");
    let large = "z".repeat(1 << 20);
    vec![
        ("nothing", before("")),
        ("empty passive data", after(&"(data \"\")".repeat(many))),
        (
            "empty active data",
            after(&format!(
                "(memory 1) {}",
                "(data (i32.const 0) \"\")".repeat(many)
            )),
        ),
        (
            "active data",
            after(&format!(
                "(memory 1) {}",
                "(data (i32.const 0) \"a\")".repeat(many)
            )),
        ),
        (
            "active data far apart",
            after(&format!("(memory 1000) {}", each(1000, far))),
        ),
        (
            "computed places of data",
            after(&format!("(memory 1) {}", each(1000, computed))),
        ),
        ("empty memories", after(&"(memory 0)".repeat(100))),
        ("memories of 64 bits", after(&"(memory i64 0)".repeat(100))),
        ("memories with data", after(&each(100, with_data))),
        (
            "large data",
            after(&format!("(memory 16) (data (i32.const 0) \"{large}\")")),
        ),
        (
            "large passive data",
            after(&format!("(memory 16) (data \"{large}\")")),
        ),
        (
            "custom section",
            before(&format!("(@custom \"x\" \"{large}\")")),
        ),
    ]
}

fn tables(part: usize) -> Vec<Named> {
    let many = 10_000 / part;
    let far = |n| {
        let elements = format!("(elem (table $t{n}) (i32.const 99999) func $f)");
        format!("(table $t{n} 100000 funcref) {elements}")
    };
    let expressions = "(elem funcref (ref.func $f) (ref.null func))";
    vec![
        ("empty tables", after(&"(table 0 funcref)".repeat(100))),
        ("large tables", after(&"(table 100000 funcref)".repeat(10))),
        ("far elements", after(&each(50, far))),
        (
            "tables full of one function",
            after(&"(table 100000 funcref (ref.func $f))".repeat(50)),
        ),
        ("passive elements", after(&"(elem func $f)".repeat(many))),
        (
            "empty passive elements",
            after(&"(elem func)".repeat(10 * many)),
        ),
        (
            "a long passive segment",
            after(&format!("(elem func {})", "$f ".repeat(10 * many))),
        ),
        (
            "declared elements",
            after(&"(elem declare func $f)".repeat(many)),
        ),
        ("elements by expressions", after(&expressions.repeat(many))),
    ]
}

fn functions(part: usize) -> Vec<Named> {
    let many = 40_000 / part;
    let plain = "(func)".repeat(many);
    let numbers = each(many, |n| format!("{n} "));
    vec![
        ("functions", after(&plain)),
        (
            "exported functions",
            after(&each(many, |n| format!("(func (export \"{n}\"))"))),
        ),
        (
            "a function exported often",
            after(&each(2 * many, |n| format!("(export \"{n}\" (func $f))"))),
        ),
        (
            "functions in elements",
            after(&format!("{plain} (elem declare func {numbers})")),
        ),
        (
            "functions in globals",
            after(&format!(
                "{plain} {}",
                each(many, |n| format!("(global funcref (ref.func {n}))"))
            )),
        ),
        (
            "a function imported often",
            before(&"(import \"a\" \"b\" (func))".repeat(many)),
        ),
        (
            "imported functions",
            before(&each(many, |n| {
                format!("(import \"a\" \"{n}\" (func (param i32)))")
            })),
        ),
    ]
}

fn globals(part: usize) -> Vec<Named> {
    let many = 100_000 / part;
    let sum = "(global i32 (i32.add (global.get 0) (i32.const 1)))";
    vec![
        (
            "globals",
            after(&"(global (mut i64) (i64.const 0))".repeat(many)),
        ),
        (
            "wide globals",
            after(&"(global (mut v128) (v128.const i64x2 0 0))".repeat(many)),
        ),
        (
            "computed globals",
            after(&format!(
                "(global i32 (i32.const 1)) {}",
                sum.repeat(many / 10)
            )),
        ),
        (
            "globals of references",
            // 100,000 of them panic in the compiler (`MemFlagsSetOverflow`).
            after(&"(global (mut externref) (ref.null extern))".repeat(many / 10)),
        ),
        ("a tag often", after(&"(tag)".repeat(many))),
        (
            "tags",
            after(&each(many / 10, |n| {
                format!("(tag (param {}))", bits(n, 14, "i32 ", "i64 "))
            })),
        ),
    ]
}

fn names(part: usize) -> Vec<Named> {
    let long = |letter: &str| letter.repeat(50_000);
    vec![
        (
            "long names of imports",
            before(&each(20, |n| {
                format!("(import \"{}{n}\" \"{}\" (func))", long("a"), long("b"))
            })),
        ),
        (
            "long names of exports",
            after(&each(20, |n| {
                format!("(export \"{}{n}\" (func $f))", long("x"))
            })),
        ),
        (
            "names of functions",
            after(&each(20_000 / part, |n| {
                format!("(func $function_of_name_{n})")
            })),
        ),
        (
            "a long name",
            wat(&format!("(module ${} (func (export \"f\")))", long("m"))),
        ),
    ]
}

/// As many numbers and vectors as nine bits tell apart.
pub fn different_types(count: usize) -> String {
    let different = |n| {
        let (low, high) = (bits(n, 9, "i32 ", "i64 "), bits(n >> 9, 9, "f32 ", "f64 "));
        format!("(type (func (param {low}) (result {high})))")
    };
    each(count, different)
}

fn types(part: usize) -> Vec<Named> {
    let many = 200_000 / part;
    let wide = |n| {
        let results = bits(n, 100, "i32 ", "f32 ");
        format!(
            "(type (func (param {}) (result {results})))",
            "i64 ".repeat(900)
        )
    };
    let of_references = |n| {
        let params = bits(n, 14, "i32 ", "i64 ");
        format!("(type (func (param (ref null $s)) (param {params})))")
    };
    vec![
        ("types", before(&different_types(many))),
        // Just over a power of two: all lists have room for twice as many.
        (
            "a few types more",
            before(&different_types(65_600 / part.next_power_of_two())),
        ),
        ("a type often", before(&"(type (func))".repeat(many))),
        ("wide types", before(&each(1000 / part, wide))),
        (
            "types of references",
            before(&format!(
                "(type $s (struct)) {}",
                each(10_000 / part, of_references)
            )),
        ),
    ]
}

/// What references to it need a heap for.
fn collected(part: usize) -> Vec<Named> {
    let many = 30_000 / part;
    let fields = |n| bits(n, 15, "(field i32)", "(field i64)");
    let wide = "(field (mut anyref)) ".repeat(1000);
    let pair = |n| {
        format!(
            "(rec (type (array (mut i8))) (type (struct {})))",
            fields(n)
        )
    };
    // Chains of the greatest depth.
    let deep = |n: usize| {
        let supertype = match n % 60 {
            0 => String::new(),
            _ => format!("$t{}", n - 1),
        };
        format!("(type $t{n} (sub {supertype} (struct {})))", fields(n / 60))
    };
    vec![
        (
            "structs",
            before(&each(many, |n| format!("(type (struct {}))", fields(n)))),
        ),
        (
            "wide structs",
            before(&each(200, |n| {
                format!("(type (struct {wide} {}))", fields(n))
            })),
        ),
        ("groups of types", before(&each(many, pair))),
        (
            "a large group",
            before(&format!("(rec {})", "(type (struct))".repeat(many))),
        ),
        ("deep types", before(&each(many, deep))),
        ("a table of references", before("(table 10 externref)")),
        (
            "an integer as a reference",
            before("(func (export \"g\") (drop (ref.i31 (i32.const 3))))"),
        ),
        (
            "an exception",
            before("(tag $t) (func (export \"g\") (throw $t))"),
        ),
        (
            "a tail call",
            before("(func $g (export \"g\") (return_call $g))"),
        ),
    ]
}
