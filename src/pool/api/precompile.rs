//! Compiling into the pool's artifacts, and nowhere else.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::pool::Pool;
use crate::pool::api::error::{AcquireError, ModuleError};
use crate::pool::api::names::named;
use crate::pool::shared::Shared;
use crate::runtime::{InspectError, SharedError, SystemError};

impl<T: Send + 'static> Pool<T> {
    /// Compiles modules into the pool's artifacts, one with each step of the iterator that it returns: for a
    /// deploy step, after which no pool with such an engine and these artifacts compiles them. Nothing is
    /// defined or loaded, and no host functions are needed: modules come with a name, for reports alone, and
    /// their bytes. One that fails does not stop the others.
    ///
    /// What is there already is verified, and left as it is. Definitions with
    /// `Definition::warm_up` have artifacts of their own, which this does not make.
    ///
    /// Each step compiles on the calling thread, one module at a time (milliseconds to seconds), and is charged
    /// to `compile` before it starts; it waits as [`Function::acquire`](crate::Function::acquire) does.
    /// It has one of the turns that
    /// [`PoolBuilder::max_compilations`](crate::PoolBuilder::max_compilations) allows, or waits for one. To compile
    /// several at once, let several threads have a part of the modules each.
    ///
    /// ```
    /// use wasm_pool::{Artifacts, MemoryStore, Pool};
    ///
    /// let artifacts = Artifacts::builder().store(MemoryStore::new(64 << 20)).build();
    /// let pool = Pool::builder().artifacts(&artifacts).build()?;
    /// let modules = [
    ///     ("good.wasm", wat::parse_str(r#"(module (func (export "f")))"#)?),
    ///     ("bad.wasm", b"what is this?".to_vec()),
    /// ];
    /// let count = modules.len();
    /// let mut failed = Vec::new();
    /// for module in pool.precompile(modules) {
    ///     match &module.outcome {
    ///         Ok(outcome) => println!("{}/{count} {}: {outcome}", module.index + 1, module.name),
    ///         Err(error) => failed.push((module.name.clone(), error.to_string())),
    ///     }
    /// }
    /// assert_eq!(failed.len(), 1);
    /// assert_eq!(&*failed[0].0, "bad.wasm");
    /// assert_eq!(artifacts.stats().saved, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn precompile<I, N, W>(&self, modules: I) -> Precompile<I::IntoIter, T>
    where
        I: IntoIterator<Item = (N, W)>,
        N: Into<Arc<str>>,
        W: AsRef<[u8]>,
    {
        Precompile {
            pool: self.shared.clone(),
            modules: modules.into_iter(),
            index: 0,
        }
    }
}

/// Compiles a module into the pool's artifacts with each step; see [`Pool::precompile`].
#[must_use = "it compiles nothing unless it is iterated over"]
pub struct Precompile<I, T: Send + 'static = ()> {
    pool: Arc<Shared<T>>,
    modules: I,
    index: usize,
}

impl<I, N, W, T> Iterator for Precompile<I, T>
where
    I: Iterator<Item = (N, W)>,
    N: Into<Arc<str>>,
    W: AsRef<[u8]>,
    T: Send + 'static,
{
    type Item = Precompiled;

    fn next(&mut self) -> Option<Precompiled> {
        let (name, wasm) = self.modules.next()?;
        let index = self.index;
        self.index += 1;
        Some(self.pool.precompile(name.into(), wasm.as_ref(), index))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.modules.size_hint()
    }
}

impl<I, T: Send + 'static> fmt::Debug for Precompile<I, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Precompile")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

/// What became of one module; see [`Pool::precompile`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Precompiled {
    /// The name that it came with.
    pub name: Arc<str>,
    /// How many came before it.
    pub index: usize,
    /// Bytes of the module.
    pub wasm_bytes: u64,
    /// Bytes of its compiled code, before compression; 0 if there is none.
    pub artifact_bytes: u64,
    /// How long it took, with waiting, compiling and saving.
    pub time: Duration,
    /// What was done, or why it was not.
    pub outcome: Result<PrecompileOutcome, PrecompileError>,
}

/// What was done for a module that is among the artifacts now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PrecompileOutcome {
    /// It was there, and is as it was saved.
    Present,
    /// It was compiled and saved, in one store at least.
    Compiled,
}

impl PrecompileOutcome {
    /// Every outcome.
    pub const ALL: [Self; 2] = [Self::Present, Self::Compiled];

    /// Its name, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Compiled => "compiled",
        }
    }
}

impl fmt::Display for PrecompileOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

named!(PrecompileOutcome, "an outcome of precompiling");

/// Why a module is not among the artifacts.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PrecompileError {
    /// The bytes are no module that the pool supports.
    #[error("not a module that can be compiled")]
    Module(#[source] InspectError),
    /// It does not compile.
    #[error("the module does not compile")]
    Compile(#[source] SharedError),
    /// Its compilation was ended: it took too much memory, or too long, or its process failed
    /// ([`CompileIn::Process`](crate::CompileIn::Process)).
    #[error("the module's compilation was ended")]
    Refused(#[source] Arc<ModuleError>),
    /// The operating system refused what compiling takes.
    #[error("the system refused what compiling the module takes")]
    System(#[source] SystemError),
    /// There was no room for it, in time; or the pool is closed. The target's signature is the module's name.
    #[error(transparent)]
    Acquire(AcquireError),
    /// The pool was built without artifacts.
    #[error("the pool has no artifacts to compile into")]
    NoArtifacts,
    /// It was compiled, and no store has taken it: the trace says what each of them said.
    #[error("the module was compiled, and no store has taken it")]
    NotSaved,
}
