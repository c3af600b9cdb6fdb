//! An error that its caller keeps does not keep code mapped, backtrace or not.

use std::error::Error;

use crate::alone;
use crate::common::{check_empty, wat};
use wasm_pool::{CallError, Definition, Function, Pool};

/// Bytes of this process's executable mappings that belong to no file.
fn executable() -> u64 {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let anonymous = |line: &&str| line.contains(" r-xp ") && line.ends_with(" 0 ");
    let bytes = |line: &str| {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let address = |hex| u64::from_str_radix(hex, 16).unwrap();
        address(to) - address(from)
    };
    maps.lines().filter(anonymous).map(bytes).sum()
}

#[test]
fn a_kept_error_keeps_no_code_mapped() {
    let _alone = alone();
    let text = r#"(module (import "host" "fail" (func $fail))
        (func $deep (if (i32.const 1) (then unreachable)))
        (func (export "trap") call $deep) (func (export "host") call $fail))"#;
    let before = executable();
    let pool = Pool::builder()
        .backtraces(true)
        .no_housekeeper()
        .imports(|linker| {
            let refuse =
                || -> wasmtime::Result<()> { Err(std::io::Error::other("no disk").into()) };
            linker.func_wrap("host", "fail", refuse).map(|_| ())
        })
        .build()
        .unwrap();
    let define = |export| -> Function<(), ()> {
        let definition = Definition::new(export).wasm(wat(text)).export(export);
        pool.define(definition).unwrap()
    };
    let (trap, host) = (define("trap"), define("host"));
    let errors = [trap.call(1, ()).unwrap_err(), host.call(1, ()).unwrap_err()];
    assert!(
        executable() > before,
        "code is mapped while the pool is open"
    );
    let CallError::Trap { trap, .. } = &errors[0] else {
        panic!("{:?}", errors[0])
    };
    assert!(trap.backtrace.contains("deep"), "{}", trap.backtrace);
    assert!(errors[1].source().is_some());
    assert!(
        wasm_pool::Report(&errors[1])
            .to_string()
            .contains("no disk"),
        "{}",
        errors[1]
    );

    pool.close();
    check_empty(&pool);
    assert_eq!(
        executable(),
        before,
        "the errors are still here: {errors:?}"
    );
}
