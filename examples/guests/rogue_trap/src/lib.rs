//! A guest that crashes on demand.

/// `trap_if(condition: i32) -> i32`: traps with `unreachable` unless `condition` is 0, then
/// returns 7.
#[unsafe(no_mangle)]
pub extern "C" fn trap_if(condition: i32) -> i32 {
    if condition != 0 {
        std::process::abort();
    }
    7
}

#[cfg(test)]
mod tests {
    #[test]
    fn zero_does_not_trap() {
        assert_eq!(super::trap_if(0), 7);
    }
}
