//! Three guests that never return, and three ways to stop one, while everybody else goes on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use wasm_pool::{AcquireOptions, CallError, CallLimit, Function, Lease};

use crate::guests::{Catalogue, SPIN_LIMIT};

/// `rogue_spin` returns for any other argument.
const FOR_EVER: i64 = 0;
/// How long they are let alone.
const A_WHILE: Duration = Duration::from_millis(200);
/// How much longer a busy machine may take to stop one.
const GRACE: Duration = Duration::from_secs(2);

/// How a rogue ended.
pub struct Ending {
    pub how: &'static str,
    pub words: String,
    pub took: Duration,
    /// As it should.
    pub well: bool,
}

pub async fn let_loose(catalogue: Arc<Catalogue>) -> Vec<Ending> {
    let (by_canceller, by_limit, by_drop) = tokio::join!(
        cancelled(&catalogue.spin),
        out_of_time(&catalogue.limited_spin),
        dropped(&catalogue.spin),
    );
    vec![by_canceller, by_limit, by_drop]
}

async fn lease(function: &Function<i64, i64>, group: &str) -> Lease<'static, i64, i64> {
    let patience = Duration::from_secs(60);
    let patient = AcquireOptions::new().timeout(patience).wait_for_room(true);
    let leased = function.acquire_async_with(group, patient).await;
    leased.expect("there is room for a rogue within a minute")
}

/// Anybody may have the canceller: an administrator, a query's owner, a watchdog.
async fn cancelled(function: &Function<i64, i64>) -> Ending {
    let mut lease = lease(function, "cancelled").await;
    let canceller = lease.canceller();
    tokio::spawn(async move {
        sleep(A_WHILE).await;
        canceller.cancel();
    });
    let began = Instant::now();
    let result = lease.call_async(FOR_EVER).await;
    let well = matches!(result, Err(CallError::Cancelled { .. }));
    Ending::new("by its canceller", result, began, A_WHILE, well)
}

async fn out_of_time(function: &Function<i64, i64>) -> Ending {
    let mut lease = lease(function, "out of time").await;
    let began = Instant::now();
    let result = lease.call_async(FOR_EVER).await;
    let limit = CallLimit::Time(SPIN_LIMIT);
    let well = matches!(&result, Err(CallError::Limit { limit: l, .. }) if *l == limit);
    Ending::new("by its time limit", result, began, SPIN_LIMIT, well)
}

/// As with any future: whoever drops it has stopped it.
async fn dropped(function: &Function<i64, i64>) -> Ending {
    let mut lease = lease(function, "dropped").await;
    let began = Instant::now();
    let outcome = timeout(A_WHILE, lease.call_async(FOR_EVER)).await;
    let was_dropped = outcome.is_err();
    // The instance is in the middle of a call, and goes with its lease.
    let result = lease.call_async(1).await;
    let well = was_dropped && matches!(result, Err(CallError::Broken { .. }));
    Ending::new("by dropping its call", result, began, A_WHILE, well)
}

impl Ending {
    fn new(
        how: &'static str,
        result: Result<i64, CallError>,
        began: Instant,
        least: Duration,
        well: bool,
    ) -> Self {
        let took = began.elapsed();
        let words = match result {
            Ok(value) => format!("returned {value}"),
            Err(error) => wasm_pool::Report(&error).to_string(),
        };
        Self {
            how,
            words,
            took,
            // The epoch counts ticks, and may begin in the middle of one.
            well: well && took + 2 * crate::TICK >= least && took < least + GRACE,
        }
    }
}
