//! What goes on beside the leases: sweeping, compiling for tasks, metrics.

pub(crate) mod group_series;
pub(crate) mod housekeeper;
pub(crate) mod in_flight;
pub(crate) mod observe;
pub(crate) mod recycler;
pub(crate) mod suspended;
pub(crate) mod undelivered;
pub(crate) mod workers;
