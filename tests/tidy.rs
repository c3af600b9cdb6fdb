//! The habits of this code base, checked: lengths of files, where `unsafe` and wasmtime may stand,
//! what the core may know.

use std::collections::{BTreeMap, BTreeSet};
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
                // What was built there is nobody's to read.
                let is_built = path.ends_with("target");
                folders.extend((!is_built).then_some(path));
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
    for (folder, most) in [("src", 600), ("tests", 800)] {
        for (path, text) in sources(folder) {
            let lines = text.lines().count();
            assert!(lines <= most, "{} has {lines} lines", path.display());
        }
    }
}

#[test]
fn unsafe_stands_in_two_files() {
    let with_unsafe = |(_, text): &(PathBuf, String)| code(text).any(|l| l.contains("unsafe {"));
    let mut files: Vec<_> = sources("src").into_iter().filter(with_unsafe).collect();
    files.sort();
    let paths: Vec<_> = files.iter().map(|(path, _)| path).collect();
    assert_eq!(files.len(), 2, "{paths:?}");
    assert!(paths[0].ends_with("pool/hot/owned_cell.rs"), "{paths:?}");
    assert!(paths[1].ends_with("runtime/raw.rs"), "{paths:?}");
    let lines = files[0].1.lines().count();
    assert!(lines <= 150, "owned_cell.rs has {lines} lines");
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
fn processes_know_nothing_of_the_pool() {
    for (path, text) in sources("src/compiler") {
        for line in code(&text) {
            let seen = ["crate::pool", "crate::state"]
                .iter()
                .find(|word| line.contains(**word));
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

/// What a line of code takes from elsewhere than `crate::sync`, although threads share things through it.
fn primitive_from_elsewhere(line: &str) -> bool {
    let foreign = [
        "parking_lot",
        "crossbeam",
        "std::sync::",
        "core::sync::",
        "std::thread_local",
        "std::{",
        "std::thread",
    ];
    // Counts of references, and what says something of the thread that asks or of the machine.
    let harmless = [
        "std::sync::Arc;",
        "std::sync::{Arc, Weak};",
        "std::sync::Weak;",
        "std::thread::panicking()",
        "std::thread::available_parallelism()",
    ];
    let mut line = line.to_owned();
    for harmless in harmless {
        line = line.replace(harmless, "");
    }
    foreign.iter().any(|word| line.contains(word))
}

#[test]
fn every_primitive_comes_from_one_file() {
    for (path, text) in sources("src") {
        if path.ends_with("src/sync.rs") {
            continue;
        }
        let seen = code(&text).find(|line| primitive_from_elsewhere(line));
        assert!(seen.is_none(), "{}: {seen:?}", path.display());
        // The macro needs no import: without one it is the standard library's.
        let local = code(&text).any(|line| line.contains("thread_local!"));
        let imported = code(&text)
            .any(|line| line.starts_with("use crate::sync::") && line.contains("thread_local"));
        assert!(imported || !local, "{}: thread_local!", path.display());
    }
    for line in [
        "use std::sync::{Arc, Mutex};",
        "use std::sync::atomic::AtomicU64;",
        "std::thread::spawn(move || ())",
        "std::thread::Builder::new()",
    ] {
        assert!(primitive_from_elsewhere(line), "{line}");
    }
}

/// The names that a `sync.rs` offers.
fn offered(text: &str) -> BTreeSet<String> {
    let items = code(text).filter(|line| line.starts_with("pub(crate) "));
    let mut names = BTreeSet::new();
    for item in items {
        let item = item.trim_start_matches("pub(crate) ");
        let (kind, rest) = item.split_once(' ').unwrap();
        if kind == "use" {
            let last = rest.trim_end_matches(';').rsplit("::").next().unwrap();
            let last = last.rsplit(" as ").next().unwrap();
            let each = last.trim_matches(['{', '}']).split(", ");
            names.extend(each.map(str::to_owned));
        } else {
            let end = |c: char| !c.is_alphanumeric() && c != '_';
            names.extend(rest.split(end).next().map(str::to_owned));
        }
    }
    names
}

#[test]
fn the_model_checker_offers_the_same_primitives() {
    let [real, model] = ["src/sync.rs", "tests/interleavings/sync.rs"].map(|path| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        offered(&fs::read_to_string(path).unwrap())
    });
    assert!(real.contains("AtomicPtr") && real.contains("StaticMutex"));
    assert_eq!(real, model);
}

/// Codes of invariants (a capital and a digit) that stand between `before` and `after`.
fn codes<'a>(text: &'a str, before: &str, after: &str) -> Vec<&'a str> {
    let candidates = text.split(before).skip(1);
    let code = candidates.filter_map(|rest| rest.split(after).next());
    code.filter(|code| {
        let code = code.as_bytes();
        matches!(code, [letter, digit] if letter.is_ascii_uppercase() && digit.is_ascii_digit())
    })
    .collect()
}

#[test]
fn each_invariant_has_one_place_one_message_and_one_row() {
    let design = Path::new(env!("CARGO_MANIFEST_DIR")).join("DESIGN.md");
    let design = fs::read_to_string(design).unwrap();
    let mut rows = codes(&design, "\n| ", " |");
    let sources = sources("src");
    let texts = || sources.iter().map(|(_, text)| text.as_str());
    // On what it governs it stands in bold, with the sentence after it.
    let docs = texts().map(|text| {
        let doc = |line: &&str| {
            let line = line.trim_start_matches([' ', '/', '-']);
            line.starts_with("**")
        };
        let lines = text.lines().filter(doc);
        lines.flat_map(|line| codes(line, "**", "** ")).collect()
    });
    let mut docs: Vec<_> = docs.collect::<Vec<Vec<_>>>().concat();
    let recounts = sources.iter().filter(|(path, _)| {
        path.to_string_lossy().contains("state/recount") || path.ends_with("pool/shared.rs")
    });
    let mut messages: Vec<_> = recounts
        .flat_map(|(_, text)| codes(text, "\"", ": "))
        .collect();
    for codes in [&mut rows, &mut docs, &mut messages] {
        codes.sort_unstable();
    }
    assert!(rows.len() > 20, "{rows:?}");
    assert_eq!(rows, docs, "rows of DESIGN.md, and comments");
    assert_eq!(rows, messages, "rows of DESIGN.md, and messages");
}

/// What is between this and the parenthesis that closes.
fn arguments(text: &str) -> &str {
    let mut depth = 1;
    let end = text.find(|c| {
        depth += match c {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        depth == 0
    });
    &text[..end.unwrap()]
}

/// A row of the table in `lib.rs` for what a macro of `tracing` is called with.
fn traced(level: &str, arguments: &str) -> String {
    let (mut name, mut fields) = ("", Vec::new());
    for argument in arguments.split(",").map(str::trim) {
        match argument.strip_prefix('"') {
            Some(literal) => name = literal.trim_end_matches('"'),
            None if argument.is_empty() => {}
            None => {
                let field = argument.split('=').next().unwrap().trim();
                fields.push(format!("`{}`", field.trim_start_matches(['%', '?'])));
            }
        }
    }
    let what = match level.strip_suffix("_span") {
        Some(level) => format!("span, {level}"),
        None => format!("event, {level}"),
    };
    format!("//! | `{name}` | {what} | {} |", fields.join(", "))
}

#[test]
fn all_that_is_traced_stands_in_the_documentation() {
    let mut found = BTreeSet::new();
    for (_, text) in sources("src") {
        let text: String = code(&text).flat_map(|line| [line, "\n"]).collect();
        let calls = text.split("tracing::").skip(1);
        for (level, rest) in calls.filter_map(|call| call.split_once("!(")) {
            if level.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
                found.insert(traced(level, arguments(rest)));
            }
        }
    }
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs");
    let docs = fs::read_to_string(docs).unwrap();
    let rows = docs.lines().filter(|line| line.starts_with("//! | `"));
    let rows = rows.filter(|line| line.contains("| span, ") || line.contains("| event, "));
    let rows = rows.map(|row| {
        let cells: Vec<_> = row.split('|').take(4).collect();
        format!("{}|", cells.join("|"))
    });
    assert!(found.len() >= 8, "{found:#?}");
    assert_eq!(rows.collect::<BTreeSet<_>>(), found);
}

/// Codes that the text cites: `C-B1`, `promise_14`; and `c_b1_` in names of tests.
fn cited(text: &str) -> BTreeSet<String> {
    let mut cited = BTreeSet::new();
    let is_code = |code: &str| matches!(code.as_bytes(), [b'A'..=b'Z', b'1'..=b'9']);
    for (at, _) in text.match_indices("C-") {
        if let Some(code) = text.get(at + 2..at + 4).filter(|code| is_code(code)) {
            cited.insert(format!("C-{code}"));
        }
    }
    for (at, _) in text.match_indices("fn c_") {
        if let Some(code) = text.get(at + 5..at + 7) {
            cited.insert(format!("C-{}", code.to_uppercase()));
        }
    }
    for (at, prefix) in text.match_indices("promise_") {
        let number = text.get(at + prefix.len()..at + prefix.len() + 2);
        if let Some(number) = number.filter(|n| n.bytes().all(|b| b.is_ascii_digit())) {
            cited.insert(format!("promise_{number}"));
        }
    }
    cited
}

#[test]
fn tests_cite_what_stands_in_the_contract() {
    let design = Path::new(env!("CARGO_MANIFEST_DIR")).join("DESIGN.md");
    let design = fs::read_to_string(design).unwrap();
    let rows = design.lines().filter_map(|line| line.strip_prefix("| "));
    let codes = rows.filter_map(|row| row.split(" |").next());
    let contract: BTreeSet<String> = codes.map(str::to_owned).collect();
    let mut seen = BTreeSet::new();
    for folder in ["src", "tests", "benches", "examples"] {
        for (path, text) in sources(folder) {
            if path.ends_with("tests/tidy.rs") {
                continue;
            }
            let codes = cited(&text);
            let unknown: Vec<_> = codes.difference(&contract).collect();
            assert!(unknown.is_empty(), "{}: {unknown:?}", path.display());
            // A code without its prefix could be an invariant's.
            let bare = text.match_indices("fn ").find_map(|(at, _)| {
                let name = &text.as_bytes()[at + 3..];
                let bare = matches!(name, [b'a'..=b'z', b'0'..=b'9', b'_', ..]);
                bare.then(|| text[at..].lines().next())
            });
            assert_eq!(bare, None, "{}", path.display());
            seen.extend(codes);
        }
    }
    assert!(seen.len() > 50, "{seen:?}");
}

/// DESIGN.md, and the names of all files in `src`.
fn design() -> String {
    let design = Path::new(env!("CARGO_MANIFEST_DIR")).join("DESIGN.md");
    fs::read_to_string(design).unwrap()
}

#[test]
fn the_map_shows_every_file() {
    let design = design();
    let map = design.split("```").nth(1).unwrap();
    let words = map.split(|c: char| !(c.is_alphanumeric() || "_./".contains(c)));
    let listed: BTreeSet<_> = words
        .filter_map(|word| word.strip_suffix(".rs"))
        .map(|word| word.rsplit('/').next().unwrap())
        .collect();
    let everywhere = ["src", "tests", "benches"].map(sources).concat();
    let stem = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let known: BTreeSet<_> = everywhere.iter().map(|(p, _)| stem(p)).collect();
    for word in &listed {
        assert!(
            known.contains(*word),
            "{word}.rs is on the map, and not there"
        );
    }
    for (path, _) in sources("src") {
        assert!(
            listed.contains(&*stem(&path)) || path.ends_with("mod.rs"),
            "{}",
            path.display()
        );
    }
}

#[test]
fn the_flow_names_what_is_there() {
    let design = design();
    let rows = design.lines().filter_map(|line| line.split_once("| `src/"));
    let mut seen = 0;
    for (_, row) in rows {
        let (file, functions) = row.split_once("` |").unwrap();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file);
        let text = fs::read_to_string(&path).unwrap_or_else(|_| panic!("{}", path.display()));
        for function in functions.split('`').skip(1).step_by(2) {
            let [plain, generic] = ["(", "<"].map(|next| format!("fn {function}{next}"));
            let there = text.contains(&plain) || text.contains(&generic);
            assert!(there, "{file} has no {function}");
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn what_the_design_names_is_there() {
    let sources = ["src", "tests", "benches", "examples"]
        .map(sources)
        .concat();
    let all: String = sources.into_iter().map(|(_, text)| text).collect();
    let idents: std::collections::HashSet<_> = all
        .split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .collect();
    let design = design();
    let prose = design.split("```").nth(2).unwrap();
    // Types with their methods, fields and variants.
    for name in prose.split('`').skip(1).step_by(2) {
        let name = name.trim_end_matches("()");
        if !name.contains("::") || name.contains([' ', '<']) {
            continue;
        }
        let unknown = name.split("::").find(|part| !idents.contains(part));
        assert_eq!(unknown, None, "{name}");
    }
}

/// Whether this line of code names a module of this folder: `cold::…`, `pool::cold` or `super::cold`.
fn names_folder(line: &str, folder: &str) -> bool {
    let is_part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(folder).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + folder.len()..]);
        let is_word = !before.ends_with(is_part_of_word) && !after.starts_with(is_part_of_word);
        let from_pool = ["pool::", "super::"].iter().any(|p| before.ends_with(p));
        is_word && (from_pool || (after.starts_with("::") && !before.ends_with("std::")))
    })
}

#[test]
fn folders_of_the_pool_know_only_what_lies_below_them() {
    let forbidden: [(&str, &[&str]); 3] = [
        ("hot", &["cold", "tasks", "service"]),
        ("wait", &["hot", "cold"]),
        ("time", &["api", "hot", "cold", "wait", "tasks", "service"]),
    ];
    for (folder, others) in forbidden {
        for (path, text) in sources(&format!("src/pool/{folder}")) {
            for line in code(&text) {
                let seen = others.iter().find(|other| names_folder(line, other));
                assert!(seen.is_none(), "{}: {line}", path.display());
            }
        }
    }
    assert!(names_folder("use crate::pool::cold::release;", "cold"));
    assert!(names_folder(
        "use crate::pool::{cold::release, api};",
        "cold"
    ));
    assert!(names_folder("use super::super::cold;", "cold"));
    assert!(!names_folder("#[cold]", "cold"));
    assert!(!names_folder("use std::time::Duration;", "time"));
}

/// Files of the pool that know each other in a circle: the lock with what it keeps; the time with its
/// alarms; what a definition says of exports. No others do.
const CIRCLES: [&[&str]; 3] = [
    &[
        "claims",
        "deadlock",
        "hot::entry",
        "hot::pooled_instance",
        "hot::slots",
        "hot::thread_cache",
        "lent",
        "shared",
        "wakeup",
    ],
    &["time::alarms", "time::timekeeper"],
    &["api::definition", "api::exported_func"],
];

#[test]
fn files_of_the_pool_know_each_other_in_no_other_circle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/pool");
    let name = |path: &Path| {
        let path = path.strip_prefix(&root).unwrap().with_extension("");
        path.to_str().unwrap().replace('/', "::")
    };
    let files: BTreeMap<String, String> = sources("src/pool")
        .into_iter()
        .map(|(path, text)| (name(&path), text))
        .filter(|(name, _)| !name.ends_with("mod"))
        .collect();
    let imports = |importer: &str| {
        let paths = code(&files[importer]).flat_map(|line| line.split("crate::pool::").skip(1));
        let named = paths.filter_map(|path| {
            let is_path = |c: char| c.is_ascii_lowercase() || c == '_' || c == ':';
            let path = path.split(|c| !is_path(c)).next().unwrap();
            let words: Vec<_> = path.split("::").filter(|word| !word.is_empty()).collect();
            let known = |words: &[&str]| files.get_key_value(&words.join("::"));
            let tries = [words.get(..2), words.get(..1)];
            tries.into_iter().flatten().find_map(known)
        });
        let others = named.map(|(name, _)| name.as_str());
        others.filter(|name| *name != importer).collect::<Vec<_>>()
    };
    let reach = |start: &str| {
        let mut reached = BTreeSet::new();
        let mut next = imports(start);
        while let Some(name) = next.pop() {
            if reached.insert(name) {
                next.extend(imports(name));
            }
        }
        reached
    };
    let reached: BTreeMap<&str, BTreeSet<&str>> = files
        .keys()
        .map(|name| (name.as_str(), reach(name)))
        .collect();
    for (name, others) in &reached {
        let in_a_circle = others
            .iter()
            .filter(|other| reached[**other].contains(name));
        let known = CIRCLES.iter().find(|circle| circle.contains(name));
        for other in in_a_circle {
            let is_known = known.is_some_and(|circle| circle.contains(other));
            assert!(is_known, "{name} and {other} know each other");
        }
    }
    let claims = &reached["claims"];
    assert!(
        claims.contains("hot::slots"),
        "imports are found: {claims:?}"
    );
}
