//! Types that are known only at run time.

/// The types of a handle whose function's types are known only at run time: called with
/// wasmtime's `Val`s.
#[derive(Debug, Clone, Copy)]
pub struct Dynamic;
