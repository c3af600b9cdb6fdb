//! Exported functions beside the one that a lease calls.

use std::fmt;
use std::sync::Arc;

use wasmtime::{Func, Instance, Store, TypedFunc, Val, WasmParams, WasmResults};

use crate::pool::api::definition::CallTypes;
use crate::pool::api::dynamic::Dynamic;
use crate::pool::api::error::CallError;
use crate::pool::api::function_type::{FunctionType, Parameter, ValueType, check_values};
use crate::pool::api::lease::Lease;
use crate::pool::shared::InstanceId;
use crate::runtime::StoreData;

/// An exported function of the instance of one lease; see [`Lease::export`]. Clones are the same function.
pub struct ExportedFunc<A = Dynamic, B = Dynamic, T: Send + 'static = ()>
where
    (A, B): CallTypes,
{
    /// Names the function among those of all pools: instances are numbered within one.
    function: u64,
    instance: InstanceId<T>,
    name: Arc<str>,
    callee: <(A, B) as Export>::Callee,
}

/// What is called, by the types that it is called with. Sealed with [`CallTypes`].
pub trait Export: 'static {
    /// Wasmtime's function, checked.
    type Callee: Clone + Send + Sync + 'static;

    /// The export of this name, or why there is none.
    #[doc(hidden)]
    fn find<T: 'static>(
        instance: Instance,
        store: &mut Store<StoreData<T>>,
        name: &str,
    ) -> Result<Self::Callee, String>;
}

impl<A: WasmParams + 'static, B: WasmResults + 'static> Export for (A, B) {
    type Callee = TypedFunc<A, B>;

    fn find<T: 'static>(
        instance: Instance,
        store: &mut Store<StoreData<T>>,
        name: &str,
    ) -> Result<TypedFunc<A, B>, String> {
        let found = instance.get_typed_func::<A, B>(store, name);
        found.map_err(|error| error.to_string())
    }
}

/// A function and what it takes and returns.
#[derive(Debug, Clone)]
pub struct DynamicFunc {
    func: Func,
    params: Arc<[Parameter]>,
    results: Arc<[ValueType]>,
}

impl Export for (Dynamic, Dynamic) {
    type Callee = DynamicFunc;

    fn find<T: 'static>(
        instance: Instance,
        store: &mut Store<StoreData<T>>,
        name: &str,
    ) -> Result<DynamicFunc, String> {
        let func = instance.get_func(&mut *store, name);
        let func = func.ok_or_else(|| format!("there is no function {name:?}"))?;
        let ty = func.ty(&*store);
        Ok(DynamicFunc {
            func,
            params: ty.params().map(|ty| Parameter::compiled(&ty)).collect(),
            results: ty
                .results()
                .map(|ty| Parameter::compiled(&ty).ty())
                .collect(),
        })
    }
}

impl<P, R, T: Send + 'static> Lease<'_, P, R, T> {
    /// An exported function, looked up once (about 0.2 µs) and called as often as needed through
    /// this lease: with wasm types, or, as `export::<Dynamic, Dynamic>`, with values.
    ///
    /// ```
    /// # use wasm_pool::{Definition, Dynamic, Function, Pool};
    /// # use wasmtime::Val;
    /// # let pool = Pool::builder().build()?;
    /// # let wasm = wat::parse_str(r#"(module (func (export "f"))
    /// #     (func (export "double") (param i32) (result i32) local.get 0 i32.const 2 i32.mul))"#)?;
    /// let f: Function = pool.define(Definition::new("f").wasm(wasm))?;
    /// let mut lease = f.acquire("tenant")?;
    /// let typed = lease.export::<i32, i32>("double")?;
    /// assert_eq!(typed.call(&mut lease, 4)?, 8);
    /// let with_values = lease.export::<Dynamic, Dynamic>("double")?;
    /// assert_eq!(with_values.call_values(&mut lease, &[Val::I32(4)])?[0].i32(), Some(8));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`CallError::Export`] if there is none of this name, or it has another type.
    pub fn export<A, B>(&mut self, name: &str) -> Result<ExportedFunc<A, B, T>, CallError>
    where
        (A, B): CallTypes,
    {
        let function = self.home.entry().uid;
        let target = self.target().clone();
        let pooled = self.pooled_mut();
        let exports = pooled.instance.exports;
        match <(A, B) as Export>::find(exports, &mut pooled.instance.store, name) {
            Ok(callee) => Ok(ExportedFunc {
                function,
                instance: pooled.id,
                name: name.into(),
                callee,
            }),
            Err(problem) => Err(CallError::Export {
                target,
                export: name.into(),
                problem,
            }),
        }
    }
}

impl<A, B, T> ExportedFunc<A, B, T>
where
    A: WasmParams + 'static,
    B: WasmResults + 'static,
    T: Send + 'static,
{
    /// Calls it in the lease that it was looked up in.
    ///
    /// # Errors
    /// As [`Lease::call`]; [`CallError::Export`] if the lease is another one.
    pub fn call<P, R>(&self, lease: &mut Lease<'_, P, R, T>, params: A) -> Result<B, CallError> {
        let func = self.of(lease)?;
        lease.run_guest(|pooled| func.call(&mut pooled.instance.store, params))
    }
}

impl<A, B, T> ExportedFunc<A, B, T>
where
    A: WasmParams + Sync + 'static,
    B: WasmResults + Sync + 'static,
    T: Send + 'static,
{
    /// As [`Self::call`], as a task.
    ///
    /// # Errors
    /// As [`Lease::call_async`]; [`CallError::Export`] if the lease is another one.
    pub async fn call_async<P, R>(
        &self,
        lease: &mut Lease<'_, P, R, T>,
        params: A,
    ) -> Result<B, CallError> {
        let func = self.of(lease)?.clone();
        lease
            .run_guest_async(move |pooled| {
                let store = &mut pooled.instance.store;
                Box::pin(async move { func.call_async(store, params).await })
            })
            .await
    }
}

impl<T: Send + 'static> ExportedFunc<Dynamic, Dynamic, T> {
    /// What it takes and returns.
    pub fn ty(&self) -> FunctionType {
        let params = self.callee.params.iter().map(|param| param.ty());
        FunctionType::new(params, self.callee.results.iter().copied())
    }

    /// Calls it with values, in the lease that it was looked up in; returns as many as it has results.
    ///
    /// # Errors
    /// As [`Lease::call_values`]; [`CallError::Export`] if the lease is another one.
    pub fn call_values<P, R>(
        &self,
        lease: &mut Lease<'_, P, R, T>,
        params: &[Val],
    ) -> Result<Vec<Val>, CallError> {
        let (func, mut results) = self.checked(lease, params)?;
        lease.run_guest(|pooled| func.call(&mut pooled.instance.store, params, &mut results))?;
        Ok(results)
    }

    /// As [`Self::call_values`], as a task.
    ///
    /// # Errors
    /// As [`Self::call_values`] and [`Lease::call_async`].
    pub async fn call_values_async<P, R>(
        &self,
        lease: &mut Lease<'_, P, R, T>,
        params: &[Val],
    ) -> Result<Vec<Val>, CallError> {
        let (func, results) = self.checked(lease, params)?;
        lease.run_values_async(func, params, results).await
    }

    /// The function, if these values can be passed to it, and places for its results.
    fn checked<P, R>(
        &self,
        lease: &Lease<'_, P, R, T>,
        params: &[Val],
    ) -> Result<(Func, Vec<Val>), CallError> {
        let callee = self.of(lease)?;
        check_values(callee.params.iter().copied(), params)
            .map_err(|source| lease.wrong_arguments(source))?;
        Ok((callee.func, vec![Val::I32(0); callee.results.len()]))
    }
}

impl<A, B, T: Send + 'static> ExportedFunc<A, B, T>
where
    (A, B): CallTypes,
{
    /// The export's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The function, if it is one of this lease's instance.
    fn of<P, R>(
        &self,
        lease: &Lease<'_, P, R, T>,
    ) -> Result<&<(A, B) as Export>::Callee, CallError> {
        let function = lease.home.entry().uid;
        if (function, lease.pooled().id) != (self.function, self.instance) {
            return Err(CallError::Export {
                target: lease.target().clone(),
                export: self.name.to_string(),
                problem: "it belongs to the instance of another lease".into(),
            });
        }
        Ok(&self.callee)
    }
}

impl<A, B, T: Send + 'static> Clone for ExportedFunc<A, B, T>
where
    (A, B): CallTypes,
{
    fn clone(&self) -> Self {
        Self {
            name: self.name.clone(),
            callee: self.callee.clone(),
            ..*self
        }
    }
}

impl<A, B, T: Send + 'static> fmt::Debug for ExportedFunc<A, B, T>
where
    (A, B): CallTypes,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ExportedFunc").field(&self.name).finish()
    }
}
