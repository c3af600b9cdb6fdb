//! How somebody waits: how long and for what, and who tells whom.

pub(crate) mod block_on;
pub(crate) mod policy;
pub(crate) mod spin;
pub(crate) mod until;
pub(crate) mod waiter;
