//! Work for a request that others may wait for: on its own thread, or on one of the pool's.

use std::sync::Arc;
use std::time::Duration;

use crate::pool::api::error::{AcquireError, WaitingFor};
use crate::pool::api::target::Target;
use crate::pool::cold::acquire::closed;
use crate::pool::cold::request_guard::RequestGuard;
use crate::pool::service::workers::IsAwaited;
use crate::pool::shared::Shared;
use crate::pool::time::deadline::Deadline;
use crate::pool::wait::policy::WaitPolicy;
use crate::pool::wait::until::until;

impl<T: Send + 'static> Shared<T> {
    /// Works for a request: on this thread, or, if this is a task's or the work can be waited for by whoever comes
    /// later, aside. The work keeps the request
    /// until it is done, even when nobody waits for it any more: what it has reserved is in use.
    pub(crate) async fn work<R: Send + 'static>(
        &self,
        guard: RequestGuard<T>,
        target: &Arc<Target>,
        wait_policy: WaitPolicy,
        aside: bool,
        work: impl FnOnce(&RequestGuard<T>, IsAwaited<'_>) -> R + Send + 'static,
    ) -> Result<(RequestGuard<T>, R), AcquireError> {
        let work = move |is_awaited: IsAwaited<'_>| {
            let compiling = guard.begin_compiling();
            let result = work(&guard, is_awaited);
            drop(compiling);
            (guard, result)
        };
        if !wait_policy.is_of_a_task() && !aside {
            return Ok(work(&|| true));
        }
        // What is done aside is seen within what asked for it.
        let span = tracing::Span::current();
        let work = move |is_awaited: IsAwaited<'_>| span.in_scope(|| work(is_awaited));
        let began = self.timekeeper.now();
        let done = self.workers.run(work);
        let deadline = wait_policy.deadline().and_then(Deadline::of_compilations);
        let ends = wait_policy.ends();
        if ends != u64::MAX && wait_policy.is_of_a_task() {
            self.undelivered
                .add(ends, done.delivery(self.slack(wait_policy)));
        }
        match until(done, deadline, &self.timekeeper).await {
            Some(Some(done)) => Ok(done),
            Some(None) if self.timekeeper.now() < ends => Err(self.worker_failed(target)),
            // Its deadline has come: what the worker left may have been taken back.
            Some(None) | None => Err(AcquireError::Timeout {
                target: target.clone(),
                waited: Duration::from_nanos(self.timekeeper.now().saturating_sub(began)),
                waiting_for: WaitingFor::Compilation,
                shortage: None,
                between_calls: 0,
            }),
        }
    }

    /// From the workers: the pool is closed, or the compiler has panicked.
    fn worker_failed(&self, target: &Arc<Target>) -> AcquireError {
        if self.with_state(|locked, _| locked.state.is_closed()) {
            return closed(target);
        }
        let panicked: Box<dyn std::error::Error + Send + Sync> = "the compiler panicked".into();
        AcquireError::Instantiate {
            target: target.clone(),
            source: panicked.into(),
        }
    }
}
