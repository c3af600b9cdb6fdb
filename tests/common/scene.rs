//! What is dropped in the middle, and where.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use wasm_pool::{Budget, Definition, Function, Lease, Limits, Pool, PoolBuilder};

use crate::common::polling::{ByHand, Gate, MINUTE, Work, waiting_host};
use crate::common::*;

/// A pool, a function in it, and what is in the function's way.
pub struct Scene {
    pub pool: Pool,
    pub function: Function<(), i32>,
    pub gate: Gate,
    pub held: RefCell<Vec<Lease<'static, (), i32>>>,
    /// Where the pool's threads are held up, in order.
    pub holds: RefCell<VecDeque<spans::Held>>,
}

impl Scene {
    pub fn new(name: &str, wasm: Vec<u8>, build: impl FnOnce(PoolBuilder) -> PoolBuilder) -> Self {
        let (builder, gate) = waiting_host(Pool::builder().no_housekeeper());
        let pool = build(builder).build().unwrap();
        let function = pool
            .define(Definition::new(name).wasm(wasm).export("f"))
            .unwrap();
        Self {
            pool,
            function,
            gate,
            held: RefCell::default(),
            holds: RefCell::default(),
        }
    }

    /// The thread that compiles for this function stops there.
    pub fn hold_up(&self, function: &str) {
        let place = spans::hold("compile", &format!("{function}()"));
        self.holds.borrow_mut().push_back(place);
    }

    pub fn name(&self) -> String {
        self.function.signature().trim_end_matches("()").to_owned()
    }

    /// Lets the first of them go on.
    pub fn go_on(&self) {
        drop(self.holds.borrow_mut().pop_front());
    }

    /// Someone else leases an instance.
    pub fn hold(self, group: u64) -> Self {
        let lease = self.function.acquire(group).unwrap();
        self.held.borrow_mut().push(lease);
        self
    }

    /// With its code loaded, and no instance.
    pub fn with_code(self) -> Self {
        ByHand::new(self.acquire()).finish().unwrap();
        self.pool.retain(|_| false);
        self
    }

    pub fn let_go(&self) {
        self.held.borrow_mut().clear();
    }

    /// An acquire for group 1, as a task.
    pub fn acquire(&self) -> Work {
        let function = self.function.clone();
        Box::pin(async move {
            drop(function.acquire_async_with(1, room_within(MINUTE)).await?);
            Ok(())
        })
    }

    pub fn call(&self) -> Work {
        let function = self.function.clone();
        Box::pin(async move {
            assert_eq!(function.call_async(1, ()).await?, 1);
            Ok(())
        })
    }

    /// The books are right, the next ones are served, and nothing is left of anyone.
    #[track_caller]
    pub fn check(self) {
        self.holds.borrow_mut().clear();
        // What works aside ends by itself.
        until(|| {
            let stats = self.pool.stats();
            stats.compiling == 0 && stats.budget(Budget::Compile).charged == 0
        });
        self.pool.recount().unwrap();
        self.gate.open();
        self.let_go();
        for work in [self.call(), self.acquire(), self.call()] {
            ByHand::new(work).finish().unwrap();
        }
        self.check_nothing_is_left();
    }

    #[track_caller]
    pub fn check_nothing_is_left(&self) {
        until(|| {
            let stats = self.pool.stats();
            stats.compiling == 0 && stats.budget(Budget::Compile).charged == 0
        });
        let stats = check(&self.pool);
        assert_eq!((stats.leased, stats.waiting, stats.dying), (0, 0, 0));
        self.pool.retain(|_| false);
        let stats = check(&self.pool);
        let charged = |budget| stats.budget(budget).charged;
        let bytes = [Budget::Memory, Budget::Stack, Budget::Compile].map(charged);
        assert_eq!(bytes, [0; 3], "memory, stack, compile");
        assert_eq!(charged(Budget::Mappings), 3 * stats.modules_loaded as u64);
        self.pool.close();
        check_empty(&self.pool);
    }
}

/// Where a future is when it is dropped.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// So often it was polled, and was pending.
    pub polls: usize,
    /// Whether it had been woken since.
    pub woken: bool,
}

/// Lets `work` go on up to every point where it waits, and drops it there: before it is woken, and
/// after. `step` is what happens in the world to wake it. Returns how many points there are.
#[track_caller]
pub fn drop_everywhere(
    scene: impl Fn() -> Scene,
    work: impl Fn(&Scene) -> Work,
    step: impl Fn(&Scene, usize),
) -> usize {
    for polls in 0.. {
        for woken in [false, true] {
            if (polls, woken) == (0, true) {
                continue;
            }
            let point = Point { polls, woken };
            let scene = scene();
            if !drop_at(point, &scene, &work, &step) {
                scene.check();
                return polls - 1;
            }
            scene.check();
        }
    }
    unreachable!()
}

/// False if it is ready before it comes there.
pub fn drop_at(
    point: Point,
    scene: &Scene,
    work: impl Fn(&Scene) -> Work,
    step: impl Fn(&Scene, usize),
) -> bool {
    assert!(point.polls < 100, "it never ends");
    let mut future = ByHand::new(work(scene));
    for poll in 1..=point.polls {
        if let Some(result) = future.poll() {
            result.unwrap();
            return false;
        }
        if poll < point.polls || point.woken {
            step(scene, poll);
            future.wait_until_woken();
        }
    }
    true
}

pub fn nothing(_: &Scene, _: usize) {}

pub fn one(builder: PoolBuilder) -> PoolBuilder {
    builder.max_instances_per_entry(1)
}

/// Room for one instance of [`memory_module`] with one page.
pub fn room_for_one(builder: PoolBuilder) -> PoolBuilder {
    builder.limits(Limits::new().memory(instance_bytes(1)))
}

/// Room for one fiber stack.
pub fn one_stack(builder: PoolBuilder) -> PoolBuilder {
    one(builder).limits(Limits::new().stack(1 << 20))
}

/// A module whose export `f` does this, then returns 1.
pub fn doing(what: &str) -> Vec<u8> {
    wat(&format!(
        r#"(module (import "env" "pause" (func $pause (param i32)))
            (import "env" "gate" (func $gate)) (memory 1)
            (func (export "f") (result i32) {what} i32.const 1))"#
    ))
}

/// Names that no other test has: a hold is for one function.
pub fn fresh_name() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("held{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// How many points there are, as [`drop_everywhere`] counts them.
pub fn count_points(came: impl Fn(Point) -> bool) -> usize {
    for polls in 0.. {
        for woken in [false, true] {
            if (polls, woken) != (0, true) && !came(Point { polls, woken }) {
                return polls - 1;
            }
        }
    }
    unreachable!()
}
