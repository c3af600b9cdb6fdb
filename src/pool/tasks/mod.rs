//! The same as tasks, which never block their thread.

pub(crate) mod task;
