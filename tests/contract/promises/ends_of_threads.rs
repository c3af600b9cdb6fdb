//! 13: whatever a pool is used for while a thread ends, the process goes on.

use std::cell::RefCell;
use std::sync::{Arc, Mutex};
use std::thread;

use pollster::block_on;
use wasm_pool::{CallError, Definition, Function, Lease, Pool};

use crate::common::child::is_child;
use crate::common::{check, guest};

type Results = Arc<Mutex<Vec<Result<i64, CallError>>>>;

/// What the destructor of a thread's variable does with a pool.
struct Last {
    function: Function<(), i64>,
    leases: Vec<Lease<'static, (), i64>>,
    results: Results,
}

impl Drop for Last {
    fn drop(&mut self) {
        let mut results = self.results.lock().unwrap();
        for lease in &mut self.leases {
            results.push(lease.call(()));
            results.push(block_on(lease.call_async(())));
        }
        self.leases.clear();
        results.push(self.function.call("warm", ()));
        results.push(block_on(self.function.call_async("warm", ())));
        results.push(self.function.call("cold", ()));
        results.push(block_on(self.function.call_async("colder", ())));
        let group = self.function.in_group("by handle");
        results.push(group.call(()));
        results.push(block_on(group.call_async(())));
    }
}

thread_local! {
    static LAST: RefCell<Option<Last>> = const { RefCell::new(None) };
}

#[test]
fn promise_13_a_thread_that_ends_calls_guests_all_the_same() {
    if !is_child(
        "promises::ends_of_threads::promise_13_a_thread_that_ends_calls_guests_all_the_same",
        "",
    ) {
        return;
    }
    let pool = Pool::builder().no_housekeeper().build().unwrap();
    let definition = Definition::new("next").wasm(guest("state_counter"));
    let next: Function<(), i64> = pool.define(definition.export("next")).unwrap();
    // The variable that is registered first is destroyed last: after all that the pool, wasmtime
    // and their libraries keep for the thread. Or there has been nothing of theirs at all.
    for (before, after) in [(false, true), (true, false), (true, true), (false, false)] {
        let results = Results::default();
        let function = next.clone();
        let last = results.clone();
        let run = move || {
            let use_it = || {
                function.call("warm", ()).unwrap();
                block_on(function.call_async("warm", ())).unwrap();
            };
            let leases = || {
                let sync = function.acquire("leased").unwrap();
                let task = block_on(function.acquire_async("leased by a task")).unwrap();
                vec![sync, task]
            };
            if before {
                use_it();
            }
            LAST.with(|_| ());
            let held = Last {
                function: function.clone(),
                leases: if after { leases() } else { Vec::new() },
                results: last,
            };
            LAST.with(|last| last.replace(Some(held)));
            if after {
                use_it();
            }
        };
        thread::spawn(run).join().unwrap();
        let results = results.lock().unwrap();
        assert_eq!(results.len(), if after { 10 } else { 6 });
        for result in &*results {
            assert!(result.is_ok(), "{result:?}");
        }
        let stats = check(&pool);
        assert_eq!(stats.leased, 0);
    }
}
