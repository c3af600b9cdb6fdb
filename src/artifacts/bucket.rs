//! Artifacts in a bucket, which many machines share.

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload,
};
use tokio::runtime::{Builder, Runtime};

use super::key::ArtifactKey;
use super::sealed::Unsealed;
use super::store::{ArtifactInfo, ArtifactStore, EncodedArtifact, StoreError, StoredArtifact};
use crate::sync::unchecked::channel::{RecvTimeoutError, bounded};

/// How long an operation may take, if it is not told otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Keeps artifacts where the crate [`object_store`] keeps objects: in a bucket (S3, GCS, Azure), or in whatever else it
/// has an implementation for. So a fleet of workers compiles a module once between them all. With the feature
/// `object_store`.
///
/// Give a bucket artifacts with a [`secret`](crate::ArtifactsBuilder::secret): who can write to it could run code in
/// all who read from it otherwise. When an artifact was last used, a bucket does not know: a clean-up removes those
/// that were saved longest ago.
///
/// The operations of that crate are async. They run on one thread that this adapter has for itself, with a runtime of
/// tokio's; whoever calls waits for the answer as for any other that blocks. So it can be called from everywhere: a
/// thread of the caller's own runtime, which it would be a panic or a deadlock to wait on, does none of the work.
///
/// An artifact that is loaded takes its size in memory, once; one that is saved, likewise.
///
/// ```
/// use std::sync::Arc;
/// use object_store::memory::InMemory;
/// use wasm_pool::{Artifacts, MemoryStore, ObjectStoreAdapter};
/// let bucket = Arc::new(InMemory::new());
/// let artifacts = Artifacts::builder()
///     .store(MemoryStore::new(256 << 20))
///     .store(ObjectStoreAdapter::new(bucket, "engines/artifacts")?)
///     .secret(b"thirty-two bytes that are random")
///     .build();
/// # drop(artifacts);
/// # Ok::<(), wasm_pool::StoreError>(())
/// ```
pub struct ObjectStoreAdapter {
    objects: Arc<dyn ObjectStore>,
    prefix: Path,
    timeout: Duration,
    is_read_only: bool,
    /// `None` at the end.
    runtime: Option<Runtime>,
}

impl ObjectStoreAdapter {
    /// Keeps them below this prefix: folders with slashes between them, or nothing. What else is there is left alone,
    /// as far as its name is not that of an artifact.
    ///
    /// # Errors
    /// [`StoreError::Refused`] for a prefix that is none; [`StoreError::Unreadable`] if the system has no thread to give.
    pub fn new(objects: Arc<dyn ObjectStore>, prefix: &str) -> Result<Self, StoreError> {
        let prefix = Path::parse(prefix).map_err(|error| StoreError::Refused {
            reason: format!("`{prefix}` is no prefix: {error}"),
        })?;
        // One worker: nothing here computes.
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("wasm-pool bucket")
            .enable_all()
            .build()
            .map_err(|error| StoreError::unreadable("no thread to ask a bucket on", error))?;
        Ok(Self {
            objects,
            prefix,
            timeout: TIMEOUT,
            is_read_only: false,
            runtime: Some(runtime),
        })
    }

    /// How long an operation may take; then it is given up, and fails. Default: 30 seconds. The stores of
    /// [`object_store`] have timeouts of their own, and try again; whichever ends first counts.
    pub fn timeout(mut self, most: Duration) -> Self {
        self.timeout = most;
        self
    }

    /// Saves and removes nothing: for workers that may only read.
    pub fn read_only(mut self) -> Self {
        self.is_read_only = true;
        self
    }

    fn path(&self, key: &ArtifactKey) -> Path {
        let module = key.to_string();
        let parts = module.split('/');
        parts.fold(self.prefix.clone(), |path, part| path.join(part))
    }

    /// What is at this place, if it is the place of an artifact.
    fn info(prefix: &Path, object: &ObjectMeta) -> Option<ArtifactInfo> {
        let parts = object.location.prefix_match(prefix)?;
        let parts: Vec<_> = parts.map(|part| part.as_ref().to_owned()).collect();
        let key = parts.join("/").parse().ok()?;
        let saved = SystemTime::from(object.last_modified);
        Some(ArtifactInfo::new(key, object.size).used_at(saved))
    }

    /// Has it done on the adapter's own thread, and waits for that.
    fn wait_for<R: Send + 'static>(
        &self,
        what: &str,
        work: impl Future<Output = Result<R, Failure>> + Send + 'static,
    ) -> Result<R, StoreError> {
        let failed = |kind: io::Error| Err(StoreError::unreadable(what, kind));
        let Some(runtime) = &self.runtime else {
            return failed(io::ErrorKind::NotConnected.into());
        };
        let (sender, answer) = bounded(1);
        let task = runtime.spawn(async move {
            // Nobody waits for it any more, perhaps.
            let _ = sender.send(work.await);
        });
        match answer.recv_timeout(self.timeout) {
            Ok(answer) => answer.map_err(|failure| failure.into_error(what)),
            Err(RecvTimeoutError::Timeout) => {
                task.abort();
                failed(io::ErrorKind::TimedOut.into())
            }
            Err(RecvTimeoutError::Disconnected) => failed(io::Error::other("it panicked")),
        }
    }
}

/// Why an operation fails.
enum Failure {
    Bucket(Error),
    Store(StoreError),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Bucket(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Failure {
    fn into_error(self, what: &str) -> StoreError {
        let error = match self {
            Self::Store(error) => return error,
            Self::Bucket(error) => error,
        };
        match error {
            Error::NotFound { .. } => StoreError::NotFound,
            Error::PermissionDenied { .. }
            | Error::Unauthenticated { .. }
            | Error::NotSupported { .. }
            | Error::NotImplemented { .. } => StoreError::Refused {
                reason: format!("{what}: {}", crate::runtime::Report(&error)),
            },
            error => StoreError::unreadable(what, io::Error::other(error)),
        }
    }
}

/// Brings an object into memory, where it lies as it is mapped later. It is asked how long it is before anything is
/// brought, and nothing longer is.
async fn fetch(
    objects: Arc<dyn ObjectStore>,
    path: Path,
    max_bytes: u64,
) -> Result<StoredArtifact, Failure> {
    let ObjectMeta { size, e_tag, .. } = objects.head(&path).await?;
    StoreError::check_size(size, max_bytes)?;
    if size == 0 {
        return Ok(StoredArtifact::bytes([]));
    }
    let options = GetOptions {
        range: Some(GetRange::Bounded(0..size)),
        // Another one may have been saved meanwhile. (A weak tag never matches.)
        if_match: e_tag.filter(|tag| !tag.starts_with("W/")),
        ..GetOptions::default()
    };
    let no_memory = |error| StoreError::unreadable("there is no memory for an artifact", error);
    let mut chunks = objects.get_opts(&path, options).await?.into_stream();
    let mut file = Unsealed::new(size).map_err(no_memory)?;
    let mut left = size;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        left = (left.checked_sub(chunk.len() as u64)).ok_or_else(|| another_length(size))?;
        file.write(&chunk).map_err(no_memory)?;
    }
    if left > 0 {
        return Err(another_length(size).into());
    }
    let sealed = file.seal().map_err(no_memory)?;
    Ok(sealed.stored().map_err(no_memory)?)
}

fn another_length(size: u64) -> StoreError {
    let source = io::Error::other(format!("not the {size} bytes that were promised"));
    StoreError::unreadable("an artifact cannot be fetched", source)
}

impl ArtifactStore for ObjectStoreAdapter {
    fn load(&self, key: &ArtifactKey, max_bytes: u64) -> Result<StoredArtifact, StoreError> {
        let fetched = fetch(self.objects.clone(), self.path(key), max_bytes);
        self.wait_for("an artifact cannot be fetched", fetched)
    }

    fn save(&self, key: &ArtifactKey, artifact: &EncodedArtifact<'_>) -> Result<(), StoreError> {
        let (objects, path) = (self.objects.clone(), self.path(key));
        let payload = PutPayload::from(artifact.to_vec());
        self.wait_for("an artifact cannot be put", async move {
            objects.put(&path, payload).await?;
            Ok(())
        })
    }

    fn remove(&self, key: &ArtifactKey) -> Result<(), StoreError> {
        let (objects, path) = (self.objects.clone(), self.path(key));
        self.wait_for("an artifact cannot be deleted", async move {
            match objects.delete(&path).await {
                Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(error.into()),
            }
        })
    }

    fn list(&self) -> Result<Vec<ArtifactInfo>, StoreError> {
        let (objects, prefix) = (self.objects.clone(), self.prefix.clone());
        self.wait_for("artifacts cannot be listed", async move {
            let mut all = Vec::new();
            let mut listed = objects.list(Some(&prefix));
            while let Some(object) = listed.next().await {
                all.extend(Self::info(&prefix, &object?));
            }
            Ok(all)
        })
    }

    fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    fn describe(&self) -> String {
        format!("{} at `{}`", self.objects, self.prefix)
    }
}

impl Drop for ObjectStoreAdapter {
    fn drop(&mut self) {
        // Without waiting: this may be a thread of another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for ObjectStoreAdapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectStoreAdapter")
            .field("objects", &self.objects)
            .field("prefix", &self.prefix)
            .field("timeout", &self.timeout)
            .field("is_read_only", &self.is_read_only)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "bucket_tests.rs"]
mod tests;
