//! An adapter over a bucket in memory, over a directory, and over one that does what no bucket should.

use futures_util::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::{
    CopyOptions, GetResult, ListResult, MultipartUpload, PutMultipartOptions, PutOptions, PutResult,
};

use super::super::footer::Codec;
use super::super::key::EngineKey;
use super::super::seal::Seal;
use super::super::verify::Opened;
use super::*;
use crate::sync::unchecked::Mutex;

fn key(number: u8) -> ArtifactKey {
    ArtifactKey::new(EngineKey::new(b"engine"), [number; 32])
}

fn save(store: &ObjectStoreAdapter, number: u8, bytes: usize) -> Result<(), StoreError> {
    let body = vec![number; bytes];
    let artifact = Seal::digest().encode(key(number), Codec::Raw, &body, bytes as u64);
    store.save(&key(number), &artifact)
}

fn is_there(store: &ObjectStoreAdapter, number: u8) -> bool {
    let stored = match store.load(&key(number), u64::MAX) {
        Err(StoreError::NotFound) => return false,
        stored => stored.unwrap(),
    };
    let opened = Opened::new(stored, &key(number), u64::MAX).unwrap();
    opened.verify(&Seal::digest()).unwrap();
    true
}

fn adapter(objects: Arc<dyn ObjectStore>) -> ObjectStoreAdapter {
    ObjectStoreAdapter::new(objects, "a/prefix").unwrap()
}

/// A directory that goes at the end.
struct Directory(std::path::PathBuf);

impl Directory {
    fn new(test: &str) -> Self {
        let name = format!("wasm-pool-bucket-{test}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn keeps_artifacts(objects: Arc<dyn ObjectStore>) {
    let store = adapter(objects.clone());
    assert!(!is_there(&store, 1));
    assert!(store.list().unwrap().is_empty());
    for (number, bytes) in [(1, 1), (2, 300_000), (1, 5000)] {
        save(&store, number, bytes).unwrap();
        assert!(is_there(&store, number));
    }
    // What is no artifact is not listed, and neither is what lies elsewhere.
    for other in ["a/prefix/readme", "a/prefixed/0a/0b", "elsewhere"] {
        let (objects, path) = (objects.clone(), Path::from(other));
        let put = async move {
            let put = objects.put(&path, PutPayload::from_static(b"x")).await;
            Ok(put.map(|_| ())?)
        };
        store.wait_for("a test", put).unwrap();
    }
    let mut listed = store.list().unwrap();
    listed.sort_unstable_by_key(|info| info.key);
    let seen = listed.iter().map(|info| (info.key, info.bytes));
    let expected = [(key(1), 8192 + 4096), (key(2), 303_104 + 4096)];
    assert_eq!(seen.collect::<Vec<_>>(), expected);
    assert_eq!(store.size().unwrap(), 12_288 + 307_200);
    let ago = listed[0].last_used.unwrap().elapsed();
    assert!(ago.is_ok_and(|ago| ago < Duration::from_secs(600)));
    let worker = adapter(objects).read_only();
    assert!(worker.is_read_only() && is_there(&worker, 2));
    for _ in 0..2 {
        store.remove(&key(2)).unwrap();
    }
    assert!(!is_there(&worker, 2) && is_there(&worker, 1));
}

#[test]
fn a_bucket_in_memory_keeps_artifacts() {
    keeps_artifacts(Arc::new(InMemory::new()));
}

#[test]
fn a_directory_as_a_bucket_keeps_artifacts() {
    let directory = Directory::new("keeps");
    let objects = LocalFileSystem::new_with_prefix(&directory.0).unwrap();
    keeps_artifacts(Arc::new(objects));
}

#[test]
fn a_prefix_may_be_empty_and_not_wrong() {
    let objects = Arc::new(InMemory::new());
    let store = ObjectStoreAdapter::new(objects.clone(), "").unwrap();
    save(&store, 1, 10).unwrap();
    assert_eq!(store.list().unwrap()[0].key, key(1));
    let wrong = ObjectStoreAdapter::new(objects, "a//b/../c");
    assert!(matches!(wrong, Err(StoreError::Refused { .. })));
}

/// A bucket that does this instead.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Oddity {
    None,
    Denies,
    Panics,
    Hangs,
    Unsupported,
    Fails,
    /// Between the question and the answer, another is saved.
    Replaces,
}

#[derive(Debug)]
struct Odd {
    objects: InMemory,
    oddity: Mutex<Oddity>,
    fetched: Mutex<u32>,
}

impl Odd {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            objects: InMemory::new(),
            oddity: Mutex::new(Oddity::None),
            fetched: Mutex::new(0),
        })
    }

    async fn behave(&self, path: &Path) -> object_store::Result<()> {
        let path = path.to_string();
        let source = "on purpose".into();
        let oddity = *self.oddity.lock();
        match oddity {
            Oddity::None | Oddity::Replaces => Ok(()),
            Oddity::Denies => Err(Error::PermissionDenied { path, source }),
            Oddity::Panics => panic!("on purpose"),
            Oddity::Hangs => std::future::pending().await,
            Oddity::Unsupported => Err(Error::NotSupported { source }),
            Oddity::Fails => Err(Error::Generic {
                store: "odd",
                source,
            }),
        }
    }
}

impl fmt::Display for Odd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an odd bucket")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Odd {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.behave(path).await?;
        self.objects.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.behave(path).await?;
        if !options.head {
            *self.fetched.lock() += 1;
            if *self.oddity.lock() == Oddity::Replaces {
                let longer = PutPayload::from(vec![1; 1 << 20]);
                self.objects.put(path, longer).await?;
            }
        }
        self.objects.get_opts(path, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.objects.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &Path,
        to: &Path,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}

#[test]
fn nothing_is_fetched_that_is_too_long() {
    let odd = Odd::new();
    let store = adapter(odd.clone());
    save(&store, 1, 5000).unwrap();
    let error = store.load(&key(1), 12_287).unwrap_err();
    let too_large = matches!(
        error,
        StoreError::TooLarge {
            bytes: 12_288,
            max_bytes: 12_287
        }
    );
    assert!(too_large, "{error}");
    assert_eq!(*odd.fetched.lock(), 0);
    store.load(&key(1), 12_288).unwrap();
    assert_eq!(*odd.fetched.lock(), 1);
    *odd.oddity.lock() = Oddity::Replaces;
    let error = store.load(&key(1), 12_288).unwrap_err();
    assert!(matches!(error, StoreError::Unreadable { .. }), "{error}");
}

#[test]
fn what_a_bucket_fails_at_is_an_error_of_its_kind() {
    let odd = Odd::new();
    // What answers has as long as it takes on a machine that is busy.
    let patient = adapter(odd.clone());
    let hasty = adapter(odd.clone()).timeout(Duration::from_millis(20));
    for (oddity, is_refused, says) in [
        (Oddity::Denies, true, "on purpose"),
        (Oddity::Unsupported, true, "on purpose"),
        (Oddity::Fails, false, "on purpose"),
        (Oddity::Panics, false, "it panicked"),
        (Oddity::Hangs, false, "timed out"),
    ] {
        *odd.oddity.lock() = oddity;
        let store = match oddity {
            Oddity::Hangs => &hasty,
            _ => &patient,
        };
        let errors = [
            store.load(&key(1), u64::MAX).unwrap_err(),
            save(store, 1, 10).unwrap_err(),
        ];
        for error in errors {
            let refused = matches!(error, StoreError::Refused { .. });
            assert_eq!(refused, is_refused, "{oddity:?}: {error}");
            let report = crate::runtime::Report(&error).to_string();
            assert!(report.contains(says), "{oddity:?}: {report}");
            assert!(!error.condemns_artifact());
        }
    }
    *odd.oddity.lock() = Oddity::None;
    assert!(!is_there(&patient, 1));
}

/// The pool may ask on a thread of the host's runtime, which must not be waited on, and may have no other.
#[test]
fn a_thread_of_any_runtime_may_ask_and_may_drop_it() {
    let directory = Directory::new("asks");
    let one_thread = Builder::new_current_thread().build().unwrap();
    let workers = Builder::new_multi_thread().worker_threads(1).build();
    for runtime in [one_thread, workers.unwrap()] {
        let objects = LocalFileSystem::new_with_prefix(&directory.0).unwrap();
        let asks = async move {
            let store = adapter(Arc::new(objects));
            save(&store, 1, 5000).unwrap();
            assert!(is_there(&store, 1));
            drop(store);
        };
        runtime.block_on(async { tokio::spawn(asks).await.unwrap() });
    }
}
