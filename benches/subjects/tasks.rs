//! Tasks: what a lease and a call on a fiber cost beside wasmtime's own call on a fiber, and how long
//! a guest keeps its executor from others.

use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use pollster::block_on;
use wasm_pool::{CallError, Definition, Function, Pool};
use wasmtime::{Instance, Module, Store};

use super::{ADD, Add, Subject, by_hand};

const SPIN: &[u8] = include_bytes!("../../examples/guests/prebuilt/rogue_spin.wasm");

/// A subject whose calls are all made by one future: to poll it is not part of a call.
fn calls(name: &'static str, mut add: impl AsyncFnMut(i64, i64) -> i64 + 'static) -> Subject {
    Subject::new(name, move |n| {
        let began = Instant::now();
        block_on(async {
            for i in 0..n as i64 {
                assert_eq!(add(black_box(i), 1).await, i + 1);
            }
        });
        began.elapsed()
    })
}

/// The baseline: wasmtime's own call, on the fiber stack that its store has.
pub fn bare() -> Subject {
    let engine = by_hand::engine();
    let module = Module::new(&engine, ADD).expect("the guest compiles");
    let mut store = Store::new(&engine, ());
    store.set_epoch_deadline(1 << 40);
    let instance = Instance::new(&mut store, &module, &[]).expect("the guest imports nothing");
    let add = instance.get_typed_func::<(i64, i64), i64>(&mut store, "add");
    let add = add.expect("add");
    calls("bare call_async", async move |a, b| {
        let sum = add.call_async(&mut store, (a, b)).await;
        sum.expect("adds")
    })
}

/// A lease that is held for all calls: what the call itself costs more than bare.
pub fn held(add: &Add) -> Subject {
    let mut lease = block_on(add.acquire_async("held by a task")).expect("room");
    calls("held by a task", async move |a, b| {
        lease.call_async((a, b)).await.expect("adds")
    })
}

/// Acquire, call, release.
pub fn resolved(add: &Add) -> Subject {
    let group = add.in_group("a task's");
    calls("resolved, as a task", async move |a, b| {
        group.call_async((a, b)).await.expect("adds")
    })
}

/// Acquire, call, release, by function and group.
pub fn keyed(add: &Add) -> Subject {
    let add = add.clone();
    calls("function and group, as a task", async move |a, b| {
        add.call_async(2, (a, b)).await.expect("adds")
    })
}

/// Acquire and release, without a call.
pub fn leases(add: &Add) -> Subject {
    let group = add.in_group("leased by a task");
    calls("no call: resolved entry", async move |a, b| {
        drop(black_box(group.acquire_async().await.expect("room")));
        a + b
    })
}

/// The paths whose instructions are counted.
pub fn counted(add: &Add) -> Vec<Subject> {
    vec![bare(), held(add), resolved(add), keyed(add)]
}

/// How long each poll of a guest took that never returns, sorted.
pub fn polls_of_a_spinning_guest(tick: Duration, count: usize) -> Vec<Duration> {
    let pool = Pool::builder().epoch_tick(tick).build().expect("a pool");
    let definition = Definition::new("rogue.spin").wasm(SPIN).export("spin");
    let spin: Function<i64, i64> = pool.define(definition).expect("a good guest");
    let mut lease = block_on(spin.acquire_async(1)).expect("room");
    let canceller = lease.canceller();
    let mut polls = Vec::with_capacity(count + 1);
    {
        let mut call = pin!(lease.call_async(0));
        let bell = Arc::new(Bell::default());
        let waker = Waker::from(bell.clone());
        let mut context = Context::from_waker(&waker);
        loop {
            let began = Instant::now();
            let polled = call.as_mut().poll(&mut context);
            polls.push(began.elapsed());
            match polled {
                Poll::Pending if polls.len() == count => canceller.cancel(),
                Poll::Pending => {}
                Poll::Ready(Err(CallError::Cancelled { .. })) => break,
                Poll::Ready(other) => panic!("it never returns: {other:?}"),
            }
            bell.wait();
        }
    }
    polls.sort();
    polls
}

/// Wakes the thread that polls by hand.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    heard: Condvar,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        *self.rung.lock().expect("no panic") = true;
        self.heard.notify_one();
    }
}

impl Bell {
    fn wait(&self) {
        let rung = self.rung.lock().expect("no panic");
        let mut rung = self
            .heard
            .wait_while(rung, |rung| !*rung)
            .expect("no panic");
        *rung = false;
    }
}
