//! Artifacts in a directory that others use at the same time, that is full, that is another user's; writers that are
//! killed.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::directory::{code, file, key, load, save};
use crate::common::child;
use crate::common::temp_dir::TempDir;
use wasm_pool::{ArtifactStore, DirStore, StoreError};

/// Where a child finds the directory.
const DIRECTORY: &str = "WASM_POOL_DIRECTORY";

fn own_store() -> DirStore {
    DirStore::open(std::env::var(DIRECTORY).unwrap()).unwrap()
}

/// Names in all directories of engines.
fn names(store: &DirStore) -> Vec<String> {
    let engines = fs::read_dir(store.path()).unwrap();
    let files = engines.flat_map(|engine| fs::read_dir(engine.unwrap().path()).unwrap());
    files
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect()
}

fn is_unfinished(name: &str) -> bool {
    name.ends_with(".tmp")
}

/// Every artifact is whole, and after a sweep there is nothing else. How many there are.
#[track_caller]
fn check_all(store: &DirStore) -> usize {
    store.sweep().unwrap();
    let list = store.list().unwrap();
    for info in &list {
        load(store, &info.key).unwrap();
    }
    let names = names(store);
    assert_eq!(names.iter().find(|name| is_unfinished(name)), None);
    assert_eq!(names.len(), list.len());
    list.len()
}

/// Saves, loads, sweeps and removes what others do too; all that is found is whole.
fn work(store: &DirStore, worker: u8, rounds: u8) {
    for round in 0..rounds {
        let key = key(round % 3);
        save(store, &key, worker).unwrap();
        match load(store, &key) {
            Ok(_) | Err(StoreError::NotFound) => {}
            Err(error) => panic!("{error:?}"),
        }
        match round.wrapping_add(worker) % 8 {
            0 => store.remove(&key).unwrap(),
            1 => store.sweep().unwrap(),
            2 => store.remove_engine(key.engine()).unwrap(),
            3 => assert!(store.list().unwrap().len() <= 3),
            _ => {}
        }
    }
}

#[test]
fn threads_share_a_directory() {
    let temp = TempDir::new();
    let store = DirStore::open(temp.join("a")).unwrap();
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let store = store.clone();
            scope.spawn(move || work(&store, worker, 24));
        }
    });
    save(&store, &key(1), 9).unwrap();
    assert!(check_all(&store) > 0);
    assert_eq!(load(&store, &key(1)).unwrap(), 9);
}

#[test]
fn processes_share_a_directory() {
    let test = "artifacts::directory_shared::processes_share_a_directory";
    if child::runs(test) {
        let worker = std::process::id() as u8;
        return work(&own_store(), worker, 48);
    }
    let temp = TempDir::new();
    let start = |_| {
        let mut command = child::command(test);
        command.env(DIRECTORY, temp.join("a")).stdout(Stdio::null());
        command.spawn().unwrap()
    };
    let children: Vec<_> = (0..4).map(start).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let store = DirStore::open(temp.join("a")).unwrap();
    save(&store, &key(1), 9).unwrap();
    assert!(check_all(&store) > 0);
}

/// Kills a writer a moment after it has begun.
fn kill_a_writer(test: &str, path: &Path, moment: Duration) {
    let mut command = child::command(test);
    command.env(DIRECTORY, path).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut lines = lines.map(Result::unwrap);
    assert!(lines.any(|line| line.ends_with("writes")));
    let began = Instant::now();
    while began.elapsed() < moment {
        std::hint::spin_loop();
    }
    // SIGKILL.
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success());
}

#[test]
fn writers_that_are_killed_leave_nothing_or_all_of_it() {
    let test = "artifacts::directory_shared::writers_that_are_killed_leave_nothing_or_all_of_it";
    if child::runs(test) {
        let store = own_store();
        println!("\nwrites");
        // Should nobody kill it, it ends.
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(20) {
            (0..4).for_each(|n| save(&store, &key(n), n + 1).unwrap());
        }
        return;
    }
    let temp = TempDir::new();
    let store = DirStore::open(temp.join("a")).unwrap();
    let kills = AtomicU64::new(0);
    // Moments of all lengths that a save has, in an order of no system.
    let moment = |kill: u64| Duration::from_micros(kill.wrapping_mul(7919) % 6000);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let kill = kills.fetch_add(1, Ordering::Relaxed);
                    if kill >= 200 {
                        break;
                    }
                    kill_a_writer(test, store.path(), moment(kill));
                    for info in store.list().unwrap() {
                        load(&store, &info.key).unwrap();
                    }
                }
            });
        }
    });
    let left = names(&store)
        .iter()
        .filter(|name| is_unfinished(name))
        .count();
    assert!(left > 0, "no writer was killed while it wrote");
    eprintln!("200 writers were killed, {left} of them while they wrote");
    assert!(check_all(&store) > 0);
}

/// A file system of its own for the child, in a namespace of its own, so that it goes with it. `None`: this machine does
/// not let us.
fn mounting(path: &Path) -> Option<String> {
    let path = path.display();
    let mount = format!("mount -t tmpfs -o size=256k,mode=700 tmpfs {path}");
    let unshare = |rest: &str| format!("unshare -m sh -c '{mount} && {rest}'");
    let probe = Command::new("sh").args(["-c", &unshare("true")]).output();
    let works = probe.is_ok_and(|probe| probe.status.success());
    works.then(|| {
        let run = unshare(&format!("cd {path} && exec \"$0\" \"$@\""));
        format!("exec {run} \"$0\" \"$@\"")
    })
}

#[track_caller]
fn fails_with<T: std::fmt::Debug>(result: Result<T, StoreError>, kind: ErrorKind) {
    match result.unwrap_err() {
        StoreError::Unreadable { source, what } => {
            assert_eq!(source.kind(), kind, "{what}: {source}");
        }
        error => panic!("{error:?}"),
    }
}

#[test]
fn a_full_or_read_only_file_system_is_said_and_passes() {
    let test = "artifacts::directory_shared::a_full_or_read_only_file_system_is_said_and_passes";
    if !child::runs(test) {
        let temp = TempDir::new();
        match mounting(temp.path()) {
            Some(limits) => assert!(!child::is_child(test, &limits)),
            None => eprintln!("left out: no file system can be mounted here"),
        }
        return;
    }
    let here = std::env::current_dir().unwrap();
    let store = DirStore::open(here.join("a")).unwrap();
    let saved = (0..50).take_while(|n| match save(&store, &key(*n), 1) {
        Ok(()) => true,
        error => {
            fails_with(error, ErrorKind::StorageFull);
            false
        }
    });
    let saved = saved.count();
    assert!((1..50).contains(&saved), "{saved}");
    let full = key(saved as u8);
    assert!(matches!(load(&store, &full), Err(StoreError::NotFound)));
    // Nor over another, which stays.
    fails_with(save(&store, &key(0), 2), ErrorKind::StorageFull);
    assert_eq!(load(&store, &key(0)).unwrap(), 1);
    assert_eq!(names(&store).iter().find(|name| is_unfinished(name)), None);
    assert_eq!(check_all(&store), saved);
    store.remove(&key(0)).unwrap();
    save(&store, &full, 3).unwrap();

    let remount = |how: &str| {
        let mut mount = Command::new("mount");
        let mounted = mount.args(["-o", how]).arg(&here).status().unwrap();
        assert!(mounted.success());
    };
    remount("remount,ro");
    let read_only = ErrorKind::ReadOnlyFilesystem;
    for store in [&store, &DirStore::open(here.join("a")).unwrap()] {
        assert_eq!(load(store, &full).unwrap(), 3);
        fails_with(save(store, &full, 4), read_only);
        fails_with(store.remove(&full), read_only);
        assert_eq!(store.list().unwrap().len(), saved);
    }
    fails_with(DirStore::open(here.join("b")), read_only);
    remount("remount,rw");
    store.remove(&full).unwrap();
    save(&store, &full, 5).unwrap();
    assert_eq!(load(&store, &full).unwrap(), 5);
}

fn set_mode(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Root may do all: so this test runs as a user who may not.
fn as_nobody(test: &str, path: &Path) {
    let mut command = child::command(test);
    command.env(DIRECTORY, path).uid(65534).gid(65534);
    match command.status() {
        Ok(status) => assert!(status.success(), "{status}"),
        Err(error) => eprintln!("left out: the test cannot run as another user: {error}"),
    }
}

#[test]
fn what_is_not_permitted_is_said_and_passes() {
    let test = "artifacts::directory_shared::what_is_not_permitted_is_said_and_passes";
    let temp = TempDir::new();
    let is_root = fs::metadata(temp.path()).unwrap().uid() == 0;
    if is_root {
        chown(temp.path(), Some(65534), Some(65534)).unwrap();
        return as_nobody(test, temp.path());
    }
    let path = std::env::var(DIRECTORY).map_or(temp.join("a"), |path| Path::new(&path).join("a"));
    let denied = ErrorKind::PermissionDenied;
    let store = DirStore::open(&path).unwrap();
    save(&store, &key(1), 1).unwrap();
    let engine = file(&store, &key(1)).parent().unwrap().to_owned();
    set_mode(&engine, 0o500);
    fails_with(save(&store, &key(1), 2), denied);
    fails_with(store.remove(&key(1)), denied);
    assert_eq!(load(&store, &key(1)).unwrap(), 1);
    set_mode(&path, 0);
    fails_with(store.load(&key(1), u64::MAX), denied);
    fails_with(save(&store, &key(1), 2), denied);
    fails_with(store.list(), denied);
    fails_with(DirStore::open(&path), denied);
    set_mode(&path, 0o500);
    let read_only = DirStore::open(&path).unwrap();
    assert_eq!(load(&read_only, &key(1)).unwrap(), 1);
    fails_with(DirStore::open(path.join("below")), denied);
    for path in [&path, &engine] {
        set_mode(path, 0o700);
    }
    save(&store, &key(1), 2).unwrap();
    assert_eq!(load(&store, &key(1)).unwrap(), 2);
    // One that cannot be read is no reason to list none.
    set_mode(file(&store, &key(1)), 0);
    fails_with(store.load(&key(1), u64::MAX), denied);
    assert_eq!(store.list().unwrap(), []);
}

#[test]
fn what_root_has_installed_is_taken_if_root_is_trusted() {
    let test = "artifacts::directory_shared::what_root_has_installed_is_taken_if_root_is_trusted";
    if child::runs(test) {
        let path = std::env::var(DIRECTORY).unwrap();
        let strict = DirStore::builder(&path).read_only(true);
        let error = strict.clone().open().unwrap_err();
        assert!(error.to_string().contains("user 0 owns it"), "{error}");
        let store = strict.trust_root(true).open().unwrap();
        let found = store.load(&key(1), u64::MAX).unwrap();
        assert_eq!(found.check_sample(&key(1)).unwrap(), code(1));
        return;
    }
    let temp = TempDir::new();
    let store = DirStore::open(temp.join("a")).unwrap();
    save(&store, &key(1), 1).unwrap();
    if fs::metadata(store.path()).unwrap().uid() != 0 {
        eprintln!("left out: this is not root");
        return;
    }
    let artifact = file(&store, &key(1));
    set_mode(store.path(), 0o755);
    set_mode(artifact.parent().unwrap(), 0o755);
    set_mode(&artifact, 0o444);
    as_nobody(test, store.path());
}
