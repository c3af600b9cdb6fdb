//! What the builder is given of the host's code that looks at instances: as they are made, as they come back, and when
//! they are gone.

use wasmtime::Store;

use crate::pool::api::builder::PoolBuilder;
use crate::pool::service::observe::Removal;
use crate::runtime::StoreData;

impl<T: Send + 'static> PoolBuilder<T> {
    /// Called with every new instance before its first lease; an error fails the acquire. Runs
    /// outside of the pool's lock, on the thread that makes the instance, or polls the task that does.
    ///
    /// It may call the guest, synchronously: with the function's fuel and time for itself, whatever the
    /// start function has used; and only where there is as much stack as for any call, or the acquire
    /// fails with [`StackTooSmall`](crate::AcquireError::StackTooSmall). Guests that run only as tasks
    /// (async imports, [`Self::fuel_yield_interval`]) cannot be called here.
    pub fn on_create(
        mut self,
        hook: impl Fn(&mut Store<StoreData<T>>, &wasmtime::Instance) -> wasmtime::Result<()>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        self.on_create = Some(Box::new(hook));
        self
    }

    /// Called with every healthy instance when its lease ends; an error (or a panic) retires it.
    /// Runs outside of the pool's lock, on the thread that ends the lease, and keeps it, an executor's as
    /// well.
    ///
    /// It may call the guest, synchronously: with the function's fuel and time for itself, whatever the
    /// lease has left of them. Where there is too little stack for a call, the instance is retired
    /// instead. Guests that run only as tasks (async imports, [`Self::fuel_yield_interval`]) cannot be
    /// called here.
    pub fn on_recycle(
        mut self,
        hook: impl Fn(&mut Store<StoreData<T>>, &wasmtime::Instance) -> wasmtime::Result<()>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        self.on_recycle = Some(Box::new(hook));
        self
    }

    /// Told of every instance that left, after its memory has been freed. Runs outside of the
    /// pool's lock, on the thread that destroyed the instance, when its charge has been given back; its panics
    /// are caught. While it blocks on the pool's own thread, nothing idle is evicted.
    ///
    /// It may lease. If that evicts others, it is told of them within itself, on the same thread: it must not hold
    /// a lock of its own meanwhile that it takes again.
    pub fn removal_listener(mut self, listener: impl Fn(&Removal) + Send + Sync + 'static) -> Self {
        self.listener = Some(Box::new(listener));
        self
    }
}
