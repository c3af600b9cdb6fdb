//! Others act between any two operations.

use super::super::names;
use super::*;
use crate::sync::unchecked::{channel, thread};

/// Runs `other` before each operation of a save over `1` in turn, and `check` afterwards, with what was before it.
fn before_each_operation(
    other: impl Fn(&DirStore) + Clone + Send + 'static,
    check: impl Fn(&DirStore, &[Op]),
) {
    for n in 0.. {
        let temp = TempDir::new();
        let plan = Plan::new();
        let path = temp.join("a");
        let store = plan.open(&path);
        save(&store, &key("a"), 1).unwrap();
        let (second, act) = (DirStore::open(&path).unwrap(), other.clone());
        plan.arm(move |at, _| {
            if at == n {
                act(&second);
            }
            Ok(())
        });
        save(&store, &key("a"), 2).unwrap();
        let seen = plan.disarm();
        let Some(before) = seen.get(..n).filter(|_| seen.len() > n) else {
            break;
        };
        check(&store, before);
        store.sweep().unwrap();
        let all = files(&path);
        assert!(all.iter().all(|name| name.ends_with(".wpa")), "{all:?}");
    }
}

#[test]
fn sweepers_and_readers_change_nothing() {
    let sweep = |store: &DirStore| {
        store.sweep().unwrap();
        assert!(load(store, &key("a")).is_some());
        assert_eq!(store.list().unwrap().len(), 1);
    };
    before_each_operation(sweep, |store, _| {
        assert_eq!(load(store, &key("a")), Some(2));
    });
}

#[test]
fn the_last_of_two_writers_wins() {
    let write = |store: &DirStore| save(store, &key("a"), 3).unwrap();
    before_each_operation(write, |store, before| {
        let is_later = before.contains(&Op::Rename);
        let expected = if is_later { 3 } else { 2 };
        assert_eq!(load(store, &key("a")), Some(expected));
    });
}

#[test]
fn what_is_removed_meanwhile_is_there_or_not() {
    let remove = |store: &DirStore| store.remove(&key("a")).unwrap();
    let remove_all = |store: &DirStore| store.remove_engine(key("a").engine()).unwrap();
    let check = |store: &DirStore, before: &[Op]| {
        let expected = (!before.contains(&Op::Rename)).then_some(2);
        assert_eq!(load(store, &key("a")), expected);
    };
    // Before the first operation after it, or at the end: what comes last holds.
    let at_the_end = |store: &DirStore, before: &[Op]| {
        if !before.contains(&Op::Rename) || before.contains(&Op::SyncDir) {
            check(store, before);
        }
    };
    before_each_operation(remove, check);
    before_each_operation(remove_all, at_the_end);
    let vanish = |store: &DirStore| std::fs::remove_dir_all(store.path()).unwrap();
    before_each_operation(vanish, at_the_end);
}

/// A writer stands before its m-th operation when a sweeper comes, and goes on to its end before the sweeper's n-th.
/// `None`: one of them does not have so many.
fn meet(m: usize, n: usize) -> Option<()> {
    let temp = TempDir::new();
    let path = temp.join("a");
    let [writers, sweepers] = [Plan::new(), Plan::new()];
    let [writer, sweeper] = [&writers, &sweepers].map(|plan| plan.open(&path));
    save(&writer, &key("b"), 7).unwrap();
    let (stand, standing) = channel::bounded(1);
    let (go_on, told) = channel::bounded::<()>(1);
    let (end, ended) = channel::bounded(2);
    writers.arm(move |at, _| {
        if at == m {
            stand.send(()).unwrap();
            // Whether it is told, or the sweeper was done before.
            let _ = told.recv();
        }
        Ok(())
    });
    let thread = thread::spawn(move || {
        save(&writer, &key("a"), 1).unwrap();
        // Its end is heard by the sweeper, and by the test.
        writers.disarm();
        end.send(()).unwrap();
        end.send(()).unwrap();
    });
    let has_stood = standing.recv().is_ok();
    let first = ended.clone();
    sweepers.arm(move |at, _| {
        if at == n {
            let _ = go_on.send(());
            first.recv().unwrap();
        }
        Ok(())
    });
    sweeper.sweep().unwrap();
    let has_met = sweepers.disarm().len() > n;
    thread.join().unwrap();
    assert_eq!(load(&sweeper, &key("a")), Some(1), "{m} {n}");
    assert_eq!(load(&sweeper, &key("b")), Some(7));
    let all = files(&path);
    assert!(all.iter().all(|name| name.ends_with(".wpa")), "{all:?}");
    (has_stood && has_met).then_some(())
}

#[test]
fn a_sweeper_harms_no_writer_whichever_goes_first() {
    let mut met = 0;
    for m in 0.. {
        let each = (0..).map_while(|n| meet(m, n)).count();
        if each == 0 {
            break;
        }
        met += each;
    }
    assert!(met > 60, "{met}");
}

#[test]
fn a_leftover_is_swept_and_a_file_of_a_living_writer_is_not() {
    let temp = TempDir::new();
    let store = DirStore::open(temp.join("a")).unwrap();
    save(&store, &key("a"), 1).unwrap();
    let engine = temp.join("a").join(key("a").engine().to_string());
    let [dead, living] = [(); 2].map(|()| engine.join(names::of_unfinished(&key("a"))));
    std::fs::write(&dead, "half").unwrap();
    let file = std::fs::File::create(&living).unwrap();
    file.try_lock().unwrap();
    std::fs::write(engine.join("notes.tmp"), "the host's").unwrap();
    store.sweep().unwrap();
    let mut left = files(temp.path());
    left.sort();
    assert_eq!(left.len(), 3, "{left:?}");
    assert!(!dead.exists() && living.exists());
    drop(file);
    store.sweep().unwrap();
    assert!(!living.exists());
    // What is not the store's keeps its directory.
    store.remove_engine(key("a").engine()).unwrap();
    assert_eq!(files(temp.path()), ["notes.tmp"]);
    let engines = store.engines().unwrap();
    assert_eq!((engines.len(), engines[0].artifacts), (1, 0));
}
