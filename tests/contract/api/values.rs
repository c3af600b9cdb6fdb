//! Calls with values: of one shape everywhere, checked before the guest runs.

use pollster::block_on;
use wasm_pool::{
    ArgumentsError, CallError, DefineError, Definition, Dynamic, Function, FunctionType, Pool,
    ValueType,
};
use wasmtime::{Func, Val};

use crate::common::check;

const ADD: &str = r#"(module
    (func (export "add") (param i64 i64) (result i64) (i64.add (local.get 0) (local.get 1)))
    (func (export "swap") (param i32 f64) (result f64 i32) (local.get 1) (local.get 0))
    (func (export "is_null") (param externref) (result i32) (ref.is_null (local.get 0)))
    (func (export "not_null") (param (ref func)) (result i32) (i32.const 0))
    (func (export "trap") unreachable))"#;

fn pool() -> Pool {
    Pool::builder().no_housekeeper().build().unwrap()
}

fn add() -> Definition {
    let definition = Definition::new("math.add").args(["bigint", "bigint"]);
    definition.wasm(wat::parse_str(ADD).unwrap())
}

fn sum(values: Result<Vec<Val>, CallError>) -> i64 {
    match values.unwrap()[..] {
        [Val::I64(sum)] => sum,
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn values_have_one_shape_everywhere() {
    let pool = pool();
    let f: Function = pool.define(add()).unwrap();
    let typed: Function<(i64, i64), i64> = pool.function("math.add").unwrap();
    let params = [Val::I64(40), Val::I64(2)];
    let (group, typed_group) = (f.in_group(1), typed.in_group(1));
    for _ in 0..2 {
        assert_eq!(sum(f.call_values(1, &params)), 42);
        assert_eq!(sum(group.call_values(&params)), 42);
        assert_eq!(sum(f.acquire(1).unwrap().call_values(&params)), 42);
        assert_eq!(sum(typed.call_values(1, &params)), 42);
        assert_eq!(sum(typed_group.call_values(&params)), 42);
        assert_eq!(sum(block_on(f.call_values_async(1, &params))), 42);
        assert_eq!(sum(block_on(group.call_values_async(&params))), 42);
        assert_eq!(sum(block_on(typed.call_values_async(1, &params))), 42);
        let mut lease = block_on(typed_group.acquire_async()).unwrap();
        assert_eq!(sum(block_on(lease.call_values_async(&params))), 42);
    }
    assert_eq!(check(&pool).misses, 1);
}

#[test]
fn an_export_is_called_with_values() {
    let pool = pool();
    let f: Function<(i64, i64), i64> = pool.define(add()).unwrap();
    let mut lease = f.acquire(1).unwrap();
    let swap = lease.export::<Dynamic, Dynamic>("swap").unwrap();
    assert_eq!(
        (swap.name(), swap.ty().to_string()),
        ("swap", "(i32, f64) -> (f64, i32)".to_owned())
    );
    let params = [Val::I32(1), Val::from(2.5)];
    let swapped = |values: Vec<Val>| (values[0].f64(), values[1].i32(), values.len());
    let again = swap.clone();
    let values = again.call_values(&mut lease, &params).unwrap();
    assert_eq!(swapped(values), (Some(2.5), Some(1), 2));
    let values = block_on(swap.call_values_async(&mut lease, &params)).unwrap();
    assert_eq!(swapped(values), (Some(2.5), Some(1), 2));
    let CallError::Export { problem, .. } = lease.export::<Dynamic, Dynamic>("no").unwrap_err()
    else {
        panic!("there is none")
    };
    assert_eq!(problem, "there is no function \"no\"");

    let mut other = f.acquire(2).unwrap();
    let strange = swap.call_values(&mut other, &params).unwrap_err();
    assert!(matches!(strange, CallError::Export { .. }), "{strange:?}");
    for wrong in [&params[..1], &[Val::I32(1), Val::I32(2)]] {
        let error = swap.call_values(&mut lease, wrong).unwrap_err();
        assert!(matches!(error, CallError::Arguments { .. }), "{error:?}");
        let error = block_on(swap.call_values_async(&mut lease, wrong)).unwrap_err();
        assert!(matches!(error, CallError::Arguments { .. }), "{error:?}");
    }
    assert!(!lease.is_broken());

    let trap = lease.export::<Dynamic, Dynamic>("trap").unwrap();
    let error = trap.call_values(&mut lease, &[]).unwrap_err();
    assert!(matches!(error, CallError::Trap { .. }), "{error:?}");
    assert!(lease.is_broken());
}

#[test]
fn a_function_says_its_type_as_it_is_now() {
    let pool = pool();
    let f: Function = pool.define(add()).unwrap();
    use ValueType::{ExternRef, F64, I32, I64};
    let ty = FunctionType::new([I64, I64], [I64]);
    assert_eq!(
        (f.ty(), f.in_group(1).function().ty()),
        (ty.clone(), ty.clone())
    );
    assert_eq!(f.acquire(1).unwrap().ty(), ty);
    for (export, ty) in [
        ("swap", FunctionType::new([I32, F64], [F64, I32])),
        ("is_null", FunctionType::new([ExternRef], [I32])),
        ("not_null", FunctionType::new([ValueType::Reference], [I32])),
    ] {
        let definition = add().export(export).allow_type_change();
        pool.replace::<Dynamic, Dynamic>(definition).unwrap();
        assert_eq!(f.ty(), ty);
        assert_eq!(f.acquire(1).unwrap().ty(), ty);
    }
    let last = f.ty();
    pool.remove("math.add").unwrap();
    assert_eq!(
        f.ty(),
        FunctionType::new([I64, I64], [I64]),
        "what it was made with"
    );
    assert_eq!(last.to_string(), "(reference) -> i32");
}

#[test]
fn wrong_values_harm_no_instance() {
    let pool = pool();
    let f: Function = pool.define(add()).unwrap();
    let mut lease = f.acquire(1).unwrap();
    let right = [Val::I64(40), Val::I64(2)];
    let wrong: [(&[Val], ArgumentsError); 3] = [
        (
            &right[..1],
            ArgumentsError::Count {
                expected: 2,
                given: 1,
            },
        ),
        (
            &[Val::I64(1), Val::I64(2), Val::I64(3)],
            ArgumentsError::Count {
                expected: 2,
                given: 3,
            },
        ),
        (
            &[Val::I64(1), Val::null_func_ref()],
            ArgumentsError::Type {
                position: 2,
                expected: ValueType::I64,
                given: ValueType::FuncRef,
            },
        ),
    ];
    for (values, expected) in wrong {
        for error in [
            lease.call_values(values).unwrap_err(),
            block_on(lease.call_values_async(values)).unwrap_err(),
        ] {
            let CallError::Arguments { target, source } = error else {
                panic!("{error:?}")
            };
            assert_eq!((target.name(), source), ("math.add", expected.clone()));
            assert_eq!(sum(lease.call_values(&right)), 42, "the lease is as it was");
        }
    }
    drop(lease);

    let references = |export| {
        let definition = add().export(export).allow_type_change();
        pool.replace::<Dynamic, Dynamic>(definition).unwrap();
        f.acquire(1).unwrap()
    };
    let mut lease = references("is_null");
    assert_eq!(
        lease.call_values(&[Val::ExternRef(None)]).unwrap()[0].i32(),
        Some(1)
    );
    let error = lease.call_values(&[Val::FuncRef(None)]).unwrap_err();
    assert!(matches!(error, CallError::Arguments { .. }), "{error:?}");
    drop(lease);
    let mut lease = references("not_null");
    let CallError::Arguments { source, .. } = lease.call_values(&[Val::FuncRef(None)]).unwrap_err()
    else {
        panic!("it may not be null")
    };
    assert_eq!(source, ArgumentsError::Null { position: 1 });
    let instance = lease.instance();
    let some = instance.get_func(&mut lease, "add").unwrap();
    assert_eq!(
        lease.call_values(&[Val::from(some)]).unwrap()[0].i32(),
        Some(0)
    );
    drop(lease);
    let stats = check(&pool);
    assert_eq!(stats.idle, 1);
    assert_eq!(stats.function("math.add").unwrap().retirements, 0);
}

#[test]
fn a_definition_may_say_the_type_of_its_export() {
    let pool = pool();
    use ValueType::{I32, I64};
    let right = FunctionType::new([I64, I64], [I64]);
    let wrong = FunctionType::new([I32, I64], [I64]);
    let error = pool
        .define::<Dynamic, Dynamic>(add().ty(wrong))
        .unwrap_err();
    let DefineError::WrongType {
        found, expected, ..
    } = error
    else {
        panic!("{error:?}")
    };
    assert_eq!(found, "(i64, i64) -> i64");
    assert_eq!(expected, "(i32, i64) -> i64");
    // How many types the host counts says nothing: they need not be as many as the parameters.
    let definition = add().args(["row"]).ty(right);
    pool.define::<Dynamic, Dynamic>(definition).unwrap();
}

#[test]
fn whether_a_reference_may_be_null_is_part_of_the_type() {
    let pool = pool();
    let wasm = r#"(module (elem declare func $never)
        (func $never (export "never") (result (ref func)) (ref.func $never))
        (func (export "perhaps") (result funcref) (ref.null func))
        (func (export "takes") (param (ref func))))"#;
    let definition = |name| Definition::new(name).wasm(wat::parse_str(wasm).unwrap());
    let never: Function<(), Func> = pool.define(definition("never")).unwrap();
    never.call(1, ()).unwrap();
    let perhaps: Function<(), Option<Func>> = pool.define(definition("perhaps")).unwrap();
    assert!(perhaps.call(1, ()).unwrap().is_none());
    for refused in [
        pool.define::<(), Func>(definition("perhaps").args(["x"]))
            .map(drop),
        pool.define::<Option<Func>, ()>(definition("takes"))
            .map(drop),
    ] {
        let error = refused.unwrap_err();
        assert!(matches!(error, DefineError::WrongType { .. }), "{error}");
    }
}
