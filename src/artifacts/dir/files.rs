//! The few operations on files that a directory store consists of. Each passes a gate first, so that a test can let
//! the n-th one fail, or let another process act just before it.

use std::ffi::CStr;
use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::SystemTime;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use rustix::io::{Errno, retry_on_intr};

/// What is about to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    MakeRoot,
    OpenRoot,
    MakeDir,
    OpenDir,
    Names,
    Open,
    Kind,
    Create,
    Lock,
    Write,
    Complete,
    Sync,
    Rename,
    SyncDir,
    Touch,
    Unlink,
    RemoveDir,
}

/// Asked before each operation; if it fails, the operation has failed, and is not done.
pub(super) trait Gate: Send + Sync + 'static {
    fn pass(&self, op: Op) -> io::Result<()>;
}

/// Lets everything pass.
pub(super) struct Always;

impl Gate for Always {
    fn pass(&self, _: Op) -> io::Result<()> {
        Ok(())
    }
}

/// Whether a lock is had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lock {
    Mine,
    Another,
    /// The file system has no locks.
    Unknown,
}

/// What a file is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reads {
    /// It is used: its time of access says so, as far as the file system keeps that.
    Use,
    /// It is looked at.
    Peek,
}

/// The system's files, behind a gate.
pub(super) struct Files(pub Box<dyn Gate>);

const READ: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

fn open_at(dir: &File, name: &str, flags: OFlags, mode: Mode) -> io::Result<File> {
    let file = retry_on_intr(|| rustix::fs::openat(dir, name, flags, mode))?;
    Ok(file.into())
}

impl Files {
    /// With all directories above it, which nobody but their owner can use either.
    pub fn make_root(&self, path: &Path) -> io::Result<()> {
        self.0.pass(Op::MakeRoot)?;
        DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    pub fn open_root(&self, path: &Path) -> io::Result<File> {
        self.0.pass(Op::OpenRoot)?;
        let flags = READ | OFlags::DIRECTORY;
        let dir = retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()))?;
        Ok(dir.into())
    }

    pub fn make_dir(&self, dir: &File, name: &str) -> io::Result<()> {
        self.0.pass(Op::MakeDir)?;
        Ok(rustix::fs::mkdirat(dir, name, Mode::RWXU)?)
    }

    pub fn open_dir(&self, dir: &File, name: &str) -> io::Result<File> {
        self.0.pass(Op::OpenDir)?;
        open_at(dir, name, READ | OFlags::DIRECTORY, Mode::empty())
    }

    /// All names in it that are UTF-8: others are not the store's.
    pub fn names(&self, dir: &File) -> io::Result<Vec<String>> {
        self.0.pass(Op::Names)?;
        let utf8 = |name: &CStr| name.to_str().ok().map(str::to_owned);
        let mut names = Vec::new();
        // `read_from` opens the directory again: positions of two readers are two.
        for entry in rustix::fs::Dir::read_from(dir)? {
            names.extend(utf8(entry?.file_name()));
        }
        names.retain(|name| name != "." && name != "..");
        Ok(names)
    }

    /// For reading. Waits for nobody: a FIFO opens at once, or not at all.
    pub fn open(&self, dir: &File, name: &str, reads: Reads) -> io::Result<File> {
        self.0.pass(Op::Open)?;
        let flags = READ | OFlags::NONBLOCK | OFlags::NOCTTY;
        #[cfg(target_os = "linux")]
        if reads == Reads::Peek {
            let peeking = open_at(dir, name, flags | OFlags::NOATIME, Mode::empty());
            match peeking {
                // Of somebody else's file, which this one may read.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                peeking => return peeking,
            }
        }
        #[cfg(not(target_os = "linux"))]
        let _ = reads;
        open_at(dir, name, flags, Mode::empty())
    }

    /// What stands there, without opening it.
    pub fn kind(&self, dir: &File, name: &str) -> io::Result<FileType> {
        self.0.pass(Op::Kind)?;
        let status = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(FileType::from_raw_mode(status.st_mode))
    }

    /// A new file, for writing.
    pub fn create(&self, dir: &File, name: &str) -> io::Result<File> {
        self.0.pass(Op::Create)?;
        let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let flags = new | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        open_at(dir, name, flags, Mode::RUSR | Mode::WUSR)
    }

    /// For this open file alone, until it is closed; waits for nobody.
    pub fn lock(&self, file: &File) -> io::Result<Lock> {
        self.0.pass(Op::Lock)?;
        let error = match file.try_lock() {
            Ok(()) => return Ok(Lock::Mine),
            Err(TryLockError::WouldBlock) => return Ok(Lock::Another),
            Err(TryLockError::Error(error)) => error,
        };
        let absent = [
            Errno::NOLCK,
            Errno::NOSYS,
            Errno::NOTSUP,
            Errno::OPNOTSUPP,
            Errno::INVAL,
            Errno::BADF,
        ];
        match Errno::from_io_error(&error) {
            Some(errno) if absent.contains(&errno) => Ok(Lock::Unknown),
            _ if error.kind() == io::ErrorKind::Unsupported => Ok(Lock::Unknown),
            _ => Err(error),
        }
    }

    pub fn write(&self, mut file: &File, bytes: &[u8]) -> io::Result<()> {
        self.0.pass(Op::Write)?;
        file.write_all(bytes)
    }

    /// Nobody writes to it any more, its owner included.
    pub fn complete(&self, file: &File) -> io::Result<()> {
        self.0.pass(Op::Complete)?;
        Ok(rustix::fs::fchmod(file, Mode::RUSR)?)
    }

    pub fn sync(&self, file: &File) -> io::Result<()> {
        self.0.pass(Op::Sync)?;
        file.sync_all()
    }

    pub fn rename(&self, dir: &File, from: &str, to: &str) -> io::Result<()> {
        self.0.pass(Op::Rename)?;
        Ok(rustix::fs::renameat(dir, from, dir, to)?)
    }

    /// Names in it outlive a failure of power; where directories cannot be synchronised, as far as they do anyway.
    pub fn sync_dir(&self, dir: &File) -> io::Result<()> {
        self.0.pass(Op::SyncDir)?;
        match dir.sync_all() {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
            result => result,
        }
    }

    /// Sets the time of the last access to now, by the file system's clock.
    pub fn touch(&self, file: &File) -> io::Result<()> {
        self.0.pass(Op::Touch)?;
        let time = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
        let times = Timestamps {
            last_access: time(UTIME_NOW),
            last_modification: time(UTIME_OMIT),
        };
        Ok(rustix::fs::futimens(file, &times)?)
    }

    /// Sets both its times, of access and of modification, to this.
    pub fn set_times(&self, file: &File, time: SystemTime) -> io::Result<()> {
        self.0.pass(Op::Touch)?;
        // Before 1970 is as good as 1970.
        let since = time
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let time = Timespec {
            tv_sec: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: since.subsec_nanos().into(),
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        Ok(rustix::fs::futimens(file, &times)?)
    }

    pub fn unlink(&self, dir: &File, name: &str) -> io::Result<()> {
        self.0.pass(Op::Unlink)?;
        Ok(rustix::fs::unlinkat(dir, name, AtFlags::empty())?)
    }

    /// Only an empty one goes.
    pub fn remove_dir(&self, dir: &File, name: &str) -> io::Result<()> {
        self.0.pass(Op::RemoveDir)?;
        Ok(rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?)
    }
}
