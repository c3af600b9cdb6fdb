//! The habits of this code base, checked: lengths of files, where `unsafe` and wasmtime may stand,
//! what the core may know.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut found = Vec::new();
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        for item in fs::read_dir(&folder).unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty(), "{folder} has sources");
    found
}

/// Lines of code, without comments.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
}

#[test]
fn no_file_holds_more_than_a_reader_can() {
    for (path, text) in sources("src") {
        let lines = text.lines().count();
        assert!(lines <= 600, "{} has {lines} lines", path.display());
    }
}

#[test]
fn unsafe_stands_in_one_file() {
    let with_unsafe = |(_, text): &(PathBuf, String)| code(text).any(|l| l.contains("unsafe {"));
    let files: Vec<_> = sources("src")
        .into_iter()
        .filter(with_unsafe)
        .map(|(p, _)| p)
        .collect();
    assert_eq!(files.len(), 1, "{files:?}");
    assert!(files[0].ends_with("runtime/raw.rs"), "{files:?}");
}

#[test]
fn the_core_knows_nothing_of_the_world() {
    let foreign = [
        "std::",
        "crate::pool",
        "crate::runtime",
        "crate::sync",
        "wasmtime",
        "parking_lot",
        "Instant",
        "metrics",
        "tracing",
    ];
    for (path, text) in sources("src/state") {
        for line in code(&text) {
            let seen = foreign.iter().find(|word| line.contains(**word));
            assert!(seen.is_none(), "{}: {line}", path.display());
        }
    }
}

#[test]
fn pages_stay_in_the_wasmtime_layer() {
    for folder in ["src/state", "src/pool"] {
        for (path, text) in sources(folder) {
            let seen =
                code(&text).find(|line| line.contains("page_size") || line.contains("_PAGE"));
            assert!(seen.is_none(), "{}: {seen:?}", path.display());
        }
    }
}

#[test]
fn nothing_sleeps_and_nothing_is_left_to_do() {
    let words = [
        concat!("thread::", "sleep"),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
    ];
    for folder in ["src", "tests"] {
        for (path, text) in sources(folder) {
            let seen = code(&text).find(|line| words.iter().any(|word| line.contains(word)));
            assert!(seen.is_none(), "{}: {seen:?}", path.display());
        }
    }
}
