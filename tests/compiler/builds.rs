//! Programs that are none, or not the right ones: told when the pool is built.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use wasm_pool::wasmtime::{Config, Engine};
use wasm_pool::{BuildError, CompilerError, CompilerProcess};

use crate::common::temp_dir::TempDir;
use crate::{alone, builder, children, descriptors, helper};

#[track_caller]
fn refused(process: CompilerProcess) -> CompilerError {
    let before = descriptors();
    let error = match builder(256 << 20, process).build().map(drop) {
        Err(BuildError::Compiler(error)) => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(children().len(), 0);
    assert_eq!(descriptors(), before);
    error
}

/// A program of the shell's.
fn script(folder: &TempDir, text: &str) -> CompilerProcess {
    let path = folder.path().join("compiler");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    CompilerProcess::helper(path)
}

#[test]
fn a_program_that_is_not_there_is_no_compiler() {
    let _alone = alone();
    let error = refused(CompilerProcess::helper("/nowhere/wasm-pool-compiler"));
    assert!(matches!(error, CompilerError::Start { .. }), "{error}");
    let folder = TempDir::new();
    let path = folder.path().join("no program");
    fs::write(&path, "words").unwrap();
    let error = refused(CompilerProcess::helper(path));
    assert!(matches!(error, CompilerError::Start { .. }), "{error}");
}

#[test]
fn a_program_that_does_something_else_is_no_compiler() {
    let _alone = alone();
    let folder = TempDir::new();
    let error = refused(script(&folder, "echo I do not compile >&2; exit 3"));
    let CompilerError::NoCompiler { said, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(said, "I do not compile");
    let error = refused(script(&folder, "printf nonsense >&0"));
    assert!(matches!(error, CompilerError::NoCompiler { .. }), "{error}");
}

#[test]
fn an_engine_of_the_hosts_own_is_not_the_helpers() {
    let _alone = alone();
    let mut config = Config::new();
    config.epoch_interruption(true);
    let engine = Engine::new(&config).unwrap();
    let built = builder(256 << 20, helper()).engine(engine).build();
    let error = built.map(drop).unwrap_err();
    assert!(
        matches!(error, BuildError::Compiler(CompilerError::NoEngine { .. })),
        "{error}"
    );
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let _alone = alone();
    for process in [
        helper().warm(65),
        helper().niceness(9),
        helper().max_jobs(0),
        helper().first_cap(0),
        helper().max_cap(0),
        helper().time_limit(std::time::Duration::ZERO),
    ] {
        let error = builder(256 << 20, process).build().map(drop).unwrap_err();
        assert!(matches!(error, BuildError::Limits(_)), "{error}");
    }
}
