//! A guest that never gives memory back.

use std::hint::black_box;
use std::sync::atomic::{AtomicI64, Ordering};

static LEAKED: AtomicI64 = AtomicI64::new(0);

/// `leak(bytes: i32) -> i64`: allocates and fills that many bytes, never frees them, and returns
/// the total leaked so far; -1 when the memory cannot grow.
#[unsafe(no_mangle)]
pub extern "C" fn leak(bytes: u32) -> i64 {
    let mut block: Vec<u8> = Vec::new();
    if block.try_reserve_exact(bytes as usize).is_err() {
        return -1;
    }
    block.resize(bytes as usize, 0xa5);
    black_box(block.leak());
    LEAKED.fetch_add(bytes.into(), Ordering::Relaxed) + i64::from(bytes)
}

#[cfg(test)]
mod tests {
    #[test]
    fn adds_up() {
        assert_eq!(super::leak(100), 100);
        assert_eq!(super::leak(0), 100);
        assert_eq!(super::leak(70_000), 70_100);
    }
}
