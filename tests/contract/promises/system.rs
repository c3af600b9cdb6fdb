//! What the operating system refuses is the system's: idle instances and unused code make room for it,
//! and nothing is remembered of it.
#![cfg(target_os = "linux")]

use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex};

use wasm_pool::{
    AcquireError, Definition, Function, Lease, ManualClock, ModuleError, Pool, PoolBuilder,
    RemovalReason,
};

use crate::common::{check, check_empty, child, in_time, memory_module, wat};

const NO_MEMORY: i32 = 12;
const TOO_MANY_FILES: i32 = 24;

/// A pool without any limit, and why instances left it.
fn unlimited(builder: PoolBuilder) -> (Pool, Arc<Mutex<Vec<RemovalReason>>>) {
    let reasons: Arc<Mutex<Vec<RemovalReason>>> = Arc::default();
    let log = reasons.clone();
    let pool = builder
        .clock(ManualClock::new())
        .no_housekeeper()
        .removal_listener(move |eviction| log.lock().unwrap().push(eviction.reason))
        .build()
        .unwrap();
    (pool, reasons)
}

#[track_caller]
fn assert_said(error: &(dyn Error + 'static), code: i32) {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(said) = error.downcast_ref::<io::Error>() {
            assert_eq!(said.raw_os_error(), Some(code), "{error}");
            return;
        }
        cause = error.source();
    }
    panic!("the system's error is no cause of {error:?}");
}

/// Room for some eight memories, each of which takes four gibibytes of address space.
const ADDRESS_SPACE: &str = "ulimit -v 40000000";

#[test]
fn promise_16_idle_instances_make_room_when_the_address_space_is_full() {
    let test =
        "promises::system::promise_16_idle_instances_make_room_when_the_address_space_is_full";
    if !child::is_child(test, ADDRESS_SPACE) {
        return;
    }
    in_time(|| {
        let (pool, reasons) = unlimited(Pool::builder());
        let definition = Definition::new("f").wasm(memory_module(1, 0));
        let f: Function<(), i32> = pool.define(definition).unwrap();
        for group in 0..40 {
            assert_eq!(f.call(group, ()).unwrap(), 1);
            assert_eq!(
                pollster::block_on(f.call_async(100 + group, ())).unwrap(),
                1
            );
        }
        let stats = check(&pool);
        assert_eq!(stats.compilations, 1);
        assert!(stats.idle > 0, "not all had to go");
        // The least recently used go, and no more than it takes, or the half of that.
        assert!(stats.evictions < 2 * 80, "{}", stats.evictions);
        let reasons = reasons.lock().unwrap();
        assert_eq!(reasons.len() as u64, stats.evictions);
        assert!(reasons.iter().all(|reason| *reason == RemovalReason::Room));
    });
}

#[test]
fn promise_16_who_finds_no_address_space_is_told_what_the_system_said() {
    let test =
        "promises::system::promise_16_who_finds_no_address_space_is_told_what_the_system_said";
    if !child::is_child(test, ADDRESS_SPACE) {
        return;
    }
    in_time(|| {
        let (pool, reasons) = unlimited(Pool::builder());
        let definition = Definition::new("f").wasm(memory_module(1, 0));
        let f: Function<(), i32> = pool.define(definition).unwrap();
        let mut leases: Vec<Lease<'_, (), i32>> = Vec::new();
        let error = loop {
            match f.acquire(leases.len() as u64) {
                Ok(lease) => leases.push(lease),
                Err(error) => break error,
            }
            assert!(leases.len() < 40, "the address space is limited");
        };
        assert!(matches!(error, AcquireError::System { .. }), "{error:?}");
        assert_said(&error, NO_MEMORY);
        assert!(
            wasm_pool::Report(&error)
                .to_string()
                .contains("the system refused"),
            "{error}"
        );
        let task = pollster::block_on(f.acquire_async(100))
            .map(drop)
            .unwrap_err();
        assert!(matches!(task, AcquireError::System { .. }), "{task:?}");
        assert_eq!(*reasons.lock().unwrap(), [], "nobody is evicted in vain");
        assert_eq!(check(&pool).leased, leases.len());
        leases.pop();
        assert_eq!(f.call(100, ()).unwrap(), 1, "at once");
        assert_eq!(*reasons.lock().unwrap(), [RemovalReason::Room]);
        drop(leases);
        pool.close();
        check_empty(&pool);
    });
}

#[test]
fn promise_16_idle_instances_make_room_for_a_fiber_stack() {
    let test = "promises::system::promise_16_idle_instances_make_room_for_a_fiber_stack";
    if !child::is_child(test, "ulimit -v 16000000") {
        return;
    }
    in_time(|| {
        let (pool, _) = unlimited(Pool::builder().async_stack_size(1 << 30));
        let wasm = wat(r#"(module (func (export "f") (result i32) i32.const 1))"#);
        let f: Function<(), i32> = pool.define(Definition::new("f").wasm(wasm)).unwrap();
        for group in 0..40 {
            assert_eq!(pollster::block_on(f.call_async(group, ())).unwrap(), 1);
        }
        let mut leases: Vec<Lease<'_, (), i32>> = Vec::new();
        let refused = (0..40).find_map(|group| {
            // Made by a thread: its stack is made when a task calls it.
            let mut lease = f.acquire(group).unwrap();
            let called = pollster::block_on(lease.call_async(()));
            leases.push(lease);
            called.err()
        });
        let refused = refused.expect("the address space is limited");
        assert_said(&refused, NO_MEMORY);
        let text = wasm_pool::Report(&refused).to_string();
        assert!(text.contains("the system refused a fiber stack"), "{text}");
        drop(leases);
        assert_eq!(pollster::block_on(f.call_async(100, ())).unwrap(), 1);
        check(&pool);
    });
}

/// A module with an image of its initial data, which takes a file handle.
fn with_data(n: usize) -> Vec<u8> {
    wat(&format!(
        r#"(module (memory (export "memory") 1) (data (i32.const 0) "module {n}")
            (func (export "f") (result i32) i32.const {n}))"#
    ))
}

#[test]
fn promise_16_unused_code_makes_room_when_there_are_no_file_handles() {
    let test = "promises::system::promise_16_unused_code_makes_room_when_there_are_no_file_handles";
    if !child::is_child(test, "ulimit -n 40") {
        return;
    }
    in_time(|| {
        let (pool, _) = unlimited(Pool::builder());
        let define = |n: usize| -> Function<(), i32> {
            let definition = Definition::new(format!("f{n}")).wasm(with_data(n));
            pool.define(definition.export("f")).unwrap()
        };
        let functions: Vec<_> = (0..100).map(define).collect();
        for (n, f) in functions.iter().enumerate() {
            assert_eq!(f.call(1, ()).unwrap(), n as i32);
        }
        let stats = check(&pool);
        assert!(stats.code_dropped >= 60, "{}", stats.code_dropped);
        // With all in use, the system's refusal is nobody's fault, and is not remembered.
        let mut leases = Vec::new();
        let refused = functions.iter().find_map(|f| match f.acquire(1) {
            Ok(lease) => {
                leases.push(lease);
                None
            }
            Err(error) => Some((f, error)),
        });
        let (f, error) = refused.expect("file handles are limited");
        let AcquireError::Module { source, .. } = &error else {
            panic!("{error:?}");
        };
        assert!(matches!(**source, ModuleError::System(_)), "{error:?}");
        assert_said(&error, TOO_MANY_FILES);
        let again = f.acquire(1).map(drop).unwrap_err();
        assert!(matches!(again, AcquireError::Module { .. }), "{again:?}");
        drop(leases);
        // The clock stands still: a cool-down would not be over.
        f.call(1, ()).unwrap();
        check(&pool);
    });
}

#[test]
fn promise_16_idle_instances_make_room_for_a_memory_that_grows() {
    let test = "promises::system::promise_16_idle_instances_make_room_for_a_memory_that_grows";
    if !child::is_child(test, "ulimit -d 2000000") {
        return;
    }
    in_time(|| {
        let (pool, reasons) = unlimited(Pool::builder());
        let definition = |name: &str, pages| Definition::new(name).wasm(memory_module(pages, 0));
        let idle: Function<(), i32> = pool.define(definition("idle", 1600).export("f")).unwrap();
        for group in 0..16 {
            idle.call(group, ()).unwrap();
        }
        let grow: Function<i32, i32> = pool.define(definition("grow", 1).export("grow")).unwrap();
        let mut lease = grow.acquire(1).unwrap();
        // Wasmtime asks once; a guest that asks again finds what has been evicted for it.
        let grown = (0..7).find_map(|_| Some(lease.call(12_000).unwrap()).filter(|n| *n >= 0));
        assert_eq!(grown, Some(1));
        let evicted = reasons.lock().unwrap().clone();
        assert!(!evicted.is_empty() && evicted.len() < 16, "{evicted:?}");
        assert!(evicted.iter().all(|reason| *reason == RemovalReason::Room));
        // What can never be had costs nobody more than a bounded number of instances.
        for _ in 0..100 {
            assert_eq!(lease.call(40_000).unwrap(), -1);
        }
        drop(lease);
        check(&pool);
    });
}
