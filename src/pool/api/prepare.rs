//! Preparing functions ahead of their first call.

use std::sync::Arc;

use crate::pool::Pool;
use crate::pool::api::acquire_options::AcquireOptions;
use crate::pool::api::error::AcquireError;
use crate::pool::api::function::Function;
use crate::pool::api::prepared::Prepared;
use crate::pool::api::target::Target;
use crate::state::Group;

impl<T: Send + 'static> Pool<T> {
    /// As [`Function::prepare`]: a handle knows its pool, so that a function of another pool is prepared there.
    ///
    /// # Errors
    /// As [`Function::prepare`].
    pub fn prepare<P, R>(&self, function: &Function<P, R, T>) -> Result<Prepared, AcquireError> {
        function.prepare()
    }
}

impl<P, R, T: Send + 'static> Function<P, R, T> {
    /// Compiles the function's module and links it, if that has not been done, and leases nothing: so what a
    /// call would find out of the module is known before there is one, and the first call does not wait for it.
    /// It needs no instance, and works while all of them are leased; it counts as no miss.
    ///
    /// All else is as in [`Self::acquire`]: one compilation for all who want the module at the same time, charged
    /// to `compile` and `code` before it starts; failures are remembered for a while; it waits as the builder
    /// says. What an instance takes is not reserved. The start function does not run; but
    /// what a definition is warmed up by does (`Definition::warm_up`).
    ///
    /// The code is kept as all code without instances is: until its room is needed, or not at all with
    /// [`Policy::Lru`](crate::Policy::Lru) ([`Prepared::stays`] says so).
    ///
    /// Costs what compiling takes, on this thread (milliseconds to seconds), and a moment of the pool's lock
    /// if the code is loaded already.
    ///
    /// ```
    /// use wasm_pool::{Definition, ErrorKind, Function, Pool};
    ///
    /// /// What to answer to an upload: a status, and what to say.
    /// fn upload(pool: &Pool, name: &str, wasm: Vec<u8>) -> (u16, String) {
    ///     let defined = pool.define::<(i64, i64), i64>(Definition::new(name).wasm(wasm));
    ///     let function = match defined {
    ///         Ok(function) => function,
    ///         Err(error) => return (422, error.to_string()),
    ///     };
    ///     match function.prepare() {
    ///         Ok(prepared) => (201, format!("{} bytes of code", prepared.code_bytes)),
    ///         Err(error) => {
    ///             // Nobody has called it yet, and nobody can.
    ///             let _ = pool.remove(name);
    ///             match error.kind() {
    ///                 ErrorKind::Invalid => (422, error.to_string()),
    ///                 _ => (503, error.to_string()),
    ///             }
    ///         }
    ///     }
    /// }
    ///
    /// let pool = Pool::builder().build()?;
    /// let sum = r#"(module (func (export "sum") (param i64 i64) (result i64)
    ///     local.get 0 local.get 1 i64.add))"#;
    /// assert_eq!(upload(&pool, "sum", wat::parse_str(sum)?).0, 201);
    ///
    /// // Its body returns nothing: `define` does not look at bodies.
    /// let bad = r#"(module (func (export "bad") (param i64 i64) (result i64)))"#;
    /// assert_eq!(upload(&pool, "bad", wat::parse_str(bad)?).0, 422);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Self::acquire`], but for what is about instances. Their target's group is [`Group::NOBODY`].
    pub fn prepare(&self) -> Result<Prepared, AcquireError> {
        self.prepare_with(AcquireOptions::new())
    }

    /// As [`Self::prepare`], but waits as `options` say: with a deadline of its own, or also for room.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub fn prepare_with(&self, options: AcquireOptions) -> Result<Prepared, AcquireError> {
        let wait_policy = self.pool.wait_policy(options);
        let mut successor: Option<Self> = None;
        loop {
            let function = successor.as_ref().unwrap_or(self);
            let target = function.target_of_nobody();
            match self
                .pool
                .prepare(function.identity.id, &target, wait_policy)
            {
                Ok(prepared) => return Ok(prepared),
                Err(error) => successor = Some(function.follow(error)?),
            }
        }
    }

    /// As [`Self::prepare`], without blocking a thread: it compiles on a thread of the pool's own. Dropped before
    /// it is ready, the future leaves nothing behind; but a compilation that is under way is not stopped, and its
    /// code is there for the next.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub async fn prepare_async(&self) -> Result<Prepared, AcquireError> {
        self.prepare_async_with(AcquireOptions::new()).await
    }

    /// As [`Self::prepare_async`], but waits as `options` say.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub async fn prepare_async_with(
        &self,
        options: AcquireOptions,
    ) -> Result<Prepared, AcquireError> {
        let wait_policy = self.pool.wait_policy(options).of_a_task();
        let mut successor: Option<Self> = None;
        loop {
            let function = successor.as_ref().unwrap_or(self);
            let target = function.target_of_nobody();
            let prepared = self
                .pool
                .prepare_code(function.identity.id, &target, wait_policy);
            match prepared.await {
                Ok(prepared) => return Ok(prepared),
                Err(error) => successor = Some(function.follow(error)?),
            }
        }
    }

    fn target_of_nobody(&self) -> Arc<Target> {
        Arc::new(Target {
            signature: self.signature.clone(),
            group: Group::NOBODY,
        })
    }
}
