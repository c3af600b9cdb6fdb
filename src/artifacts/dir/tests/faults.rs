//! The n-th operation fails, or the process ends before it.

use rustix::io::Errno;

use super::super::super::verify::VerifiedArtifact;
use super::*;

/// What goes wrong from the n-th operation on.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    Fails(Errno),
    /// No operation is done any more, and nobody hears of it.
    Ends,
}

const FAULTS: [Fault; 3] = [
    Fault::Fails(Errno::IO),
    Fault::Fails(Errno::NOSPC),
    Fault::Ends,
];

impl Fault {
    fn at(self, n: usize, plan: &Plan) {
        plan.arm(move |at, _| match self {
            Fault::Fails(errno) if at == n => Err(errno.into()),
            Fault::Ends if at >= n => Err(Errno::IO.into()),
            _ => Ok(()),
        });
    }
}

/// The system's error is in it, and in its words.
#[track_caller]
fn check_error(error: &StoreError, fault: Fault) {
    let StoreError::Unreadable { what, source } = error else {
        panic!("{error:?}");
    };
    assert!(what.contains("the directory /"), "{what}");
    if let Fault::Fails(errno) = fault {
        assert_eq!(source.raw_os_error(), Some(errno.raw_os_error()));
    }
}

/// Runs it with each fault at each operation, in a directory of its own that `prepare` fills; `check` sees it afterwards,
/// with what came of it, by another store. How many operations there are.
fn at_each_operation<R>(
    prepare: impl Fn(&DirStore),
    run: impl Fn(&DirStore) -> Result<R, StoreError>,
    check: impl Fn(&DirStore, Option<R>),
) -> usize {
    let mut operations = 0;
    for fault in FAULTS {
        for n in 0.. {
            let temp = TempDir::new();
            let plan = Plan::new();
            let path = temp.join("a");
            let store = plan.open(&path);
            prepare(&store);
            fault.at(n, &plan);
            let result = run(&store);
            let seen = plan.disarm();
            if let Err(error) = &result {
                check_error(error, fault);
            }
            check(&DirStore::open(&path).unwrap(), result.ok());
            // The same store goes on, as if nothing had been.
            save(&store, &key("later"), 9).unwrap();
            assert_eq!(load(&store, &key("later")), Some(9));
            if seen.len() <= n {
                operations = operations.max(n);
                break;
            }
        }
    }
    operations
}

/// Nothing is left but artifacts.
fn check_leftovers(store: &DirStore) {
    store.sweep().unwrap();
    let all = files(store.path());
    assert!(all.iter().all(|name| name.ends_with(".wpa")), "{all:?}");
    assert_eq!(all.len(), store.list().unwrap().len());
}

#[test]
fn a_save_leaves_nothing_or_all_of_it() {
    let key = key("a");
    let operations = at_each_operation(
        |_| (),
        |store| save(store, &key, 1),
        |store, done| {
            let found = load(store, &key);
            assert!(done.is_none() || found == Some(1));
            check_leftovers(store);
            assert_eq!(load(store, &key), found);
        },
    );
    assert!(operations > 12, "{operations}");
}

/// What a later store had: it is kept as what is saved is.
#[test]
fn an_offer_leaves_nothing_or_all_of_it() {
    let key = key("a");
    let artifact = VerifiedArtifact::sample(&key, &code(1));
    let operations = at_each_operation(
        |_| (),
        |store| store.offer(&key, &artifact),
        |store, done| {
            let found = load(store, &key);
            assert!(done.is_none() || (done, found) == (Some(true), Some(1)));
            check_leftovers(store);
            assert_eq!(load(store, &key), found);
        },
    );
    assert!(operations > 10, "{operations}");
}

#[test]
fn a_save_over_another_leaves_one_of_them() {
    let key = key("a");
    at_each_operation(
        |store| save(store, &key, 1).unwrap(),
        |store| save(store, &key, 2),
        |store, done| {
            let found = load(store, &key);
            let expected = if done.is_some() { &[2][..] } else { &[1, 2] };
            assert!(found.is_some_and(|found| expected.contains(&found)));
            check_leftovers(store);
            assert_eq!(load(store, &key), found);
        },
    );
}

#[test]
fn a_directory_that_cannot_be_made_again_leaves_nothing() {
    let key = key("a");
    at_each_operation(
        |store| std::fs::remove_dir_all(store.path()).unwrap(),
        |store| save(store, &key, 1),
        |store, done| assert!(done.is_none() || load(store, &key) == Some(1)),
    );
}

#[test]
fn what_fails_otherwise_harms_no_artifact() {
    let [key, other] = [key("a"), key("b")];
    let prepare = |store: &DirStore| {
        save(store, &key, 1).unwrap();
        save(store, &other, 2).unwrap();
        let engine = store.path().join(key.engine().to_string());
        let leftover = super::super::names::of_unfinished(&key);
        std::fs::write(engine.join(leftover), "half").unwrap();
    };
    let both = |store: &DirStore| {
        assert_eq!(load(store, &key), Some(1));
        assert_eq!(load(store, &other), Some(2));
    };
    let check = |store: &DirStore| {
        both(store);
        check_leftovers(store);
        both(store);
    };
    let loaded = |store: &DirStore| store.load(&key, u64::MAX)?.check_sample(&key);
    at_each_operation(prepare, loaded, |store, found| {
        assert!(found.is_none_or(|found| found == code(1)));
        check(store);
    });
    at_each_operation(prepare, ArtifactStore::list, |store, list| {
        assert!(list.is_none_or(|list| list.len() == 2));
        check(store);
    });
    at_each_operation(prepare, DirStore::engines, |store, _| check(store));
    at_each_operation(prepare, ArtifactStore::sweep, |store, _| check(store));
    let touched = |store: &DirStore| store.touch(&key);
    at_each_operation(prepare, touched, |store, _| check(store));
    let removed = |store: &DirStore| store.remove(&key);
    at_each_operation(prepare, removed, |store, done| {
        assert!(done.is_none() || load(store, &key).is_none());
        assert_eq!(load(store, &other), Some(2));
        check_leftovers(store);
    });
    let removed = |store: &DirStore| store.remove_engine(key.engine());
    at_each_operation(prepare, removed, |store, done| {
        let left = [load(store, &key), load(store, &other)];
        assert!(done.is_none() || left == [None; 2]);
        check_leftovers(store);
    });
}

#[test]
fn a_directory_that_fails_to_open_says_so() {
    for n in 0..2 {
        let temp = TempDir::new();
        let plan = Plan::new();
        let fault = Fault::Fails(Errno::IO);
        fault.at(n, &plan);
        let path = temp.join("a");
        let error = DirStore::builder(&path)
            .open_with(plan.clone())
            .unwrap_err();
        check_error(&error, fault);
        DirStore::open(&path).unwrap();
    }
}
