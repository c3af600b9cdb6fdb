//! A guest that burns time.

/// `spin(rounds: i64) -> i64`: runs that many xorshift rounds and returns the last state; with 0
/// it never returns. A negative count runs none.
#[unsafe(no_mangle)]
pub extern "C" fn spin(rounds: i64) -> i64 {
    let mut state = rounds as u64;
    let mut round = 0;
    while rounds == 0 || round < rounds {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        round += 1;
    }
    state as i64
}

#[cfg(test)]
mod tests {
    use super::spin;

    #[test]
    fn ends() {
        assert_eq!(spin(-5), -5);
        assert_ne!(spin(1000), spin(1001));
        assert_eq!(spin(1000), spin(1000));
    }
}
