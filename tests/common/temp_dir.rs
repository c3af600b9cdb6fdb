//! Directories of tests.

use std::path::{Path, PathBuf};

/// A new directory, which goes with all that is in it.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> Self {
        let random = |salt: u32| {
            use std::hash::{BuildHasher, RandomState};
            RandomState::new().hash_one(salt)
        };
        let name = format!("wasm-pool-test-{:016x}", random(std::process::id()));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("there is a directory for temporary files");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
