//! Calls with values whose types are known only at run time: in one shape everywhere.

use wasmtime::{Func, Val};

use crate::pool::api::error::CallError;
use crate::pool::api::function::{Function, InGroup};
use crate::pool::api::function_type::{ArgumentsError, FunctionType, Parameter, check_values};
use crate::pool::api::group_key::AsGroup;
use crate::pool::api::lease::Lease;

impl<P, R, T: Send + 'static> Function<P, R, T> {
    /// Acquires, calls with values, releases; returns as many values as the function has results.
    ///
    /// # Errors
    /// As [`Lease::call_values`]; [`CallError::Acquire`].
    pub fn call_values(&self, group: impl AsGroup, params: &[Val]) -> Result<Vec<Val>, CallError> {
        self.acquire(group)?.call_values(params)
    }

    /// As [`Self::call_values`], as a task.
    ///
    /// # Errors
    /// As [`Lease::call_values_async`]; [`CallError::Acquire`].
    pub async fn call_values_async(
        &self,
        group: impl AsGroup,
        params: &[Val],
    ) -> Result<Vec<Val>, CallError> {
        let mut lease = self.acquire_async(group).await?;
        lease.call_values_async(params).await
    }
}

impl<P, R, T: Send + 'static> InGroup<P, R, T> {
    /// As [`Function::call_values`].
    ///
    /// # Errors
    /// As [`Function::call_values`].
    pub fn call_values(&self, params: &[Val]) -> Result<Vec<Val>, CallError> {
        self.acquire()?.call_values(params)
    }

    /// As [`Function::call_values_async`].
    ///
    /// # Errors
    /// As [`Function::call_values_async`].
    pub async fn call_values_async(&self, params: &[Val]) -> Result<Vec<Val>, CallError> {
        let mut lease = self.acquire_async().await?;
        lease.call_values_async(params).await
    }
}

impl<P, R, T: Send + 'static> Lease<'_, P, R, T> {
    /// What the function takes and returns.
    pub fn ty(&self) -> FunctionType {
        FunctionType::declared(&self.pooled().defined.declared)
    }

    /// Calls the function with values whose types are known only at run time (about 0.1 µs more
    /// than a typed call); returns as many as the function has results.
    ///
    /// # Errors
    /// As [`Self::call`]. [`CallError::Arguments`] if the values are too many, too few or of other types:
    /// the guest has not run then, and the lease is as it was. A reference into another store, or to
    /// something of another type of the module's own, is found by wasmtime, which says so as
    /// [`CallError::Host`]: that call counts as failed.
    pub fn call_values(&mut self, params: &[Val]) -> Result<Vec<Val>, CallError> {
        let mut results = self.places_for_results(params)?;
        self.run_guest(|pooled| {
            let main = pooled.instance.main;
            main.call(&mut pooled.instance.store, params, &mut results)
        })?;
        Ok(results)
    }

    /// As [`Self::call_values`], as a task.
    ///
    /// # Errors
    /// As [`Self::call_values`] and [`Self::call_async`].
    pub async fn call_values_async(&mut self, params: &[Val]) -> Result<Vec<Val>, CallError> {
        let results = self.places_for_results(params)?;
        let main = self.pooled().instance.main;
        self.run_values_async(main, params, results).await
    }

    pub(crate) async fn run_values_async(
        &mut self,
        func: Func,
        params: &[Val],
        mut results: Vec<Val>,
    ) -> Result<Vec<Val>, CallError> {
        let params = params.to_vec();
        self.run_guest_async(move |pooled| {
            let store = &mut pooled.instance.store;
            Box::pin(async move {
                func.call_async(store, &params, &mut results).await?;
                Ok(results)
            })
        })
        .await
    }

    /// Places for the results, if these values can be passed to the function.
    fn places_for_results(&self, params: &[Val]) -> Result<Vec<Val>, CallError> {
        let ty = &self.pooled().defined.declared;
        check_values(ty.params().iter().map(Parameter::declared), params)
            .map_err(|source| self.wrong_arguments(source))?;
        Ok(vec![Val::I32(0); ty.results().len()])
    }

    #[cold]
    pub(crate) fn wrong_arguments(&self, source: ArgumentsError) -> CallError {
        let target = self.target().clone();
        CallError::Arguments { target, source }
    }
}
