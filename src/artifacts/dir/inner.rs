//! What all operations of the store begin with: its directories, opened and looked at each time.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use super::super::key::{ArtifactKey, EngineKey};
use super::super::store::{ArtifactInfo, StoreError};
use super::files::{Files, Reads};
use super::names::{self, Own};
use super::safe_dir::{self, Trust};
use super::sweep;
use crate::sync::unchecked::Mutex;

/// A use is noted once in this time.
pub(super) const TOUCH_EVERY: Duration = Duration::from_secs(60 * 60);

/// Artifacts whose last note is remembered; beyond that, the file's own time is looked at.
const MOST_TOUCHED: usize = 4096;

/// A use that is said to lie further in the future was never noted by a clock that goes right.
const SKEW: Duration = Duration::from_secs(24 * 60 * 60);

/// A store.
pub(super) struct Inner {
    pub root: PathBuf,
    /// It was made here, so it may be made again.
    pub is_made_here: bool,
    pub is_read_only: bool,
    pub trust: Trust,
    pub files: Files,
    pub touched: Mutex<HashMap<ArtifactKey, Instant>>,
}

impl Inner {
    pub fn failure(&self, what: &str, error: io::Error) -> StoreError {
        StoreError::unreadable(
            format!("{what} the directory {}", self.root.display()),
            error,
        )
    }

    pub fn refusal(&self, what: &str, reason: &str) -> StoreError {
        let root = self.root.display();
        StoreError::Refused {
            reason: format!("{what} {root}: {reason}"),
        }
    }

    pub fn must_be_writable(&self) -> Result<(), StoreError> {
        match self.is_read_only {
            true => Err(self.refusal("the directory", "it was opened to be read only")),
            false => Ok(()),
        }
    }

    pub fn make_root(&self) -> Result<(), StoreError> {
        let made = self.files.make_root(&self.root);
        made.map_err(|error| self.failure("cannot make", error))
    }

    /// The directory, if nobody else can change it.
    pub fn open_root(&self) -> Result<File, StoreError> {
        let dir = match self.files.open_root(&self.root) {
            Ok(dir) => dir,
            Err(error) => {
                // Which error a symbolic link gives, systems do not agree on.
                let kind = std::fs::symlink_metadata(&self.root).map(|status| status.file_type());
                return Err(match kind {
                    Ok(kind) if kind.is_symlink() => {
                        self.refusal("the directory", "it is a symbolic link")
                    }
                    Ok(kind) if !kind.is_dir() => {
                        self.refusal("the directory", "it is not a directory")
                    }
                    _ => self.failure("cannot open", error),
                });
            }
        };
        self.trusted(dir, "the directory")
    }

    pub fn trusted(&self, dir: File, what: &str) -> Result<File, StoreError> {
        let status = dir.metadata();
        let status = status.map_err(|error| self.failure("cannot examine", error))?;
        match self.trust.objection(&status) {
            Some(reason) => Err(self.refusal(what, &reason)),
            None => Ok(dir),
        }
    }

    /// `None`: it is gone, and the next save makes it again.
    pub fn root_if_there(&self) -> Result<Option<File>, StoreError> {
        match self.open_root() {
            Err(StoreError::Unreadable { source, .. })
                if self.is_made_here && source.kind() == ErrorKind::NotFound =>
            {
                Ok(None)
            }
            root => root.map(Some),
        }
    }

    pub fn root_for_saving(&self) -> Result<File, StoreError> {
        if let Some(root) = self.root_if_there()? {
            return Ok(root);
        }
        self.make_root()?;
        self.open_root()
    }

    /// An engine's directory, if there is one, and nobody else can change it.
    pub fn engine_dir(&self, root: &File, engine: &EngineKey) -> Result<Option<File>, StoreError> {
        let name = engine.to_string();
        let dir = match self.files.open_dir(root, &name) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(match self.files.kind(root, &name) {
                    Ok(kind) if !kind.is_dir() => {
                        self.refusal("an engine's directory in", "it is not a directory")
                    }
                    _ => self.failure("cannot open an engine's directory in", error),
                });
            }
            Ok(dir) => dir,
        };
        self.trusted(dir, "an engine's directory in").map(Some)
    }

    /// `None`: somebody has removed it again.
    pub fn make_engine_dir(
        &self,
        root: &File,
        engine: &EngineKey,
    ) -> Result<Option<File>, StoreError> {
        if let Some(dir) = self.engine_dir(root, engine)? {
            return Ok(Some(dir));
        }
        let made = self.files.make_dir(root, &engine.to_string());
        match made.and_then(|()| self.files.sync_dir(root)) {
            // The directory above it may be gone as well.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(self.failure("cannot make an engine's directory in", error));
            }
            _ => {}
        }
        self.engine_dir(root, engine)
    }

    /// Does it for each engine's directory that is the store's own.
    pub fn each_engine(
        &self,
        mut visit: impl FnMut(EngineKey, &File) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let Some(root) = self.root_if_there()? else {
            return Ok(());
        };
        let names = self.files.names(&root);
        for name in names.map_err(|error| self.failure("cannot list", error))? {
            let Ok(engine) = name.parse::<EngineKey>() else {
                continue;
            };
            match self.engine_dir(&root, &engine) {
                Ok(Some(dir)) => visit(engine, &dir)?,
                Ok(None) | Err(StoreError::Refused { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// All that could be loaded from an engine's directory.
    pub fn artifacts(
        &self,
        engine: &EngineKey,
        dir: &File,
    ) -> Result<Vec<ArtifactInfo>, StoreError> {
        let failed = |error| self.failure("cannot list", error);
        let now = SystemTime::now();
        let mut found = Vec::new();
        for name in self.files.names(dir).map_err(failed)? {
            let Some(Own::Artifact(key)) = names::parse(engine, &name) else {
                continue;
            };
            match self.open_artifact(dir, &name, Reads::Peek) {
                Ok((_, status)) => {
                    let times = [status.accessed().ok(), status.modified().ok()];
                    let info = ArtifactInfo::new(key, status.len());
                    found.push(info.used_at(last_used(times, now)));
                }
                Err(StoreError::Unreadable { what, source }) => {
                    if source.kind() != ErrorKind::PermissionDenied {
                        return Err(StoreError::Unreadable { what, source });
                    }
                }
                // Gone meanwhile, or not what would be loaded.
                Err(_) => {}
            }
        }
        Ok(found)
    }

    /// An artifact that nobody else can write to, and nothing else.
    pub fn open_artifact(
        &self,
        dir: &File,
        name: &str,
        reads: Reads,
    ) -> Result<(File, Metadata), StoreError> {
        let file = match self.files.open(dir, name, reads) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(StoreError::NotFound),
            Err(error) => {
                return Err(match self.files.kind(dir, name) {
                    Ok(kind) if !kind.is_file() => safe_dir::not_a_file(kind),
                    _ => self.failure("cannot open an artifact in", error),
                });
            }
        };
        let failed = |error| self.failure("cannot examine an artifact in", error);
        let status = file.metadata().map_err(failed)?;
        if !status.is_file() {
            let kind = self.files.kind(dir, name).map_err(failed)?;
            return Err(safe_dir::not_a_file(kind));
        }
        match self.trust.objection(&status) {
            Some(reason) => Err(self.refusal("an artifact in", &reason)),
            None => Ok((file, status)),
        }
    }

    pub fn is_directory(&self, dir: &File, name: &str) -> bool {
        self.files.kind(dir, name).is_ok_and(|kind| kind.is_dir())
    }

    /// A directory that has an artifact's name is not the store's.
    pub fn unlink(
        &self,
        dir: &File,
        name: &str,
        failed: impl Fn(io::Error) -> StoreError,
    ) -> Result<(), StoreError> {
        match sweep::unlink(&self.files, dir, name) {
            Err(error) if !self.is_directory(dir, name) => Err(failed(error)),
            _ => Ok(()),
        }
    }

    pub fn sweep_engine(&self, root: &File, engine: &EngineKey, dir: &File) -> io::Result<()> {
        for name in self.files.names(dir)? {
            if names::parse(engine, &name) == Some(Own::Unfinished) {
                sweep::sweep(&self.files, dir, &name)?;
            }
        }
        self.remove_if_empty(root, engine)
    }

    pub fn remove_if_empty(&self, root: &File, engine: &EngineKey) -> io::Result<()> {
        match self.files.remove_dir(root, &engine.to_string()) {
            Err(error)
                if !matches!(
                    error.kind(),
                    ErrorKind::NotFound
                        | ErrorKind::DirectoryNotEmpty
                        | ErrorKind::AlreadyExists
                        | ErrorKind::ResourceBusy
                ) =>
            {
                Err(error)
            }
            _ => Ok(()),
        }
    }

    pub fn is_touched(&self, key: &ArtifactKey) -> bool {
        let touched = self.touched.lock();
        let last = touched.get(key);
        last.is_some_and(|last| last.elapsed() < TOUCH_EVERY)
    }

    pub fn note_touched(&self, key: &ArtifactKey) {
        let mut touched = self.touched.lock();
        if touched.len() >= MOST_TOUCHED {
            touched.clear();
        }
        touched.insert(*key, Instant::now());
    }
}

/// The latest of them that a clock that goes right can have noted; else the oldest that there is.
pub(super) fn last_used(times: [Option<SystemTime>; 2], now: SystemTime) -> SystemTime {
    let latest = now + SKEW;
    let possible = times.into_iter().flatten().filter(|time| *time <= latest);
    possible.max().unwrap_or(SystemTime::UNIX_EPOCH)
}
