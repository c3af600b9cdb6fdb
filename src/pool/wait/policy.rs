//! How long an acquire waits, and for what.

use crate::pool::time::deadline::Deadline;

/// How long an acquire waits, and for what.
#[derive(Debug, Clone, Copy)]
pub(crate) enum WaitPolicy {
    /// For nobody.
    None,
    /// For an instance or a compilation, until the deadline; for room only as long as something is
    /// being destroyed already.
    Instance(Deadline),
    /// For room in the budgets as well.
    Room(Deadline),
}

impl WaitPolicy {
    pub fn deadline(&self) -> Option<Deadline> {
        match self {
            Self::None => None,
            Self::Instance(deadline) | Self::Room(deadline) => Some(*deadline),
        }
    }

    /// When it ends, in nanoseconds on the pool's clock.
    pub fn ends(&self) -> u64 {
        self.deadline().map_or(u64::MAX, |deadline| deadline.ends)
    }

    /// The same, where compilations are waited for: never, if those take as long as they take.
    pub fn ends_of_compilations(&self) -> u64 {
        let deadline = self.deadline().and_then(Deadline::of_compilations);
        deadline.map_or(u64::MAX, |deadline| deadline.ends)
    }

    /// The same after so many nanoseconds that do not count.
    pub fn later(self, pause: u64) -> Self {
        let later = |deadline: Deadline| match deadline.pauses {
            true => Deadline {
                ends: deadline.ends.saturating_add(pause),
                ..deadline
            },
            false => deadline,
        };
        match self {
            Self::None => Self::None,
            Self::Instance(deadline) => Self::Instance(later(deadline)),
            Self::Room(deadline) => Self::Room(later(deadline)),
        }
    }

    /// Whether compilations are waited for as long as they take.
    pub fn pauses(&self) -> bool {
        self.deadline().is_some_and(|deadline| deadline.pauses)
    }

    /// The same, of a task.
    pub fn of_a_task(self) -> Self {
        let mark = |deadline| Deadline {
            is_of_a_task: true,
            ..deadline
        };
        match self {
            Self::None => Self::None,
            Self::Instance(deadline) => Self::Instance(mark(deadline)),
            Self::Room(deadline) => Self::Room(mark(deadline)),
        }
    }

    /// The same, but for room only as long as something is being destroyed already.
    pub fn without_room(self) -> Self {
        match self {
            Self::Room(deadline) => Self::Instance(deadline),
            other => other,
        }
    }

    pub fn is_of_a_task(&self) -> bool {
        self.deadline()
            .is_some_and(|deadline| deadline.is_of_a_task)
    }

    pub fn waits_for_room(&self) -> bool {
        matches!(self, Self::Room(_))
    }
}
