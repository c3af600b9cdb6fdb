//! The prebuilt guests are the ones that were built from the source beside them, and they answer
//! as they should, called through the pool.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::common::{check, guest, pass, text_to_text, with_ticks};
use sha2::{Digest, Sha256};
use wasm_pool::{CallError, CallLimit, CallTypes, Definition, Function, ManualClock, Pool};
use wasmtime::Trap;

fn prebuilt() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/guests/prebuilt")
}

fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

#[test]
fn every_prebuilt_guest_has_its_recorded_hash() {
    let sums = std::fs::read_to_string(prebuilt().join("SHA256SUMS")).unwrap();
    let recorded: BTreeMap<_, _> = sums
        .lines()
        .map(|line| line.split_once("  ").unwrap())
        .map(|(hash, file)| (file.to_owned(), hash.to_owned()))
        .collect();
    let files = std::fs::read_dir(prebuilt()).unwrap();
    let files = files.map(|entry| entry.unwrap().path());
    let found: BTreeMap<_, _> = files
        .filter(|path| path.extension().is_some_and(|e| e == "wasm"))
        .map(|path| {
            let hash = sha256(&std::fs::read(&path).unwrap());
            (path.file_name().unwrap().to_str().unwrap().to_owned(), hash)
        })
        .collect();
    assert_eq!(found.len(), 13);
    assert_eq!(found, recorded);
}

fn pool() -> Pool {
    let builder = Pool::builder().clock(ManualClock::new());
    let builder = builder.max_instance_memory(4 << 20);
    builder.no_housekeeper().build().unwrap()
}

/// The guest's function, under its recorded name.
fn function<P, R>(pool: &Pool, file: &str, export: &str) -> Function<P, R>
where
    (P, R): CallTypes,
{
    let definition = Definition::new(file).wasm(guest(file)).export(export);
    pool.define(definition).unwrap()
}

#[test]
fn numbers() {
    let pool = pool();
    let add: Function<(i64, i64), i64> = function(&pool, "math_add", "add");
    assert_eq!(add.call(1, (2, -5)).unwrap(), -3);
    assert_eq!(add.call(1, (i64::MAX, 1)).unwrap(), i64::MIN);
    let km: Function<(f64, f64, f64, f64), f64> = function(&pool, "geo_haversine", "haversine");
    let jfk_lax = (40.639_751_11, -73.778_925_56, 33.942_536_11, -118.408_074_4);
    assert!((km.call(1, jfk_lax).unwrap() - 3974.0).abs() < 1.0);
    let next: Function<(), i64> = function(&pool, "state_counter", "next");
    let counts = [(); 3].map(|()| next.call(1, ()).unwrap());
    assert_eq!(counts, [1, 2, 3], "one instance, with its state");
    assert_eq!(
        next.call(2, ()).unwrap(),
        1,
        "another group, another instance"
    );
    check(&pool);
}

#[test]
fn texts() {
    let pool = pool();
    let call = |file, export, text: &str| {
        let function = function(&pool, file, export);
        text_to_text(&function, text).unwrap().unwrap()
    };
    assert_eq!(call("text_soundex", "soundex", "Tymczak"), "T522");
    assert_eq!(
        call("hash_sha256", "sha256", "abc"),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
    assert_eq!(
        call("text_markdown", "markdown", "# A *b*"),
        "<h1>A <em>b</em></h1>\n"
    );
    check(&pool);
}

type Texts = (i32, i32, i32, i32);

/// Calls a guest's function of two texts.
fn two_texts<R: wasmtime::WasmResults + 'static>(
    function: &Function<Texts, R>,
    (a, b): (&str, &str),
    take: impl FnOnce(&mut wasm_pool::Lease<'_, Texts, R>, R) -> String,
) -> String {
    let mut lease = function.acquire(1).unwrap();
    let (a, a_len) = pass(&mut lease, a).unwrap();
    let (b, b_len) = pass(&mut lease, b).unwrap();
    let result = lease.call((a, a_len, b, b_len)).unwrap();
    take(&mut lease, result)
}

#[test]
fn pairs_of_texts() {
    let pool = pool();
    let levenshtein = function::<_, i32>(&pool, "text_levenshtein", "levenshtein");
    let distance = |a, b| two_texts(&levenshtein, (a, b), |_, n| n.to_string());
    assert_eq!(distance("kitten", "sitting"), "3");
    assert_eq!(distance("naïve", "naive"), "1");
    let extract = function::<_, i64>(&pool, "json_extract", "extract");
    let json = |json, pointer| {
        two_texts(&extract, (json, pointer), |lease, packed| {
            let text = lease.take_string(packed).unwrap();
            text.unwrap_or_else(|| "NULL".into())
        })
    };
    assert_eq!(json(r#"{"a/b": true, "": "empty"}"#, "/a~1b"), "true");
    assert_eq!(json("[1]", "/1"), "NULL");
    let matches = function::<_, i32>(&pool, "text_regex_match", "regex_match");
    let regex = |pattern, text| two_texts(&matches, (pattern, text), |_, n| n.to_string());
    assert_eq!(regex(r"^\d{4}-\d{2}$", "2024-05"), "1");
    assert_eq!(regex(r"^\d{4}-\d{2}$", "2024-5"), "0");
    assert_eq!(regex(r"^\p{Greek}+$", "αβγ"), "1");
    assert_eq!(regex("(", "a"), "-1");
    check(&pool);
}

#[test]
fn rogues() {
    let pool = pool();
    let trap_if: Function<i32, i32> = function(&pool, "rogue_trap", "trap_if");
    assert_eq!(trap_if.call(1, 0).unwrap(), 7);
    let trapped = |error| match error {
        CallError::Trap { trap, .. } => trap.code,
        other => panic!("{other:?}"),
    };
    let code = trapped(trap_if.call(1, 1).unwrap_err());
    assert_eq!(code, Trap::UnreachableCodeReached);
    let recurse: Function<i64, i64> = function(&pool, "rogue_recurse", "recurse");
    assert_eq!(recurse.call(1, 12_000).unwrap(), 12_000);
    assert_eq!(
        trapped(recurse.call(1, 20_000).unwrap_err()),
        Trap::StackOverflow
    );
    let leak: Function<i32, i64> = function(&pool, "rogue_leak", "leak");
    assert_eq!(leak.call(1, 100).unwrap(), 100);
    assert_eq!(leak.call(1, 1 << 20).unwrap(), 100 + (1 << 20));
    assert_eq!(
        leak.call(1, 8 << 20).unwrap(),
        -1,
        "over the limit of an instance"
    );
    let spin: Function<i64, i64> = function(&pool, "rogue_spin", "spin");
    assert_eq!(spin.call(1, -5).unwrap(), -5);
    let error = with_ticks(&pool, || spin.call(1, 0).unwrap_err());
    assert!(
        matches!(
            error,
            CallError::Limit {
                limit: CallLimit::Time(_),
                ..
            }
        ),
        "{error:?}"
    );
    check(&pool);
}
