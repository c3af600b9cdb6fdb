//! Names that tenants choose: a name and argument types are two things, in keys, look-ups and errors.

use wasm_pool::{
    DefineError, Definition, Function, LookupError, NameError, Pool, TextError, UnknownFunction,
};

use crate::common::{answering, check};

fn define(pool: &Pool, name: &str, args: &[&str], answer: i32) -> Result<(), DefineError> {
    let definition = Definition::new(name).args(args).wasm(answering(answer));
    pool.define::<(), i32>(definition.export("f")).map(drop)
}

fn answer(pool: &Pool, name: impl Into<wasm_pool::FunctionName>) -> Result<i32, LookupError> {
    let function: Function<(), i32> = pool.function(name)?;
    Ok(function.call("tenant", ()).unwrap())
}

#[test]
fn promise_24_a_name_is_never_mistaken_for_an_overload() {
    let pool = Pool::builder().build().unwrap();
    define(&pool, "wadd", &["bigint", "bigint"], 1).unwrap();
    for name in [
        "wadd(bigint, bigint)",
        "wadd(bigint,bigint)",
        "wadd(",
        "wadd)",
        "wadd()",
        "wadd,",
    ] {
        let error = define(&pool, name, &[], 2).unwrap_err();
        let DefineError::Name { source, .. } = &error else {
            panic!("{name}: {error:?}");
        };
        assert!(
            matches!(source, NameError::Name(TextError::Character(_))),
            "{error}"
        );
    }
    pool.remove("wadd(bigint, bigint)").unwrap();
    assert_eq!(check(&pool).functions.len(), 0);
}

#[test]
fn promise_24_a_look_up_takes_both_or_a_text_in_which_spaces_do_not_matter() {
    let pool = Pool::builder().build().unwrap();
    define(&pool, "math.add", &["bigint", "bigint"], 1).unwrap();
    define(
        &pool,
        "math.add",
        &["decimal(10, 2)", "double  precision"],
        2,
    )
    .unwrap();
    define(&pool, "math.add", &["map<text,frozen<list<int>>>"], 3).unwrap();
    define(&pool, "math.add", &["varchar(20)"], 4).unwrap();
    define(&pool, "math.add", &[], 5).unwrap();
    for (text, expected) in [
        ("math.add(bigint, bigint)", 1),
        ("math.add(bigint,bigint)", 1),
        (" math.add ( bigint ,  bigint ) ", 1),
        ("math.add(decimal(10, 2), double precision)", 2),
        ("math.add(decimal(10,2),double   precision)", 2),
        ("math.add(map<text, frozen<list<int>>>)", 3),
        ("math.add( map < text , frozen<list<int>> > )", 3),
        ("math.add(varchar(20))", 4),
        ("math.add()", 5),
        ("math.add( )", 5),
    ] {
        assert_eq!(answer(&pool, text).unwrap(), expected, "{text}");
    }
    let types = ["decimal( 10,2 )", "double precision"];
    assert_eq!(answer(&pool, ("math.add", types)).unwrap(), 2);
    assert_eq!(answer(&pool, ("math.add", vec!["bigint"; 2])).unwrap(), 1);
    assert_eq!(answer(&pool, ("math.add", [""; 0])).unwrap(), 5);
    for text in [
        "math.add(doubleprecision)",
        "math.add(bigint)",
        "math.add(bigint, bigint",
        "math.add(bigint, bigint))",
        "math.add(bigint, bigint) ()",
        "math.add(,)",
        "math add(bigint, bigint)",
        "",
        "(bigint, bigint)",
    ] {
        let error = answer(&pool, text).unwrap_err();
        let target = text.to_owned();
        assert_eq!(error, LookupError::Unknown { target });
        let target = text.to_owned();
        assert_eq!(pool.remove(text), Err(UnknownFunction { target }));
    }
    // As one type, not as two.
    let error = answer(&pool, ("math.add", ["bigint, bigint"])).unwrap_err();
    assert!(matches!(error, LookupError::Unknown { .. }), "{error}");
    assert_eq!(check(&pool).functions.len(), 5);
}

#[test]
fn promise_24_errors_and_reports_spell_a_signature_in_one_way() {
    let pool = Pool::builder().build().unwrap();
    define(&pool, "f", &["decimal(10,2)", "int [ ]"], 1).unwrap();
    let error = define(&pool, "f", &["decimal( 10, 2 )", "int[]"], 2).unwrap_err();
    assert_eq!(
        error.to_string(),
        "f(decimal(10, 2), int[]) is defined already; use replace to give it new code"
    );
    let stats = check(&pool);
    let of_text = stats.function("f(decimal(10,2),int[])").unwrap();
    let of_both = stats.function(("f", ["decimal(10,2)", "int[]"])).unwrap();
    assert_eq!(of_text, of_both);
    assert_eq!(of_text.signature(), "f(decimal(10, 2), int[])");
    assert_eq!(*of_text.arguments, *"decimal(10, 2), int[]");
    assert!(stats.function("f(int)").is_none());
    let f: Function<(), i32> = pool.function("f").unwrap();
    assert_eq!(f.signature(), "f(decimal(10, 2), int[])");
    let again: Function<(), i32> = pool.function(f.signature()).unwrap();
    assert_eq!(again.call("tenant", ()).unwrap(), 1);
    pool.retain(|idle| {
        assert_eq!(*idle.signature, *"f(decimal(10, 2), int[])");
        true
    });
}

#[test]
fn promise_24_one_overload_is_removed_or_all() {
    let pool = Pool::builder().build().unwrap();
    for (n, args) in [&["int"][..], &["int", "int"], &["text"]]
        .iter()
        .enumerate()
    {
        define(&pool, "f", args, n as i32).unwrap();
    }
    pool.remove(("f", ["int", "int"])).unwrap();
    assert!(answer(&pool, "f(int, int)").is_err());
    pool.remove("f( text )").unwrap();
    assert_eq!(answer(&pool, "f").unwrap(), 0);
    define(&pool, "f", &["text"], 3).unwrap();
    pool.remove("f").unwrap();
    assert_eq!(check(&pool).functions.len(), 0);
}

#[test]
fn promise_24_what_a_name_may_contain_is_checked() {
    let pool = Pool::builder().build().unwrap();
    let long = "é".repeat(256);
    for name in ["f", "db.schema.f", "größe", "f'\"`$#-+*", &long] {
        define(&pool, name, &[], 1).unwrap();
        assert_eq!(answer(&pool, name).unwrap(), 1);
        pool.remove(name).unwrap();
    }
    let longer = long + "f";
    let too_long = || TextError::TooLong {
        bytes: 513,
        max: 512,
    };
    let character = TextError::Character;
    for (name, problem) in [
        ("", TextError::Empty),
        (&*longer, too_long()),
        ("a b", character(' ')),
        ("a\u{2028}b", character('\u{2028}')),
        ("a\nb", character('\n')),
        ("a\0", character('\0')),
        ("a\u{1b}[31m", character('\u{1b}')),
    ] {
        let error = define(&pool, name, &[], 1).unwrap_err();
        let DefineError::Name { source, .. } = &error else {
            panic!("{error:?}");
        };
        assert_eq!(*source, NameError::Name(problem));
        let text = error.to_string();
        assert!(
            text.len() < 1000 && !text.contains(char::is_control),
            "{text:?}"
        );
        let definition = Definition::new(name).wasm(answering(1)).export("f");
        assert_eq!(pool.replace::<(), i32>(definition).unwrap_err(), error);
    }
    assert_eq!(check(&pool).functions.len(), 0);
}

#[test]
fn promise_24_what_an_argument_type_may_contain_is_checked() {
    let pool = Pool::builder().build().unwrap();
    let longer = "t".repeat(513);
    let too_long = TextError::TooLong {
        bytes: 513,
        max: 512,
    };
    for (ty, problem) in [
        ("a, b", TextError::Comma),
        ("", TextError::Empty),
        (" ", TextError::Empty),
        ("a(", TextError::Brackets),
        ("a)", TextError::Brackets),
        ("map<a, b)", TextError::Brackets),
        ("a\u{7}", TextError::Character('\u{7}')),
        (&*longer, too_long),
    ] {
        let error = define(&pool, "f", &["int", ty], 1).unwrap_err();
        let DefineError::Name { source, .. } = error else {
            panic!("{error:?}");
        };
        let position = 2;
        assert_eq!(source, NameError::Argument { position, problem });
    }
    let type_of_512 = "t".repeat(512);
    let many = vec![&*type_of_512; 16];
    let error = define(&pool, "f", &many, 1).unwrap_err();
    let DefineError::Name { source, .. } = error else {
        panic!("{error:?}");
    };
    let (bytes, max) = (16 * 512 + 15 * 2, 8 << 10);
    assert_eq!(source, NameError::ArgumentsTooLong { bytes, max });
    define(&pool, "f", &many[1..], 1).unwrap();
    assert_eq!(answer(&pool, "f").unwrap(), 1);
    assert_eq!(answer(&pool, ("f", &many[1..])).unwrap(), 1);
    // Brackets as deep as a type is long end nothing either.
    let deep = "<".repeat(256) + &">".repeat(256);
    define(&pool, "g", &[&deep], 2).unwrap();
    assert_eq!(answer(&pool, format!("g({deep})")).unwrap(), 2);
}
