//! What wasmtime cannot check, and trusts its host with: that machine code is its own, and that
//! stacks are stacks. And what only the system knows: where a thread's own stack lies. With
//! `pool/hot/owned_cell.rs`, the only file with `unsafe`.
#![allow(unsafe_code)]

use std::ops::Range;
use std::sync::Arc;

use corosensei::stack::{DefaultStack, Stack};
use wasmtime::{Engine, Module, StackCreator, StackMemory};

use super::engine::Runtime;
use super::stack::StackBounds;
use super::stack_quota::StackQuota;
use super::system::{Relief, is_scarce};
use crate::artifacts::VerifiedArtifact;

/// Machine code that is not mapped yet, as the compiler left it.
pub(super) enum MachineCode {
    /// In heap memory.
    Compiled(Vec<u8>),
    /// Of an artifact; so many bytes.
    Stored(VerifiedArtifact, usize),
}

impl MachineCode {
    /// Compiles in an engine that is thrown away with all that the compiler keeps.
    pub fn compile(runtime: &Runtime, wasm: &[u8]) -> wasmtime::Result<Self> {
        let code = runtime.throwaway()?.precompile_module(wasm)?;
        Ok(Self::Compiled(code))
    }

    /// Bytes that it takes when it is mapped.
    pub fn len(&self) -> usize {
        match self {
            Self::Compiled(code) => code.len(),
            Self::Stored(_, bytes) => *bytes,
        }
    }

    /// Maps it. `engine` must be the one of the runtime that it was compiled for.
    pub fn load(&self, engine: &Engine) -> wasmtime::Result<Module> {
        match self {
            // SAFETY: `deserialize` demands bytes that `precompile_module` of a compatible engine
            // produced. These are made by `compile` alone, from an engine with this one's configuration
            // (wasmtime itself refuses another's), and have never left this process's heap or been
            // written to.
            Self::Compiled(code) => unsafe { Module::deserialize(engine, code) },
            Self::Stored(verified, _) => map_stored(engine, verified),
        }
    }
}

/// Maps an artifact's code.
#[cfg(target_os = "linux")]
fn map_stored(engine: &Engine, verified: &VerifiedArtifact) -> wasmtime::Result<Module> {
    let file = verified.file().file().try_clone()?;
    // SAFETY: `deserialize_open_file` demands a file that `precompile_module` of a compatible engine produced, and
    // that does not change while it is mapped. `VerifiedArtifact` is made by `artifacts/verify.rs` alone, of bytes whose
    // digest is that of an artifact which this crate has saved under this engine's key (a forgery needs the host's
    // secret, or, where there is none, write access to a store that the host trusts); behind the code stand only
    // zeros and the footer, of which the code's own headers know nothing. The file has all seals: the kernel
    // lets nobody write to it, cut it short or take a seal off.
    unsafe { Module::deserialize_open_file(engine, file) }
}

/// The same, where files cannot be sealed: of bytes in heap memory.
#[cfg(not(target_os = "linux"))]
fn map_stored(engine: &Engine, verified: &VerifiedArtifact) -> wasmtime::Result<Module> {
    // SAFETY: as above; the bytes are never written to.
    unsafe { Module::deserialize(engine, &**verified.file().bytes()) }
}

/// Makes the fiber stacks of the pool's own engine, each charged to the instance that it is for.
pub(super) struct ChargedStacks;

// SAFETY: the trait demands stacks that are page aligned, zero filled, and have a guard page at their
// lower end. `DefaultStack` maps fresh memory, the lowest page of it without access.
unsafe impl StackCreator for ChargedStacks {
    fn new_stack(&self, size: usize, _zeroed: bool) -> wasmtime::Result<Box<dyn StackMemory>> {
        let stack_quota = StackQuota::innermost();
        if let Some(stack_quota) = &stack_quota {
            stack_quota.spend()?;
        }
        // From here on, dropping it gives back what was spent.
        let mut stack = ChargedStack {
            stack: None,
            size,
            stack_quota,
        };
        stack.stack = Some(make_stack(size, stack.stack_quota.as_deref())?);
        if let Some(stack_quota) = &stack.stack_quota {
            stack_quota.made(StackBounds::new(stack.range()));
        }
        Ok(Box::new(stack))
    }
}

/// If the system has no room for it, others that are idle make some.
fn make_stack(size: usize, stack_quota: Option<&StackQuota>) -> wasmtime::Result<DefaultStack> {
    let mut relief = Relief::default();
    loop {
        let refused = match DefaultStack::new(size) {
            Ok(stack) => return Ok(stack),
            Err(refused) => refused,
        };
        let count = relief.next().filter(|_| is_scarce(&refused));
        if !stack_quota
            .zip(count)
            .is_some_and(|(stack_quota, count)| stack_quota.relieve(count))
        {
            return Err(wasmtime::Error::new(refused).context("the system refused a fiber stack"));
        }
    }
}

struct ChargedStack {
    /// `None` only while it is made and dropped.
    stack: Option<DefaultStack>,
    /// Bytes without the guard: whole pages.
    size: usize,
    /// `None` for a store that the host has made itself.
    stack_quota: Option<Arc<StackQuota>>,
}

impl ChargedStack {
    fn top_address(&self) -> usize {
        self.stack.as_ref().map_or(0, |stack| stack.base().get())
    }

    fn lowest_address(&self) -> usize {
        self.stack.as_ref().map_or(0, |stack| stack.limit().get())
    }
}

// SAFETY: the trait demands page aligned memory, whole pages, with a guard below it, that nobody else
// uses. `size` is what wasmtime asked for, whole pages; all of it lies below the top of a mapping
// that this value owns, and what is left below that is the guard.
unsafe impl StackMemory for ChargedStack {
    fn top(&self) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.top_address())
    }

    fn range(&self) -> Range<usize> {
        let top = self.top_address();
        top - self.size..top
    }

    fn guard_range(&self) -> Range<*mut u8> {
        let guard = self.lowest_address()..self.range().start;
        std::ptr::with_exposed_provenance_mut(guard.start)
            ..std::ptr::with_exposed_provenance_mut(guard.end)
    }
}

impl Drop for ChargedStack {
    fn drop(&mut self) {
        if let (Some(stack_quota), Some(_)) = (&self.stack_quota, &self.stack) {
            stack_quota.ends(StackBounds::new(self.range()));
        }
        // The memory first, its charge after.
        drop(self.stack.take());
        if let Some(stack_quota) = &self.stack_quota {
            stack_quota.refund_stack();
        }
    }
}

/// Where the stack lies that the system has given this thread; `None` where it does not say.
#[cfg(target_os = "linux")]
pub(super) fn own_stack() -> Option<Range<usize>> {
    use std::mem::MaybeUninit;
    use std::ptr::null_mut;

    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    let (mut low, mut size) = (null_mut(), 0);
    // SAFETY: the first call fills in the attributes of the thread that makes it, or fails. They are
    // read and destroyed only if it has, once.
    let known = unsafe {
        if libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) != 0 {
            return None;
        }
        let known = libc::pthread_attr_getstack(attributes.as_ptr(), &mut low, &mut size) == 0;
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        known
    };
    known.then(|| low.addr()..low.addr().saturating_add(size))
}

/// `stacker` is asked before each call.
#[cfg(not(target_os = "linux"))]
pub(super) fn own_stack() -> Option<Range<usize>> {
    None
}
