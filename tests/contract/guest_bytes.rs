//! Strings and bytes go to guests and come back; whatever a guest says of its memory is checked,
//! and a guest that lies harms nobody but itself.

use crate::common::{charges, check, check_empty, guest, pass, text_to_text, wat};
use wasm_pool::{
    CallError, Definition, ExportedFunc, Function, GuestBytes, ManualClock, MemoryError, Pool,
};
use wasmtime::{Trap, Val};

type TextToText = Function<(i32, i32), i64>;
type Texts = (i32, i32, i32, i32);

fn quiet() -> Pool {
    let builder = Pool::builder().clock(ManualClock::new());
    builder.no_housekeeper().build().unwrap()
}

fn real(name: &str) -> Definition {
    let (_, export) = name.split_once('_').unwrap();
    Definition::new(name).wasm(guest(name)).export(export)
}

#[test]
fn texts_go_to_soundex_and_back() {
    let pool = quiet();
    let soundex: TextToText = pool.define(real("text_soundex")).unwrap();
    let call = |text: &str| text_to_text(&soundex, text).unwrap();
    assert_eq!(call("Robert").as_deref(), Some("R163"));
    assert_eq!(call("Ashcraft").as_deref(), Some("A261"));
    assert_eq!(
        call("").as_deref(),
        Some(""),
        "an empty argument, an empty result"
    );
    assert_eq!(text_to_text(&soundex, b"\xff").unwrap(), None, "NULL");
    let stats = check(&pool);
    assert_eq!((stats.misses, stats.hits), (1, 3));
}

#[test]
fn bytes_go_to_sha256_and_back() {
    let pool = quiet();
    let sha256: TextToText = pool.define(real("hash_sha256")).unwrap();
    let call = |bytes: &[u8]| text_to_text(&sha256, bytes).unwrap().unwrap();
    assert_eq!(
        call(b"abc"),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
    assert_eq!(
        call(b""),
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    );
    let million = vec![b'a'; 1_000_000];
    assert_eq!(
        call(&million),
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
    );
}

#[test]
fn two_texts_go_to_json_extract() {
    let pool = quiet();
    let extract: Function<Texts, i64> = pool.define(real("json_extract")).unwrap();
    let call = |json: &str, pointer: &str| {
        let mut lease = extract.acquire(1).unwrap();
        let (json, json_len) = pass(&mut lease, json).unwrap();
        let (pointer, pointer_len) = pass(&mut lease, pointer).unwrap();
        let result = lease.call((json, json_len, pointer, pointer_len)).unwrap();
        lease.take_string(result).unwrap()
    };
    let json = r#"{"b": {"list": [1, "zwölf", null]}}"#;
    assert_eq!(call(json, "/b/list/1").as_deref(), Some("zwölf"));
    assert_eq!(
        call(json, "/b").as_deref(),
        Some(r#"{"list":[1,"zwölf",null]}"#)
    );
    assert_eq!(call(json, "/c"), None);
    assert_eq!(call("", ""), None);
    check(&pool);
}

#[test]
fn two_texts_go_to_levenshtein() {
    let pool = quiet();
    let distance: Function<Texts, i32> = pool.define(real("text_levenshtein")).unwrap();
    for (a, b, expected) in [
        ("kitten", "sitting", 3),
        ("", "abc", 3),
        ("", "", 0),
        ("日本", "日本語", 1),
    ] {
        let mut lease = distance.acquire(1).unwrap();
        let (a, a_len) = pass(&mut lease, a).unwrap();
        let (b, b_len) = pass(&mut lease, b).unwrap();
        assert_eq!(lease.call((a, a_len, b, b_len)).unwrap(), expected);
    }
}

#[test]
fn a_large_text_goes_to_markdown_and_back() {
    let pool = quiet();
    let markdown: TextToText = pool.define(real("text_markdown")).unwrap();
    assert_eq!(
        text_to_text(&markdown, "# A *b*").unwrap().as_deref(),
        Some("<h1>A <em>b</em></h1>\n")
    );
    let source = "~~line~~ ü\n\n".repeat(20_000);
    let html = text_to_text(&markdown, &source).unwrap().unwrap();
    assert_eq!(html, "<p><del>line</del> ü</p>\n".repeat(20_000));
    check(&pool);
}

#[test]
fn bytes_are_written_and_read_in_place() {
    let pool = quiet();
    let wasm = wat(r#"(module (memory (export "memory") 1) (func (export "f")))"#);
    let function: Function<(), ()> = pool.define(Definition::new("f").wasm(wasm)).unwrap();
    let mut lease = function.acquire(1).unwrap();
    lease.write_bytes(65_530, b"abcdef").unwrap();
    let at = |pointer, length| GuestBytes { pointer, length };
    assert_eq!(lease.read_bytes(at(65_529, 7)).unwrap(), b"\0abcdef");
    assert_eq!(lease.read_str(at(65_530, 6)).unwrap(), "abcdef");
    assert_eq!(lease.read_bytes(at(65_536, 0)).unwrap(), b"");
    let size = 65_536;
    for (pointer, length) in [
        (65_530, 7),
        (65_536, 1),
        (u32::MAX, u32::MAX),
        (0, u32::MAX),
    ] {
        let error = lease.read_bytes(at(pointer, length)).unwrap_err();
        let expected = MemoryError::OutOfBounds {
            pointer,
            length,
            size,
        };
        assert_eq!(memory_error(error), expected);
    }
    let error = lease.write_bytes(65_531, b"abcdef").unwrap_err();
    assert!(matches!(
        memory_error(error),
        MemoryError::OutOfBounds { .. }
    ));
    assert_eq!(
        lease.read_bytes(at(65_530, 6)).unwrap(),
        b"abcdef",
        "nothing was written"
    );
    assert!(!lease.is_broken());
}

#[test]
fn packed_results_are_read_as_unsigned() {
    assert_eq!(GuestBytes::from_packed(-1), None);
    let packed =
        |pointer: u32, length: u32| (u64::from(pointer) << 32 | u64::from(length)).cast_signed();
    for (pointer, length) in [
        (0, 0),
        (1, 2),
        (u32::MAX, 0),
        (0, u32::MAX),
        (0x8000_0000, 7),
    ] {
        let bytes = GuestBytes::from_packed(packed(pointer, length)).unwrap();
        assert_eq!(bytes, GuestBytes { pointer, length });
        assert_eq!(
            bytes.params(),
            (pointer.cast_signed(), length.cast_signed())
        );
    }
}

#[track_caller]
fn memory_error(error: CallError) -> MemoryError {
    match error {
        CallError::Memory { target, source } => {
            assert_eq!(&*target.signature, "f()");
            source
        }
        other => panic!("{other:?}"),
    }
}

/// A guest with this allocator, whose `f` returns `packed`, in a pool with an honest neighbour
/// that is leased all the while and must not notice anything.
fn with_liar<R>(alloc: &str, packed: u64, run: impl FnOnce(&Pool, &TextToText) -> R) -> R {
    let pool = quiet();
    let honest: TextToText = pool.define(real("text_soundex")).unwrap();
    let mut neighbour = honest.acquire(1).unwrap();
    let argument = pass(&mut neighbour, "Robert").unwrap();

    let wasm = wat(&format!(
        r#"(module (memory (export "memory") 1)
            (data (i32.const 100) "text\ff\fe")
            {alloc}
            (func (export "dealloc") (param i32 i32))
            (func (export "f") (param i32 i32) (result i64) i64.const {packed}))"#
    ));
    let liar: TextToText = pool.define(Definition::new("f").wasm(wasm)).unwrap();
    let answer = run(&pool, &liar);
    assert_eq!(
        liar.call(1, (0, 0)).unwrap().cast_unsigned(),
        packed,
        "the key is usable"
    );

    let result = neighbour.call(argument).unwrap();
    assert_eq!(
        neighbour.take_string(result).unwrap().as_deref(),
        Some("R163")
    );
    drop(neighbour);
    check(&pool);
    pool.close();
    check_empty(&pool);
    answer
}

const HONEST: &str = r#"(func (export "alloc") (param i32) (result i32) i32.const 200)"#;

fn allocating_at(pointer: u32) -> String {
    let text = r#"(func (export "alloc") (param i32) (result i32) i32.const "#;
    format!("{text}{})", pointer.cast_signed())
}

#[test]
fn an_allocator_that_points_outside_is_caught() {
    for pointer in [
        65_535,
        65_536,
        0x7fff_ffff,
        0x8000_0000,
        u32::MAX - 1,
        u32::MAX,
    ] {
        with_liar(&allocating_at(pointer), 0, |_, liar| {
            let mut lease = liar.acquire(1).unwrap();
            let error = lease.pass_bytes(b"ab").unwrap_err();
            let expected = MemoryError::OutOfBounds {
                pointer,
                length: 2,
                size: 65_536,
            };
            assert_eq!(memory_error(error), expected);
        });
    }
}

#[test]
fn an_allocator_that_returns_null_has_no_room() {
    with_liar(&allocating_at(0), 0, |_, liar| {
        let mut lease = liar.acquire(1).unwrap();
        let error = lease.pass_bytes(b"abc").unwrap_err();
        assert_eq!(
            memory_error(error),
            MemoryError::GuestOutOfMemory { length: 3 }
        );
        assert!(!lease.is_broken(), "the guest is well, it has no room");
        let empty = lease.pass_bytes(b"").unwrap();
        assert_eq!(
            empty,
            GuestBytes {
                pointer: 0,
                length: 0
            }
        );
    });
}

#[test]
fn an_allocator_that_traps_breaks_the_lease() {
    let traps = r#"(func (export "alloc") (param i32) (result i32) unreachable)"#;
    with_liar(traps, 5, |pool, liar| {
        let before = charges(pool);
        let mut lease = liar.acquire(1).unwrap();
        let error = lease.pass_bytes(b"abc").unwrap_err();
        let CallError::Trap { trap, .. } = &error else {
            panic!("{error:?}")
        };
        assert_eq!(trap.code, Trap::UnreachableCodeReached);
        assert!(lease.is_broken());
        let error = lease.call((0, 0)).unwrap_err();
        assert!(matches!(error, CallError::Broken { .. }), "{error:?}");
        let error = lease.pass_bytes(b"abc").unwrap_err();
        assert!(matches!(error, CallError::Broken { .. }), "{error:?}");
        assert_eq!(lease.uses(), 1);
        drop(lease);
        let memory = wasm_pool::Budget::Memory as usize;
        assert_eq!(charges(pool)[memory], before[memory]);
        assert_eq!(pool.stats().function("f").unwrap().retirements, 1);
        assert_eq!(liar.acquire(1).unwrap().uses(), 1, "another instance");
    });
}

#[test]
fn a_module_without_memory_takes_no_bytes() {
    let pool = quiet();
    let wasm = wat(r#"(module (memory 1) (func (export "memory"))
            (func (export "alloc") (param i32) (result i32) i32.const 8)
            (func (export "dealloc") (param i32 i32))
            (func (export "f") (param i32 i32) (result i64) i64.const 1))"#);
    let function: TextToText = pool.define(Definition::new("f").wasm(wasm)).unwrap();
    let mut lease = function.acquire(1).unwrap();
    assert!(lease.memory().is_none());
    let at = GuestBytes {
        pointer: 0,
        length: 0,
    };
    for error in [
        lease.pass_bytes(b"abc").unwrap_err(),
        lease.write_bytes(0, b"").unwrap_err(),
        lease.read_bytes(at).map(drop).unwrap_err(),
        lease.read_str(at).map(drop).unwrap_err(),
        lease.take_bytes(0).unwrap_err(),
    ] {
        assert_eq!(memory_error(error), MemoryError::NoMemory);
    }
    assert_eq!(
        lease.call((0, 0)).unwrap(),
        1,
        "the lease is good for all else"
    );
}

#[test]
fn a_module_without_an_allocator_takes_no_bytes() {
    let unlike = r#"(func (export "alloc") (param i64) (result i64) i64.const 8)"#;
    for alloc in ["", unlike] {
        with_liar(alloc, 0, |_, liar| {
            let mut lease = liar.acquire(1).unwrap();
            let error = lease.pass_bytes(b"abc").unwrap_err();
            let CallError::Export {
                export, problem, ..
            } = &error
            else {
                panic!("{error:?}")
            };
            assert!(
                export.contains("alloc") && problem.contains("alloc"),
                "{error}"
            );
            assert!(!lease.is_broken(), "no guest code has run");
            let error = lease.take_bytes(100 << 32 | 4).unwrap_err();
            assert!(matches!(error, CallError::Export { .. }), "{error:?}");
        });
    }
}

#[test]
fn results_that_point_outside_are_caught() {
    for (pointer, length) in [
        (65_535, 2),
        (65_537, 0),
        (0, u32::MAX),
        (u32::MAX, 1),
        (u32::MAX, u32::MAX - 1),
        (0x8000_0000, 4),
    ] {
        let packed = u64::from(pointer) << 32 | u64::from(length);
        with_liar(HONEST, packed, |_, liar| {
            let error = text_to_text(liar, "x").unwrap_err();
            let expected = MemoryError::OutOfBounds {
                pointer,
                length,
                size: 65_536,
            };
            assert_eq!(memory_error(error), expected);
        });
    }
}

#[test]
fn text_that_is_not_utf8_is_told_from_bytes() {
    with_liar(HONEST, 100 << 32 | 6, |_, liar| {
        let error = text_to_text(liar, "x").unwrap_err();
        assert_eq!(memory_error(error), MemoryError::NotUtf8 { valid_up_to: 4 });
        let mut lease = liar.acquire(1).unwrap();
        let at = GuestBytes {
            pointer: 100,
            length: 6,
        };
        let error = lease.read_str(at).map(drop).unwrap_err();
        assert_eq!(memory_error(error), MemoryError::NotUtf8 { valid_up_to: 4 });
        let packed = lease.call((0, 0)).unwrap();
        assert_eq!(lease.take_bytes(packed).unwrap().unwrap(), b"text\xff\xfe");
    });
}

const COUNTERS: &str = r#"(module
    (global $n (mut i32) (i32.const 0))
    (func (export "f") (result i32) global.get $n)
    (func (export "add") (param i32) global.get $n local.get 0 i32.add global.set $n)
    (func (export "trap") unreachable))"#;

fn counters(pool: &Pool) -> Function<(), i32> {
    pool.define(Definition::new("f").wasm(wat(COUNTERS)))
        .unwrap()
}

#[track_caller]
fn check_foreign<A, B>(result: Result<B, CallError>, of: &ExportedFunc<A, B>)
where
    A: wasmtime::WasmParams + 'static,
    B: wasmtime::WasmResults + 'static,
{
    match result {
        Err(CallError::Export { problem, .. }) => {
            assert!(problem.contains("another lease"), "{of:?}: {problem}");
        }
        Err(other) => panic!("{of:?}: {other:?}"),
        Ok(_) => panic!("{of:?} was called in another lease"),
    }
}

#[test]
fn an_export_belongs_to_its_lease() {
    let pool = quiet();
    let function = counters(&pool);
    let mut mine = function.acquire(1).unwrap();
    let mut others = [function.acquire(1).unwrap(), function.acquire(2).unwrap()];
    let add = mine.export::<i32, ()>("add").unwrap();
    add.call(&mut mine, 5).unwrap();
    for other in &mut others {
        check_foreign(add.call(other, 3), &add);
        assert!(!other.is_broken());
        assert_eq!(other.call(()).unwrap(), 0);
    }
    assert_eq!(mine.call(()).unwrap(), 5);
    // An instance that has taken the seat of the first one is another one too.
    mine.discard();
    let mut next = function.acquire(1).unwrap();
    check_foreign(add.call(&mut next, 3), &add);
    check(&pool);
}

#[test]
fn an_export_of_another_pools_lease_is_an_error() {
    let pools = [quiet(), quiet()];
    let [one, two] = pools.each_ref().map(counters);
    let mut mine = one.acquire(1).unwrap();
    let mut foreign = two.acquire(1).unwrap();
    let add = mine.export::<i32, ()>("add").unwrap();
    check_foreign(add.call(&mut foreign, 3), &add);
}

#[test]
fn an_export_that_fails_breaks_its_lease() {
    let pool = quiet();
    let function = counters(&pool);
    let mut lease = function.acquire(1).unwrap();
    for name in ["no", "add"] {
        let error = lease.export::<(), ()>(name).unwrap_err();
        let CallError::Export { export, .. } = &error else {
            panic!("{error:?}")
        };
        assert_eq!(export, name);
    }
    assert!(!lease.is_broken());
    let trap = lease.export::<(), ()>("trap").unwrap();
    let error = trap.call(&mut lease, ()).unwrap_err();
    assert!(matches!(error, CallError::Trap { .. }), "{error:?}");
    assert!(lease.is_broken());
    for error in [
        lease.call(()).unwrap_err(),
        trap.call(&mut lease, ()).unwrap_err(),
        lease.call_values(&[]).unwrap_err(),
    ] {
        assert!(matches!(error, CallError::Broken { .. }), "{error:?}");
    }
    drop(lease);
    let stats = check(&pool);
    assert_eq!((stats.idle, stats.leased), (0, 0));
    assert_eq!(function.call(1, ()).unwrap(), 0);
}

#[test]
fn values_of_the_wrong_number_or_type_are_an_error() {
    let pool = quiet();
    let add: Function = pool
        .define(Definition::new("math.add").wasm(guest("math_add")))
        .unwrap();
    let sum = add.call_values(1, &[Val::I64(40), Val::I64(2)]).unwrap();
    assert_eq!(sum[0].unwrap_i64(), 42);
    let wrong: [&[Val]; 5] = [
        &[],
        &[Val::I64(1)],
        &[Val::I64(1), Val::I64(2), Val::I64(3)],
        &[Val::I64(1), Val::I32(2)],
        &[Val::F64(1), Val::null_func_ref()],
    ];
    for params in wrong {
        let error = add.call_values(1, params).unwrap_err();
        assert!(
            matches!(error, CallError::Arguments { .. }),
            "{params:?}: {error:?}"
        );
    }
    let stats = check(&pool);
    let of_add = stats.function("math.add").unwrap();
    assert_eq!((of_add.retirements, of_add.misses, of_add.hits), (0, 1, 5));
    assert_eq!(
        add.call_values(1, &[Val::I64(1), Val::I64(2)]).unwrap()[0].unwrap_i64(),
        3
    );
}

#[test]
fn values_of_another_store_are_an_error() {
    let pool = quiet();
    let wasm = wat(r#"(module (func (export "f") (param funcref) (result funcref) local.get 0))"#);
    let function: Function = pool.define(Definition::new("f").wasm(wasm)).unwrap();
    let mut mine = function.acquire(1).unwrap();
    let mut other = function.acquire(1).unwrap();
    let instance = mine.instance();
    let foreign = Val::from(instance.get_func(mine.store_mut(), "f"));
    mine.call_values(&[foreign]).unwrap();
    let error = other.call_values(&[foreign]).unwrap_err();
    assert!(matches!(error, CallError::Host { .. }), "{error:?}");
    drop((mine, other));
    check(&pool);
}
