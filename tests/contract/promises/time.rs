//! Deadlines come, whatever host code does on whatever thread.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

use metrics::{
    Counter, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use wasm_pool::{
    AcquireError, CallError, CallLimit, Clock, Definition, Function, Group, Lease, Limits,
    ManualClock, Pool, PoolBuilder,
};

use crate::common::polling::{Bomb, ByHand, MINUTE, waiting_host};
use crate::common::*;

const MILLI: Duration = Duration::from_millis(1);
const LIMIT: Duration = Duration::from_millis(50);

/// Holds up every thread that comes, until it is dropped.
struct Hold {
    came: Arc<AtomicU64>,
    open: Option<mpsc::Sender<()>>,
    until_open: Arc<Mutex<mpsc::Receiver<()>>>,
}

/// What a thread is held up by.
#[derive(Clone)]
struct Bar {
    /// The test's own thread: a waker does not hold it up, since a guest that a tick interrupts in its first
    /// poll wakes whoever polls it, then and there.
    own: thread::ThreadId,
    came: Arc<AtomicU64>,
    until_open: Arc<Mutex<mpsc::Receiver<()>>>,
}

impl Hold {
    fn new() -> Self {
        let (open, until_open) = mpsc::channel();
        Self {
            came: Arc::default(),
            open: Some(open),
            until_open: Arc::new(Mutex::new(until_open)),
        }
    }

    fn bar(&self) -> Bar {
        Bar {
            own: thread::current().id(),
            came: self.came.clone(),
            until_open: self.until_open.clone(),
        }
    }

    fn wait_for(&self, threads: u64) {
        until(|| self.came.load(Ordering::SeqCst) >= threads);
    }

    fn open(&mut self) {
        self.open.take();
    }
}

impl Bar {
    fn pass(&self) {
        self.came.fetch_add(1, Ordering::SeqCst);
        // The first waits for the sender to go, the others for the first.
        let _ = self.until_open.lock().unwrap().recv();
    }
}

impl Wake for Bar {
    fn wake(self: Arc<Self>) {
        if thread::current().id() != self.own {
            self.pass();
        }
    }
}

fn builder() -> PoolBuilder {
    Pool::builder()
        .max_instances_per_entry(1)
        .call_timeout(LIMIT)
        .epoch_tick(MILLI)
}

fn define<T: Send + 'static>(pool: &Pool<T>, name: &str, wasm: &str) -> Function<(), i32, T> {
    let definition = Definition::new(name).wasm(wat(wasm)).export("f");
    pool.define(definition).unwrap()
}

const ONE: &str = r#"(module (func (export "f") (result i32) i32.const 1))"#;
const SPIN: &str = r#"(module (func (export "f") (result i32) (loop br 0) i32.const 1))"#;

/// A guest that spins ends, and so does a task that waits for its turn.
#[track_caller]
fn deadlines_come<T: Send + 'static>(pool: &Pool<T>) {
    let spin = define(pool, "spin", SPIN);
    let spinning = spin.clone();
    let error = in_time(move || spinning.call(7, ()).unwrap_err());
    let CallError::Limit { limit, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(limit, CallLimit::Time(LIMIT));
    let taken = spin.acquire(8).unwrap();
    let waiting = spin.clone();
    let waited = in_time(move || {
        pollster::block_on(waiting.acquire_async_with(8, room_within(MILLI))).err()
    });
    assert!(matches!(waited, Some(AcquireError::Timeout { .. })));
    drop(taken);
    pool.remove("spin").unwrap();
}

type Waiting = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A task that waits for the only instance of `f`, which the lease has, and is woken like that.
fn waiting_task(f: &Function<(), i32>, waker: Arc<impl Wake + Send + Sync + 'static>) -> Waiting {
    let waker = Waker::from(waker);
    loop {
        let f = f.clone();
        let mut waiting: Waiting = Box::pin(async move {
            let waited = f.acquire_async_with(1, room_within(5 * MILLI)).await;
            assert!(matches!(waited, Err(AcquireError::Timeout { .. })));
        });
        // On a slow machine the time may be over at once.
        let polled = waiting.as_mut().poll(&mut Context::from_waker(&waker));
        if polled.is_pending() {
            return waiting;
        }
    }
}

// Wakers ─────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn promise_01_a_waker_that_panics_when_its_alarm_rings() {
    let pool = builder().build().unwrap();
    let f = define(&pool, "f", ONE);
    let lease = f.acquire(1).unwrap();
    for _ in 0..3 {
        let _bad = waiting_task(&f, Arc::new(Bomb));
        deadlines_come(&pool);
    }
    drop(lease);
    check(&pool);
}

#[test]
fn promise_01_wakers_that_block_keep_no_alarm_of_others() {
    let mut hold = Hold::new();
    let pool = builder().build().unwrap();
    let f = define(&pool, "f", ONE);
    let lease = f.acquire(1).unwrap();
    let mut bad = Vec::new();
    for blocked in 1..=8 {
        bad.push(waiting_task(&f, Arc::new(hold.bar())));
        hold.wait_for(blocked);
        deadlines_come(&pool);
    }
    hold.open();
    drop(lease);
    check(&pool);
}

#[test]
fn promise_01_many_alarms_at_once_with_some_that_block() {
    let mut hold = Hold::new();
    let pool = builder().build().unwrap();
    let f = define(&pool, "f", ONE);
    let lease = f.acquire(1).unwrap();
    let mut good = Vec::new();
    let mut bad = Vec::new();
    for n in 0..1000 {
        if n % 200 == 100 {
            bad.push(waiting_task(&f, Arc::new(hold.bar())));
        }
        let f = f.clone();
        let task = async move {
            f.acquire_async_with(1, room_within(5 * MILLI))
                .await
                .map(drop)
        };
        let mut task = ByHand::new(task);
        match task.poll() {
            None => good.push(task),
            Some(waited) => assert!(waited.is_err()),
        }
    }
    for task in &good {
        until(|| task.is_woken());
    }
    hold.wait_for(5);
    deadlines_come(&pool);
    hold.open();
    drop((good, bad, lease));
    check(&pool);
}

#[test]
fn promise_01_a_pool_ends_although_a_waker_blocks() {
    let mut hold = Hold::new();
    let pool = builder().build().unwrap();
    let f = define(&pool, "f", ONE);
    let lease = f.acquire(1).unwrap();
    let bad = waiting_task(&f, Arc::new(hold.bar()));
    hold.wait_for(1);
    drop((bad, lease));
    in_time(move || drop((f, pool)));
    hold.open();
}

// What the housekeeper does ──────────────────────────────────────────────────────────────────────

#[test]
fn promise_01_a_listener_that_never_returns() {
    let mut hold = Hold::new();
    let bar = hold.bar();
    let pool = builder()
        .idle_timeout(MILLI)
        .removal_listener(move |eviction| {
            // What fails is reported on its caller's thread.
            if &*eviction.signature == "f()" {
                bar.pass();
            }
        });
    let pool = pool.build().unwrap();
    define(&pool, "f", ONE).call(1, ()).unwrap();
    hold.wait_for(1);
    deadlines_come(&pool);
    hold.open();
}

#[test]
fn promise_01_a_listener_that_calls_a_guest_that_spins() {
    let spins: Arc<Mutex<Option<Function<(), i32>>>> = Arc::default();
    let (ended, has_ended) = mpsc::channel();
    let function = spins.clone();
    let pool = builder()
        .idle_timeout(MILLI)
        .removal_listener(move |eviction| {
            let spin = function.lock().unwrap().take();
            if let Some(spin) = spin.filter(|_| &*eviction.signature == "f()") {
                ended.send(spin.call(9, ()).unwrap_err()).unwrap();
            }
        });
    let pool = pool.build().unwrap();
    *spins.lock().unwrap() = Some(define(&pool, "spins", SPIN));
    define(&pool, "f", ONE).call(1, ()).unwrap();
    let error = has_ended.recv_timeout(MINUTE).unwrap();
    assert!(matches!(error, CallError::Limit { .. }), "{error}");
    deadlines_come(&pool);
}

/// The charge of what it hears of has been given back, and that of what was evicted with it.
#[test]
fn promise_01_a_listener_that_waits_for_the_room_of_what_it_hears_of() {
    let pool: Arc<Mutex<Option<Function<(), i32>>>> = Arc::default();
    let (ended, has_ended) = mpsc::channel();
    let function = pool.clone();
    let limits = Limits::new().memory(2 * instance_bytes(1));
    let built = builder()
        .limits(limits)
        .idle_timeout(MILLI)
        .removal_listener(move |_| {
            // It is called within itself where its own lease makes room, so the lock is let go first.
            let f = function.lock().unwrap().take();
            if let Some(f) = f {
                let leases = [3_u64, 4].map(|group| f.acquire_with(group, room_within(MINUTE)));
                ended.send(leases.map(|lease| lease.map(drop))).unwrap();
            }
        });
    let built = built.build().unwrap();
    let definition = Definition::new("f").wasm(memory_module(1, 0)).export("f");
    let f: Function<(), i32> = built.define(definition).unwrap();
    let leases = [1_u64, 2].map(|group| f.acquire(group).unwrap());
    *pool.lock().unwrap() = Some(f);
    drop(leases);
    for served in has_ended.recv_timeout(MINUTE).unwrap() {
        served.unwrap();
    }
    check(&built);
}

/// Data whose destruction takes its time.
struct Slow(Bar);

impl Drop for Slow {
    fn drop(&mut self) {
        self.0.pass();
    }
}

#[test]
fn promise_01_data_whose_destruction_never_ends() {
    let mut hold = Hold::new();
    let bar = hold.bar();
    let slow = move |name: &str, _: &Group| (name == "f").then(|| Slow(bar.clone()));
    let pool = Pool::builder_with(slow)
        .max_instances_per_entry(1)
        .call_timeout(LIMIT)
        .epoch_tick(MILLI)
        .idle_timeout(MILLI)
        .build()
        .unwrap();
    define(&pool, "f", ONE).call(1, ()).unwrap();
    hold.wait_for(1);
    deadlines_come(&pool);
    hold.open();
}

/// Its gauges panic, or hold up whoever sets them.
struct BadRecorder(Bar, AtomicBool);

impl GaugeFn for BadRecorder {
    fn increment(&self, _: f64) {}
    fn decrement(&self, _: f64) {}
    fn set(&self, _: f64) {
        if !self.1.swap(true, Ordering::SeqCst) {
            panic!("a gauge that panics, on purpose");
        }
        self.0.pass();
    }
}

struct Recorders(Arc<BadRecorder>);

impl Recorder for Recorders {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.0.clone())
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// The recorder is the whole process's.
#[test]
fn promise_01_a_recorder_that_panics_then_never_returns() {
    if !child::is_child(
        "promises::time::promise_01_a_recorder_that_panics_then_never_returns",
        "",
    ) {
        return;
    }
    let mut hold = Hold::new();
    let bad = Arc::new(BadRecorder(hold.bar(), AtomicBool::new(false)));
    metrics::set_global_recorder(Recorders(bad)).ok().unwrap();
    let pool = builder().idle_timeout(MILLI).build().unwrap();
    hold.wait_for(1);
    deadlines_come(&pool);
    hold.open();
}

/// Panics when it is told to.
#[derive(Clone, Default)]
struct BadClock {
    time: ManualClock,
    panics: Arc<AtomicBool>,
    panicked: Arc<AtomicU64>,
}

impl Clock for BadClock {
    fn now(&self) -> Duration {
        if self.panics.load(Ordering::SeqCst) {
            self.panicked.fetch_add(1, Ordering::SeqCst);
            panic!("a clock that panics, on purpose");
        }
        self.time.now()
    }

    fn sleep_for(&self, remaining: Duration) -> Duration {
        self.time.sleep_for(remaining)
    }
}

#[test]
fn promise_01_a_clock_that_panics_stands_still() {
    let clock = BadClock::default();
    let pool = builder().clock(clock.clone()).idle_timeout(8 * MILLI);
    let pool = pool.build().unwrap();
    let f = define(&pool, "f", ONE);
    f.call(1, ()).unwrap();
    clock.panics.store(true, Ordering::SeqCst);
    until(|| clock.panicked.load(Ordering::SeqCst) > 3);
    let spin = define(&pool, "spin", SPIN);
    let error = in_time(move || spin.call(7, ()).unwrap_err());
    assert!(matches!(error, CallError::Limit { .. }), "{error}");
    assert_eq!(f.call(1, ()).unwrap(), 1);
    assert_eq!(f.call(2, ()).unwrap(), 1);
    check(&pool);
    // It goes on, and so does the housekeeper.
    clock.panics.store(false, Ordering::SeqCst);
    clock.time.advance(MINUTE);
    until(|| pool.stats().idle == 0);
}

// After the pool ─────────────────────────────────────────────────────────────────────────────────

#[test]
fn promise_01_leases_that_outlive_their_pool_have_deadlines_though_wakers_block() {
    let mut hold = Hold::new();
    let (builder, _gate) = waiting_host(builder());
    let pool = builder.build().unwrap();
    let waits = r#"(module (import "env" "gate" (func $gate))
        (func (export "f") (result i32) call $gate i32.const 1))"#;
    let waits = define(&pool, "waits", waits);
    let spin = define(&pool, "spin", SPIN);
    let lease = |f: &Function<(), i32>, group: u64| -> Lease<'static, (), i32> {
        pollster::block_on(f.acquire_async(group)).unwrap()
    };
    let [mut one, mut two] = [1, 2].map(|group| lease(&waits, group));
    let mut three = lease(&spin, 3);
    in_time(move || drop((waits, spin, pool)));
    // Its waker holds up whoever rings.
    let mut bad = Box::pin(async move { one.call_async(()).await });
    let waker = Waker::from(Arc::new(hold.bar()));
    assert!(
        bad.as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
    );
    hold.wait_for(1);
    let ended = in_time(move || pollster::block_on(two.call_async(())));
    is_out_of_time(ended);
    let ended = in_time(move || three.call(()));
    is_out_of_time(ended);
    hold.open();
}

#[track_caller]
fn is_out_of_time(ended: Result<i32, CallError>) {
    let Err(CallError::Limit { limit, .. }) = ended else {
        panic!("{ended:?}");
    };
    assert_eq!(limit, CallLimit::Time(LIMIT));
}

/// Without the pool, its settings are still known.
#[test]
fn promise_23_a_lease_that_outlives_its_pool_reports_its_limit() {
    let pool = builder().fuel(1 << 40).build().unwrap();
    let spin = define(&pool, "spin", SPIN);
    let mut lease = spin.acquire(1).unwrap();
    drop((spin, pool));
    let error = in_time(move || lease.call(()).unwrap_err());
    assert_eq!(
        error.to_string(),
        "spin() in group 1 ran out of time (50ms)"
    );
    let pool = builder().call_timeout(None).fuel(10_000).build().unwrap();
    let spin = define(&pool, "spin", SPIN);
    let mut lease = spin.acquire(1).unwrap();
    drop((spin, pool));
    let error = in_time(move || lease.call(()).unwrap_err());
    let CallError::Limit { limit, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(limit, CallLimit::Fuel(10_000));
}

#[test]
fn promise_23_a_manual_clock_never_runs_backwards() {
    let clock = ManualClock::new();
    clock.advance(MINUTE);
    clock.advance(Duration::MAX);
    let end = clock.now();
    assert_eq!(end, Duration::from_nanos(u64::MAX));
    clock.advance(MILLI);
    assert_eq!(clock.now(), end);
}
