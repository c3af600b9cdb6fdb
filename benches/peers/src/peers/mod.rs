//! One file for each kind of peer, and the rows that they make.

mod arrow_udf;
mod bare;
mod by_hand;
pub mod extism;
mod keyed;
mod managed;
mod object_pools;
mod wasm_pool;

use std::sync::Arc;

use wasmtime::InstanceAllocationStrategy;

use crate::guest::Workshop;
use crate::measure::Timed;

/// Instances in each pool: one for each thread.
pub const INSTANCES: usize = 2;

/// One line of the table.
pub struct Row {
    pub name: &'static str,
    /// Whether it tells groups apart, so that two threads can call on behalf of two.
    pub keyed: bool,
    pub timed: Arc<dyn Timed>,
}

/// All rows, the baseline first.
pub fn all() -> Vec<Row> {
    use {by_hand as hand, object_pools as objects};
    let shop = Workshop::on_demand();
    let pooling = Workshop::new(InstanceAllocationStrategy::pooling());
    vec![
        keyed("bare `TypedFunc::call`, held", bare::Bare(shop.clone())),
        keyed("wasm-pool, resolved", wasm_pool::Resolved::new()),
        keyed("wasm-pool, keyed", wasm_pool::Keyed::new()),
        row("by hand: AtomicCell a thread", hand::Cells::new(&shop)),
        row("by hand: std Mutex<Vec>", hand::StdMutex::new(&shop)),
        row(
            "by hand: parking_lot Mutex<Vec>",
            hand::ParkingLot::new(&shop),
        ),
        row("by hand: ArrayQueue", hand::Queue::new(&shop)),
        keyed("by hand: RwLock<HashMap>, Mutex", keyed::Map::new(&shop)),
        keyed("quick_cache, Mutex", keyed::QuickCache::new(&shop)),
        keyed("moka, Mutex", keyed::Moka::new(&shop)),
        row("object-pool", objects::ObjectPool::new(&shop)),
        row("opool", objects::Opool::new(&shop)),
        row(
            "lockfree-object-pool, linear",
            objects::Lockfree::new(&shop),
        ),
        row("deadpool, block_on", managed::Deadpool::new(&shop)),
        row("r2d2", managed::R2d2::new(&shop)),
        row("fresh instance, pooling allocator", bare::Fresh(pooling)),
        row("fresh instance, on demand", bare::Fresh(shop)),
        row("extism Pool", extism::Extism::new()),
        row("arrow-udf-runtime, 1 row", arrow_udf::ArrowUdf::new()),
    ]
}

fn row(name: &'static str, peer: impl Timed + 'static) -> Row {
    Row {
        name,
        keyed: false,
        timed: Arc::new(peer),
    }
}

fn keyed(name: &'static str, peer: impl Timed + 'static) -> Row {
    Row {
        keyed: true,
        ..row(name, peer)
    }
}
