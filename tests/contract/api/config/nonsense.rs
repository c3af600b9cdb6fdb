//! What makes no sense is refused, with the line and the reason.

use std::error::Error;
use std::fs;

use wasm_pool::{Config, ConfigError, LimitsError, Report};

use super::folder;

/// A text, the line and column of what is wrong in it, and what is said of it.
#[rustfmt::skip]
const NONSENSE: &[(&str, usize, usize, &str)] = &[
    // Not TOML.
    ("max_uses = 5\nmax_uses 6", 2, 10, "key with no value, expected `=`"),
    ("max_uses = 5\n\nmax_uses = 6", 3, 1, "duplicate key"),
    ("name = \"pool", 1, 13, "invalid basic string"),
    ("[limits", 1, 8, "unclosed table"),
    // Unknown keys, in each section.
    ("max_uses = 5\nmax_usess = 6", 2, 1, "unknown field `max_usess`, expected one of `name`"),
    ("[limits]\nmemory = 1000000\nmemroy = 5", 3, 1, "unknown field `memroy`, expected one of `memory`"),
    ("[functions.f]\n  fuell = 5", 2, 3, "unknown field `fuell`, expected one of `fuel`"),
    ("[artifacts]\ndirectroy = '/'", 2, 1, "unknown field `directroy`, expected one of `memory`"),
    ("[quarantine]\nfailures = 5\nafter = '1s'", 3, 1, "unknown field `after`, expected one of `failures`"),
    ("[groups.tenant]\nfuel = 5", 2, 1, "unknown field `fuel`, expected one of `memory`"),
    ("[groups.tenant]\nreserve.compile = 5", 2, 9, "unknown field `compile`, expected one of `memory`"),
    ("groups.tenant = 5", 1, 17, "invalid type: integer `5`, expected a section of a group"),
    ("\n[cache]\n", 2, 2, "unknown field `cache`"),
    // Of another kind.
    ("name = 5", 1, 8, "invalid type: integer `5`, expected a string"),
    ("wait_for_room = 'yes'", 1, 17, "invalid type: string \"yes\", expected a boolean"),
    ("limits = 5", 1, 10, "invalid type: integer `5`, expected a section of limits"),
    ("functions.f = 5", 1, 15, "invalid type: integer `5`, expected a section of a function"),
    ("functions = 5", 1, 13, "invalid type: integer `5`, expected a map"),
    ("artifacts = true", 1, 13, "expected a section of artifacts"),
    ("max_idle_memory = true", 1, 19, "invalid type: boolean `true`, expected a size: a size is a whole number"),
    ("max_idle_memory = 1.5", 1, 19, "invalid type: floating point `1.5`, expected a size"),
    ("max_idle_memory = 1979-05-27", 1, 19, "expected a size"),
    ("max_uses = '5x'", 1, 12, "\"5x\" is not a count: there is no unit \"x\"; a count is a whole number"),
    ("wait_timeout = 30", 1, 16, "\"30\" is not a time: it has no unit; a time is a whole number with one of"),
    ("[artifacts]\nread_only = 1", 2, 13, "expected a boolean"),
    // Sizes and times.
    ("[limits]\n\nmemory = '512Mo'", 3, 10, "\"512Mo\" is not a limit: there is no unit \"Mo\"; a limit is"),
    ("max_idle_memory = ''", 1, 19, "\"\" is not a size: it is empty; a size is a whole number of bytes"),
    ("max_idle_memory = -1", 1, 19, "\"-1\" is not a size: it is negative"),
    ("max_idle_memory = '-1Ki'", 1, 19, "\"-1Ki\" is not a size: it is negative"),
    ("max_idle_memory = '1.5Gi'", 1, 19, "\"1.5Gi\" is not a size: it has a fraction"),
    ("max_idle_memory = '16384Pi'", 1, 19, "\"16384Pi\" is not a size: it is too much"),
    ("max_idle_memory = 'unlimited'", 1, 19, "\"unlimited\" is not a size: it does not begin with a number"),
    ("max_idle_memory = '1s'", 1, 19, "there is no unit \"s\""),
    ("max_lifetime = 'never'", 1, 16, "\"never\" is not a time: it does not begin with a number"),
    ("idle_timeout = '1w'", 1, 16, "\"1w\" is not a time: there is no unit \"w\"; a time is \"never\", or"),
    ("idle_timeout = '1h30m'", 1, 16, "there is no unit \"h30m\""),
    ("idle_timeout = '99999999999999999999d'", 1, 16, "it is too much"),
    ("limits.mappings = '64Ki'", 1, 19, "there is no unit \"Ki\"; a limit of these is a whole number, or"),
    // Names.
    ("policy = 'mru'", 1, 10, "\"mru\" is not a policy: one of lru, module_lru, cost_aware"),
    ("preset = 'cassandra'", 1, 10, "\"cassandra\" is not a preset: one of scylla"),
    ("[artifacts]\ndirectory = '/'\ncodec = 'lz4'", 3, 9, "unknown variant `lz4`, expected `raw` or `zstd`"),
    ("[functions.f]\n[functions.'f(']\nfuel = 1", 2, 12, "\"f(\" is no function: it takes a name, or"),
    ("[functions.'a b']\nfuel = 1", 1, 12, "\"a b\" is no function: the name contains ' '"),
    ("[functions]\n''.fuel = 1", 2, 1, "\"\" is no function: the name is empty"),
    ("[functions]\n'f(a,b)'.fuel = 1\n'f(a, b)'.fuel = 2", 2, 1, "\"f(a,b)\" and \"f(a, b)\" are one function"),
    // Artifacts.
    ("[artifacts]\nmax_size = '1Gi'", 2, 12, "it is about the directory of artifacts, but there is no `directory`"),
    ("[artifacts]\nmemory_artifacts = 5", 2, 20, "but there is no `memory`"),
    ("[artifacts]\ndirectory = ''", 2, 13, "the path is empty"),
    ("[artifacts]\ndirectory = 'd'\ncompression_level = 20", 3, 21, "zstd has no compression level 20: 1 to 19"),
    ("[artifacts]\ndirectory = 'd'\nlow_water = '101%'", 3, 13, "expected a share: \"1%\" to \"100%\""),
    ("[artifacts]\ndirectory = 'd'\nlow_water = '0%'", 3, 13, "expected a share"),
    ("[artifacts]\ndirectory = 'd'\nlow_water = '70'", 3, 13, "expected a share"),
    ("[artifacts]\ndirectory = 'd'\nlow_water = 70", 3, 13, "expected a share"),
    ("[artifacts]\ndirectory = 'd'\nlow_water = nan", 3, 13, "expected a share"),
    ("[artifacts]\ndirectory = 'd'\nlow_water = 0.0", 3, 13, "expected a share"),
];

#[test]
fn nonsense_is_refused_with_its_place_and_the_reason() {
    let mut wrong = Vec::new();
    for (text, line, column, says) in NONSENSE {
        let error = Config::from_toml(text).unwrap_err();
        let ConfigError::Invalid { place, reason } = &error else {
            panic!("{text}: {error:?}");
        };
        let expected = format!("line {line}, column {column}: {reason}");
        assert_eq!(error.to_string(), format!("{place}: {reason}"));
        if error.to_string() != expected || !reason.contains(says) || reason.contains('\n') {
            wrong.push(format!("{text}\n    {error}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A text, the line of what is wrong in it, and the setting and the words of the error.
#[rustfmt::skip]
const IMPOSSIBLE: &[(&str, usize, &str, &str)] = &[
    ("fuel = 5\nmax_uses = 0", 2, "max_uses", "is zero"),
    ("[functions.f]\nfuel = 0", 2, "fuel", "is zero"),
    ("[functions.f]\nfuel = 1\ncall_timeout = '0s'", 3, "call_timeout", "is zero"),
    ("[limits]\ncode = 1\nmemory = 0", 3, "memory", "is zero"),
    ("call_timeout = '0ms'", 1, "call_timeout", "is zero"),
    ("max_compilations = 1025", 1, "max_compilations", "which is too much: at most 1024"),
    ("\nmax_wasm_stack = '2Gi'", 2, "max_wasm_stack", "which is too much"),
    ("epoch_tick = '1us'", 1, "epoch_tick", "which is too little: at least 100000"),
    ("max_table_elements = 72057594037927937", 1, "max_table_elements", "which is too much"),
    ("[limits]\nmemory = '1Ki'", 2, "memory", "the smallest instance needs"),
    ("async_stack_size = '64Ki'", 1, "async_stack_size", "128 KiB for the host's functions needs"),
    ("max_instance_memory = '2Gi'\n[limits]\n memory = '1Gi'", 3, "memory", "grown to max_instance_memory needs"),
    // The preset's limit, which is written nowhere else.
    ("max_instance_memory = '2Gi'\npreset = 'scylla'", 2, "memory", "grown to max_instance_memory needs"),
    ("[artifacts]\nmemory = 0", 2, "memory", "is zero"),
    ("[pooling_allocator]\ninstances = 0", 2, "pooling_allocator.instances", "is zero"),
    ("[pooling_allocator]\ninstances = 9\nmemories = 101", 3, "pooling_allocator.memories", "too much"),
    ("limits.mappings = 60\n[pooling_allocator]\ninstances = 10", 1, "mappings", "needs 114"),
    ("[quarantine]\nwithin = '1s'\nfailures = 0", 3, "quarantine.failures", "is zero"),
    ("[quarantine]\nwithin = '1s'\nfailures = 5\nlongest = '1ms'", 4, "quarantine.longest", "which is too little"),
];

#[test]
fn what_no_pool_could_be_built_with_is_refused_with_its_place() {
    for (text, line, field, says) in IMPOSSIBLE {
        let error = Config::from_toml(text).unwrap_err();
        let ConfigError::Limits { place, source } = &error else {
            panic!("{text}: {error:?}");
        };
        assert_eq!(place.line, *line, "{text}: {error}");
        let kept = error.source().unwrap().downcast_ref::<LimitsError>();
        assert_eq!(kept, Some(source));
        let source = source.to_string();
        assert!(
            source.starts_with(field) && source.contains(says),
            "{source}"
        );
        let whole = Report(&error).to_string();
        assert!(whole.starts_with(&format!("line {line}, ")), "{whole}");
        assert!(whole.ends_with(&source), "{whole}");
    }
}

#[test]
fn what_may_make_sense_with_the_rest_of_a_builder_is_read() {
    // Enough for a smaller `max_wasm_stack`, which the host may set in code.
    let config = Config::from_toml("async_stack_size = '192Ki'").unwrap();
    let builder = || wasm_pool::Pool::builder().config(&config);
    assert!(builder().build().is_err());
    builder().max_wasm_stack(64 << 10).build().unwrap();
}

#[test]
fn errors_of_a_file_name_it() {
    let folder = folder("errors");
    let file = folder.join("pool.toml");
    fs::write(&file, "# größer\n'ä' = 1").unwrap();
    let error = Config::from_file(&file).unwrap_err();
    let place = error.place().unwrap();
    assert_eq!(place.file.as_deref(), Some(file.as_path()));
    let said = format!("{}:2:1: unknown field `ä`", file.display());
    assert!(error.to_string().starts_with(&said), "{error}");
    fs::write(&file, "limits = { code = 0 }").unwrap();
    let error = Config::from_file(&file).unwrap_err();
    let said = format!("{}:1:19: no pool could be built with this", file.display());
    assert_eq!(error.to_string(), said);

    fs::write(&file, b"name = '\xff'").unwrap();
    for (path, kind) in [
        (file, std::io::ErrorKind::InvalidData),
        (folder.join("none.toml"), std::io::ErrorKind::NotFound),
    ] {
        let error = Config::from_file(&path).unwrap_err();
        assert_eq!(error.place(), None);
        assert_eq!(error.to_string(), format!("cannot read {}", path.display()));
        let source = error.source().unwrap().downcast_ref::<std::io::Error>();
        assert_eq!(source.unwrap().kind(), kind);
    }
}
