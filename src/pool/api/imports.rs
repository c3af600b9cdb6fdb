//! What the host gives to modules beside, or instead of, what the builder's linker has.

use std::any::Any;
use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

use wasmtime::{Linker, Val};

use crate::pool::Pool;
use crate::pool::defined::fresh_uid;
use crate::runtime::{HostImports, Own, OwnItem, SharedError, StoreData, is_of_a_store, share};

/// Imports for some definitions: what the pool's linker has, other functions beside or instead, and
/// memories, tables and globals that each instance gets of its own.
///
/// Made by [`Pool::imports`], given to [`Definition::imports`](crate::Definition::imports). Clones are
/// the same imports: modules of the same bytes and the same imports share their code. Nothing in it
/// changes any more, so that what links once links always.
///
/// ```
/// use wasm_pool::{Definition, Pool, StoreData};
/// use wasmtime::{Caller, Extern, Val};
///
/// // As Emscripten writes them: the memory is imported, and so is where its stack begins.
/// let wasm = r#"(module
///     (import "env" "memory" (memory 1))
///     (import "env" "__stack_pointer" (global $sp (mut i32)))
///     (import "a" "a" (func $log (param i32)))
///     (func (export "f") (param i32) (result i32)
///         (i32.store (global.get $sp) (local.get 0))
///         (call $log (global.get $sp))
///         (i32.load (global.get $sp))))"#;
/// # let wasm = wat::parse_str(wasm)?;
/// let pool = Pool::builder().build()?;
/// let emscripten = pool
///     .imports()
///     .memory("env", "memory")
///     .global("env", "__stack_pointer", Val::I32(1024))
///     .functions(|linker| {
///         linker.func_wrap("a", "a", |caller: Caller<'_, StoreData<()>>, at: i32| {
///             // The module does not export its memory; but it was made for it.
///             let memory = caller.data().imported("env", "memory");
///             let memory = memory.and_then(Extern::into_memory).expect("it was made");
///             assert_eq!(memory.data(&caller)[at as usize], 7);
///         })?;
///         Ok(())
///     })
///     .build()?;
/// let f = pool.define::<i32, i32>(Definition::new("f").wasm(wasm).imports(&emscripten))?;
/// assert_eq!(f.call("tenant", 7)?, 7);
///
/// let mut lease = f.acquire("tenant")?;
/// let memory = lease.memory().expect("the one that it imports");
/// assert_eq!(memory.data(lease.store())[1024], 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Imports<T: Send + 'static = ()>(Arc<HostImports<T>>);

impl<T: Send + 'static> Imports<T> {
    pub(crate) fn erased(&self) -> Arc<dyn Any + Send + Sync> {
        self.0.clone()
    }
}

impl<T: Send + 'static> Clone for Imports<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Send + 'static> PartialEq for Imports<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T: Send + 'static> Eq for Imports<T> {}

// Nothing in it ever changes.
impl<T: Send + 'static> UnwindSafe for Imports<T> {}
impl<T: Send + 'static> RefUnwindSafe for Imports<T> {}

impl<T: Send + 'static> fmt::Debug for Imports<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Imports").finish_non_exhaustive()
    }
}

/// Why imports could not be made.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ImportsError {
    /// The closure that adds functions failed, or wasmtime refused one.
    #[error("functions could not be added to the imports")]
    Functions(#[source] SharedError),
    /// The first value of a global is a reference into a store of the host's.
    #[error(
        "the global {module:?} {name:?} begins with a reference, which belongs to a single store"
    )]
    Reference {
        /// The import's module name.
        module: String,
        /// The import's name.
        name: String,
    },
}

/// Collects [`Imports`]. What comes later stands for what came earlier under the same names.
#[must_use = "`build` makes the imports"]
pub struct ImportsBuilder<T: Send + 'static = ()> {
    linker: Linker<StoreData<T>>,
    own: Vec<OwnItem>,
    /// The first.
    failed: Option<ImportsError>,
}

impl<T: Send + 'static> Pool<T> {
    /// Imports for definitions that need others than the builder's linker has, to begin with all of
    /// those. Takes a clone of the linker: some hundred bytes for each function.
    pub fn imports(&self) -> ImportsBuilder<T> {
        let mut linker = self.shared.imports.linker().clone();
        linker.allow_shadowing(true);
        ImportsBuilder {
            linker,
            own: Vec::new(),
            failed: None,
        }
    }
}

impl<T: Send + 'static> ImportsBuilder<T> {
    /// Adds functions: anything that can be written against wasmtime's `Linker`. A function may stand
    /// under the names of one that the pool's linker has.
    pub fn functions(
        mut self,
        add: impl FnOnce(&mut Linker<StoreData<T>>) -> wasmtime::Result<()>,
    ) -> Self {
        if let Err(error) = add(&mut self.linker) {
            self.fail(ImportsError::Functions(share(error)));
        }
        self
    }

    /// Gives each instance of a module that imports a memory under these names one of its own, made
    /// before the instance, of the type that the module asks for. It is charged as a memory that the
    /// module declares, and [`Lease::memory`](crate::Lease::memory) finds it.
    pub fn memory(self, module: &str, name: &str) -> Self {
        self.memory_with_minimum(module, name, 0)
    }

    /// As [`Self::memory`], of at least so many bytes, rounded up to whole pages of 64 KiB.
    pub fn memory_with_minimum(self, module: &str, name: &str, bytes: u64) -> Self {
        self.own(module, name, Own::Memory { minimum: bytes })
    }

    /// Gives each instance of a module that imports a table under these names one of its own, of the
    /// type that the module asks for, full of nulls. It is charged as one that the module declares.
    pub fn table(self, module: &str, name: &str) -> Self {
        self.table_with_minimum(module, name, 0)
    }

    /// As [`Self::table`], of at least so many elements.
    pub fn table_with_minimum(self, module: &str, name: &str, elements: u64) -> Self {
        self.own(module, name, Own::Table { minimum: elements })
    }

    /// Gives each instance of a module that imports a global under these names one of its own, mutable
    /// if the module says so, that begins with this value: a number or a null reference.
    pub fn global(mut self, module: &str, name: &str, value: Val) -> Self {
        if is_of_a_store(&value) {
            let (module, name) = (module.to_owned(), name.to_owned());
            self.fail(ImportsError::Reference { module, name });
            return self;
        }
        self.own(module, name, Own::Global(value))
    }

    /// The imports.
    ///
    /// # Errors
    /// The first [`ImportsError`] of what was added.
    pub fn build(self) -> Result<Imports<T>, ImportsError> {
        match self.failed {
            None => Ok(Imports(Arc::new(HostImports::new(
                self.linker,
                self.own,
                fresh_uid(),
            )))),
            Some(error) => Err(error),
        }
    }

    fn own(mut self, module: &str, name: &str, own: Own) -> Self {
        self.own.push(OwnItem {
            module: module.into(),
            name: name.into(),
            own,
        });
        self
    }

    fn fail(&mut self, error: ImportsError) {
        self.failed.get_or_insert(error);
    }
}

impl<T: Send + 'static> fmt::Debug for ImportsBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImportsBuilder").finish_non_exhaustive()
    }
}
