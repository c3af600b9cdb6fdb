//! Settings of the engine, or another one; and what it links.

use wasmtime::{Engine, Linker};

use crate::pool::api::build_error::{BuildError, LimitsError};
use crate::pool::api::builder::PoolBuilder;
use crate::runtime::{EngineSettings, Runtime, StoreData, share};
use crate::state::Budget;

/// Of a fiber stack, for the host's functions and wasmtime's own frames.
const STACK_MARGIN: usize = 128 << 10;
/// Fiber stacks are whole pages on any system.
const STACK_STEP: usize = 64 << 10;

impl<T: Send + 'static> PoolBuilder<T> {
    /// Bytes of the fiber stack that an instance has once a task has called it, rounded up to
    /// 64 KiB, at most 1 GiB; a guard comes on top. What [`Self::max_wasm_stack`] leaves of it is for the host's
    /// functions: at least 128 KiB. Unless set, 1 MiB, or what `max_wasm_stack` needs. With an engine
    /// of the host's own, that one's `async_stack_size` counts instead: it is charged once for each
    /// instance that a task has called, whatever allocator makes it.
    pub fn async_stack_size(mut self, bytes: usize) -> Self {
        self.async_stack_size = Some(bytes);
        self
    }

    /// Bytes of the caller's stack that a guest may use, for the pool's own engine: at most 1 GiB. A
    /// thread must have 128 KiB more, or its calls are refused. Default: 512 KiB.
    pub fn max_wasm_stack(mut self, bytes: usize) -> Self {
        self.max_wasm_stack = bytes;
        self
    }

    /// Whether traps carry a backtrace, as text, for the pool's own engine. Costs 15 % more code
    /// and some 40 µs per trap. Default: no.
    pub fn backtraces(mut self, collect: bool) -> Self {
        self.backtraces = collect;
        self
    }

    /// The host's own engine. With a pooling allocator, what its places keep is charged from the start (by each pool of the
    /// engine; but for fiber stacks that are not cleared, `async_stack_zeroing`), and its
    /// `pagemap_scan` and `decommit_batch_size` are refused ([`BuildError::UnfitAllocator`]). If calls have a timeout, the pool moves its epoch: no one else
    /// should, another pool included. If its memories may move to grow (a reservation
    /// smaller than they can become), they are there twice while they do. Modules are still compiled in throwaway engines of the same
    /// configuration. Default: the pool makes one that suits its other settings.
    pub fn engine(mut self, engine: Engine) -> Self {
        self.engine = Some(engine);
        self
    }

    /// The host's own linker, made with the engine that is passed to [`Self::engine`].
    pub fn linker(mut self, linker: Linker<StoreData<T>>) -> Self {
        self.linker = Some(linker);
        self
    }

    /// Adds imports to the linker: host functions, WASI, generated bindings. Every definition has them;
    /// [`Pool::imports`](crate::Pool::imports) makes others for some, and memories, tables and globals of each instance's own.
    pub fn imports(
        mut self,
        add: impl FnOnce(&mut Linker<StoreData<T>>) -> wasmtime::Result<()> + Send + 'static,
    ) -> Self {
        self.imports.push(Box::new(add));
        self
    }

    pub(super) fn stack_size(&self) -> usize {
        let needed = self.max_wasm_stack.saturating_add(STACK_MARGIN);
        let size = self.async_stack_size.unwrap_or(needed.max(1 << 20));
        size.saturating_add(STACK_STEP - 1) / STACK_STEP * STACK_STEP
    }

    /// Stacks have room for guest and host.
    pub(super) fn validate_stack_size(&self) -> Result<(), LimitsError> {
        let needed = self.max_wasm_stack.saturating_add(STACK_MARGIN);
        let size = self.stack_size();
        if self.engine.is_none() && size < needed {
            return Err(LimitsError::NeverFits {
                field: "async_stack_size",
                value: size as u64,
                what: "max_wasm_stack with 128 KiB for the host's functions",
                needed: needed as u64,
            });
        }
        Ok(())
    }

    /// The budgets have room for stacks.
    pub(super) fn validate_stacks(&self, runtime: &Runtime) -> Result<(), LimitsError> {
        let stack = runtime.stack_amounts().get(Budget::Stack);
        let leases = self.settings.max_instances_per_entry as u64;
        self.settings.limits.validate_stacks(stack, leases)
    }

    pub(super) fn engine_settings(&self) -> EngineSettings {
        EngineSettings {
            interrupt: self.settings.interrupts(),
            fuel: self.settings.counts_fuel(),
            max_wasm_stack: self.max_wasm_stack,
            async_stack_size: self.stack_size(),
            backtraces: self.backtraces,
        }
    }

    pub(super) fn runtime(&self) -> Result<Runtime, BuildError> {
        let Some(engine) = &self.engine else {
            let runtime = Runtime::new(self.engine_settings(), self.settings.places);
            return runtime.map_err(|error| BuildError::Engine(share(error)));
        };
        if self.settings.allocator.is_some() {
            return Err(BuildError::EngineHasAllocator);
        }
        Self::check_engine(engine)?;
        let runtime = Runtime::with_engine(engine.clone())
            .map_err(|error| BuildError::Engine(share(error)))?;
        if self.settings.counts_fuel() && !runtime.meters_fuel() {
            return Err(BuildError::EngineLacks {
                setting: "fuel",
                needs: "consume_fuel",
            });
        }
        if self.settings.interrupts() && !runtime.interrupts() {
            let of_time = self.settings.call_timeout.is_some() || !self.settings.cancellable;
            return Err(BuildError::EngineLacks {
                setting: if of_time {
                    "call_timeout"
                } else {
                    "cancellable_calls"
                },
                needs: "epoch_interruption",
            });
        }
        Ok(runtime)
    }

    pub(super) fn link(&mut self, runtime: &Runtime) -> Result<Linker<StoreData<T>>, BuildError> {
        let engine = runtime.engine();
        let mut linker = match self.linker.take() {
            Some(linker) if Engine::same(linker.engine(), engine) => linker,
            Some(_) => return Err(BuildError::ForeignLinker),
            None => Linker::new(engine),
        };
        for add in self.imports.drain(..) {
            add(&mut linker).map_err(|error| BuildError::Engine(share(error)))?;
        }
        Ok(linker)
    }
}
