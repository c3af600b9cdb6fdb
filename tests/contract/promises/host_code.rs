//! Host code that panics where the pool calls it: wakers, listeners, recorders, clocks, destructors.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use wasm_pool::{CallError, Definition, Function, Pool};

use crate::common::polling::{Bomb, waiting_host};
use crate::common::*;

#[derive(Default)]
struct Counted(AtomicUsize);

impl Wake for Counted {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn poll<F: Future>(
    future: Pin<&mut F>,
    waker: Arc<impl Wake + Send + Sync + 'static>,
) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(&Waker::from(waker)))
}

fn pool_with_idle(idle: u64) -> (Pool, Function<(), i32>) {
    let pool = Pool::builder().no_housekeeper().max_instances_per_entry(1);
    let pool = pool.build().unwrap();
    let definition = Definition::new("f").wasm(memory_module(1, 0)).export("f");
    let f = pool.define(definition).unwrap();
    for group in 100..100 + idle {
        assert_eq!(f.call(group, ()).unwrap(), 1);
    }
    (pool, f)
}

#[test]
fn promise_03_a_waker_that_panics_loses_nothing_that_comes_behind_it() {
    let (pool, f) = pool_with_idle(50);
    let lease = f.acquire(1).unwrap();
    let mut bad = pin!(f.acquire_async(1));
    assert!(poll(bad.as_mut(), Arc::new(Bomb)).is_pending());
    let counted = Arc::new(Counted::default());
    let mut good = pin!(f.acquire_async(1));
    assert!(poll(good.as_mut(), counted.clone()).is_pending());

    let closed = catch_unwind(AssertUnwindSafe(|| pool.close()));
    assert!(closed.is_ok(), "the panic is not the closer's");
    assert_eq!(counted.0.load(Ordering::SeqCst), 1, "the next is told");
    let stats = check(&pool);
    assert_eq!((stats.idle, stats.dying), (0, 0), "all are destroyed");
    assert!(poll(good.as_mut(), counted).is_ready());
    drop(lease);
    assert!(pool.close_and_drain(Duration::ZERO));
    check_empty(&pool);
}

#[test]
fn promise_03_a_lease_that_ends_does_not_hear_of_another_tenants_waker() {
    let (pool, f) = pool_with_idle(0);
    for retire in [false, true] {
        let lease = f.acquire(1).unwrap();
        let mut bad = pin!(f.acquire_async(1));
        assert!(poll(bad.as_mut(), Arc::new(Bomb)).is_pending());
        let ended = catch_unwind(AssertUnwindSafe(|| match retire {
            true => lease.discard(),
            false => drop(lease),
        }));
        assert!(ended.is_ok(), "the panic is not the holder's");
        // It was handed over all the same.
        let Poll::Ready(Ok(handed)) = poll(bad.as_mut(), Arc::new(Bomb)) else {
            panic!("it was told");
        };
        drop(handed);
        check(&pool);
    }
    assert_eq!(check(&pool).idle, 1);
}

#[test]
fn promise_03_cancelling_a_task_whose_waker_panics() {
    let (builder, gate) = waiting_host(Pool::builder().no_housekeeper());
    let pool = builder.build().unwrap();
    let wasm = wat(r#"(module (import "env" "gate" (func $gate)) (memory 1)
        (func (export "f") (result i32) call $gate i32.const 1))"#);
    let definition = Definition::new("f").wasm(wasm).export("f");
    let f: Function<(), i32> = pool.define(definition).unwrap();
    let mut lease = pollster::block_on(f.acquire_async(1)).unwrap();
    let canceller = lease.canceller();
    let mut call = Box::pin(async move { lease.call_async(()).await });
    assert!(poll(call.as_mut(), Arc::new(Bomb)).is_pending());
    assert!(catch_unwind(AssertUnwindSafe(|| canceller.cancel())).is_ok());
    let ended = poll(call.as_mut(), Arc::new(Bomb));
    assert!(matches!(
        ended,
        Poll::Ready(Err(CallError::Cancelled { .. }))
    ));
    drop(call);
    assert_eq!((gate.came(), gate.left()), (1, 1));
    assert_eq!(check(&pool).leased, 0);
}

/// Asks the pool something when it goes, which needs the lock.
struct Asks(Arc<OnceLock<Pool>>, mpsc::Sender<usize>);

impl Drop for Asks {
    fn drop(&mut self) {
        if let Some(pool) = self.0.get() {
            let _ = self.1.send(pool.stats().functions.len());
        }
    }
}

#[test]
fn what_the_host_gave_to_import_is_dropped_outside_of_the_lock() {
    let pool = Pool::builder().no_housekeeper().build().unwrap();
    let later = Arc::new(OnceLock::new());
    let (sender, said) = mpsc::channel();
    let imports = |pool: &Pool| {
        let asks = Asks(later.clone(), sender.clone());
        let function = move || {
            let _ = &asks;
        };
        let imports = pool.imports().functions(|linker| {
            linker.func_wrap("host", "f", function)?;
            Ok(())
        });
        imports.build().unwrap()
    };
    let wasm = wat(r#"(module (import "host" "f" (func)) (func (export "g")))"#);
    let definition = |pool: &Pool| {
        let definition = Definition::new("g").wasm(wasm.clone()).export("g");
        definition.imports(&imports(pool))
    };
    let _: Function<(), ()> = pool.define(definition(&pool)).unwrap();
    let (again, other) = (definition(&pool), pool.clone());
    later.set(pool).unwrap();
    let ask = thread::spawn(move || {
        let refused: Result<Function<(), ()>, _> = other.define(again);
        assert!(refused.is_err(), "it is defined already");
        other.remove("g").unwrap();
    });
    let in_time = Duration::from_secs(60);
    assert_eq!(said.recv_timeout(in_time), Ok(1), "the refused ones");
    assert_eq!(said.recv_timeout(in_time), Ok(0), "the removed ones");
    ask.join().unwrap();
}
