//! What writers that are gone have left behind.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::time::{Duration, SystemTime};

use super::files::{Files, Lock, Reads};
use super::safe_dir::Trust;

/// Where there are no locks, a file that nobody has written to for so long is nobody's.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// Unlinks the unfinished file, if nobody is writing it: a writer holds its lock. What may happen meanwhile stands in
/// `write.rs`.
pub(super) fn sweep(files: &Files, dir: &File, name: &str) -> io::Result<()> {
    let file = match files.open(dir, name, Reads::Peek) {
        // Gone meanwhile; or no file that a writer makes.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::PermissionDenied
            ) =>
        {
            return Ok(());
        }
        Err(error) => {
            let is_file = files.kind(dir, name).is_ok_and(|kind| kind.is_file());
            return if is_file { Err(error) } else { Ok(()) };
        }
        Ok(file) => file,
    };
    let status = file.metadata()?;
    if !status.is_file() || Trust::default().objection(&status).is_some() {
        return Ok(());
    }
    let is_left = match files.lock(&file)? {
        Lock::Mine => true,
        Lock::Another => false,
        Lock::Unknown => is_old(&status),
    };
    if is_left {
        unlink(files, dir, name)?;
    }
    Ok(())
}

/// That it is gone already is no error.
pub(super) fn unlink(files: &Files, dir: &File, name: &str) -> io::Result<()> {
    match files.unlink(dir, name) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn is_old(status: &Metadata) -> bool {
    let age = |time| SystemTime::now().duration_since(time).ok();
    let age = status.modified().ok().and_then(age);
    age.is_some_and(|age| age > ABANDONED)
}
