//! Artifacts in a directory. See "Artifacts on disk" in DESIGN.md.

mod files;
mod inner;
mod names;
mod safe_dir;
mod sweep;
mod write;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use self::files::{Always, Files, Gate, Reads};
use self::inner::{Inner, TOUCH_EVERY};
use self::names::Own;
use self::safe_dir::Trust;
use self::write::{Artifact, Attempt};
use super::key::{ArtifactKey, EngineKey};
use super::store::{ArtifactInfo, ArtifactStore, EncodedArtifact, StoreError, StoredArtifact};
use super::verify::VerifiedArtifact;
use crate::sync::unchecked::Mutex;

/// How often a save begins anew when others sweep, or remove the directory, under it.
const ATTEMPTS: usize = 16;

/// Keeps artifacts as files of a directory, which any number of threads and processes may share. Cheap to clone:
/// clones are the same store. Only on Unix.
///
/// The artifact with the key `E/M` is the file `E/M.wpa`: one directory for each engine that code was compiled for, so
/// that what an upgrade leaves behind goes whole ([`Self::engines`], [`Self::remove_engine`]).
///
/// **Who may write.** The directory is made with mode 0700. It is refused if it is a symbolic link, if
/// somebody else than this process's effective user owns it, or if others can write to it; so is an engine's
/// directory in it, and so is an artifact. No symbolic link in it is followed. All this is looked at each time, so
/// that it holds for a directory that was changed or replaced meanwhile. Whoever can rename directories above it can
/// replace it by another one of this user's, and by nothing else.
///
/// **Saving** is atomic: a file of another name is written, synchronised with the disk, and renamed. Nothing is ever
/// written to an artifact that is there. What a writer leaves that was killed, [`ArtifactStore::sweep`] removes. A
/// save costs two `fsync`s.
///
/// **Failures.** A full disk, a file system that became read-only, a lack of permission are
/// [`StoreError::Unreadable`] with the system's error as its source; once the cause is gone, it works again. A
/// directory that is gone is made again by the next save, if [`Self::open`] made it; one that the host had made
/// (where something is mounted, perhaps) is the host's to bring back.
///
/// ```
/// # #[cfg(unix)] {
/// use wasm_pool::{ArtifactStore, Artifacts, DirStore};
///
/// # let path = std::env::temp_dir().join(format!("wasm-pool-doc-{}", std::process::id()));
/// let store = DirStore::open(&path)?;
/// let artifacts = Artifacts::builder().store(store.clone()).build();
/// assert!(store.engines()?.is_empty());
/// # drop(artifacts);
/// # std::fs::remove_dir_all(path).unwrap();
/// # }
/// # Ok::<(), wasm_pool::StoreError>(())
/// ```
#[derive(Clone)]
pub struct DirStore(Arc<Inner>);

/// How a [`DirStore`] is opened.
#[derive(Debug, Clone)]
pub struct DirStoreBuilder {
    path: PathBuf,
    is_read_only: bool,
    trust: Trust,
}

impl DirStoreBuilder {
    /// Nothing is made, written or removed; the directory must be there. For a directory that a deployment has
    /// filled.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.is_read_only = read_only;
        self
    }

    /// Takes what root owns for this user's own: for artifacts that are installed with the program, and that its
    /// user cannot change but may read (a store's own files only their owner may). By default, nobody else's are taken.
    pub fn trust_root(mut self, trust_root: bool) -> Self {
        self.trust.root = trust_root;
        self
    }

    /// Opens it.
    ///
    /// # Errors
    /// As [`DirStore::open`].
    pub fn open(self) -> Result<DirStore, StoreError> {
        self.open_with(Always)
    }

    fn open_with(self, gate: impl Gate) -> Result<DirStore, StoreError> {
        let absolute = std::path::absolute(&self.path).map_err(|error| {
            let what = format!("the directory {}", self.path.display());
            StoreError::unreadable(what, error)
        })?;
        let mut store = Inner {
            // Without a slash at its end, which would have a symbolic link followed.
            root: absolute.components().collect(),
            is_made_here: false,
            is_read_only: self.is_read_only,
            trust: self.trust,
            files: Files(Box::new(gate)),
            touched: Mutex::new(HashMap::new()),
        };
        if !store.is_read_only && is_missing(&store.root) {
            store.make_root()?;
            store.is_made_here = true;
        }
        store.open_root()?;
        Ok(DirStore(Arc::new(store)))
    }
}

fn is_missing(path: &Path) -> bool {
    let error = std::fs::symlink_metadata(path).err();
    error.is_some_and(|error| error.kind() == ErrorKind::NotFound)
}

/// What [`DirStore::engines`] says of an engine's artifacts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct EngineInfo {
    /// What they are compiled for.
    pub key: EngineKey,
    /// How many there are.
    pub artifacts: u64,
    /// Bytes of all of them.
    pub bytes: u64,
    /// When one of them was last used. `None`: there are none.
    pub last_used: Option<SystemTime>,
}

impl DirStore {
    /// Opens the directory, and makes it if it is missing, with those above it that are.
    ///
    /// # Errors
    /// [`StoreError::Refused`]: it is not a directory, or others can change it; with the reason.
    /// [`StoreError::Unreadable`]: it can be neither opened nor made.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        Self::builder(path).open()
    }

    /// Begins to open the directory in another way than [`Self::open`].
    pub fn builder(path: impl Into<PathBuf>) -> DirStoreBuilder {
        DirStoreBuilder {
            path: path.into(),
            is_read_only: false,
            trust: Trust::default(),
        }
    }

    /// Where it is: an absolute path.
    pub fn path(&self) -> &Path {
        &self.0.root
    }

    /// All engines that it has a directory for, in any order. Code for an engine that no pool of the host's has any
    /// more (each upgrade of wasmtime makes another, and so does each change of its settings) is of no use.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    pub fn engines(&self) -> Result<Vec<EngineInfo>, StoreError> {
        let store = &*self.0;
        let mut found = Vec::new();
        store.each_engine(|key, dir| {
            let artifacts = store.artifacts(&key, dir)?;
            found.push(EngineInfo {
                key,
                artifacts: artifacts.len() as u64,
                bytes: artifacts.iter().map(|info| info.bytes).sum(),
                last_used: artifacts.iter().filter_map(|info| info.last_used).max(),
            });
            Ok(())
        })?;
        Ok(found)
    }

    /// Removes all artifacts of the engine, and its directory. What is not the store's stays, with the
    /// directory, and so does what somebody is saving just now. That there is none is no error. Who has loaded
    /// from it keeps what was loaded.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    pub fn remove_engine(&self, engine: &EngineKey) -> Result<(), StoreError> {
        let store = &*self.0;
        store.must_be_writable()?;
        let Some(root) = store.root_if_there()? else {
            return Ok(());
        };
        let Some(dir) = store.engine_dir(&root, engine)? else {
            return Ok(());
        };
        let failed = |error| store.failure("cannot remove an engine from", error);
        for name in store.files.names(&dir).map_err(failed)? {
            match names::parse(engine, &name) {
                Some(Own::Artifact(_)) => store.unlink(&dir, &name, failed)?,
                Some(Own::Unfinished) => {
                    sweep::sweep(&store.files, &dir, &name).map_err(failed)?;
                }
                None => {}
            }
        }
        store.remove_if_empty(&root, engine).map_err(failed)
    }
}

impl DirStore {
    fn open_artifact(&self, key: &ArtifactKey, reads: Reads) -> Result<StoredArtifact, StoreError> {
        let store = &*self.0;
        let root = store.root_if_there()?.ok_or(StoreError::NotFound)?;
        let dir = store.engine_dir(&root, key.engine())?;
        let dir = dir.ok_or(StoreError::NotFound)?;
        let (file, _) = store.open_artifact(&dir, &names::of_artifact(key), reads)?;
        Ok(StoredArtifact::file(file))
    }

    fn write(&self, key: &ArtifactKey, artifact: &Artifact<'_>) -> Result<(), StoreError> {
        let store = &*self.0;
        store.must_be_writable()?;
        let failed = |error| store.failure("cannot save an artifact in", error);
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let root = store.root_for_saving()?;
            let Some(dir) = store.make_engine_dir(&root, key.engine())? else {
                continue;
            };
            match write::attempt(&store.files, &dir, key, artifact) {
                Ok(Attempt::Saved) => return Ok(()),
                Ok(Attempt::Swept) => {}
                Err(error) => match error.kind() {
                    // The directory was removed meanwhile; or the name, with luck beyond belief, was used.
                    ErrorKind::NotFound | ErrorKind::AlreadyExists => last = Some(error),
                    ErrorKind::IsADirectory => return Err(occupied()),
                    _ => return Err(failed(error)),
                },
            }
        }
        Err(failed(last.unwrap_or_else(|| {
            io::Error::other("others remove it each time")
        })))
    }
}

impl ArtifactStore for DirStore {
    /// An open file, of whatever length: nothing is read.
    fn load(&self, key: &ArtifactKey, _: u64) -> Result<StoredArtifact, StoreError> {
        self.open_artifact(key, Reads::Use)
    }

    /// To read it changes no time of access, where the system knows how that is done.
    fn peek(&self, key: &ArtifactKey, _: u64) -> Result<StoredArtifact, StoreError> {
        self.open_artifact(key, Reads::Peek)
    }

    fn save(&self, key: &ArtifactKey, artifact: &EncodedArtifact<'_>) -> Result<(), StoreError> {
        self.write(key, &Artifact::Encoded(artifact))
    }

    /// Copies it, piece by piece, as [`Self::save`] does.
    fn offer(&self, key: &ArtifactKey, artifact: &VerifiedArtifact) -> Result<bool, StoreError> {
        self.write(key, &Artifact::Verified(artifact))?;
        Ok(true)
    }

    fn remove(&self, key: &ArtifactKey) -> Result<(), StoreError> {
        let store = &*self.0;
        store.must_be_writable()?;
        let Some(root) = store.root_if_there()? else {
            return Ok(());
        };
        let Some(dir) = store.engine_dir(&root, key.engine())? else {
            return Ok(());
        };
        store.touched.lock().remove(key);
        let name = names::of_artifact(key);
        let failed = |error| store.failure("cannot remove an artifact from", error);
        match sweep::unlink(&store.files, &dir, &name) {
            Ok(()) => Ok(()),
            Err(_) if store.is_directory(&dir, &name) => Err(occupied()),
            Err(error) => Err(failed(error)),
        }
    }

    fn list(&self) -> Result<Vec<ArtifactInfo>, StoreError> {
        let store = &*self.0;
        let mut found = Vec::new();
        store.each_engine(|key, dir| {
            found.extend(store.artifacts(&key, dir)?);
            Ok(())
        })?;
        Ok(found)
    }

    /// Sets the time of the file's last access, at most once an hour, and if nothing else has set it in the last
    /// hour.
    fn touch(&self, key: &ArtifactKey) -> Result<(), StoreError> {
        let store = &*self.0;
        if store.is_read_only || store.is_touched(key) {
            return Ok(());
        }
        let root = store.root_if_there()?.ok_or(StoreError::NotFound)?;
        let dir = store.engine_dir(&root, key.engine())?;
        let dir = dir.ok_or(StoreError::NotFound)?;
        let name = names::of_artifact(key);
        let (file, status) = store.open_artifact(&dir, &name, Reads::Peek)?;
        let now = SystemTime::now();
        let since = |time| now.duration_since(time).ok();
        let since = status.accessed().ok().and_then(since);
        if since.is_none_or(|since| since >= TOUCH_EVERY) {
            let failed = |error| store.failure("cannot note a use in", error);
            store.files.touch(&file).map_err(failed)?;
        }
        store.note_touched(key);
        Ok(())
    }

    /// Removes unfinished files that nobody is writing, and directories of engines that have become empty.
    fn sweep(&self) -> Result<(), StoreError> {
        let store = &*self.0;
        if store.is_read_only {
            return Ok(());
        }
        let Some(root) = store.root_if_there()? else {
            return Ok(());
        };
        let failed = |error| store.failure("cannot remove leftovers from", error);
        let mut first = Ok(());
        store.each_engine(|engine, dir| {
            let swept = store.sweep_engine(&root, &engine, dir).map_err(failed);
            // What fails in one directory need not fail in the next.
            if first.is_ok() {
                first = swept;
            }
            Ok(())
        })?;
        first
    }

    fn is_read_only(&self) -> bool {
        self.0.is_read_only
    }

    fn describe(&self) -> String {
        format!("directory {}", self.0.root.display())
    }
}

fn occupied() -> StoreError {
    safe_dir::not_a_file(rustix::fs::FileType::Directory)
}

impl fmt::Debug for DirStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirStore")
            .field("path", &self.0.root)
            .field("is_read_only", &self.0.is_read_only)
            .finish_non_exhaustive()
    }
}
