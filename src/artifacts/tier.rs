//! A store, and what is known of it.

use super::housework::Books;
use super::store::{ArtifactStore, StoreError};
use super::upkeep::Upkeep;
use crate::runtime::guarded;
use crate::sync::unchecked::{AtomicBool, Mutex, Ordering};

pub(super) struct Tier {
    pub store: Box<dyn ArtifactStore>,
    pub upkeep: Upkeep,
    pub books: Mutex<Books>,
    /// By [`Work`]: whether it was said that it fails at that. Said again when it has worked meanwhile.
    said: [AtomicBool; 2],
}

/// What a store does. One whose disk is full can still be read from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Work {
    Reads,
    Writes,
}

impl Tier {
    pub fn new(store: impl ArtifactStore, upkeep: Upkeep) -> Self {
        Self {
            store: Box::new(store),
            upkeep,
            books: Mutex::default(),
            said: Default::default(),
        }
    }

    /// A store may be the host's own code.
    pub fn guarded<R>(
        &self,
        what: &str,
        work: impl FnOnce(&dyn ArtifactStore) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        let panicked = || {
            let source = std::io::Error::other("it panicked");
            Err(StoreError::unreadable(
                format!("the store's {what}"),
                source,
            ))
        };
        guarded("an artifact store", || work(&*self.store)).unwrap_or_else(panicked)
    }

    pub fn works(&self, work: Work) {
        self.said[work as usize].store(false, Ordering::Relaxed);
    }

    /// It fails; whether that was not said yet.
    pub fn is_news(&self, work: Work) -> bool {
        !self.said[work as usize].swap(true, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::MemoryStore;
    use super::*;

    #[test]
    fn what_fails_is_said_once_until_it_works_whatever_else_works() {
        let tier = Tier::new(MemoryStore::new(0), Upkeep::new());
        assert!(tier.is_news(Work::Writes));
        tier.works(Work::Reads);
        assert!(!tier.is_news(Work::Writes));
        assert!(tier.is_news(Work::Reads));
        tier.works(Work::Writes);
        assert!(!tier.is_news(Work::Reads));
        assert!(tier.is_news(Work::Writes));
    }
}
