//! Plain data: names and back, limits as they are.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use wasm_pool::{
    Budget, CodeOrigin, Group, Limits, LimitsError, Policy, Pool, PrecompileOutcome, RemovalReason,
    UnknownName, ValueType,
};

fn all_have_names<V>(all: &[V], what: &str)
where
    V: Copy + PartialEq + Debug + Display + FromStr<Err = UnknownName>,
{
    for (n, value) in all.iter().enumerate() {
        let name = value.to_string();
        assert_eq!(name.parse(), Ok(*value));
        assert!(
            all[..n].iter().all(|other| other.to_string() != name),
            "{name}"
        );
    }
    let error = "Nothing".parse::<V>().unwrap_err();
    assert_eq!((error.what, error.names.len()), (what, all.len()));
    assert!(
        error.to_string().starts_with("\"Nothing\" is not "),
        "{error}"
    );
}

#[test]
fn plain_enums_are_read_as_they_are_written() {
    all_have_names(&Budget::ALL, "a budget");
    all_have_names(&Policy::ALL, "a policy");
    all_have_names(&RemovalReason::ALL, "a reason");
    all_have_names(&ValueType::ALL, "a value type");
    all_have_names(&CodeOrigin::ALL, "an origin of code");
    all_have_names(&PrecompileOutcome::ALL, "an outcome of precompiling");
}

#[test]
fn groups_say_whether_they_are_numbers() {
    let long = "a group with a name that is not kept in place";
    assert_eq!(
        (Group::from(7).number(), Group::from(7).name()),
        (Some(7), None)
    );
    for name in ["", "7", "reports", long] {
        assert_eq!(
            (Group::from(name).number(), Group::from(name).name()),
            (None, Some(name))
        );
    }
}

#[test]
fn limits_that_are_absent_are_none() {
    let none = Limits::new().with(Budget::Mappings, None);
    assert_eq!(
        Limits::new().get(Budget::Mappings),
        Some(Limits::DEFAULT_MAPPINGS)
    );
    for budget in Budget::ALL {
        assert_eq!(none.get(budget), None);
        assert_eq!(none.with(budget, Some(u64::MAX)).get(budget), None);
        assert_eq!(none.with(budget, Some(5)).get(budget), Some(5));
    }
    let given = Limits::new().memory(1 << 20).mapped(1 << 30);
    let pool = Pool::builder().limits(given).build().unwrap();
    assert_eq!(pool.limits(), given);
    let stats = pool.stats();
    for (budget, seen) in stats.budgets() {
        assert_eq!(seen.limit, given.get(budget));
        assert!(seen.allows(5) && seen.allows(u64::MAX) == seen.limit.is_none());
    }
    let lifted = given.with(Budget::Memory, None);
    pool.set_limits(lifted).unwrap();
    assert_eq!(pool.limits(), lifted);
    let refused = pool.set_limits(given.memory(0));
    assert_eq!(refused, Err(LimitsError::Zero { field: "memory" }));
    assert_eq!(pool.limits(), lifted);
}
