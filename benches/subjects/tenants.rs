//! What groups' shares cost, and what they are for.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Builder;
use wasm_pool::{AcquireOptions, Budget, Definition, Function, Limits, Pool, Share};

use super::{Add, pool_of};

/// One module page, which is all that the memory budget has room for.
const PAGE: &str = r#"(module (memory 1) (func (export "f")))"#;

const LONG: Duration = Duration::from_secs(600);

/// A pool whose group 1, which is called, has all that a group can have: a reservation, a weight, and every limit.
pub fn with_shares() -> (Pool, Add) {
    let share = Budget::ALL
        .into_iter()
        .fold(Share::new(), |share, budget| share.limit(budget, 1 << 40));
    let share = share.reserve(Budget::Memory, 1 << 20).weight(3);
    let share = share.max_instances(8).max_waiting(100).max_compilations(2);
    pool_of(Pool::builder().group(1, share))
}

/// How many of so many who wait for room, all of one group, are served before another group's one that joins last, where the
/// groups have weights.
pub fn turns_before_anothers(crowd: usize) -> usize {
    let limits = Limits::new().memory(100_000);
    let builder = Pool::builder().limits(limits).no_housekeeper();
    let pool = builder.group("quiet", Share::new().weight(1));
    let pool = pool.build().expect("a plain pool");
    let definition = Definition::new("f").wasm(wat::parse_str(PAGE).expect("good text"));
    let f: Function<(), ()> = pool.define(definition).expect("a good guest");
    let held = f.acquire("held").expect("room for one");
    let order: Arc<Mutex<Vec<bool>>> = Arc::default();
    let runtime = Builder::new_current_thread().build().expect("an executor");
    runtime.block_on(async {
        let queue = |group: &'static str| {
            let (f, order) = (f.clone(), order.clone());
            tokio::spawn(async move {
                let patient = AcquireOptions::new().timeout(LONG).wait_for_room(true);
                let lease = f.acquire_async_with(group, patient).await;
                let lease = lease.expect("its turn comes");
                order.lock().expect("no panic").push(group == "quiet");
                drop(lease);
            })
        };
        let mut tasks: Vec<_> = (0..crowd).map(|_| queue("flood")).collect();
        while pool.stats().waiting < crowd {
            tokio::task::yield_now().await;
        }
        tasks.push(queue("quiet"));
        while pool.stats().waiting <= crowd {
            tokio::task::yield_now().await;
        }
        drop(held);
        for task in tasks {
            task.await.expect("no panic");
        }
    });
    let order = order.lock().expect("no panic");
    let turn = order.iter().position(|is_quiet| *is_quiet);
    turn.expect("it was served")
}
