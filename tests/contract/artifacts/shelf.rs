//! A store of the host's own, that does what a test tells it.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex};

use wasm_pool::{
    ArtifactInfo, ArtifactKey, ArtifactStore, Artifacts, EncodedArtifact, StoreError,
    StoredArtifact,
};

/// Artifacts by their keys.
#[derive(Clone, Default)]
pub struct Shelf(Arc<Mutex<Inner>>);

#[derive(Default)]
pub struct Inner {
    pub artifacts: HashMap<ArtifactKey, Vec<u8>>,
    pub loads: u64,
    pub saves: u64,
    pub removals: u64,
    pub read_only: bool,
    /// What each operation does instead.
    pub fails: Option<Failing>,
    /// Gives files in place of bytes.
    pub gives_files: bool,
    /// So many times, the system has no file left when it loads.
    pub lacks_files: u32,
    /// So many saves are refused first.
    pub refuses: u32,
}

#[derive(Clone, Copy, Debug)]
pub enum Failing {
    Unreadable,
    Refused,
    Panics,
}

impl Failing {
    fn error(self) -> StoreError {
        match self {
            Self::Unreadable => {
                StoreError::unreadable("a shelf", io::Error::from(io::ErrorKind::StorageFull))
            }
            Self::Refused => StoreError::Refused {
                reason: "it is somebody else's".into(),
            },
            Self::Panics => panic!("on purpose"),
        }
    }
}

impl Shelf {
    pub fn with<R>(&self, see: impl FnOnce(&mut Inner) -> R) -> R {
        see(&mut self
            .0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    /// Artifacts of this shelf alone.
    pub fn artifacts(&self) -> Artifacts {
        Artifacts::builder().store(self.clone()).build()
    }

    /// The only artifact on it.
    pub fn only(&self) -> (ArtifactKey, Vec<u8>) {
        self.with(|inner| {
            assert_eq!(inner.artifacts.len(), 1);
            let (key, bytes) = inner.artifacts.iter().next().unwrap();
            (*key, bytes.clone())
        })
    }

    pub fn put(&self, key: ArtifactKey, bytes: Vec<u8>) {
        self.with(|inner| inner.artifacts.insert(key, bytes));
    }
}

impl ArtifactStore for Shelf {
    fn load(&self, key: &ArtifactKey, max_bytes: u64) -> Result<StoredArtifact, StoreError> {
        self.with(|inner| {
            inner.loads += 1;
            if let Some(failing) = inner.fails {
                return Err(failing.error());
            }
            if let Some(left) = inner.lacks_files.checked_sub(1) {
                inner.lacks_files = left;
                let too_many =
                    io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error());
                return Err(StoreError::unreadable("a shelf", too_many));
            }
            let bytes = inner.artifacts.get(key).ok_or(StoreError::NotFound)?;
            if inner.gives_files {
                return Ok(StoredArtifact::file(in_a_file(bytes)));
            }
            StoreError::check_size(bytes.len() as u64, max_bytes)?;
            Ok(StoredArtifact::bytes(bytes.clone()))
        })
    }

    fn save(&self, key: &ArtifactKey, artifact: &EncodedArtifact<'_>) -> Result<(), StoreError> {
        self.with(|inner| {
            inner.saves += 1;
            if let Some(failing) = inner.fails {
                return Err(failing.error());
            }
            if let Some(left) = inner.refuses.checked_sub(1) {
                inner.refuses = left;
                return Err(Failing::Refused.error());
            }
            inner.artifacts.insert(*key, artifact.to_vec());
            Ok(())
        })
    }

    fn remove(&self, key: &ArtifactKey) -> Result<(), StoreError> {
        self.with(|inner| {
            inner.removals += 1;
            inner.artifacts.remove(key);
            Ok(())
        })
    }

    fn list(&self) -> Result<Vec<ArtifactInfo>, StoreError> {
        self.with(|inner| {
            let info = |(key, bytes): (&ArtifactKey, &Vec<u8>)| {
                ArtifactInfo::new(*key, bytes.len() as u64)
            };
            Ok(inner.artifacts.iter().map(info).collect())
        })
    }

    fn is_read_only(&self) -> bool {
        self.with(|inner| inner.read_only)
    }

    fn describe(&self) -> String {
        "a shelf".into()
    }
}

/// A file of its own with these contents, which nobody else can open.
pub fn in_a_file(bytes: &[u8]) -> File {
    use std::io::Write;
    use std::sync::atomic::{AtomicU64, Ordering};
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("wasm-pool-shelf-{}-{number}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let options = || {
        File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .clone()
    };
    let mut file = options().open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    file.write_all(bytes).unwrap();
    file
}
