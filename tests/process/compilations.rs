//! Modules are compiled for tasks on threads of the pool's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use wasm_pool::{Definition, Function};

use crate::alone;
use crate::common::*;

#[test]
fn a_compilation_does_not_keep_the_executors_thread() {
    let _alone = alone();
    let pool = one_at_a_time().build().unwrap();
    let held = spans::hold("compile", "aside()");
    let definition = Definition::new("aside").wasm(guest("text_regex_match"));
    let f: Function = pool.define(definition.export("regex_match")).unwrap();
    // Would the executor's thread compile, it would stop there for ever, and tick no more.
    let ticks = in_time(move || {
        one_thread().block_on(async move {
            let ticks = Arc::new(AtomicUsize::new(0));
            let ticker = tokio::spawn({
                let ticks = ticks.clone();
                async move {
                    for _ in 0..1000 {
                        ticks.fetch_add(1, Ordering::Relaxed);
                        tokio::task::yield_now().await;
                    }
                    // The executor's thread goes on between what is done aside.
                    while spans::begun("compile", "aside()") == 0 {
                        tokio::task::yield_now().await;
                    }
                    held.wait_until_reached();
                    assert!(kernel::threads("wasm-pool compi") > 0);
                }
            });
            let task = tokio::spawn(async move { f.acquire_async(1).await.map(drop) });
            ticker.await.unwrap();
            task.await.unwrap().unwrap();
            ticks.load(Ordering::Relaxed)
        })
    });
    assert_eq!(ticks, 1000);
    assert_eq!(check(&pool).compilations, 1);
}
