//! What the scenarios share: a small pool, marked instances, a clock that is moved by hand.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use crate::{
    AcquireError, AcquireOptions, Budget, Clock, Definition, Function, Group, INSTANCE_OVERHEAD,
    Lease, Limits, Pool, PoolBuilder, runtime,
};

/// A wait that only a wake-up ends.
pub const FOR_EVER: Duration = Duration::MAX;

/// Waits so long, also for room.
pub fn room_within(timeout: Duration) -> AcquireOptions {
    AcquireOptions::new().timeout(timeout).wait_for_room(true)
}

pub type Guest = Function<i32, i32, Mark>;
pub type Leased<'a> = Lease<'a, i32, i32, Mark>;

/// What an instance is marked with.
#[derive(Debug)]
pub struct Mark {
    group: Group,
    in_use: bool,
    /// Whether it was made after [`World::turn_over`].
    pub late: bool,
}

/// Unlike `ManualClock`, it lets a thread sleep until it is woken, and reading it is no scheduling
/// point.
#[derive(Clone, Default)]
pub struct HandClock(Arc<AtomicU64>);

impl HandClock {
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_nanos() as u64, Ordering::Relaxed);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

/// Returns `version`; traps if its argument is negative.
pub fn module(version: i32) -> Vec<u8> {
    wat::parse_str(format!(
        r#"(module (memory (export "memory") 0) (func (export "f") (param i32) (result i32)
            (if (i32.lt_s (local.get 0) (i32.const 0)) (then unreachable))
            i32.const {version}))"#
    ))
    .expect("the text is valid")
}

/// As `module`, with a page of memory.
pub fn large_module() -> Vec<u8> {
    wat::parse_str(
        r#"(module (memory (export "memory") 1)
            (func (export "f") (param i32) (result i32) i32.const 9))"#,
    )
    .expect("the text is valid")
}

pub fn large_definition(name: &str) -> Definition {
    Definition::new(name).wasm(large_module()).export("f")
}

/// Passes every look at its sections, and does not compile.
pub fn broken_module() -> Vec<u8> {
    wat::parse_str(r#"(module (func (export "f") (param i32) (result i32)))"#)
        .expect("the text is valid")
}

/// Compiles what the scenarios use.
pub fn prepare() {
    (0..4).for_each(|version| runtime::prepare(&module(version)));
    runtime::prepare(&broken_module());
    runtime::prepare(&large_module());
}

pub fn definition(name: &str, version: i32) -> Definition {
    Definition::new(name).wasm(module(version)).export("f")
}

/// Charged to memory for one instance.
pub const INSTANCE: u64 = INSTANCE_OVERHEAD;

/// Charged to memory for one instance of [`large_module`].
pub const LARGE_INSTANCE: u64 = INSTANCE + (64 << 10);

/// Charged for the code of one [`module`], and for what wasmtime keeps of it on the heap.
pub static CODE: LazyLock<u64> = LazyLock::new(|| {
    let facts =
        runtime::inspect(&module(0), &runtime::ModuleLimits::new()).expect("the module is valid");
    (16 << 10) + facts.heap.module
});

/// Charged while one is compiled, beside 96 bytes for each of its own.
pub const COMPILER: u64 = 4 << 20;

/// Room for so many instances, and not for one more.
pub fn room_for(instances: u64) -> Limits {
    Limits::new().memory(instances * INSTANCE + INSTANCE / 2)
}

pub struct World {
    pub pool: Pool<Mark>,
    pub clock: HandClock,
    /// Leases that may exist at once, of one function for one group.
    most: usize,
    leased: Mutex<HashMap<String, usize>>,
    over: Arc<AtomicBool>,
}

impl World {
    pub fn new(seats: usize, set: impl FnOnce(PoolBuilder<Mark>) -> PoolBuilder<Mark>) -> Self {
        let clock = HandClock::default();
        let over = Arc::new(AtomicBool::new(false));
        let is_over = over.clone();
        let mark = move |_: &str, group: &Group| Mark {
            group: group.clone(),
            in_use: false,
            late: is_over.load(Ordering::Relaxed),
        };
        let builder = Pool::builder_with(mark)
            .engine(runtime::shared_engine().clone())
            .call_timeout(None)
            .idle_timeout(None)
            .max_instances_per_entry(seats)
            .wait_timeout(FOR_EVER)
            .clock(clock.clone())
            .no_housekeeper();
        Self {
            pool: set(builder).build().expect("the settings make sense"),
            clock,
            most: seats,
            leased: Mutex::default(),
            over,
        }
    }

    /// The name of a function will be given to another, whose leases count as well.
    pub fn and_of_a_namesake(mut self) -> Self {
        self.most *= 2;
        self
    }

    pub fn define(&self, name: &str, version: i32) -> Guest {
        self.pool
            .define(definition(name, version))
            .expect("it is a module")
    }

    /// What a scenario is about has been done: the function replaced, the pool closed.
    pub fn turn_over(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Until so many threads wait for something of the pool.
    pub fn await_waiters(&self, count: usize) {
        while self.pool.stats().waiting != count {
            shuttle::thread::yield_now();
        }
    }

    /// Uses a lease and ends it; returns the version of the code that it ran.
    pub fn serve(&self, mut lease: Leased<'_>, group: u64) -> i32 {
        self.begin(&mut lease, group);
        let version = lease.call(0).expect("the guest returns");
        self.end(lease);
        version
    }

    pub fn begin(&self, lease: &mut Leased<'_>, group: u64) {
        let leased = self.count(lease, 1);
        assert!(leased <= self.most, "more leases than seats");
        let mark = lease.data_mut();
        assert!(!mark.in_use, "two leases of one instance");
        assert_eq!(mark.group, Group::from(group), "another group's instance");
        mark.in_use = true;
        self.pool.recount().expect("the books are right");
    }

    pub fn end(&self, mut lease: Leased<'_>) {
        lease.data_mut().in_use = false;
        self.count(&lease, -1);
        drop(lease);
    }

    /// Leases that this one's entry has now.
    fn count(&self, lease: &Leased<'_>, more: isize) -> usize {
        let mut leased = self.leased.lock().expect("nothing panics in here");
        let key = format!("{} for {}", lease.signature(), lease.group());
        let count = leased.entry(key).or_default();
        *count = count.checked_add_signed(more).expect("leases end once");
        *count
    }

    /// A lease is about to end that must not be the instance's last but one: its mark stays set.
    pub fn taint(&self, lease: &Leased<'_>) {
        self.count(lease, -1);
    }

    /// Nobody does anything any more: so many instances are idle and charged, and nothing else.
    pub fn check(&self, instances: u64) {
        self.pool.recount().expect("the books are right");
        let stats = self.pool.stats();
        assert_eq!(
            (stats.leased, stats.waiting, stats.compiling, stats.dying),
            (0, 0, 0, 0)
        );
        assert_eq!(stats.idle as u64, instances);
        assert_eq!(stats.budget(Budget::Memory).charged, instances * INSTANCE);
        assert_eq!(stats.budget(Budget::Compile).charged, 0);
        for (budget, report) in stats.budgets() {
            assert!(report.allows(report.peak), "{budget}: {report:?}");
        }
    }

    /// As [`Self::check`]; then closes the pool, and nothing at all is charged.
    pub fn finish(&self, instances: u64) {
        self.check(instances);
        self.close();
    }

    pub fn close(&self) {
        self.pool.close();
        self.pool.recount().expect("the books are right");
        for (budget, report) in self.pool.stats().budgets() {
            assert_eq!(report.charged, 0, "{budget}");
        }
    }
}
