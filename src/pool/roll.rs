//! The entries of a pool, for whoever looks at all of them without the lock.

use std::sync::Weak;

/// How many entries or instances are looked at without letting go of the lock.
pub(crate) const BATCH: usize = 256;

/// The entries of a pool, as of some moment: so that whoever looks at all of them takes the lock only if one has
/// come or gone since.
pub(crate) struct Roll<E> {
    /// `State::entry_changes` of that moment.
    pub changes: Option<u64>,
    pub entries: Vec<Weak<E>>,
}

impl<E> Default for Roll<E> {
    fn default() -> Self {
        Self {
            changes: None,
            entries: Vec::new(),
        }
    }
}
