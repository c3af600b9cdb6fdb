//! Stopping a call from outside.

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

use crate::runtime::CancelFlag;

/// Stops the calls of one lease, from any thread: [`Lease::canceller`](crate::Lease::canceller).
///
/// A guest that runs ends within two ticks of the epoch; a task that waits for a host function is
/// dropped at once; a call that has not begun does not begin. All of them return
/// [`CallError::Cancelled`](crate::CallError::Cancelled), and the instance is retired. When the lease is
/// over, cancelling changes nothing.
///
/// ```
/// # use wasm_pool::{CallError, Definition, Function, Pool};
/// # let pool = Pool::builder().build()?;
/// # let wasm = wat::parse_str(r#"(module (func (export "spin") (loop br 0)))"#)?;
/// let spin: Function<(), ()> = pool.define(Definition::new("spin").wasm(wasm))?;
/// let mut lease = spin.acquire("tenant")?;
/// let canceller = lease.canceller();
/// std::thread::spawn(move || canceller.cancel());
/// assert!(matches!(lease.call(()), Err(CallError::Cancelled { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Canceller(pub(crate) Arc<CancelFlag>);

impl Canceller {
    /// Stops the lease's calls: the one under way, and all that would follow.
    pub fn cancel(&self) {
        self.0.cancel();
    }

    /// Whether someone has cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }
}

// A flag and a waker: a panic of the waker comes after everything has been said.
impl UnwindSafe for Canceller {}
impl RefUnwindSafe for Canceller {}

impl fmt::Debug for Canceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canceller")
            .field("is_cancelled", &self.is_cancelled())
            .finish_non_exhaustive()
    }
}
