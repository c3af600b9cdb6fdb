//! Code of the host's around compilations.

use crate::pool::api::compiled::Compiled;
use crate::runtime::guarded;

/// Calls what it is given, once; says how many bytes of heap that took.
type Probe = dyn Fn(&mut dyn FnMut()) -> Option<u64> + Send + Sync;

#[derive(Default)]
pub(crate) struct CompileHooks {
    pub probe: Option<Box<Probe>>,
    pub on_compiled: Option<Box<dyn Fn(&Compiled) + Send + Sync>>,
}

impl CompileHooks {
    /// Runs a compilation, and says how many bytes of heap it took, if that is known.
    pub fn measure<R>(&self, compile: impl FnOnce() -> R) -> (R, Option<u64>) {
        let (mut compile, mut compiled) = (Some(compile), None);
        let mut run = || compiled = compile.take().map(|compile| compile());
        let mut bytes = self.probe.as_ref().and_then(|probe| probe(&mut run));
        if let Some(compile) = compile.take() {
            // The host has not called it.
            (compiled, bytes) = (Some(compile()), None);
        }
        (compiled.expect("it has run"), bytes)
    }

    pub fn tell(&self, compiled: &Compiled) {
        if let Some(hook) = &self.on_compiled {
            guarded("on_compiled", || hook(compiled));
        }
    }
}
