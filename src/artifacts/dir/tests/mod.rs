//! What becomes of a directory when an operation fails, when a process ends between two operations, and when others
//! act between them: for each operation.

mod faults;
mod races;

#[path = "../../../../tests/common/temp_dir.rs"]
mod temp_dir;

use std::io;
use std::path::Path;
use std::sync::Arc;

use self::temp_dir::TempDir;
use super::super::key::{ArtifactKey, EngineKey, module_hash};
use super::super::store::{ArtifactStore, EncodedArtifact, StoreError};
use super::DirStore;
use super::files::{Gate, Op};
use super::inner::last_used;
use crate::sync::unchecked::Mutex;

fn key(module: &str) -> ArtifactKey {
    ArtifactKey::new(EngineKey::new(b"engine"), module_hash(module.as_bytes()))
}

/// Code of more than a page.
fn code(salt: u8) -> Vec<u8> {
    (0..5000_u32).map(|at| at as u8 ^ salt).collect()
}

fn save(store: &DirStore, key: &ArtifactKey, salt: u8) -> Result<(), StoreError> {
    store.save(key, &EncodedArtifact::sample(key, &code(salt)))
}

/// The salt of what is there, which is whole; `None` if there is nothing.
#[track_caller]
fn load(store: &DirStore, key: &ArtifactKey) -> Option<u8> {
    let loaded = store.load(key, u64::MAX);
    match loaded.and_then(|stored| stored.check_sample(key)) {
        Ok(found) => {
            assert_eq!(found, code(found[0]));
            Some(found[0])
        }
        Err(StoreError::NotFound) => None,
        Err(error) => panic!("{error:?}"),
    }
}

/// Names of all files; none, if the directory is gone.
fn files(path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).into_iter().flatten() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.file_name().into_string().unwrap());
        }
    }
    found
}

/// Counts operations from when it is armed, and does something before the n-th.
#[derive(Clone)]
struct Plan(Arc<Mutex<Option<Armed>>>);

struct Armed {
    seen: Vec<Op>,
    before: Before,
}

type Before = Box<dyn FnMut(usize, Op) -> io::Result<()> + Send>;

impl Plan {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(None)))
    }

    fn arm(&self, before: impl FnMut(usize, Op) -> io::Result<()> + Send + 'static) {
        let armed = Armed {
            seen: Vec::new(),
            before: Box::new(before),
        };
        *self.0.lock() = Some(armed);
    }

    /// What was asked for since it was armed.
    fn disarm(&self) -> Vec<Op> {
        self.0.lock().take().map_or(Vec::new(), |armed| armed.seen)
    }

    fn open(&self, path: &Path) -> DirStore {
        DirStore::builder(path).open_with(self.clone()).unwrap()
    }
}

impl Gate for Plan {
    fn pass(&self, op: Op) -> io::Result<()> {
        let mut armed = self.0.lock();
        let Some(armed) = &mut *armed else {
            return Ok(());
        };
        armed.seen.push(op);
        (armed.before)(armed.seen.len() - 1, op)
    }
}

#[test]
fn times_of_clocks_that_go_wrong_are_the_oldest() {
    use std::time::{Duration, SystemTime};
    let now = SystemTime::now();
    let at = |hours: u64| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(3600 * hours));
    let later = |hours: u64| Some(now + Duration::from_secs(3600 * hours));
    let cases = [
        ([at(2), at(1)], at(2)),
        ([at(1), at(2)], at(2)),
        ([None, at(1)], at(1)),
        ([later(1), at(1)], later(1)),
        ([later(25), at(1)], at(1)),
        ([later(25), later(30)], at(0)),
        ([None, None], at(0)),
    ];
    for (times, expected) in cases {
        assert_eq!(Some(last_used(times, now)), expected, "{times:?}");
    }
}

#[test]
fn a_use_is_noted_once_an_hour() {
    use std::time::{Duration, SystemTime};
    let temp = TempDir::new();
    let plan = Plan::new();
    let store = plan.open(&temp.join("a"));
    let key = key("a");
    assert!(matches!(store.touch(&key), Err(StoreError::NotFound)));
    save(&store, &key, 1).unwrap();
    let path = temp.join("a").join(format!("{key}.wpa"));
    let day = Duration::from_secs(24 * 60 * 60);
    let old = SystemTime::now() - day;
    let times = std::fs::FileTimes::new()
        .set_accessed(old)
        .set_modified(old);
    let file = std::fs::File::open(path).unwrap();
    file.set_times(times).unwrap();
    let used = |store: &DirStore| store.list().unwrap()[0].last_used.unwrap();
    assert_eq!(used(&store), old);
    let touches = |store: &DirStore| {
        plan.arm(|_, _| Ok(()));
        store.touch(&key).unwrap();
        plan.disarm()
            .into_iter()
            .filter(|op| *op == Op::Touch)
            .count()
    };
    assert_eq!(touches(&store), 1);
    assert!(used(&store) > old + day / 2);
    assert_eq!(file.metadata().unwrap().modified().unwrap(), old);
    // This store remembers; another sees it from the file.
    assert_eq!(touches(&store), 0);
    assert_eq!(touches(&plan.open(&temp.join("a"))), 0);
}

/// Times of access are kept only where the file system keeps them.
#[cfg(target_os = "linux")]
#[test]
fn to_peek_is_no_use() {
    use std::time::{Duration, SystemTime};
    let temp = TempDir::new();
    let store = DirStore::open(temp.join("a")).unwrap();
    let key = key("a");
    save(&store, &key, 1).unwrap();
    let file = std::fs::File::open(temp.join("a").join(format!("{key}.wpa"))).unwrap();
    let old = SystemTime::now() - Duration::from_secs(48 * 60 * 60);
    let times = std::fs::FileTimes::new()
        .set_accessed(old)
        .set_modified(old);
    file.set_times(times).unwrap();
    let used = |store: &DirStore| store.list().unwrap()[0].last_used.unwrap();
    let peeked = store.peek(&key, u64::MAX).unwrap();
    assert_eq!(peeked.check_sample(&key).unwrap(), code(1));
    assert_eq!(used(&store), old);
    // Nor is it one to be listed, or to be looked at by `touch`.
    assert_eq!(load(&store, &key), Some(1));
    let keeps_times = file.metadata().unwrap().accessed().unwrap() > old;
    assert_eq!(used(&store) > old, keeps_times);
}
