//! With the feature `serde`: what the pool reports is written, what is set is read, too.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, from_value, json, to_value};
use wasm_pool::{
    AcquireError, AcquireOptions, AsyncReason, Billing, Budget, CallLimit, Definition, ErrorKind,
    Function, FunctionName, FunctionType, Group, GuestBytes, GuestTrap, Limits, ManualClock,
    MissingImport, Policy, Pool, RemovalReason, Share, StackTooSmall, ValueType,
};

use crate::common::memory_module;

/// It is written like this, and read again as what it was.
#[track_caller]
fn round_trip<V>(value: V, written: Value)
where
    V: serde::Serialize + serde::de::DeserializeOwned + PartialEq + Debug,
{
    assert_eq!(to_value(&value).unwrap(), written);
    assert_eq!(from_value::<V>(written).unwrap(), value);
}

#[test]
fn settings_are_written_and_read() {
    let none = Limits::new().with(Budget::Mappings, None);
    let limits = none.memory(1 << 20).total(5 << 20);
    round_trip(
        limits,
        json!({
            "memory": 1 << 20, "code": null, "compile": null, "stack": null,
            "mappings": null, "total": 5 << 20, "mapped": null, "instances": null
        }),
    );
    let some: Limits = from_value(json!({"memory": 1 << 20})).unwrap();
    assert_eq!(
        some,
        Limits::new().memory(1 << 20),
        "the rest is as in `new`"
    );
    for (wrong, says) in [
        (json!({"memroy": 1}), "is not a budget: one of memory, code"),
        (json!({"code": 0}), "code is zero"),
        (json!({"code": "1 MiB"}), "invalid type: string"),
    ] {
        let error = from_value::<Limits>(wrong).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    let second = Duration::from_secs(1);
    let options = AcquireOptions::new().timeout(second).wait_for_room(true);
    let written = json!({"timeout": {"secs": 1, "nanos": 0}, "wait_for_room": true});
    round_trip(options, written);
    assert_eq!(
        from_value::<AcquireOptions>(json!({})).unwrap(),
        AcquireOptions::new()
    );
    round_trip(Group::from(7), json!(7));
    round_trip(Group::from("7"), json!("7"));
    let long = "a group with a name that is not kept in place";
    round_trip(Group::from(long), json!(long));
    use ValueType::{ExternRef, I32, I64};
    round_trip(
        FunctionType::new([I32, ExternRef], [I64]),
        json!({"params": ["i32", "externref"], "results": ["i64"]}),
    );
    round_trip(CallLimit::Fuel(5), json!({"fuel": 5}));
    let bytes = GuestBytes {
        pointer: 8,
        length: 3,
    };
    round_trip(bytes, json!({"pointer": 8, "length": 3}));
    for budget in Budget::ALL {
        round_trip(budget, json!(budget.to_string()));
    }
    for policy in Policy::ALL {
        round_trip(policy, json!(policy.to_string()));
    }
    for reason in RemovalReason::ALL {
        round_trip(reason, json!(reason.to_string()));
    }
    for kind in ErrorKind::ALL {
        round_trip(kind, json!(kind.to_string()));
    }
}

/// Of the pool that the test of reports has.
fn bills_are_written(bills: &Value) {
    let total = &bills["total"];
    assert_eq!(
        (&total["misses"], &total["refusals"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(
        (&total["held"]["memory"], &total["leased"]["code"]),
        (&json!(0.0), &json!(0.0))
    );
    let bill = &bills["groups"][1];
    assert_eq!(
        (&bill["group"], &bill["bill"]["failures"]["traps"]),
        (&json!("reports"), &json!(0))
    );
    assert_eq!(bills["functions"][0]["signature"], json!("math.one(int)"));
}

#[test]
fn reports_are_written() {
    let evictions = Arc::new(Mutex::new(Vec::new()));
    let told = evictions.clone();
    let pool = Pool::builder()
        .no_housekeeper()
        .limits(Limits::new().memory(100_000))
        .billing(Billing::new())
        .clock(ManualClock::new())
        .removal_listener(move |e| told.lock().unwrap().push(to_value(e).unwrap()))
        .build()
        .unwrap();
    let definition = Definition::new("math.one").args(["int"]).export("f");
    let f: Function<(), i32> = pool.define(definition.wasm(memory_module(1, 1))).unwrap();
    let held = f.acquire("reports").unwrap();
    let AcquireError::BudgetExceeded(short) = f.acquire(2).map(drop).unwrap_err() else {
        panic!("there is room for one")
    };
    let charged = pool.stats().budget(Budget::Memory).charged;
    let holder = json!({
        "signature": "math.one(int)", "group": "reports", "leased": charged, "idle": 0
    });
    assert_eq!(
        to_value(&short).unwrap(),
        json!({
            "budget": "memory", "requested": charged, "limit": 100_000, "charged": charged,
            "evictable": 0, "promised": 0, "reserved": 0, "of_group": false, "holders": [holder],
            "target": {"signature": "math.one(int)", "group": 2}
        })
    );
    let share = Share::new().reserve(Budget::Memory, 1000);
    pool.set_group("reports", share.limit(Budget::Stack, 1 << 20))
        .unwrap();
    let stats = to_value(pool.stats()).unwrap();
    bills_are_written(&stats["bills"]);
    let group = &stats["groups"][0];
    assert_eq!(
        (&group["group"], &group["weight"]),
        (&json!("reports"), &Value::Null)
    );
    for (what, memory, stack) in [
        ("reserved", json!(1000), json!(0)),
        ("holds", json!(charged), json!(0)),
        ("limits", Value::Null, json!(1 << 20)),
    ] {
        assert_eq!(
            (&group[what]["memory"], &group[what]["stack"]),
            (&memory, &stack),
            "{what}"
        );
    }
    assert_eq!(
        stats["budgets"]["memory"],
        json!({"limit": 100_000, "charged": charged, "peak": charged, "overdraft": 0})
    );
    assert_eq!(stats["budgets"]["code"]["limit"], Value::Null);
    assert_eq!(stats["holders"]["memory"], json!([holder]));
    assert_eq!(
        (&stats["leased"], &stats["closed"]),
        (&json!(1), &json!(false))
    );
    let function = &stats["functions"][0];
    assert_eq!(
        (&function["name"], &function["arguments"]),
        (&json!("math.one"), &json!("int"))
    );
    assert_eq!(
        (&function["misses"], &function["code_loaded"]),
        (&json!(2), &json!(true))
    );

    drop(held);
    let mut idle = Vec::new();
    pool.retain(|one| {
        idle.push(to_value(one).unwrap());
        false
    });
    assert_eq!(
        (&idle[0]["signature"], &idle[0]["group"]),
        (&json!("math.one(int)"), &json!("reports"))
    );
    let evictions = evictions.lock().unwrap();
    assert_eq!(
        evictions[0],
        json!({
            "signature": "math.one(int)", "group": "reports", "reason": "not_retained",
            "memory_bytes": 65_536, "uses": 1
        })
    );
}

#[test]
fn reasons_and_names_are_written() {
    let (available, needed) = (1, 2);
    let small = StackTooSmall { available, needed };
    assert_eq!(
        to_value(small).unwrap(),
        json!({"available": 1, "needed": 2})
    );
    let reason = AsyncReason::LeaseOfATask;
    assert_eq!(to_value(reason).unwrap(), json!("lease_of_a_task"));
    let [module, name, expected] = ["env", "f", "function () -> ()"].map(String::from);
    let missing = MissingImport {
        module,
        name,
        expected,
    };
    let as_written = json!({"module": "env", "name": "f", "expected": "function () -> ()"});
    assert_eq!(to_value(&missing).unwrap(), as_written);
    let trap = GuestTrap {
        code: wasmtime::Trap::UnreachableCodeReached,
        backtrace: String::new(),
    };
    let code = to_value(&trap).unwrap()["code"].clone();
    assert!(code.as_str().unwrap().contains("unreachable"), "{code}");
    round_trip(
        FunctionName::from("math.add(bigint, bigint)"),
        json!("math.add(bigint, bigint)"),
    );
}
