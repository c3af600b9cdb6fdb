//! Code ahead of time: what an acquire does for the code of a function, without a seat and without an instance.

use std::sync::Arc;

use crate::pool::api::error::AcquireError;
use crate::pool::api::prepared::Prepared;
use crate::pool::api::target::Target;
use crate::pool::cold::acquire::stack_too_small;
use crate::pool::cold::request_guard::RequestGuard;
use crate::pool::shared::{FunctionId, Shared};
use crate::pool::wait::block_on::block_on;
use crate::pool::wait::policy::WaitPolicy;
use crate::state::{PreparedCode, Stale};

impl<T: Send + 'static> Shared<T> {
    /// Sees to a function's code, on this thread.
    pub(crate) fn prepare(
        self: &Arc<Self>,
        function: FunctionId<T>,
        target: &Arc<Target>,
        wait_policy: WaitPolicy,
    ) -> Result<Prepared, AcquireError> {
        self.stack
            .check()
            .map_err(|source| stack_too_small(target, source))?;
        let prepared = self.prepare_code(function, target, wait_policy);
        block_on(prepared, &self.timekeeper)
    }

    /// The same, as a task or on a thread. Dropped before it is ready, it leaves nothing behind but what a
    /// compilation brings that is under way.
    pub(crate) async fn prepare_code(
        self: &Arc<Self>,
        function: FunctionId<T>,
        target: &Arc<Target>,
        mut wait_policy: WaitPolicy,
    ) -> Result<Prepared, AcquireError> {
        let request = self.with_state(|locked, _| locked.state.begin_prepare(function));
        let mut guard = RequestGuard::new(self, request);
        loop {
            let ready;
            (guard, ready, wait_policy) = self.code_for(guard, target, wait_policy).await?;
            let prepared =
                self.with_state(|locked, cx| locked.state.prepared(guard.id(), &mut cx.out));
            match prepared {
                Ok(PreparedCode { bytes, stays }) => {
                    return Ok(Prepared {
                        origin: ready.origin,
                        code_bytes: bytes,
                        stays,
                    });
                }
                // The function was replaced meanwhile, or removed: the next look says which.
                Err(Stale) => continue,
            }
        }
    }
}
