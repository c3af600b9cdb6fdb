//! Which groups have series of their own among the metrics, and how much each series is told.
//!
//! A recorder keeps every label that it has ever seen, and tenants come and go. So only so many groups have a label of their own
//! at once; what all others use is told of `other`. A series begins when its group gets it: what it used before was told of
//! `other`, and no count is told twice, or taken back.

use hashbrown::HashMap;

use crate::state::Group;

/// What the recorder is told of a bill, in the order of the names of the metrics.
pub(crate) type Figures = [u64; 5];

/// The label of all who have none of their own.
pub(crate) const OTHER: &str = "other";

#[derive(Default)]
pub(crate) struct GroupSeries {
    named: HashMap<Group, Figures>,
    /// What all series were told so far that had labels of their own.
    told_by_name: Figures,
    told_of_others: Figures,
    /// The latest bills that were told.
    latest: u64,
}

impl GroupSeries {
    /// What each series is told to add, of at most so many groups, and of all others. The groups with a bill come in the order
    /// in which they get series; bills are numbered as they were taken.
    pub fn update<'a>(
        &mut self,
        number: u64,
        total: Figures,
        groups: impl Iterator<Item = (&'a Group, Figures)>,
        most: usize,
    ) -> Vec<(Option<Group>, Figures)> {
        // Sweeps may overlap: what was taken before the latest is among that.
        if number <= self.latest {
            return Vec::new();
        }
        self.latest = number;
        let mut before = std::mem::take(&mut self.named);
        let mut told = Vec::new();
        let mut without = Vec::new();
        for (group, now) in groups {
            match before.remove(group) {
                Some(told_before) => {
                    let more = since(now, told_before);
                    self.told_by_name = sum(self.told_by_name, more);
                    told.push((Some(group.clone()), more));
                    self.named.insert(group.clone(), now);
                }
                None => without.push((group, now)),
            }
        }
        // What is left in `before` is of groups whose bills are gone.
        let free = most.saturating_sub(self.named.len());
        for (group, now) in without.into_iter().take(free) {
            self.named.insert(group.clone(), now);
        }
        let others = since(since(total, self.told_by_name), self.told_of_others);
        self.told_of_others = sum(self.told_of_others, others);
        told.push((None, others));
        told
    }
}

/// Each part is rounded down by itself: what seems to be less than before is made good the next time.
fn since(now: Figures, before: Figures) -> Figures {
    std::array::from_fn(|at| now[at].saturating_sub(before[at]))
}

fn sum(a: Figures, b: Figures) -> Figures {
    std::array::from_fn(|at| a[at].saturating_add(b[at]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each is told by its own label once it has one, what went before by `other`, and all of it once.
    #[test]
    fn everything_is_told_once_however_groups_come_and_go() {
        let mut series = GroupSeries::default();
        let names = ["a", "b", "c"].map(Group::from);
        let mut told: HashMap<Option<Group>, u64> = HashMap::new();
        let mut number = 0;
        let mut update = |present: &[(usize, u64)], gone: u64| {
            number += 1;
            let groups = present.iter().map(|(at, n)| (&names[*at], [*n; 5]));
            let total = present.iter().map(|(_, n)| n).sum::<u64>() + gone;
            for (group, more) in series.update(number, [total; 5], groups, 2) {
                *told.entry(group).or_default() += more[0];
            }
            let of = |at: Option<usize>| told.get(&at.map(|at| names[at].clone())).copied();
            let sum: u64 = told.values().sum();
            assert_eq!(sum, total);
            [of(None), of(Some(0)), of(Some(1)), of(Some(2))].map(Option::unwrap_or_default)
        };
        assert_eq!(update(&[(0, 10), (1, 5), (2, 1)], 0), [16, 0, 0, 0]);
        assert_eq!(update(&[(2, 9), (0, 11), (1, 7)], 0), [24, 1, 2, 0]);
        // `a` has gone with what it had used since: its place is for another.
        assert_eq!(update(&[(2, 9), (1, 8)], 13), [26, 1, 3, 0]);
        assert_eq!(update(&[(1, 8), (2, 12)], 13), [26, 1, 3, 3]);
        // It comes back, and has no place.
        assert_eq!(update(&[(0, 4), (1, 8), (2, 12)], 13), [30, 1, 3, 3]);
    }

    #[test]
    fn bills_that_were_taken_earlier_are_not_told_later() {
        let mut series = GroupSeries::default();
        let a = Group::from("a");
        let mut update = |number, calls| {
            let told = series.update(number, [calls; 5], [(&a, [calls; 5])].into_iter(), 1);
            told.iter().map(|(_, more)| more[0]).collect::<Vec<_>>()
        };
        assert_eq!(update(1, 100), [100]);
        assert_eq!(update(3, 120), [20, 0]);
        assert!(update(2, 110).is_empty());
        assert_eq!(update(4, 125), [5, 0]);
    }
}
