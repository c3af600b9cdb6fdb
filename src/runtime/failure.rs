//! Errors that outlive a call. A wasmtime error with a backtrace keeps the module's code mapped,
//! so what is kept of such an error is its text.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use wasmtime::{Trap, WasmBacktrace};

use super::cancel_flag::Cancelled;

/// An error that several callers may hold.
pub type SharedError = Arc<dyn Error + Send + Sync + 'static>;

/// A guest's own fault: what it did, in words, with its backtrace when the engine collects them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct GuestTrap {
    /// Which rule the guest broke.
    #[cfg_attr(feature = "serde", serde(serialize_with = "in_words"))]
    pub code: Trap,
    /// The backtrace as text; empty unless the engine collects them.
    pub backtrace: String,
}

/// Wasmtime's traps have no form of their own for `serde`.
#[cfg(feature = "serde")]
fn in_words<S: serde::Serializer>(code: &Trap, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(code)
}

impl fmt::Display for GuestTrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if !self.backtrace.is_empty() {
            write!(f, "\n{}", self.backtrace)?;
        }
        Ok(())
    }
}

impl Error for GuestTrap {}

/// How a guest call failed.
#[derive(Debug)]
pub(crate) enum CallFailure {
    Fuel,
    Deadline,
    Trap(GuestTrap),
    /// Someone asked for it.
    Cancelled,
    /// A host function returned this, or wasmtime did.
    Host(SharedError),
}

impl CallFailure {
    /// The name that metrics use.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Fuel => "fuel",
            Self::Deadline => "deadline",
            Self::Trap(_) => "trap",
            Self::Cancelled => "cancelled",
            Self::Host(_) => "host",
        }
    }
}

pub(crate) fn classify(error: wasmtime::Error) -> CallFailure {
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => CallFailure::Fuel,
        Some(Trap::Interrupt) => CallFailure::Deadline,
        Some(trap) => CallFailure::Trap(GuestTrap {
            code: *trap,
            backtrace: error
                .downcast_ref::<WasmBacktrace>()
                .map(ToString::to_string)
                .unwrap_or_default(),
        }),
        None if error.is::<Cancelled>() => CallFailure::Cancelled,
        None => CallFailure::Host(share(error)),
    }
}

/// Keeps the error and its sources; or, if it holds a backtrace, their text.
pub(crate) fn share(error: wasmtime::Error) -> SharedError {
    if error.downcast_ref::<WasmBacktrace>().is_some() {
        return Arc::new(Text(format!("{error:?}")));
    }
    Arc::from(error.into_boxed_dyn_error())
}

/// An error and all that caused it, in one line, each said once (errors of others may repeat their causes'
/// words). A message of this crate's errors does not say what its sources say: print them by this, or by whatever
/// prints chains.
///
/// ```
/// # use wasm_pool::{CallError, Definition, Function, Pool, Report};
/// # let pool = Pool::builder().build()?;
/// # let wasm = wat::parse_str(r#"(module (func (export "f") unreachable))"#)?;
/// let f: Function<(), ()> = pool.define(Definition::new("f").wasm(wasm))?;
/// let error = f.call("tenant", ()).unwrap_err();
/// assert_eq!(error.to_string(), "f() in group tenant trapped");
/// let text = Report(&error).to_string();
/// assert_eq!(text, "f() in group tenant trapped: wasm trap: wasm `unreachable` instruction executed");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Report<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.to_string();
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let words = error.to_string();
            if !text.contains(&words) {
                text.push_str(": ");
                text.push_str(&words);
            }
            cause = error.source();
        }
        f.write_str(&text)
    }
}

#[derive(Debug)]
struct Text(String);

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Text {}
