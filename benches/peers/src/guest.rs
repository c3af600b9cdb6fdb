//! The guest, and one instance of it as a user of plain wasmtime keeps it.

use std::thread;
use std::time::Duration;

use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, InstancePre, Linker, Module, Store, TypedFunc,
};

/// `add(i64, i64) -> i64`, built from Rust: `examples/guests/math_add`.
pub const ADD: &[u8] = include_bytes!("../../../examples/guests/prebuilt/math_add.wasm");

/// wasm-pool's own defaults: the epoch moves every 10 ms, a lease may take 30 s.
const TICK: Duration = Duration::from_millis(10);
const DEADLINE: u64 = 3_000;

/// Makes instances of the guest: an engine, the module compiled and linked.
#[derive(Clone)]
pub struct Workshop {
    engine: Engine,
    pre: InstancePre<()>,
}

/// An instance of the guest in its own store.
pub struct Guest {
    store: Store<()>,
    add: TypedFunc<(i64, i64), i64>,
}

impl Workshop {
    /// With an engine whose epoch moves, as every host with deadlines needs it.
    pub fn new(strategy: InstanceAllocationStrategy) -> Self {
        let mut config = Config::new();
        config.epoch_interruption(true);
        config.allocation_strategy(strategy);
        let engine = Engine::new(&config).expect("the engine is plain");
        let module = Module::new(&engine, ADD).expect("the guest compiles");
        let linker = Linker::new(&engine);
        let pre = linker
            .instantiate_pre(&module)
            .expect("the guest imports nothing");
        let ticking = engine.weak();
        thread::spawn(move || {
            while let Some(engine) = ticking.upgrade() {
                engine.increment_epoch();
                drop(engine);
                thread::sleep(TICK);
            }
        });
        Self { engine, pre }
    }

    pub fn on_demand() -> Self {
        Self::new(InstanceAllocationStrategy::OnDemand)
    }

    /// A new instance, with the deadline of one lease.
    pub fn make(&self) -> Guest {
        let mut store = Store::new(&self.engine, ());
        store.set_epoch_deadline(DEADLINE);
        let instance = self.pre.instantiate(&mut store).expect("there is room");
        let add = instance
            .get_typed_func(&mut store, "add")
            .expect("the guest exports add");
        Guest { store, add }
    }
}

impl Guest {
    /// Nothing but the call.
    #[inline]
    pub fn add(&mut self, a: i64, b: i64) -> i64 {
        self.add.call(&mut self.store, (a, b)).expect("it adds")
    }

    /// A fresh deadline, as for every lease of wasm-pool.
    #[inline]
    pub fn refresh(&mut self) {
        self.store.set_epoch_deadline(DEADLINE);
    }

    /// What a pool does with an instance that it has checked out.
    #[inline]
    pub fn add_afresh(&mut self, a: i64, b: i64) -> i64 {
        self.refresh();
        self.add(a, b)
    }

    /// A deadline that never comes.
    pub fn without_deadline(mut self) -> Self {
        self.store.set_epoch_deadline(1 << 40);
        self
    }
}
