//! Half-made things: what a request was promised is given back when it ends early, however it ends.

use std::sync::Arc;

use super::shared::{RequestId, Shared};

/// A request under way. Dropped before its instance is born, it gives back its seat, its pin, the
/// lead of its module's flight and every charge.
pub(crate) struct Making<T: Send + 'static> {
    pool: Arc<Shared<T>>,
    id: RequestId<T>,
}

impl<T: Send + 'static> Making<T> {
    pub fn new(pool: &Arc<Shared<T>>, id: RequestId<T>) -> Self {
        let pool = pool.clone();
        Self { pool, id }
    }

    pub fn id(&self) -> RequestId<T> {
        self.id
    }
}

impl<T: Send + 'static> Drop for Making<T> {
    fn drop(&mut self) {
        // A request that has ended well is gone already, and this changes nothing.
        self.pool
            .with_state(|locked, _, out| locked.state.abandon(self.id, out));
    }
}
