//! Code of the host's, called where its panic must end nothing else.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

/// Runs code of the host's (wakers, listeners, recorders, clocks, destructors) and keeps its panic: the
/// caller has others to serve. `None` if it panicked. `what` names it in the log.
pub(crate) fn guarded<R>(what: &'static str, run: impl FnOnce() -> R) -> Option<R> {
    let panic = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(value) => return Some(value),
        Err(panic) => panic,
    };
    // What was thrown, and whoever listens to the log, are the host's too.
    let report = AssertUnwindSafe(|| {
        tracing::error!(what, "host code panicked");
        drop(panic);
    });
    if let Err(another) = catch_unwind(report) {
        std::mem::forget(another);
    }
    None
}

/// Wakes a task. Never under a lock.
pub(crate) fn wake(waker: Waker) {
    guarded("a waker", || waker.wake());
}

/// Drops a waker that is not needed. Never under a lock.
pub(crate) fn discard(waker: Option<Waker>) {
    guarded("a waker", || drop(waker));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_thrown_may_panic_as_well() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("on purpose, again");
            }
        }
        assert_eq!(guarded("a test", || 7), Some(7));
        let thrown = guarded("a test", || std::panic::panic_any(Bomb));
        assert!(thrown.is_none());
    }
}
