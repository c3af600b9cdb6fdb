//! Half-made things: what a request was promised is given back when it ends early, however it ends.

use super::shared::{RequestId, Shared};

/// A request under way. Dropped before its instance is born, it gives back its seat, its pin, the
/// lead of its module's flight and every charge.
pub(crate) struct Making<'a, T: Send + 'static> {
    pool: &'a Shared<T>,
    id: RequestId<T>,
}

impl<'a, T: Send + 'static> Making<'a, T> {
    pub fn new(pool: &'a Shared<T>, id: RequestId<T>) -> Self {
        Self { pool, id }
    }

    pub fn id(&self) -> RequestId<T> {
        self.id
    }
}

impl<T: Send + 'static> Drop for Making<'_, T> {
    fn drop(&mut self) {
        // A request that has ended well is gone already, and this changes nothing.
        self.pool
            .with_state(|locked, _, out| locked.state.abandon(self.id, out));
    }
}
