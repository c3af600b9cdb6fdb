//! Artifacts in a directory: who may change it, what stands in the way, what is left when it fails.

use std::fs::{self, File, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::temp_dir::TempDir;
use wasm_pool::{ArtifactKey, ArtifactStore, DirStore, EncodedArtifact, EngineKey, StoreError};

/// The n-th module of the engine.
pub fn key_of(engine: u8, n: u8) -> ArtifactKey {
    ArtifactKey::from_parts(EngineKey::from_bytes([engine; 32]), [n; 32])
}

pub fn key(n: u8) -> ArtifactKey {
    key_of(1, n)
}

/// Code of some pages, another for each salt.
pub fn code(salt: u8) -> Vec<u8> {
    (0..20_000_u32).map(|at| (at % 251) as u8 ^ salt).collect()
}

pub fn save(store: &DirStore, key: &ArtifactKey, salt: u8) -> Result<(), StoreError> {
    store.save(key, &EncodedArtifact::sample(key, &code(salt)))
}

/// The salt of what is there, which is whole.
pub fn load(store: &DirStore, key: &ArtifactKey) -> Result<u8, StoreError> {
    let found = store.load(key, u64::MAX)?.check_sample(key)?;
    assert_eq!(found, code(found[0]));
    Ok(found[0])
}

pub fn file(store: &DirStore, key: &ArtifactKey) -> PathBuf {
    store.path().join(format!("{key}.wpa"))
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, StoreError>, reason: &str) {
    match result.unwrap_err() {
        StoreError::Refused { reason: found } => assert!(found.contains(reason), "{found}"),
        error => panic!("{error:?}"),
    }
}

#[track_caller]
fn corrupt<T: std::fmt::Debug>(result: Result<T, StoreError>, reason: &str) {
    match result.unwrap_err() {
        StoreError::Corrupt { reason: found } => assert!(found.contains(reason), "{found}"),
        error => panic!("{error:?}"),
    }
}

#[track_caller]
fn unreadable<T: std::fmt::Debug>(result: Result<T, StoreError>, kind: ErrorKind) {
    match result.unwrap_err() {
        StoreError::Unreadable { source, .. } => assert_eq!(source.kind(), kind, "{source}"),
        error => panic!("{error:?}"),
    }
}

#[track_caller]
fn not_found<T: std::fmt::Debug>(result: Result<T, StoreError>) {
    let error = result.unwrap_err();
    assert!(matches!(error, StoreError::NotFound), "{error:?}");
}

/// Root may do all that permissions forbid, and may give files away.
fn is_root() -> bool {
    let temp = TempDir::new();
    fs::symlink_metadata(temp.path()).unwrap().uid() == 0
}

#[test]
fn what_is_saved_is_loaded_listed_and_removed() {
    let temp = TempDir::new();
    let store = DirStore::open(temp.join("a/b/c")).unwrap();
    assert_eq!(store.list().unwrap(), []);
    not_found(store.load(&key(1), u64::MAX));
    store.remove(&key(1)).unwrap();
    for (key, salt) in [(key(1), 1), (key(2), 2), (key_of(2, 1), 3), (key(1), 4)] {
        save(&store, &key, salt).unwrap();
    }
    let again = DirStore::open(temp.join("a/b/c/")).unwrap();
    assert_eq!(again.path(), store.path());
    for (key, salt) in [(key(1), 4), (key(2), 2), (key_of(2, 1), 3)] {
        assert_eq!(load(&again, &key).unwrap(), salt);
    }
    let bytes = EncodedArtifact::sample(&key(1), &code(1)).size();
    let mut keys = Vec::new();
    for info in again.list().unwrap() {
        assert_eq!(info.bytes, bytes);
        let age = info.last_used.unwrap().elapsed().unwrap_or_default();
        assert!(age.as_secs() < 600, "{age:?}");
        keys.push(info.key);
    }
    keys.sort();
    assert_eq!(keys, [key(1), key(2), key_of(2, 1)]);
    assert_eq!(again.size().unwrap(), 3 * bytes);
    again.touch(&key(1)).unwrap();
    // Who has loaded it keeps it.
    let loaded = store.load(&key(1), u64::MAX).unwrap();
    again.remove(&key(1)).unwrap();
    not_found(store.load(&key(1), u64::MAX));
    assert_eq!(loaded.check_sample(&key(1)).unwrap(), code(4));
}

#[test]
fn an_engines_artifacts_go_together() {
    let temp = TempDir::new();
    let store = DirStore::open(temp.join("a")).unwrap();
    for key in [key_of(1, 1), key_of(1, 2), key_of(2, 1)] {
        save(&store, &key, 1).unwrap();
    }
    let bytes = EncodedArtifact::sample(&key(1), &code(1)).size();
    let mut engines = store.engines().unwrap();
    engines.sort_by_key(|engine| engine.key);
    let found = engines
        .iter()
        .map(|engine| (engine.artifacts, engine.bytes));
    assert_eq!(found.collect::<Vec<_>>(), [(2, 2 * bytes), (1, bytes)]);
    store.remove_engine(&engines[0].key).unwrap();
    store.remove_engine(&engines[0].key).unwrap();
    assert_eq!(store.engines().unwrap(), engines[1..]);
    not_found(store.load(&key_of(1, 2), u64::MAX));
    assert_eq!(load(&store, &key_of(2, 1)).unwrap(), 1);
    assert_eq!(fs::read_dir(store.path()).unwrap().count(), 1);
}

#[test]
fn only_its_owner_can_enter_what_it_makes() {
    let temp = TempDir::new();
    let store = DirStore::open(temp.join("a/b")).unwrap();
    save(&store, &key(1), 1).unwrap();
    let artifact = file(&store, &key(1));
    for dir in [
        temp.join("a"),
        temp.join("a/b"),
        artifact.parent().unwrap().into(),
    ] {
        assert_eq!(mode(&dir), 0o700, "{}", dir.display());
    }
    assert_eq!(mode(&artifact), 0o400);
}

#[test]
fn what_others_can_write_to_is_refused() {
    let temp = TempDir::new();
    let path = temp.join("a");
    let store = DirStore::open(&path).unwrap();
    save(&store, &key(1), 1).unwrap();
    let artifact = file(&store, &key(1));
    for (guarded, proper) in [(&*path, 0o700), (artifact.parent().unwrap(), 0o700)] {
        for bad in [0o720, 0o702, 0o777, 0o1777] {
            set_mode(guarded, bad);
            refused(
                store.load(&key(1), u64::MAX),
                "others than its owner can write",
            );
            refused(save(&store, &key(1), 2), "others than its owner can write");
            refused(store.remove(&key(1)), "others than its owner can write");
            refused(store.touch(&key(1)), "others than its owner can write");
            if guarded == path {
                refused(DirStore::open(&path), &format!("mode {bad:o}"));
                refused(DirStore::builder(&path).read_only(true).open(), "can write");
            }
        }
        set_mode(guarded, proper);
        assert_eq!(load(&store, &key(1)).unwrap(), 1);
    }
    set_mode(&artifact, 0o420);
    refused(
        store.load(&key(1), u64::MAX),
        "others than its owner can write",
    );
    assert_eq!(store.list().unwrap(), []);
    // The next save has it right again.
    save(&store, &key(1), 2).unwrap();
    assert_eq!(load(&store, &key(1)).unwrap(), 2);
    for fine in [0o500, 0o755, 0o2700] {
        set_mode(&path, fine);
        assert_eq!(load(&store, &key(1)).unwrap(), 2, "{fine:o}");
    }
}

#[test]
fn what_somebody_else_owns_is_refused() {
    if !is_root() {
        eprintln!("left out: only root can give files away");
        return;
    }
    let temp = TempDir::new();
    let path = temp.join("a");
    let store = DirStore::open(&path).unwrap();
    save(&store, &key(1), 1).unwrap();
    let artifact = file(&store, &key(1));
    for owned in [&*path, artifact.parent().unwrap(), &artifact] {
        chown(owned, Some(4321), None).unwrap();
        refused(store.load(&key(1), u64::MAX), "user 4321 owns it");
        let trusting = DirStore::builder(&path).trust_root(true).open();
        let trusting = trusting.and_then(|store| store.load(&key(1), u64::MAX));
        refused(trusting, "user 4321 owns it");
        if owned == path {
            refused(DirStore::open(&path), "user 4321 owns it");
        }
        chown(owned, Some(0), None).unwrap();
        assert_eq!(load(&store, &key(1)).unwrap(), 1);
    }
}

#[test]
fn a_link_to_a_directory_is_refused() {
    let temp = TempDir::new();
    fs::create_dir(temp.join("real")).unwrap();
    set_mode(&temp.join("real"), 0o700);
    symlink(temp.join("real"), temp.join("link")).unwrap();
    for name in ["link", "link/", "link/."] {
        refused(DirStore::open(temp.join(name)), "symbolic link");
    }
    symlink(temp.join("nowhere"), temp.join("dangling")).unwrap();
    refused(DirStore::open(temp.join("dangling")), "symbolic link");
    fs::write(temp.join("file"), "").unwrap();
    refused(DirStore::open(temp.join("file")), "not a directory");
    // Nor is an engine's directory one.
    let store = DirStore::open(temp.join("a")).unwrap();
    symlink(
        temp.join("real"),
        store.path().join(key(1).engine().to_string()),
    )
    .unwrap();
    refused(store.load(&key(1), u64::MAX), "not a directory");
    refused(save(&store, &key(1), 1), "not a directory");
    refused(store.remove_engine(key(1).engine()), "not a directory");
    assert_eq!(store.list().unwrap(), []);
    store.sweep().unwrap();
    assert_eq!(fs::read_dir(temp.join("real")).unwrap().count(), 0);
}

/// It is no artifact, hangs nobody up, is not listed; `is_removable`: it goes as one, and else stays. The next save replaces
/// it, unless it is a directory.
#[track_caller]
fn check_in_place(put: impl Fn(&Path), reason: &str) {
    let temp = TempDir::new();
    let store = DirStore::open(temp.join("a")).unwrap();
    save(&store, &key(2), 2).unwrap();
    let path = file(&store, &key(1));
    put(&path);
    corrupt(load(&store, &key(1)), reason);
    store.sweep().unwrap();
    store.remove(&key(1)).unwrap();
    not_found(load(&store, &key(1)));
    put(&path);
    save(&store, &key(1), 1).unwrap();
    assert_eq!(load(&store, &key(1)).unwrap(), 1);
    assert_eq!(load(&store, &key(2)).unwrap(), 2);
}

#[test]
fn what_stands_in_place_of_an_artifact_is_corrupt() {
    let elsewhere = TempDir::new();
    let target = elsewhere.join("target");
    fs::write(&target, EncodedArtifact::sample(&key(1), &code(1)).to_vec()).unwrap();
    check_in_place(|path| symlink(&target, path).unwrap(), "symbolic link");
    check_in_place(|path| symlink("/nowhere", path).unwrap(), "symbolic link");
    assert!(target.exists());
    let fifo = |path: &Path| {
        let made = Command::new("mkfifo").arg(path).status().unwrap();
        assert!(made.success());
        assert!(fs::symlink_metadata(path).unwrap().file_type().is_fifo());
    };
    check_in_place(fifo, "FIFO");
    // A socket's path is short: it is made elsewhere.
    let socket = |path: &Path| {
        let short = elsewhere.join("socket");
        drop(UnixListener::bind(&short).unwrap());
        fs::rename(short, path).unwrap();
    };
    check_in_place(socket, "socket");
    let of = |bytes: u64| move |path: &Path| File::create(path).unwrap().set_len(bytes).unwrap();
    check_in_place(of(0), "too short");
    check_in_place(of(4095), "too short");
    check_in_place(of(4096), "does not end as an artifact");
    check_in_place(of(2 << 40), "does not end as an artifact");
    let other = |path: &Path| {
        fs::write(path, EncodedArtifact::sample(&key(2), &code(1)).to_vec()).unwrap();
    };
    check_in_place(other, "saved under this key");
}

#[test]
fn a_directory_in_place_of_an_artifact_is_refused_and_stays() {
    let temp = TempDir::new();
    let store = DirStore::open(temp.join("a")).unwrap();
    save(&store, &key(2), 2).unwrap();
    let path = file(&store, &key(1));
    fs::create_dir(&path).unwrap();
    fs::write(path.join("notes"), "somebody's").unwrap();
    refused(store.load(&key(1), u64::MAX), "a directory stands");
    refused(save(&store, &key(1), 1), "a directory stands");
    refused(store.remove(&key(1)), "a directory stands");
    store.sweep().unwrap();
    assert_eq!(store.list().unwrap().len(), 1);
    store.remove_engine(key(1).engine()).unwrap();
    assert!(path.join("notes").exists());
    not_found(load(&store, &key(2)));
    fs::remove_dir_all(&path).unwrap();
    save(&store, &key(1), 1).unwrap();
}

#[test]
fn names_that_are_not_its_own_are_left_alone() {
    let temp = TempDir::new();
    let store = DirStore::open(temp.join("a")).unwrap();
    save(&store, &key(1), 1).unwrap();
    let engine = file(&store, &key(1)).parent().unwrap().to_owned();
    let upper = format!("{}.wpa", "AB".repeat(32));
    let names = ["notes.txt", ".wpa", "x.tmp", &upper, "0.wpa"];
    for dir in [store.path(), &engine] {
        for name in names {
            fs::write(dir.join(name), "the host's").unwrap();
        }
    }
    fs::create_dir(store.path().join("lost+found")).unwrap();
    assert_eq!(store.list().unwrap().len(), 1);
    assert_eq!(store.engines().unwrap().len(), 1);
    store.sweep().unwrap();
    store.remove_engine(key(1).engine()).unwrap();
    for dir in [store.path(), &engine] {
        for name in names {
            assert!(dir.join(name).exists(), "{name}");
        }
    }
}

#[test]
fn a_read_only_store_gives_and_takes_nothing() {
    let temp = TempDir::new();
    let path = temp.join("a");
    let open = || DirStore::builder(&path).read_only(true).open();
    unreadable(open(), ErrorKind::NotFound);
    assert!(!path.exists());
    save(&DirStore::open(&path).unwrap(), &key(1), 1).unwrap();
    for mode in [0o700, 0o500] {
        set_mode(&path, mode);
        let store = open().unwrap();
        assert!(store.is_read_only());
        assert_eq!(load(&store, &key(1)).unwrap(), 1);
        refused(save(&store, &key(1), 2), "read only");
        refused(store.remove(&key(1)), "read only");
        refused(store.remove_engine(key(1).engine()), "read only");
        store.touch(&key(1)).unwrap();
        store.sweep().unwrap();
        assert_eq!(store.list().unwrap().len(), 1);
    }
}

#[test]
fn a_directory_that_vanishes_is_made_again_by_whoever_made_it() {
    let temp = TempDir::new();
    let path = temp.join("a/b");
    let store = DirStore::open(&path).unwrap();
    save(&store, &key(1), 1).unwrap();
    fs::remove_dir_all(temp.join("a")).unwrap();
    not_found(store.load(&key(1), u64::MAX));
    not_found(store.touch(&key(1)));
    assert_eq!(store.list().unwrap(), []);
    store.remove(&key(1)).unwrap();
    store.sweep().unwrap();
    save(&store, &key(1), 2).unwrap();
    assert_eq!(load(&store, &key(1)).unwrap(), 2);
    // This one found it there.
    let guest = DirStore::open(&path).unwrap();
    fs::remove_dir_all(&path).unwrap();
    unreadable(guest.load(&key(1), u64::MAX), ErrorKind::NotFound);
    unreadable(save(&guest, &key(1), 3), ErrorKind::NotFound);
    assert!(!path.exists());
    save(&store, &key(1), 4).unwrap();
    assert_eq!(load(&guest, &key(1)).unwrap(), 4);
}
