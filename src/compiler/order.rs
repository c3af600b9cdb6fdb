//! What is asked of a process that compiles, and what comes of it.

use std::time::Duration;

use super::error::CompilerError;
use crate::artifacts::{ArtifactKey, VerifiedArtifact};

/// What keeps the processes from doing anything else than compiling, beside their limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sandbox {
    pub landlock: bool,
    pub seccomp: bool,
}

/// What one compilation may take, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cap {
    /// Of heap, beside what a process without a job has.
    pub heap: u64,
    /// Of what it makes.
    pub artifact: u64,
}

/// A module that is to be compiled.
pub(crate) struct Order<'a> {
    pub wasm: &'a [u8],
    pub key: ArtifactKey,
    pub cap: Cap,
    /// Asked some fifty times a second, on the thread that waits: whether to stop, and why.
    pub stop: &'a dyn Fn() -> Option<Stop>,
    /// Told the number of the process.
    pub started: &'a dyn Fn(u32),
}

/// Why a compilation is ended that could go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Nobody waits for it.
    Unwanted,
    /// Nobody has a function of it any more.
    Removed,
    /// The pool is closed.
    Closed,
}

/// What was made.
pub(crate) struct Made {
    pub artifact: VerifiedArtifact,
    /// Bytes of code.
    pub code_bytes: u64,
    /// Bytes that it takes when it is mapped.
    pub mapped_bytes: u64,
    /// Bytes of heap that it took at its peak.
    pub heap: u64,
    /// Bytes of heap that will be enough, as far as one can tell.
    pub enough: u64,
    /// Bytes that its process had at its peak, with its files.
    pub peak: u64,
}

/// Why nothing was made.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The module does not compile: texts from the outermost to the cause.
    Module(Vec<String>),
    /// Its heap was not enough.
    Heap,
    /// What it makes is so long, which is more than it may be; 0 if it is not known how long.
    Artifact(u64),
    Time(Duration),
    Stopped(Stop),
    Process(CompilerError),
}

impl From<CompilerError> for Failure {
    fn from(error: CompilerError) -> Self {
        Self::Process(error)
    }
}
