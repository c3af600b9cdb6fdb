//! Until when somebody waits.

/// Nanoseconds on the pool's clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    pub began: u64,
    pub ends: u64,
    /// Whether a task waits, and not a thread: then nothing may block, and somebody must see to it
    /// that it is polled in the end.
    pub is_of_a_task: bool,
    /// Whether time in which its module is compiled, or in which it waits for a turn to compile, does
    /// not count: a compilation ends, and giving it up would waste the time that was waited.
    pub pauses: bool,
}

impl Deadline {
    /// The same, if it goes on while its module is compiled.
    pub fn of_compilations(self) -> Option<Self> {
        (!self.pauses).then_some(self)
    }

    /// Whether somebody must see to it that the waiter is polled when it comes.
    pub fn needs_an_alarm(&self) -> bool {
        self.is_of_a_task && self.ends != u64::MAX
    }
}
