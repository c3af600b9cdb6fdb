//! Rounds that nobody disturbed: what other processes took of the machine decides which rounds
//! count, never what was measured in them.

use std::fmt;
use std::fs;
use std::thread;
use std::time::Duration;

/// Others may take so much of all processors' time during a round.
const TOLERATED: f64 = 0.03;

/// How long to wait, all in all, for others to leave the machine alone.
const PATIENCE: Duration = Duration::from_secs(300);

/// The rounds that count.
pub struct Kept<T> {
    pub rounds: Vec<T>,
    tried: usize,
    /// The most that others took during one of them.
    others: f64,
}

/// Does rounds until so many were undisturbed, `most` at the utmost; keeps the least disturbed.
pub fn rounds<T>(count: usize, most: usize, mut round: impl FnMut() -> T) -> Kept<T> {
    let mut all: Vec<(f64, T)> = Vec::new();
    let mut good = 0;
    let mut patience = PATIENCE;
    while good < count && all.len() < most {
        eprint!("\rround {}, {good} of {count} undisturbed  ", all.len() + 1);
        let before = Ticks::now();
        let result = round();
        let others = before.others_since();
        all.push((others, result));
        if others <= TOLERATED {
            good += 1;
        } else if all.len() < most {
            wait(&mut patience);
        }
    }
    eprintln!();
    let tried = all.len();
    all.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    all.truncate(count);
    let others = all.last().map_or(0.0, |(others, _)| *others);
    let rounds = all.into_iter().map(|(_, result)| result).collect();
    Kept {
        rounds,
        tried,
        others,
    }
}

/// Until others have left the machine alone for a second.
fn wait(patience: &mut Duration) {
    let look = Duration::from_secs(1);
    while let Some(rest) = patience.checked_sub(look) {
        *patience = rest;
        let before = Ticks::now();
        thread::sleep(look);
        if before.others_since() <= TOLERATED {
            break;
        }
    }
}

impl<T> fmt::Display for Kept<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the {} least disturbed of {} rounds; other processes took at most {:.0} % of the machine",
            self.rounds.len(),
            self.tried,
            self.others * 100.0
        )
    }
}

/// Processor time so far, in the kernel's ticks.
struct Ticks {
    /// Of all processors, idle or not.
    all: u64,
    /// Of all processors, not idle.
    busy: u64,
    /// Of this process.
    own: u64,
}

impl Ticks {
    fn now() -> Self {
        let machine = numbers("/proc/stat", "cpu ");
        // After the name: state, parent, and so on; user and system time are the 12th and 13th.
        let own = numbers("/proc/self/stat", ") ");
        // user, nice, system, idle, waiting, interrupts, soft interrupts, stolen
        let all = machine[..8].iter().sum();
        Self {
            all,
            busy: all - machine[3] - machine[4],
            own: own[11] + own[12],
        }
    }

    /// The part of the machine that others took.
    fn others_since(&self) -> f64 {
        let now = Self::now();
        let others = (now.busy - self.busy).saturating_sub(now.own - self.own);
        others as f64 / (now.all - self.all).max(1) as f64
    }
}

/// The numbers in the first line of a file, after a mark; what is no number is 0.
fn numbers(path: &str, after: &str) -> Vec<u64> {
    let text = fs::read_to_string(path).expect("Linux tells the time");
    let line = text.lines().next().unwrap_or_default();
    let rest = line.split_once(after).map_or("", |(_, rest)| rest);
    let number = |word: &str| word.parse().unwrap_or(0);
    rest.split_whitespace().map(number).collect()
}
