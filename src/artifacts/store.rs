//! What keeps artifacts: a directory, memory, a bucket, something of the host's own.

use std::fmt;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use super::footer::FOOTER_BYTES;
use super::key::ArtifactKey;
use super::verify::VerifiedArtifact;

/// Keeps encoded artifacts under their keys. It need not verify them: whoever loads them does, before anything is
/// mapped.
///
/// All methods may block; the pool calls them on threads that may (a caller's own for synchronous requests, a
/// worker's for tasks), and never under a lock. A panic in one is the error `Unreadable`.
///
/// ```
/// use std::collections::HashMap;
/// use std::sync::Mutex;
/// use wasm_pool::{ArtifactInfo, ArtifactKey, ArtifactStore, EncodedArtifact, StoreError, StoredArtifact};
///
/// #[derive(Default)]
/// struct Shelf(Mutex<HashMap<ArtifactKey, Vec<u8>>>);
///
/// impl ArtifactStore for Shelf {
///     fn load(&self, key: &ArtifactKey, max_bytes: u64) -> Result<StoredArtifact, StoreError> {
///         let shelf = self.0.lock().unwrap();
///         let bytes = shelf.get(key).ok_or(StoreError::NotFound)?;
///         StoreError::check_size(bytes.len() as u64, max_bytes)?;
///         Ok(StoredArtifact::bytes(bytes.clone()))
///     }
///
///     fn save(&self, key: &ArtifactKey, artifact: &EncodedArtifact<'_>) -> Result<(), StoreError> {
///         self.0.lock().unwrap().insert(*key, artifact.to_vec());
///         Ok(())
///     }
///
///     fn remove(&self, key: &ArtifactKey) -> Result<(), StoreError> {
///         self.0.lock().unwrap().remove(key);
///         Ok(())
///     }
///
///     fn list(&self) -> Result<Vec<ArtifactInfo>, StoreError> {
///         let shelf = self.0.lock().unwrap();
///         let info = |(key, bytes): (&ArtifactKey, &Vec<u8>)| ArtifactInfo::new(*key, bytes.len() as u64);
///         Ok(shelf.iter().map(info).collect())
///     }
/// }
/// ```
pub trait ArtifactStore: Send + Sync + 'static {
    /// The artifact, as it was saved.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is none, which is nobody's fault; [`StoreError::TooLarge`] if it is
    /// longer than `max_bytes` and would be brought into memory, where no more has been set aside for it (an open
    /// file may be longer); and as [`StoreError`] says.
    fn load(&self, key: &ArtifactKey, max_bytes: u64) -> Result<StoredArtifact, StoreError>;

    /// The same as [`Self::load`], and no use of it: for upkeep and checks.
    ///
    /// # Errors
    /// As [`Self::load`].
    fn peek(&self, key: &ArtifactKey, max_bytes: u64) -> Result<StoredArtifact, StoreError> {
        self.load(key, max_bytes)
    }

    /// Keeps the artifact, whole or not at all. One that is there already is replaced; it may stay if it is the same,
    /// byte for byte.
    ///
    /// # Errors
    /// As [`StoreError`] says. Nothing half saved is ever loaded.
    fn save(&self, key: &ArtifactKey, artifact: &EncodedArtifact<'_>) -> Result<(), StoreError>;

    /// Keeps an artifact that a later store had, as it was verified: `false` if it does not. A pool offers it when its
    /// code is loaded: whoever has waited for that goes on already, but for the one that has loaded it.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    fn offer(&self, key: &ArtifactKey, artifact: &VerifiedArtifact) -> Result<bool, StoreError> {
        let _ = (key, artifact);
        Ok(false)
    }

    /// Removes the artifact; that there is none is no error. Whoever has loaded it keeps what was loaded.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    fn remove(&self, key: &ArtifactKey) -> Result<(), StoreError>;

    /// All artifacts, in any order.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    fn list(&self) -> Result<Vec<ArtifactInfo>, StoreError>;

    /// Bytes of all artifacts together.
    ///
    /// # Errors
    /// As [`Self::list`].
    fn size(&self) -> Result<u64, StoreError> {
        let all = self.list()?;
        Ok(all.iter().map(|info| info.bytes).sum())
    }

    /// Notes that the artifact is in use, for those who clean up. Called now and then, and not at every use.
    ///
    /// # Errors
    /// As [`StoreError`] says; nobody minds.
    fn touch(&self, key: &ArtifactKey) -> Result<(), StoreError> {
        let _ = key;
        Ok(())
    }

    /// Removes what writers have left behind that are gone. Called before a clean-up.
    ///
    /// # Errors
    /// As [`StoreError`] says; nobody minds.
    fn sweep(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Whether it only gives: nothing is saved to it, and nothing that is corrupt is removed.
    fn is_read_only(&self) -> bool {
        false
    }

    /// What reports call it: its kind, and where it is.
    fn describe(&self) -> String {
        std::any::type_name::<Self>().to_owned()
    }
}

/// A store that the host keeps a hand on.
impl<S: ArtifactStore + ?Sized> ArtifactStore for Arc<S> {
    fn load(&self, key: &ArtifactKey, max_bytes: u64) -> Result<StoredArtifact, StoreError> {
        (**self).load(key, max_bytes)
    }

    fn peek(&self, key: &ArtifactKey, max_bytes: u64) -> Result<StoredArtifact, StoreError> {
        (**self).peek(key, max_bytes)
    }

    fn save(&self, key: &ArtifactKey, artifact: &EncodedArtifact<'_>) -> Result<(), StoreError> {
        (**self).save(key, artifact)
    }

    fn offer(&self, key: &ArtifactKey, artifact: &VerifiedArtifact) -> Result<bool, StoreError> {
        (**self).offer(key, artifact)
    }

    fn remove(&self, key: &ArtifactKey) -> Result<(), StoreError> {
        (**self).remove(key)
    }

    fn list(&self) -> Result<Vec<ArtifactInfo>, StoreError> {
        (**self).list()
    }

    fn size(&self) -> Result<u64, StoreError> {
        (**self).size()
    }

    fn touch(&self, key: &ArtifactKey) -> Result<(), StoreError> {
        (**self).touch(key)
    }

    fn sweep(&self) -> Result<(), StoreError> {
        (**self).sweep()
    }

    fn is_read_only(&self) -> bool {
        (**self).is_read_only()
    }

    fn describe(&self) -> String {
        (**self).describe()
    }
}

/// Why a store does not do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is no such artifact.
    #[error("there is no such artifact")]
    NotFound,
    /// It cannot be read or written: the system, or a service, fails.
    #[error("{what}")]
    Unreadable {
        /// What failed.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// It is not what was saved.
    #[error("a corrupt artifact: {reason}")]
    Corrupt {
        /// What is wrong with it.
        reason: String,
    },
    /// It is of another version, or for another engine.
    #[error("an incompatible artifact: {reason}")]
    Incompatible {
        /// In what it differs.
        reason: String,
    },
    /// It is longer than whoever asks has room for.
    #[error("an artifact of {bytes} bytes, where {max_bytes} were set aside")]
    TooLarge {
        /// How long it is.
        bytes: u64,
        /// How long it may be.
        max_bytes: u64,
    },
    /// The store does not do this: it is read-only, full, or somebody else's.
    #[error("refused: {reason}")]
    Refused {
        /// Why.
        reason: String,
    },
}

impl StoreError {
    /// For a [`ArtifactStore::load`] that is about to read so many bytes.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`].
    pub fn check_size(bytes: u64, max_bytes: u64) -> Result<(), Self> {
        match bytes > max_bytes {
            true => Err(Self::TooLarge { bytes, max_bytes }),
            false => Ok(()),
        }
    }

    /// Whether the artifact itself is to blame: it will never load here, and may go.
    pub fn condemns_artifact(&self) -> bool {
        matches!(self, Self::Corrupt { .. } | Self::Incompatible { .. })
    }

    /// For a failure of the system.
    pub fn unreadable(what: impl Into<String>, source: io::Error) -> Self {
        let what = what.into();
        Self::Unreadable { what, source }
    }
}

/// An artifact as a store has it.
#[derive(Debug)]
pub struct StoredArtifact(pub(super) Contents);

#[derive(Debug)]
pub(super) enum Contents {
    Bytes(Arc<[u8]>),
    File(File),
}

impl StoredArtifact {
    /// In memory.
    pub fn bytes(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self(Contents::Bytes(bytes.into()))
    }

    /// In a file that is open for reading, and holds nothing else.
    pub fn file(file: File) -> Self {
        Self(Contents::File(file))
    }

    /// All of it in one piece, for a store that keeps it elsewhere.
    ///
    /// # Errors
    /// The file's.
    pub fn to_vec(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.0.len()?).unwrap_or(usize::MAX)];
        self.0.read_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}

/// An artifact that is to be saved: a body, and the footer that proves it.
pub struct EncodedArtifact<'a> {
    pub(super) body: &'a [u8],
    pub(super) footer: [u8; FOOTER_BYTES],
    pub(super) last_used: Option<SystemTime>,
}

impl EncodedArtifact<'_> {
    /// What it consists of, one after the other: body, padding, footer.
    pub fn parts(&self) -> [&[u8]; 3] {
        static ZEROS: [u8; FOOTER_BYTES] = [0; FOOTER_BYTES];
        let padding = self.body.len().next_multiple_of(FOOTER_BYTES) - self.body.len();
        [self.body, &ZEROS[..padding], &self.footer]
    }

    /// Bytes of all of it.
    pub fn size(&self) -> u64 {
        self.parts().iter().map(|part| part.len() as u64).sum()
    }

    /// When it was last used, if that is known and was not just now: it has been kept already, in another form. A store
    /// that notes uses notes this one.
    pub fn last_used(&self) -> Option<SystemTime> {
        self.last_used
    }

    /// All of it in one piece.
    pub fn to_vec(&self) -> Vec<u8> {
        self.parts().concat()
    }
}

impl fmt::Debug for EncodedArtifact<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncodedArtifact")
            .field("bytes", &self.size())
            .finish_non_exhaustive()
    }
}

/// What a store says of one of its artifacts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArtifactInfo {
    /// What it is of.
    pub key: ArtifactKey,
    /// Its length.
    pub bytes: u64,
    /// When it was last used, as far as the store knows; it may lag behind by an hour.
    pub last_used: Option<SystemTime>,
}

impl ArtifactInfo {
    /// Of an artifact that nobody knows to have been used.
    pub fn new(key: ArtifactKey, bytes: u64) -> Self {
        Self {
            key,
            bytes,
            last_used: None,
        }
    }

    /// The same, when it was last used.
    pub fn used_at(self, time: SystemTime) -> Self {
        Self {
            last_used: Some(time),
            ..self
        }
    }
}
