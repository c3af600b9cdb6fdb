//! What a request was promised is given back when it ends early, however it ends.

use std::cell::Cell;
use std::sync::Arc;

use crate::pool::shared::{RequestId, Shared, ShellTypes};
use crate::state::ModuleId;
use crate::sync::thread_local;

/// A request under way. Dropped before its instance is installed, it gives back its seat, its pin, the
/// lead of its module's flight and every charge.
pub(crate) struct RequestGuard<T: Send + 'static> {
    pool: Arc<Shared<T>>,
    id: RequestId<T>,
}

impl<T: Send + 'static> RequestGuard<T> {
    pub fn new(pool: &Arc<Shared<T>>, id: RequestId<T>) -> Self {
        let pool = pool.clone();
        Self { pool, id }
    }

    pub fn id(&self) -> RequestId<T> {
        self.id
    }

    /// This thread compiles or loads the request's module (or one for the artifacts alone, if the request has
    /// none), until the guard goes.
    pub fn begin_compiling(&self) -> Compiling<T> {
        let pool = self.pool.clone();
        let module = pool.with_state(|locked, _| {
            let module = locked.state.module_of(self.id);
            match module {
                Some(module) => _ = locked.compiling.insert(module),
                None => locked.precompiling += 1,
            }
            module
        });
        let before = COMPILES.with(|compiles| compiles.replace(true));
        Compiling {
            pool,
            module,
            before,
        }
    }
}

thread_local! {
    static COMPILES: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is compiling: then it runs code of the host's (a subscriber's, a recorder's),
/// which must not wait for ever for this very compilation.
pub(crate) fn compiles_here() -> bool {
    COMPILES.with(Cell::get)
}

/// A compilation that goes on; see [`RequestGuard::begin_compiling`].
pub(crate) struct Compiling<T: Send + 'static> {
    pool: Arc<Shared<T>>,
    module: Option<ModuleId<ShellTypes<T>>>,
    before: bool,
}

impl<T: Send + 'static> Drop for Compiling<T> {
    fn drop(&mut self) {
        COMPILES.with(|compiles| compiles.set(self.before));
        self.pool.with_state(|locked, _| match self.module {
            Some(module) => _ = locked.compiling.remove(&module),
            None => locked.precompiling -= 1,
        });
    }
}

impl<T: Send + 'static> Drop for RequestGuard<T> {
    fn drop(&mut self) {
        // A request that has ended well is gone already, and this changes nothing.
        self.pool
            .with_state(|locked, cx| locked.state.abandon(self.id, &mut cx.out));
    }
}
