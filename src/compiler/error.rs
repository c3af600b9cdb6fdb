//! What can go wrong with processes that compile.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why no process compiles: it could not be started, is not what it should be, or has died of something that is not
/// known to be its module's doing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompilerError {
    /// The program cannot be started.
    #[error("the compiler's program {program:?} cannot be started")]
    Start {
        /// Which.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Processes are to be had on Linux alone.
    #[error("modules can be compiled in processes on Linux only")]
    Unsupported,
    /// The program has ended before it was ready, or does not speak as one of this version does.
    #[error(
        "the compiler's program {program:?} is not one, or is of another version{}",
        Said(said)
    )]
    NoCompiler {
        /// Which.
        program: PathBuf,
        /// What it said on its standard error, at its end.
        said: String,
    },
    /// It was not ready in time.
    #[error("the compiler's program {program:?} was not ready after {waited:?}")]
    NotReady {
        /// Which.
        program: PathBuf,
        /// How long that was waited for.
        waited: Duration,
    },
    /// The pool's engine is the host's own, and the program knows of none.
    #[error(
        "the pool's engine is the host's own, which the compiler's program {program:?} does not have: \
         it takes CompilerProcess::this_program, and serve_compiler_with"
    )]
    NoEngine {
        /// Which.
        program: PathBuf,
    },
    /// What it compiles could not run in the pool's engine: it is built of another wasmtime, or configured otherwise.
    #[error("the compiler's program {program:?} compiles for another engine than the pool's")]
    OtherEngine {
        /// Which.
        program: PathBuf,
    },
    /// Its process died, and nobody of the pool's has killed it.
    #[error("the compiler's process died{}{}", How(*status, *signal), Said(said))]
    Died {
        /// The status that it has exited with, if it has.
        status: Option<i32>,
        /// The signal that has ended it, if one has.
        signal: Option<i32>,
        /// What it said on its standard error, at its end.
        said: String,
    },
    /// What it said, or made, is not what a compiler says, or makes.
    #[error("the compiler's process does not do what it should: {what}")]
    Garbled {
        /// What is wrong.
        what: String,
    },
    /// The system refused what the process, or its job, takes.
    #[error("the system refused what a compiler's process takes")]
    System(#[source] io::Error),
}

impl CompilerError {
    /// Whether it is what the module that was compiled has done, as far as one can see: not if no process could be had, nor
    /// if it was ended by a signal that only others send (an operator, or the kernel when the machine has no
    /// memory left).
    pub(crate) fn is_of_the_module(&self) -> bool {
        // SIGHUP, SIGINT, SIGQUIT, SIGKILL, SIGTERM.
        let is_from_outside = |signal| matches!(signal, 1 | 2 | 3 | 9 | 15);
        match self {
            Self::Died { signal, .. } => !signal.is_some_and(is_from_outside),
            Self::Garbled { .. } => true,
            _ => false,
        }
    }
}

/// How a process has ended, in parentheses, if that is known.
struct How(Option<i32>, Option<i32>);

impl std::fmt::Display for How {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.0, self.1) {
            (Some(status), _) => write!(f, " (exit status {status})"),
            (None, Some(signal)) => write!(f, " (signal {signal})"),
            (None, None) => Ok(()),
        }
    }
}

/// The end of a sentence, if there is anything to quote.
struct Said<'a>(&'a str);

impl std::fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            "" => Ok(()),
            said => write!(f, ": {said}"),
        }
    }
}
