//! Settings of functions: for definitions that say nothing themselves.

use std::time::Duration;

use wasm_pool::{
    BuildError, CallError, CallLimit, Config, Definition, Function, FunctionName, Pool,
};

use super::read;
use crate::common::wat;

/// A function of this name and these argument types, that never returns.
fn endless(name: &str, args: &[&str]) -> Definition {
    let module = wat(r#"(module (func (export "f") (loop (br 0))))"#);
    Definition::new(name).args(args).wasm(module).export("f")
}

fn limit(f: &Function<(), ()>) -> CallLimit {
    match f.call(1, ()).unwrap_err() {
        CallError::Limit { limit, .. } => limit,
        other => panic!("{other:?}"),
    }
}

const TEXT: &str = "
    fuel = 1000
    [functions.'math.add']
    fuel = 2000
    [functions.'math.add( int,bigint )']
    fuel = 3000
    [functions.'math.sub()']
    fuel = 4000
";

#[test]
fn a_definition_counts_before_its_types_its_name_and_the_pool() {
    let pool = Pool::builder().config(&read(TEXT)).build().unwrap();
    let types = ["int", "bigint"];
    for (definition, fuel) in [
        (endless("other", &[]), 1000),
        (endless("math.add", &[]), 2000),
        (endless("math.add", &["int"]), 2000),
        (endless("math.add", &types), 3000),
        (endless("math.sub", &[]), 4000),
        (endless("math.sub", &["int"]), 1000),
        (endless("math", &[]), 1000),
    ] {
        let signature = definition.signature();
        let f: Function<(), ()> = pool.define(definition).unwrap();
        assert_eq!(limit(&f), CallLimit::Fuel(fuel), "{signature}");
    }
    pool.remove("math.add").unwrap();
    let own = endless("math.add", &types).fuel(5000);
    let f: Function<(), ()> = pool.define(own).unwrap();
    assert_eq!(limit(&f), CallLimit::Fuel(5000));
    let f: Function<(), ()> = pool.replace(endless("math.add", &types)).unwrap();
    assert_eq!(limit(&f), CallLimit::Fuel(3000), "of the file again");
}

#[test]
fn what_is_said_of_the_types_and_of_the_name_adds_up() {
    let text = "[functions]\nf.fuel = 10_000_000_000\n'f(int)'.call_timeout = '20ms'";
    let pool = Pool::builder().config(&read(text)).build().unwrap();
    let f: Function<(), ()> = pool.define(endless("f", &["int"])).unwrap();
    let time = Duration::from_millis(20);
    assert_eq!(limit(&f), CallLimit::Time(time));
}

#[test]
fn a_pool_without_limits_serves_the_functions_that_have_one() {
    for (text, expected) in [
        ("functions.f.fuel = 10_000", CallLimit::Fuel(10_000)),
        (
            "functions.f.call_timeout = '20ms'",
            CallLimit::Time(Duration::from_millis(20)),
        ),
    ] {
        let builder = || Pool::builder().call_timeout(None).config(&read(text));
        let pool = builder().build().unwrap();
        let f: Function<(), ()> = pool.define(endless("f", &[])).unwrap();
        assert_eq!(limit(&f), expected);
        let answering = Definition::new("g").wasm(crate::common::answering(7));
        let g: Function<(), i32> = pool.define(answering.export("f")).unwrap();
        assert_eq!(g.call(1, ()).unwrap(), 7);

        let engine = wasmtime::Engine::default();
        let error = builder().engine(engine).build().unwrap_err();
        assert!(matches!(error, BuildError::EngineLacks { .. }), "{error}");
    }
}

#[test]
fn a_later_configuration_says_only_what_it_says() {
    let first = read("[functions.f]\nfuel = 1000\ncall_timeout = '1h'");
    let second = read("functions.f.fuel = 2000");
    let pool = Pool::builder().config(&first).config(&second);
    let pool = pool.build().unwrap();
    let f: Function<(), ()> = pool.define(endless("f", &[])).unwrap();
    assert_eq!(limit(&f), CallLimit::Fuel(2000));
}

#[test]
fn a_configuration_names_its_functions() {
    let names: Vec<_> = read(TEXT).functions().collect();
    let given = ["math.add", "math.add( int,bigint )", "math.sub()"];
    assert_eq!(names, given.map(FunctionName::from));
    assert_eq!(Config::default().functions().count(), 0);
}
