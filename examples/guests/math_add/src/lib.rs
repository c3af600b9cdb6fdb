//! The smallest useful guest.

/// `add(a: i64, b: i64) -> i64`: the sum, wrapping on overflow.
#[unsafe(no_mangle)]
pub extern "C" fn add(a: i64, b: i64) -> i64 {
    a.wrapping_add(b)
}

#[cfg(test)]
mod tests {
    #[test]
    fn wraps() {
        assert_eq!(super::add(2, -5), -3);
        assert_eq!(super::add(i64::MAX, 1), i64::MIN);
    }
}
