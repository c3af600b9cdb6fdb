//! Compiling in processes of their own: what is asked of them, what they may take, how they end.
//!
//! [`Compilers`] is the pool's side: it starts processes, and has one compile a module ([`Order`]) within a [`Cap`] that
//! the kernel enforces. `serve` is the other side, which a program becomes that is started for it. `wire` is what they
//! say to each other.

#[cfg(not(target_os = "linux"))]
mod elsewhere;
mod error;
#[cfg(target_os = "linux")]
mod fleet;
#[cfg(target_os = "linux")]
mod job;
mod order;
#[cfg(target_os = "linux")]
mod process;
mod process_memory;
#[cfg(all(target_os = "linux", feature = "compiler"))]
mod sandbox;
#[cfg(all(target_os = "linux", feature = "compiler"))]
mod serve;
mod settings;
#[cfg(target_os = "linux")]
mod socket;
#[cfg(target_os = "linux")]
mod starter;
#[cfg(target_os = "linux")]
#[cfg_attr(
    not(feature = "compiler"),
    allow(dead_code, reason = "both sides are here")
)]
mod wire;

#[cfg(not(target_os = "linux"))]
pub(crate) use elsewhere::Compilers;
#[cfg(target_os = "linux")]
pub(crate) use fleet::Compilers;
pub(crate) use order::{Cap, Failure, Order, Sandbox, Stop};
pub(crate) use process_memory::memory_of;

pub use error::CompilerError;
#[cfg(all(target_os = "linux", feature = "compiler"))]
pub use serve::{serve_compiler, serve_compiler_with};
pub use settings::{CompileIn, CompilerProcess};
pub(crate) use settings::{LONGEST_JOB, MOST_NICE, MOST_WARM};
