//! Saving: whole or not at all, whoever else saves, removes or sweeps at the same time, and wherever it ends.
//!
//! | a writer that ends after | leaves |
//! |---|---|
//! | creating its file, before the lock | an unfinished file without a lock: swept |
//! | the lock, any write, `fsync` | the same: the lock ends with the process |
//! | `rename` | the whole artifact: it was synchronised before |
//! | `rename`, and then power fails | the artifact before, none, or the whole new one: a name never stands for less than the whole file |
//!
//! | what a sweeper does meanwhile | what comes of it |
//! |---|---|
//! | locks the file after it is created, before its writer locks it | the writer does not get the lock, or sees that the file has no name any more: it begins anew, with another name |
//! | opens the file, and the writer locks it | the sweeper does not get the lock, and leaves it |
//! | opens the file, and the writer is done before the sweeper locks it | the sweeper has a lock of the artifact, which nobody asks for, and unlinks the unfinished name, which is gone; names are not used twice |
//! | removes the directory, which was empty | the writer begins anew, and makes it |

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::SystemTime;

use super::super::key::ArtifactKey;
use super::super::store::EncodedArtifact;
use super::super::verify::VerifiedArtifact;
use super::files::{Files, Lock};
use super::names;

/// What is written.
pub(super) enum Artifact<'a> {
    Encoded(&'a EncodedArtifact<'a>),
    /// As another store had it, and just now used.
    Verified(&'a VerifiedArtifact),
}

impl Artifact<'_> {
    fn each_part(&self, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        match self {
            Self::Encoded(artifact) => artifact.parts().into_iter().try_for_each(each),
            Self::Verified(artifact) => artifact.each_chunk(artifact.size()?, &mut each),
        }
    }

    fn last_used(&self) -> Option<SystemTime> {
        match self {
            Self::Encoded(artifact) => artifact.last_used(),
            Self::Verified(_) => None,
        }
    }
}

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    Saved,
    /// Somebody took it for a leftover.
    Swept,
}

/// Writes it beside its place, and puts it there when it is whole.
pub(super) fn attempt(
    files: &Files,
    dir: &File,
    key: &ArtifactKey,
    artifact: &Artifact<'_>,
) -> io::Result<Attempt> {
    let unfinished = names::of_unfinished(key);
    let file = files.create(dir, &unfinished)?;
    let written = write(files, &file, artifact).and_then(|attempt| {
        if attempt == Attempt::Saved {
            files.rename(dir, &unfinished, &names::of_artifact(key))?;
        }
        Ok(attempt)
    });
    if !matches!(written, Ok(Attempt::Saved)) {
        // Should it stay, it is swept.
        let _ = files.unlink(dir, &unfinished);
        return written;
    }
    files.sync_dir(dir)?;
    written
}

/// All of it, so that it is on the disk. The lock lasts until the file is closed.
fn write(files: &Files, file: &File, artifact: &Artifact<'_>) -> io::Result<Attempt> {
    let lock = files.lock(file)?;
    if lock == Lock::Another || file.metadata()?.nlink() == 0 {
        return Ok(Attempt::Swept);
    }
    artifact.each_part(|part| files.write(file, part))?;
    files.complete(file)?;
    // What is written in another form is not newer by that.
    if let Some(time) = artifact.last_used() {
        files.set_times(file, time)?;
    }
    files.sync(file)?;
    Ok(Attempt::Saved)
}
