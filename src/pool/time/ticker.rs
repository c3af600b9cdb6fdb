//! When the epoch is to move, and by how much.

use std::time::{Duration, Instant};

/// Ticks follow the clock and not the thread that makes them: one that was late makes up for it, so
/// that a limit of two seconds is two seconds on a busy machine, too.
#[derive(Debug)]
pub(crate) struct Ticker {
    period: Duration,
    /// When the last tick was due that has been made.
    last: Instant,
}

/// The most that one late tick makes up for, in ticks: a machine that was asleep for a day needs no more to
/// end every call, and the loop that moves the epoch stays short.
const MOST_AT_ONCE: u64 = 1 << 24;

impl Ticker {
    pub fn new(period: Duration, now: Instant) -> Self {
        // Not zero: it divides.
        let period = period.max(Duration::from_nanos(1));
        Self { period, last: now }
    }

    /// Ticks that are due since the last call.
    pub fn due(&mut self, now: Instant) -> u64 {
        let late = now.saturating_duration_since(self.last);
        let ticks = late.as_nanos() / self.period.as_nanos();
        let rest = late.as_nanos() % self.period.as_nanos();
        let rest = Duration::from_nanos(u64::try_from(rest).unwrap_or(u64::MAX));
        if ticks > 0 {
            self.last = now.checked_sub(rest).unwrap_or(now);
        }
        u64::try_from(ticks).map_or(MOST_AT_ONCE, |ticks| ticks.min(MOST_AT_ONCE))
    }

    /// How long until the next one is due.
    pub fn until_next(&self, now: Instant) -> Duration {
        let since = now.saturating_duration_since(self.last);
        self.period.saturating_sub(since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_millis(10);

    /// Ticks due at each of these times, in milliseconds since the beginning.
    fn due(at: &[u64]) -> Vec<u64> {
        let began = Instant::now();
        let mut ticker = Ticker::new(PERIOD, began);
        let due = |ms: &u64| ticker.due(began + Duration::from_millis(*ms));
        at.iter().map(due).collect()
    }

    #[test]
    fn promise_02_a_tick_that_is_late_makes_up_for_it() {
        assert_eq!(due(&[10, 20, 30]), [1, 1, 1]);
        assert_eq!(due(&[14, 28, 37, 40]), [1, 1, 1, 1], "they do not drift");
        assert_eq!(
            due(&[55, 57, 60]),
            [5, 0, 1],
            "five at once, then in step again"
        );
        assert_eq!(due(&[9, 9, 10]), [0, 0, 1], "never early");
        let late = u64::from(u32::MAX) * 1_000;
        assert_eq!(due(&[late]), [MOST_AT_ONCE]);
    }

    #[test]
    fn promise_02_the_sum_of_ticks_is_the_time_that_passed() {
        let mut at = 0;
        let times: Vec<u64> = (0..1_000)
            .map(|n| {
                at += n * 7 % 31;
                at
            })
            .collect();
        let sum: u64 = due(&times).iter().sum();
        assert_eq!(sum, at / 10);
    }

    #[test]
    fn promise_02_the_next_tick_is_due_a_period_after_the_last_one_was() {
        let began = Instant::now();
        let mut ticker = Ticker::new(PERIOD, began);
        let at = |ms| began + Duration::from_millis(ms);
        assert_eq!(ticker.due(at(13)), 1);
        assert_eq!(ticker.until_next(at(13)), Duration::from_millis(7));
        assert_eq!(ticker.until_next(at(25)), Duration::ZERO);
    }
}
