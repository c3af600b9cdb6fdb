//! Time: the clock, the epoch, alarms, and the threads that keep them.

pub(crate) mod alarms;
pub(crate) mod clock;
pub(crate) mod clock_thread;
pub(crate) mod deadline;
pub(crate) mod threads;
pub(crate) mod ticker;
pub(crate) mod timekeeper;
