//! Modules that have more of something than they may are refused when they are defined, replaced or precompiled.

use wasm_pool::{
    Artifacts, DefineError, Definition, InspectError, MemoryStore, ModuleLimit, ModuleLimits,
    ModuleTooLarge, Pool, PrecompileError,
};

use crate::common::hostile::{Recipe, Shape};
use crate::common::{check, guest, wat};

fn pool(limits: ModuleLimits) -> Pool {
    let artifacts = Artifacts::builder()
        .store(MemoryStore::new(1 << 20))
        .build();
    Pool::builder()
        .module_limits(limits)
        .artifacts(&artifacts)
        .no_housekeeper()
        .build()
        .unwrap()
}

fn definition(wasm: &[u8]) -> Definition {
    Definition::new("f").wasm(wasm)
}

fn refused(pool: &Pool, wasm: &[u8]) -> ModuleTooLarge {
    match pool.define::<(), ()>(definition(wasm)).unwrap_err() {
        DefineError::Module {
            source: InspectError::TooLarge(too_large),
            ..
        } => too_large,
        other => panic!("{other}"),
    }
}

/// A module that has this much of it, and little else.
fn modules() -> Vec<(ModuleLimit, u64, Vec<u8>)> {
    use ModuleLimit as L;
    let text = |fields: &str| wat(&format!("(module {fields} (func (export \"f\")))"));
    let recipe = |shape, count, width| Recipe::default().with(shape, count, width).module(1);
    let types = "(type (func (param i64))) (type (func (param i32))) (type (func (param f32)))";
    let group = format!("(rec {types})");
    let long = recipe(Shape::Chain, 100, 0);
    vec![
        (L::WasmBytes, long.len() as u64, long),
        (L::Types, 4, text(types)),
        (L::Types, 4, text(&group)),
        (L::Imports, 5, recipe(Shape::Imports, 5, 3)),
        (L::Functions, 6, recipe(Shape::Functions, 5, 0)),
        (L::Tables, 3, text(&"(table 1 funcref)".repeat(3))),
        (L::Memories, 3, text(&"(memory 1)".repeat(3))),
        (L::Globals, 7, recipe(Shape::Globals, 7, 0)),
        (L::Exports, 8, recipe(Shape::Exports, 7, 3)),
        (L::Segments, 9, recipe(Shape::Passive, 9, 1)),
        (L::Segments, 9, recipe(Shape::Elements, 9, 1)),
        (
            L::Locals,
            50,
            text("(func (local i64 i64) (local f32)) (func (local i32))"),
        ),
    ]
}

#[test]
fn each_limit_is_an_error_that_names_it() {
    for (limit, count, wasm) in modules() {
        let (count, function) = match limit {
            ModuleLimit::Locals => (3, Some(0)),
            _ => (count, None),
        };
        let less = pool(ModuleLimits::new().with(limit, count - 1));
        let too_large = refused(&less, &wasm);
        assert_eq!(
            (too_large.what, too_large.found, too_large.limit),
            (limit, count, count - 1)
        );
        assert_eq!(too_large.function, function, "{limit}");
        assert!(too_large.to_string().contains(limit.name()), "{too_large}");
        let stats = check(&less);
        assert_eq!((stats.modules_known, stats.compilations), (0, 0));

        // As much as there may be.
        let enough = pool(ModuleLimits::new().with(limit, count));
        let defined = enough.define::<(), ()>(definition(&wasm));
        let too_large = defined.err().filter(|error| {
            let source = std::error::Error::source(error);
            source.is_some_and(|source| source.to_string().contains("too large"))
        });
        assert_eq!(too_large, None, "{limit}");
    }
}

#[test]
fn limits_of_bodies_name_the_function() {
    let cases = [
        (ModuleLimit::Nesting, 40, (Shape::Loop, 40, 0)),
        (ModuleLimit::Nesting, 40, (Shape::If, 40, 2)),
        (ModuleLimit::BrTableEntries, 101, (Shape::BrTable, 100, 1)),
        (ModuleLimit::BrTableEntries, 202, (Shape::BrTable, 100, 2)),
    ];
    for (limit, found, (shape, count, width)) in cases {
        let recipe = Recipe::default()
            .with(Shape::Imports, 2, 4)
            .with(shape, count, width);
        let wasm = recipe.module(1);
        let too_large = refused(&pool(ModuleLimits::new().with(limit, found - 1)), &wasm);
        assert_eq!((too_large.what, too_large.found), (limit, found));
        assert_eq!(too_large.function, Some(2), "after two imported ones");
    }
    let wasm = Recipe::default().with(Shape::Chain, 100, 0).module(1);
    let limits = ModuleLimits::new().with(ModuleLimit::BodyBytes, 300);
    let too_large = refused(&pool(limits), &wasm);
    assert_eq!(
        (too_large.what, too_large.function),
        (ModuleLimit::BodyBytes, Some(0))
    );
    assert!(too_large.found > 300);
}

#[test]
fn replacing_and_precompiling_are_refused_as_well() {
    let pool = pool(ModuleLimits::new().with(ModuleLimit::Exports, 1));
    let good = wat(r#"(module (func (export "f")))"#);
    let large = wat(r#"(module (func (export "f")) (func (export "g")))"#);
    let f = pool.define::<(), ()>(definition(&good)).unwrap();
    assert!(matches!(
        pool.replace::<(), ()>(definition(&large)),
        Err(DefineError::Module {
            source: InspectError::TooLarge(_),
            ..
        })
    ));
    f.call(1, ()).unwrap();
    let done = pool.precompile([("large", &large)]).next().unwrap();
    assert!(matches!(
        done.outcome,
        Err(PrecompileError::Module(InspectError::TooLarge(_)))
    ));
    assert_eq!(pool.stats().compilations, 1);
    check(&pool);
}

#[test]
fn a_module_that_lies_about_its_counts_is_refused_before_they_are_read() {
    // A section of types that says that it has four billion.
    let lie = b"\0asm\x01\0\0\0\x01\x06\xff\xff\xff\xff\x0f\x60";
    let too_large = refused(&pool(ModuleLimits::new()), lie);
    assert_eq!(
        (too_large.what, too_large.found),
        (ModuleLimit::Types, u64::from(u32::MAX))
    );
}

#[test]
fn real_modules_pass_the_defaults_and_most_guests_the_strict_ones() {
    let strict = ModuleLimits::strict();
    let pool = Pool::builder()
        .strangers()
        .no_housekeeper()
        .build()
        .unwrap();
    for name in [
        "math_add",
        "text_levenshtein",
        "json_extract",
        "text_markdown",
        "text_regex_match",
    ] {
        // Its export has other types: that is seen after the limits.
        let error = pool.define::<(), ()>(definition(&guest(name)));
        let is_too_large = matches!(
            error,
            Err(DefineError::Module {
                source: InspectError::TooLarge(_),
                ..
            })
        );
        assert!(!is_too_large, "{name}: {error:?}");
    }
    for limit in ModuleLimit::ALL {
        assert!(
            strict.get(limit) < ModuleLimits::new().get(limit),
            "{limit}"
        );
        assert_eq!(limit.name().parse(), Ok(limit));
    }
}

#[cfg(feature = "config")]
#[test]
fn limits_are_read_from_settings() {
    let text = "[module_limits]\nwasm_bytes = '1Ki'\nlocals = 2\nnesting = 'unlimited'";
    let config: wasm_pool::Config = text.parse().unwrap();
    let pool = Pool::builder()
        .config(&config)
        .no_housekeeper()
        .build()
        .unwrap();
    let wasm = wat("(module (func (export \"f\") (local i64 i64 i64)))");
    let too_large = refused(&pool, &wasm);
    assert_eq!((too_large.what, too_large.limit), (ModuleLimit::Locals, 2));
    let wasm = Recipe::default().with(Shape::Chain, 1000, 0).module(1);
    assert_eq!(refused(&pool, &wasm).what, ModuleLimit::WasmBytes);

    let strict: wasm_pool::Config = "preset = 'strangers'".parse().unwrap();
    let pool = Pool::builder()
        .config(&strict)
        .no_housekeeper()
        .build()
        .unwrap();
    let wasm = Recipe::default().with(Shape::Block, 301, 0).module(1);
    assert_eq!(refused(&pool, &wasm).what, ModuleLimit::Nesting);

    let unknown = wasm_pool::Config::from_toml("[module_limits]\nlocal = 2").unwrap_err();
    assert!(unknown.to_string().contains("local"), "{unknown}");
}

#[cfg(feature = "serde")]
#[test]
fn limits_are_written_and_read_by_name() {
    let limits = ModuleLimits::strict().with(ModuleLimit::Tables, 7);
    let text = serde_json::to_string(&limits).unwrap();
    assert!(text.contains("\"br_table_entries\":4096"), "{text}");
    assert_eq!(serde_json::from_str::<ModuleLimits>(&text).unwrap(), limits);
    let some: ModuleLimits = serde_json::from_str("{\"nesting\": 5}").unwrap();
    assert_eq!(some, ModuleLimits::new().with(ModuleLimit::Nesting, 5));
    assert!(serde_json::from_str::<ModuleLimits>("{\"nestings\": 5}").is_err());
}
