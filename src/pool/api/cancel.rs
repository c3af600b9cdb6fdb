//! Cancelling calls from outside: those of a group, of a function, of what was removed or closed.

use std::time::Duration;

use crate::pool::Pool;
use crate::pool::PoolBuilder;
use crate::pool::api::define_error::UnknownFunction;
use crate::pool::api::function_name::FunctionName;
use crate::pool::api::group_key::AsGroup;
use crate::pool::hot::entry::Entry;
use crate::pool::shared::EntryId;
use crate::pool::time::deadline::Deadline;
use crate::pool::wait::block_on::block_on;

impl<T: Send + 'static> PoolBuilder<T> {
    /// Whether every lease is looked at each tick of the epoch, so that [`Pool::cancel_group`] and its like stop the calls of
    /// threads within two ticks, too, and not only those of tasks and of leases with a [`Canceller`](crate::Canceller). It
    /// costs a lease some tens of nanoseconds, a guest that runs for longer than a tick a microsecond or less each, and
    /// the pool's own engine makes code that looks at the epoch, as with a [`Self::call_timeout`]. Default: no; on in
    /// [`Self::strangers`].
    pub fn cancellable_calls(mut self, cancellable: bool) -> Self {
        self.settings.cancellable = cancellable;
        self
    }
}

impl<T: Send + 'static> Pool<T> {
    /// Stops the calls of all leases that this group has now, of whatever function; returns how many leases there were.
    /// Those of acquires that begin later are not meant; an acquire that is under way may be.
    ///
    /// Each lease's next call returns [`CallError::Cancelled`](crate::CallError::Cancelled), and its instance is retired when it
    /// ends. A call that is under way ends
    /// - of a task: at the guest's next tick of the epoch, or at once while it waits for its host;
    /// - of a thread: within two ticks of the epoch, if the lease has a [`Canceller`](crate::Canceller) or all leases are looked
    ///   at ([`PoolBuilder::cancellable_calls`](crate::PoolBuilder::cancellable_calls)); otherwise as it pleases, at the end of
    ///   its time at the latest.
    ///
    /// A lease that ends by itself meanwhile has counted, and is unharmed; so has a spare that is put into its slot at that moment.
    /// Costs a look at each entry of the pool, without its
    /// lock.
    ///
    /// ```
    /// # use wasm_pool::{CallError, Definition, Function, Pool};
    /// # let wasm = wat::parse_str(r#"(module (func (export "f")))"#)?;
    /// let pool = Pool::builder().build()?;
    /// let f: Function<(), ()> = pool.define(Definition::new("f").wasm(wasm))?;
    /// let (mut bad, mut good) = (f.acquire("bad tenant")?, f.acquire("good tenant")?);
    /// assert_eq!(pool.cancel_group("bad tenant"), 1);
    /// assert!(matches!(bad.call(()), Err(CallError::Cancelled { .. })));
    /// good.call(())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cancel_group(&self, group: impl AsGroup) -> usize {
        let group = group.key().to_group();
        self.shared.stop_leases(|entry| entry.group == group)
    }

    /// The same for all leases of a function (of all overloads of a name without argument types), in all groups: those of
    /// replaced code and of functions of this name that were removed, too.
    pub fn cancel_function(&self, name: impl Into<FunctionName>) -> usize {
        let name = name.into();
        let Some((name, arguments)) = name.parts() else {
            return 0;
        };
        let signature = arguments.map(|arguments| crate::state::signature(name, arguments));
        self.shared.stop_leases(|entry| match &signature {
            None => *entry.name == *name,
            Some(signature) => entry.target.signature() == signature,
        })
    }

    /// The same for all leases of the pool.
    pub fn cancel_all(&self) -> usize {
        self.shared.stop_leases(|_| true)
    }

    /// Removes a function, as [`Self::remove`] does, waits until its leases have ended, and at the end of `grace` cancels
    /// those that have not, as [`Self::cancel_group`] does; returns how many those were.
    ///
    /// On a thread that holds such a lease, it waits for that lease in vain, and cancels it.
    ///
    /// # Errors
    /// [`UnknownFunction`] if none is defined.
    pub fn remove_and_cancel(
        &self,
        name: impl Into<FunctionName>,
        grace: Duration,
    ) -> Result<usize, UnknownFunction> {
        let left = self.remove_and_list(name.into())?;
        let deadline = self.shared.deadline(grace);
        Ok(block_on(
            self.cancel_what_is_left(left, deadline),
            &self.shared.timekeeper,
        ))
    }

    /// The same for a task. Dropped before it is ready, it cancels nothing; once it was polled, the function is removed all
    /// the same.
    ///
    /// # Errors
    /// As [`Self::remove_and_cancel`].
    pub async fn remove_and_cancel_async(
        &self,
        name: impl Into<FunctionName>,
        grace: Duration,
    ) -> Result<usize, UnknownFunction> {
        let left = self.remove_and_list(name.into())?;
        let deadline = self.deadline_of_task(grace);
        Ok(self.cancel_what_is_left(left, deadline).await)
    }

    async fn cancel_what_is_left(&self, left: Vec<EntryId<T>>, deadline: Deadline) -> usize {
        if self.shared.drain(Some(left.clone()), deadline).await {
            return 0;
        }
        let is_left = |entry: &Entry<T>| left.contains(&entry.id);
        self.shared.stop_leases(is_left)
    }

    /// Closes the pool, as [`Self::close`] does, and waits until every lease has ended; cancels, as
    /// [`Self::cancel_group`] does, those that have not at the end of `grace`, and gives them `timeout` to end. Whether all
    /// have, and everything is freed.
    ///
    /// On a thread that holds a lease, it waits for that lease in vain.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use wasm_pool::Pool;
    /// let pool = Pool::builder().build()?;
    /// // On SIGTERM: ten seconds for what runs, and one more to stop what runs still.
    /// assert!(pool.close_and_cancel(Duration::from_secs(10), Duration::from_secs(1)));
    /// # Ok::<(), wasm_pool::BuildError>(())
    /// ```
    pub fn close_and_cancel(&self, grace: Duration, timeout: Duration) -> bool {
        let shared = &self.shared;
        let deadline = |time: Duration| shared.deadline(time);
        block_on(
            shared.close_and_cancel(deadline, grace, timeout),
            &shared.timekeeper,
        )
    }

    /// The same for a task. Dropped before it is ready, it waits no more, and the pool stays closed.
    pub async fn close_and_cancel_async(&self, grace: Duration, timeout: Duration) -> bool {
        let deadline = |time: Duration| self.deadline_of_task(time);
        self.shared.close_and_cancel(deadline, grace, timeout).await
    }

    pub(crate) fn deadline_of_task(&self, time: Duration) -> Deadline {
        Deadline {
            is_of_a_task: true,
            ..self.shared.deadline(time)
        }
    }
}
