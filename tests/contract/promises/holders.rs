//! Point 27: a refusal says who holds what it lacks.

use wasm_pool::{AcquireError, Budget, BudgetExceeded, Definition, Function, Holder, Limits, Pool};

use crate::common::{check, instance_bytes, memory_module};

type F = Function<(), i32>;

fn define(pool: &Pool, name: &str, pages: u32, salt: u32) -> F {
    let wasm = memory_module(pages, salt);
    let definition = Definition::new(name).wasm(wasm).export("f");
    pool.define(definition).unwrap()
}

fn pool(limits: Limits) -> Pool {
    let builder = Pool::builder().limits(limits).no_housekeeper();
    builder.build().unwrap()
}

fn exceeded<X>(result: Result<X, AcquireError>) -> BudgetExceeded {
    match result.map(drop).unwrap_err() {
        AcquireError::BudgetExceeded(exceeded) => exceeded,
        other => panic!("{other}"),
    }
}

/// Function, group, leased, idle.
fn read(holders: &[Holder]) -> Vec<(&str, Option<String>, u64, u64)> {
    let read = |h: &Holder| {
        let group = h.group.as_ref().map(ToString::to_string);
        (h.signature.clone(), group, h.leased, h.idle)
    };
    let all = holders.iter().map(read);
    all.map(|(f, g, l, i)| (&*Box::leak(Box::<str>::from(&*f)), g, l, i))
        .collect()
}

#[test]
fn promise_27_a_refusal_names_the_largest_holders() {
    let small = instance_bytes(1);
    let large = instance_bytes(8);
    let huge = instance_bytes(16);
    let pool = pool(Limits::new().memory(huge + large + 5 * small));
    let (f, g) = (define(&pool, "f", 8, 0), define(&pool, "g", 1, 1));
    let h = define(&pool, "h", 16, 2);
    let held = h.acquire("glutton").unwrap();
    let leased = [f.acquire("a").unwrap()];
    let two = [g.acquire("b").unwrap(), g.acquire("b").unwrap()];
    let more = [g.acquire("c").unwrap(), g.acquire("d").unwrap()];
    // One of two of b's is idle: not enough for what is asked.
    let [one, other] = two;
    drop(other);
    let refused = exceeded(f.acquire("e"));
    assert_eq!(
        read(&refused.holders),
        [
            ("h()", Some("glutton".into()), huge, 0),
            ("f()", Some("a".into()), large, 0),
            ("g()", Some("b".into()), small, small),
            ("g()", Some("c".into()), small, 0),
        ]
    );
    let text = refused.to_string();
    let expected = format!(
        ". Held by h() in group glutton: {huge} in use; f() in group a: {large} in use; g() in group \
         b: {small} in use and {small} idle; g() in group c: {small} in use; others: {small}"
    );
    assert!(text.ends_with(&expected), "{text}");

    let stats = check(&pool);
    let in_stats = stats.holders(Budget::Memory);
    assert_eq!(read(in_stats).len(), 5);
    assert_eq!(&in_stats[..4], &*refused.holders);
    assert_eq!(
        in_stats.iter().map(Holder::amount).sum::<u64>(),
        stats.budget(Budget::Memory).charged
    );
    drop((held, leased, one, more));
}

#[test]
fn promise_27_code_is_named_by_a_function_that_uses_it() {
    let pool = pool(Limits::new());
    let (f, g) = (define(&pool, "f", 1, 0), define(&pool, "g", 1, 1));
    let _leased = f.acquire("a").unwrap();
    g.call("a", ()).unwrap();
    let charged = pool.stats().budget(Budget::Code).charged;
    // Code that is idle goes; what the lease needs stays.
    pool.set_limits(Limits::new().code(charged)).unwrap();
    let stats = check(&pool);
    let code = charged / 2;
    assert_eq!(
        read(stats.holders(Budget::Code)),
        [("f()", None, code, 0), ("g()", None, 0, code)]
    );
    pool.set_limits(Limits::new().code(code)).unwrap();
    let refused = exceeded(g.acquire("b"));
    assert_eq!(refused.budget, Budget::Code);
    assert_eq!(read(&refused.holders), [("f()", None, code, 0)]);
    let text = refused.to_string();
    let expected = format!("Held by code of f(): {code} in use");
    assert!(text.ends_with(&expected), "{text}");
}

#[test]
fn promise_27_what_can_never_fit_names_nobody() {
    let pool = pool(Limits::new().memory(instance_bytes(1)));
    let small = define(&pool, "small", 1, 0);
    let large = define(&pool, "large", 2, 1);
    let _lease = small.acquire("a").unwrap();
    let refused = exceeded(large.acquire("b"));
    assert!(refused.requested > refused.limit && refused.holders.is_empty());
}
