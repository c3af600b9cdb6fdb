//! Which file it is, and whether this process has verified it already.

use std::collections::BTreeSet;
use std::fs::File;
use std::time::{Duration, SystemTime};

use super::seal::Seal;
use crate::sync::StaticMutex;

/// A file in a state: it has another when anybody has written to it since. (`st_ctime` cannot be set; but it ticks in
/// steps of some milliseconds, so a file that was written to a moment ago is not remembered.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Longer than any file system's steps of time, a network's included.
const SETTLED: Duration = Duration::from_secs(2);

/// Files that are remembered; when there are more, one is hashed again.
const MOST: usize = 4096;

/// All that this process has verified, by file and seal.
static VERIFIED: StaticMutex<BTreeSet<(Identity, [u8; 32])>> = StaticMutex::new(BTreeSet::new());

impl Identity {
    #[cfg(unix)]
    pub fn of(file: &File) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        let file = file.metadata().ok()?;
        Some(Self {
            device: file.dev(),
            inode: file.ino(),
            bytes: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        })
    }

    /// Not known: it is hashed each time.
    #[cfg(not(unix))]
    pub fn of(_: &File) -> Option<Self> {
        None
    }

    pub fn is_verified(&self, seal: &Seal) -> bool {
        VERIFIED.lock().contains(&(*self, seal.id()))
    }

    /// It was, whole. `sealed`: nobody can write to it any more.
    pub fn note_verified(self, seal: &Seal, sealed: bool) {
        if !sealed && !self.is_settled() {
            return;
        }
        let mut verified = VERIFIED.lock();
        if verified.len() >= MOST {
            verified.pop_first();
        }
        verified.insert((self, seal.id()));
    }

    /// Whether a write would by now have another time.
    fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let changed = Duration::from_secs(self.changed.0.max(0).unsigned_abs());
        now.is_ok_and(|now| now > changed.saturating_add(SETTLED))
    }
}
