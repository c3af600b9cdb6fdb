//! The same as tasks, which never block their thread.

pub(crate) mod guest_poll;
pub(crate) mod task;
