//! A flight that brings no code: whoever waits for it is told why, and whoever asks soon after.

use std::io;
use std::sync::Arc;

use crate::pool::api::error::{AcquireError, ModuleError};
use crate::pool::api::target::Target;
use crate::pool::cold::request_guard::RequestGuard;
use crate::pool::shared::Shared;
use crate::pool::time::clock::nanos;

impl<T: Send + 'static> Shared<T> {
    /// All who wait are told what the system said; whoever asks next tries again.
    pub(crate) fn refused(
        &self,
        guard: &RequestGuard<T>,
        target: &Arc<Target>,
        refused: io::Error,
    ) -> AcquireError {
        self.fail_until(0, guard, target, ModuleError::System(refused.into()))
    }

    /// As `fail`, or without a cool-down, where it is not the module's doing.
    pub(crate) fn module_failed(
        &self,
        guard: &RequestGuard<T>,
        target: &Arc<Target>,
        error: ModuleError,
    ) -> AcquireError {
        match error.is_remembered() {
            true => self.fail(guard, target, error),
            false => self.fail_until(0, guard, target, error),
        }
    }

    /// All who wait get this failure, and so does whoever asks within the cool-down.
    pub(crate) fn fail(
        &self,
        guard: &RequestGuard<T>,
        target: &Arc<Target>,
        error: ModuleError,
    ) -> AcquireError {
        let cooldown = nanos(self.settings.compile_cooldown);
        let until = self.timekeeper.now().saturating_add(cooldown);
        self.fail_until(until, guard, target, error)
    }

    /// As `fail`, for whoever asks until then, in nanoseconds since the clock's origin.
    pub(crate) fn fail_until(
        &self,
        until: u64,
        guard: &RequestGuard<T>,
        target: &Arc<Target>,
        error: ModuleError,
    ) -> AcquireError {
        self.observer.module_failed();
        let failure = Arc::new(error);
        self.with_state(|locked, cx| {
            locked.module_failures += 1;
            locked
                .state
                .failed(guard.id(), failure.clone(), until, &mut cx.out);
        });
        module_error(target, failure)
    }
}

pub(crate) fn module_error(target: &Arc<Target>, source: Arc<ModuleError>) -> AcquireError {
    let target = target.clone();
    AcquireError::Module { target, source }
}
