//! Which sealed file it is, and whether this process has verified it already.
//!
//! Sealed files alone: of any other, no time or length proves that nobody has written to it. (A store through a mapping
//! whose page is dirty already changes neither `st_mtime` nor `st_ctime`.)

use std::collections::BTreeSet;

use super::seal::Seal;
use super::sealed::SealedFile;
use crate::sync::StaticMutex;

/// A file that was made once, and never changes. Its times tell it from one that has had its number before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Files that are remembered; when there are more, one is hashed again.
const MOST: usize = 4096;

/// All that this process has verified, by file and seal.
static VERIFIED: StaticMutex<BTreeSet<(Identity, [u8; 32])>> = StaticMutex::new(BTreeSet::new());

impl Identity {
    #[cfg(target_os = "linux")]
    pub fn of(file: &SealedFile) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        let file = file.file().metadata().ok()?;
        Some(Self {
            device: file.dev(),
            inode: file.ino(),
            bytes: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        })
    }

    /// Not known: it is hashed each time.
    #[cfg(not(target_os = "linux"))]
    pub fn of(_: &SealedFile) -> Option<Self> {
        None
    }

    pub fn is_verified(&self, seal: &Seal) -> bool {
        VERIFIED.lock().contains(&(*self, seal.id()))
    }

    /// It was, whole.
    pub fn note_verified(self, seal: &Seal) {
        let mut verified = VERIFIED.lock();
        if verified.len() >= MOST {
            verified.pop_first();
        }
        verified.insert((self, seal.id()));
    }
}
