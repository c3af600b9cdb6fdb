//! A guest that exhausts the stack.

use std::sync::atomic::{AtomicI64, Ordering};

static RETURNED: AtomicI64 = AtomicI64::new(0);

/// `recurse(depth: i64) -> i64`: calls itself to that depth and returns how many calls came back.
#[unsafe(no_mangle)]
pub extern "C" fn recurse(depth: i64) -> i64 {
    RETURNED.store(0, Ordering::Relaxed);
    descend(depth);
    RETURNED.load(Ordering::Relaxed)
}

#[inline(never)]
fn descend(depth: i64) {
    if depth > 0 {
        descend(depth - 1);
        // Work after the call, so that it cannot become a loop.
        RETURNED.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::recurse;

    #[test]
    fn counts_the_calls() {
        assert_eq!(recurse(0), 0);
        assert_eq!(recurse(1000), 1000);
        assert_eq!(recurse(10), 10);
    }
}
