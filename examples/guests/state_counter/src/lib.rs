//! A guest that keeps state between calls.

use std::sync::atomic::{AtomicI64, Ordering};

static CALLS: AtomicI64 = AtomicI64::new(0);

/// `next() -> i64`: how many times this instance has been called, counting from 1.
#[unsafe(no_mangle)]
pub extern "C" fn next() -> i64 {
    CALLS.fetch_add(1, Ordering::Relaxed) + 1
}

#[cfg(test)]
mod tests {
    #[test]
    fn counts_from_one() {
        assert_eq!([super::next(), super::next(), super::next()], [1, 2, 3]);
    }
}
