//! What the operating system refuses: memory, address space, mappings, files, threads; and places, by an allocator that has
//! made them ahead.

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use rustix::io::Errno;
use wasmtime::{OutOfMemory, PoolConcurrencyLimitError};

/// The operating system refused something; its `source`, the [`io::Error`], is what it said. Of the same kind as a lack of memory
/// is that a pooling allocator has no place left, which others than the pool may occupy.
#[derive(Debug, Clone)]
pub struct SystemError(Arc<io::Error>);

impl SystemError {
    /// What the system said.
    pub fn io_error(&self) -> &io::Error {
        &self.0
    }
}

/// A pooling allocator has no place left.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct AllocatorFull(String);

impl SystemError {
    /// Whether it was not the system, but an allocator that has made its places ahead.
    pub(crate) fn is_of_allocator(&self) -> bool {
        self.0
            .get_ref()
            .is_some_and(|source| source.is::<AllocatorFull>())
    }
}

impl From<io::Error> for SystemError {
    fn from(error: io::Error) -> Self {
        Self(Arc::new(error))
    }
}

impl fmt::Display for SystemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.is_of_allocator() {
            true => "the engine's allocator has no place left",
            false => "the operating system's answer",
        })
    }
}

impl Error for SystemError {
    /// The error itself, and not the `Arc` that it is shared by: so it can be downcast to.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

/// What the system said, if it is why this failed.
pub(crate) fn refused_by_system(error: &wasmtime::Error) -> Option<io::Error> {
    error.chain().find_map(|cause| {
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            return Some(match error.raw_os_error() {
                Some(code) => io::Error::from_raw_os_error(code),
                None => io::Error::new(error.kind(), error.to_string()),
            });
        }
        if let Some(errno) = cause.downcast_ref::<Errno>() {
            return Some((*errno).into());
        }
        if let Some(full) = cause.downcast_ref::<PoolConcurrencyLimitError>() {
            let full = AllocatorFull(full.to_string());
            return Some(io::Error::new(ErrorKind::OutOfMemory, full));
        }
        let no_heap = cause.is::<OutOfMemory>();
        no_heap.then(|| ErrorKind::OutOfMemory.into())
    })
}

/// Whether it lacks what evicting somebody gives back.
pub(crate) fn is_scarce(error: &io::Error) -> bool {
    let scarce = [
        Errno::MFILE,
        #[cfg(not(windows))]
        Errno::NOMEM,
        #[cfg(not(windows))]
        Errno::NFILE,
        #[cfg(not(windows))]
        Errno::AGAIN,
    ];
    let code = error.raw_os_error();
    scarce
        .iter()
        .any(|errno| code == Some(errno.raw_os_error()))
        || matches!(
            error.kind(),
            ErrorKind::OutOfMemory | ErrorKind::StorageFull
        )
}

/// How much is to be evicted when the system refuses, at each try: nobody knows what it takes, nor whether
/// it can help at all. So twice as much at each try, and not many tries: 63 instances, and as much code.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Relief {
    tries: u8,
}

impl Relief {
    const TRIES: u8 = 6;

    /// Whether anything was evicted, or was to be.
    #[cfg(feature = "warm-up")]
    pub fn is_used(&self) -> bool {
        self.tries > 0
    }
}

impl Iterator for Relief {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let count = (self.tries < Self::TRIES).then_some(1 << self.tries);
        self.tries += u8::from(count.is_some());
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_said_is_found_under_any_context() {
        let mmap = wasmtime::Error::new(Errno::NOMEM)
            .context("mmap")
            .context("memory");
        let memfd = io::Error::from_raw_os_error(Errno::MFILE.raw_os_error());
        for (error, errno) in [
            (mmap, Errno::NOMEM),
            (wasmtime::Error::new(memfd).context("image"), Errno::MFILE),
        ] {
            let said = refused_by_system(&error).unwrap();
            assert_eq!(said.raw_os_error(), Some(errno.raw_os_error()));
            assert!(is_scarce(&said));
        }
        assert!(refused_by_system(&wasmtime::Error::msg("out of memory")).is_none());
        assert!(!is_scarce(&ErrorKind::NotFound.into()));
    }

    #[test]
    fn relief_ends() {
        assert_eq!(Relief::default().collect::<Vec<_>>(), [1, 2, 4, 8, 16, 32]);
        assert_eq!(Relief::default().sum::<usize>(), 63);
    }
}
