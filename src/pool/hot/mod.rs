//! What every warm lease runs through: no lock, no account, nothing that another thread writes.

pub(crate) mod entry;
pub(crate) mod entry_hash;
pub(crate) mod meter;
pub(crate) mod owned_cell;
pub(crate) mod pooled_instance;
pub(crate) mod preferred_seat;
pub(crate) mod slots;
pub(crate) mod spent;
pub(crate) mod thread;
pub(crate) mod thread_cache;
