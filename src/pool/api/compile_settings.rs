//! Settings of compilations: what may be compiled, who is told, who measures.

use crate::pool::api::builder::PoolBuilder;
use crate::pool::api::compiled::Compiled;
use crate::runtime::ModuleLimits;

impl<T: Send + 'static> PoolBuilder<T> {
    /// What modules may have, so that nobody defines what nobody should compile. Default: [`ModuleLimits::new`], which real
    /// programs of tens of megabytes pass.
    ///
    /// ```
    /// use wasm_pool::{DefineError, Definition, InspectError, ModuleLimit, ModuleLimits, Pool};
    ///
    /// let limits = ModuleLimits::new().with(ModuleLimit::Locals, 10);
    /// let pool = Pool::builder().module_limits(limits).build()?;
    /// let wasm = wat::parse_str(format!(
    ///     r#"(module (func (export "f") (local {})))"#, "i64 ".repeat(11)
    /// ))?;
    /// let error = pool.define::<(), ()>(Definition::new("f").wasm(wasm)).unwrap_err();
    /// let DefineError::Module { source: InspectError::TooLarge(too_large), .. } = error else {
    ///     panic!("{error}");
    /// };
    /// assert_eq!((too_large.found, too_large.limit, too_large.function), (11, 10, Some(0)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn module_limits(mut self, limits: ModuleLimits) -> Self {
        self.settings.modules = limits;
        self
    }

    /// Told of every compilation when it is over, whether it has come to code or not: so the host can ask its allocator to
    /// give back what the compiler has freed (`malloc_trim` of glibc), or keep a bill. Of one in a process of its own that
    /// is tried again with more memory, it is told each time. Runs outside of the pool's lock, on the thread that has
    /// compiled, or waited for the process, while the room is still reserved; its panics are caught.
    pub fn on_compiled(mut self, hook: impl Fn(&Compiled) + Send + Sync + 'static) -> Self {
        self.compile_hooks.on_compiled = Some(Box::new(hook));
        self
    }

    /// How the host measures what a compilation takes: it calls what it is given, once, on this thread, and says how many bytes
    /// of heap that took at its peak, if it knows. A library cannot know: that takes the host's allocator, and one
    /// that tells this thread's heap from others'. What a module took is reserved when it is compiled again, in place of
    /// the estimate (and a little more: no two compilations are alike to the byte). Its panics are the compiler's.
    ///
    /// ```
    /// # fn peak_of(work: &mut dyn FnMut()) -> u64 { work(); 1 << 20 }
    /// let pool = wasm_pool::Pool::builder()
    ///     .compile_probe(|compile| Some(peak_of(compile)))
    ///     .build()?;
    /// # Ok::<(), wasm_pool::BuildError>(())
    /// ```
    pub fn compile_probe(
        mut self,
        probe: impl Fn(&mut dyn FnMut()) -> Option<u64> + Send + Sync + 'static,
    ) -> Self {
        self.compile_hooks.probe = Some(Box::new(probe));
        self
    }
}
