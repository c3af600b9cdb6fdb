//! What may be trusted: a directory or a file that only its owner can change, and the owner is this process's user.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use rustix::fs::FileType;

use super::super::store::StoreError;

/// Whose files are trusted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Trust {
    /// Root's too: it could do anything to this process anyway.
    pub root: bool,
}

/// Write permission of the group, and of all others. An access list's entries show in the group's.
const OTHERS_WRITE: u32 = 0o022;

impl Trust {
    /// Why it is not trusted.
    pub fn objection(self, status: &Metadata) -> Option<String> {
        let user = rustix::process::geteuid().as_raw();
        self.objection_of(user, status.uid(), status.mode())
    }

    fn objection_of(self, user: u32, owner: u32, mode: u32) -> Option<String> {
        if owner != user && !(self.root && owner == 0) {
            return Some(format!(
                "user {owner} owns it, and this process is user {user}'s"
            ));
        }
        let mode = mode & 0o7777;
        (mode & OTHERS_WRITE != 0).then(|| {
            format!("others than its owner can write to it (mode {mode:o}); `chmod go-w` helps")
        })
    }
}

/// What stands there instead of an artifact. What only an accident, or a hand, has put there, and nothing is lost
/// with, is a corrupt artifact, and goes; a directory stays.
pub(super) fn not_a_file(kind: FileType) -> StoreError {
    let (what, is_refused) = match kind {
        FileType::Directory => ("a directory stands", true),
        FileType::Symlink => ("a symbolic link stands", false),
        FileType::Fifo => ("a FIFO stands", false),
        FileType::Socket => ("a socket stands", false),
        _ => ("something that is no file stands", false),
    };
    let reason = format!("{what} where an artifact would");
    match is_refused {
        true => StoreError::Refused { reason },
        false => StoreError::Corrupt { reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_may_write_and_the_owner_is_this_user() {
        let strict = Trust::default();
        let lenient = Trust { root: true };
        for mode in [0o700, 0o500, 0o755, 0o40700, 0o2755] {
            assert_eq!(strict.objection_of(7, 7, mode), None, "{mode:o}");
        }
        for mode in [0o720, 0o702, 0o777, 0o1777, 0o770] {
            assert!(strict.objection_of(7, 7, mode).is_some(), "{mode:o}");
            assert!(lenient.objection_of(7, 0, mode).is_some(), "{mode:o}");
        }
        assert!(strict.objection_of(7, 8, 0o700).is_some());
        assert!(strict.objection_of(0, 8, 0o700).is_some());
        assert!(strict.objection_of(7, 0, 0o700).is_some());
        assert!(lenient.objection_of(7, 8, 0o700).is_some());
        assert_eq!(lenient.objection_of(7, 0, 0o755), None);
    }
}
