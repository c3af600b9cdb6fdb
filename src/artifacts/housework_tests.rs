//! What is done in the background, with a store whose artifacts are numbers.

use std::sync::Arc;

use super::super::key::EngineKey;
#[cfg(feature = "zstd")]
use super::super::memory::MemoryStore;
use super::super::store::{ArtifactStore, EncodedArtifact, StoreError, StoredArtifact};
use super::super::tiers::Artifacts;
use super::*;
use crate::sync::unchecked::Mutex;
use crate::sync::unchecked::channel::{Receiver, Sender, bounded, unbounded};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn key(number: u8) -> ArtifactKey {
    ArtifactKey::new(EngineKey::new(b"engine"), [number; 32])
}

/// Says what it has, and notes what it is told.
#[derive(Default)]
struct Notes {
    listed: Mutex<Vec<ArtifactInfo>>,
    touched: Mutex<Vec<u8>>,
    swept: Mutex<u32>,
    stuck: Mutex<Vec<u8>>,
    panics: bool,
    /// Each removal is told, and waits until it may go on.
    watched: Option<(Sender<u8>, Receiver<()>)>,
}

impl Notes {
    /// Artifacts of one byte, last used so long ago.
    fn of(ages: &[(u8, Option<Duration>)]) -> Arc<Self> {
        let notes = Self::default();
        let now = SystemTime::now();
        let infos = ages.iter().map(|(number, age)| {
            let info = ArtifactInfo::new(key(*number), 1);
            age.map_or(info, |age| info.used_at(now - age))
        });
        notes.listed.lock().extend(infos);
        Arc::new(notes)
    }

    fn left(&self) -> Vec<u8> {
        let listed = self.listed.lock();
        let mut left: Vec<_> = listed.iter().map(|info| info.key.module()[0]).collect();
        left.sort_unstable();
        left
    }
}

impl ArtifactStore for Notes {
    fn load(&self, _: &ArtifactKey, _: u64) -> Result<StoredArtifact, StoreError> {
        Err(StoreError::NotFound)
    }

    fn save(&self, key: &ArtifactKey, _: &EncodedArtifact<'_>) -> Result<(), StoreError> {
        self.listed.lock().push(ArtifactInfo::new(*key, 1));
        Ok(())
    }

    fn remove(&self, key: &ArtifactKey) -> Result<(), StoreError> {
        let number = key.module()[0];
        if let Some((removed, go_on)) = &self.watched {
            let _ = (removed.send(number), go_on.recv());
        }
        assert!(!self.panics, "on purpose");
        if self.stuck.lock().contains(&number) {
            let reason = "it is stuck".into();
            return Err(StoreError::Refused { reason });
        }
        self.listed.lock().retain(|info| info.key != *key);
        Ok(())
    }

    fn list(&self) -> Result<Vec<ArtifactInfo>, StoreError> {
        Ok(self.listed.lock().clone())
    }

    fn touch(&self, key: &ArtifactKey) -> Result<(), StoreError> {
        self.touched.lock().push(key.module()[0]);
        Ok(())
    }

    fn sweep(&self) -> Result<(), StoreError> {
        *self.swept.lock() += 1;
        Ok(())
    }
}

fn swept(notes: &Arc<Notes>, upkeep: Upkeep) -> Vec<u8> {
    let artifacts = (Artifacts::builder().store_with(notes.clone(), upkeep))
        .no_keeper()
        .build();
    artifacts.sweep();
    notes.left()
}

fn hours(hours: u64) -> Option<Duration> {
    Some(Duration::from_secs(hours * 3600))
}

#[test]
fn the_oldest_go_down_to_the_low_water_mark() {
    let ages: Vec<_> = (0..10).map(|n| (n, hours(u64::from(n) + 1))).collect();
    let all: Vec<u8> = (0..10).collect();
    for (upkeep, left) in [
        (Upkeep::new(), 10),
        (Upkeep::new().max_bytes(10), 10),
        (Upkeep::new().max_bytes(9), 7),
        (Upkeep::new().max_artifacts(9).low_water(0.5), 5),
        (Upkeep::new().max_artifacts(9).max_bytes(4), 3),
        (Upkeep::new().max_artifacts(1).low_water(0.0), 1),
        (Upkeep::new().max_artifacts(0), 0),
        (Upkeep::new().max_bytes(5).low_water(f64::NAN), 4),
        (Upkeep::new().max_bytes(5).low_water(9.0), 5),
        (Upkeep::new().max_bytes(5).low_water(-9.0), 1),
    ] {
        let notes = Notes::of(&ages);
        assert_eq!(swept(&notes, upkeep), all[..left], "{upkeep:?}");
        assert_eq!(*notes.swept.lock(), 1);
    }
}

#[test]
fn clocks_that_are_ahead_by_more_than_a_day_say_nothing() {
    let notes = Notes::of(&[
        (1, hours(5)),
        (2, None),
        (3, hours(1)),
        (4, None),
        (5, None),
    ]);
    let ahead = |number: usize, time| {
        let mut listed = notes.listed.lock();
        listed[number - 1] = listed[number - 1].used_at(SystemTime::now() + time);
    };
    ahead(4, DAY * 2);
    ahead(5, DAY / 2);
    // Nobody knows of 2 and 4; 5 is the newest.
    let upkeep = Upkeep::new().max_artifacts(4).low_water(0.75);
    assert_eq!(swept(&notes, upkeep), [1, 3, 5]);
    let upkeep = Upkeep::new().max_artifacts(1);
    assert_eq!(swept(&notes, upkeep), [5]);
}

#[test]
fn what_cannot_be_removed_is_left_and_counted() {
    let ages: Vec<_> = (0..4).map(|n| (n, hours(9 - u64::from(n)))).collect();
    let notes = Notes::of(&ages);
    notes.stuck.lock().push(0);
    let upkeep = Upkeep::new().max_artifacts(3).low_water(0.5);
    let artifacts = (Artifacts::builder().store_with(notes.clone(), upkeep))
        .no_keeper()
        .build();
    artifacts.sweep();
    assert_eq!(notes.left(), [0, 3]);
    assert_eq!(artifacts.stats().cleaned_up, 2);
    assert_eq!(artifacts.stats().failures, 1);
}

#[test]
fn a_panic_of_one_store_keeps_no_other_from_its_upkeep() {
    let bad = Arc::new(Notes {
        panics: true,
        ..Notes::default()
    });
    bad.listed.lock().push(ArtifactInfo::new(key(1), 1));
    let good = Notes::of(&[(1, None)]);
    let upkeep = Upkeep::new().max_artifacts(0);
    let artifacts = (Artifacts::builder().store_with(bad, upkeep))
        .store_with(good.clone(), upkeep)
        .no_keeper()
        .build();
    artifacts.sweep();
    assert!(good.left().is_empty());
    assert_eq!(artifacts.stats().failures, 1);
}

fn at(now: Now, later: Duration) -> Now {
    Now {
        at: now.at + later,
        wall: now.wall + later,
    }
}

#[test]
fn a_hundred_uses_are_one_touch_in_an_hour() {
    let notes = Notes::of(&[]);
    let artifacts = (Artifacts::builder().store(notes.clone()))
        .no_keeper()
        .build();
    let now = Now::read();
    let used = || Event::Used {
        tier: 0,
        key: key(1),
        is_compressed: false,
    };
    for second in 0..100 {
        let now = at(now, Duration::from_secs(second));
        artifacts.inner().note(used(), now);
    }
    assert_eq!(*notes.touched.lock(), [1]);
    artifacts.inner().note(used(), at(now, HOUR));
    assert_eq!(*notes.touched.lock(), [1, 1]);
}

#[test]
fn what_is_known_of_uses_is_bounded_and_holds_before_a_store_hears_of_it() {
    let mut books = Books::default();
    let now = Now::read();
    let number = |number: u32| {
        let mut module = [0; 32];
        module[..4].copy_from_slice(&number.to_le_bytes());
        ArtifactKey::new(EngineKey::new(b"engine"), module)
    };
    for each in 0..3 * MOST_USES as u32 {
        books.note_use(
            number(each),
            false,
            at(now, Duration::from_secs(each.into())),
        );
        assert!(books.uses.len() <= MOST_USES);
    }
    let info = ArtifactInfo::new(number(7), 1).used_at(now.wall - DAY);
    assert_eq!(books.last_used(&info, now), Some(now.wall - DAY));
    books.note_use(number(7), false, now);
    let later = at(now, HOUR);
    assert_eq!(books.last_used(&info, later), Some(now.wall));
}

#[test]
fn more_than_a_store_may_have_is_noticed_when_it_is_saved() {
    let ages: Vec<_> = (0..9).map(|n| (n, hours(1 + u64::from(n)))).collect();
    let notes = Notes::of(&ages);
    let upkeep = Upkeep::new().max_artifacts(10).low_water(0.5);
    let artifacts = (Artifacts::builder().store_with(notes.clone(), upkeep))
        .no_keeper()
        .build();
    let (now, is_over) = (Now::read(), AtomicBool::new(false));
    artifacts.inner().keep_up(now, false, &is_over);
    for number in 100..102 {
        assert_eq!(notes.left().len(), 9 + usize::from(number) - 100);
        let info = ArtifactInfo::new(key(number), 1).used_at(now.wall);
        notes.listed.lock().push(info);
        artifacts
            .inner()
            .note(Event::Saved { tier: 0, bytes: 1 }, now);
        artifacts.inner().keep_up(now, false, &is_over);
    }
    assert_eq!(notes.left(), [0, 1, 2, 100, 101]);
    assert_eq!(*notes.swept.lock(), 2);
    artifacts.inner().keep_up(at(now, HOUR), false, &is_over);
    assert_eq!(*notes.swept.lock(), 3);
}

#[test]
fn events_that_nobody_takes_are_dropped_and_counted() {
    let artifacts = (Artifacts::builder().store(Notes::default()))
        .no_keeper()
        .build();
    for _ in 0..1500 {
        assert!(artifacts.save(&key(1), b"code"));
    }
    assert_eq!(artifacts.stats().events_dropped, 1500 - 1024);
    artifacts.sweep();
    assert!(artifacts.save(&key(1), b"code"));
    assert_eq!(artifacts.stats().events_dropped, 1500 - 1024);
}

#[test]
fn the_keeper_cleans_up_by_itself_and_ends_with_the_last_handle() {
    let ((removed, removals), (go_on, going_on)) = (unbounded(), unbounded());
    let notes = Notes {
        watched: Some((removed, going_on)),
        ..Notes::default()
    };
    let upkeep = Upkeep::new().max_artifacts(1);
    let artifacts = Artifacts::builder().store_with(notes, upkeep).build();
    for number in [1, 2] {
        assert!(artifacts.save(&key(number), b"code"));
    }
    assert_eq!(removals.recv(), Ok(1));
    go_on.send(()).unwrap();
    let again = artifacts.clone();
    drop(artifacts);
    assert!(again.save(&key(3), b"code"));
    assert_eq!(removals.recv(), Ok(2));
    go_on.send(()).unwrap();
    drop(again);
    // The store is gone, and the thread with it.
    assert!(removals.recv().is_err());
}

#[test]
fn a_store_that_never_returns_keeps_nobody() {
    let ((removed, removals), (go_on, going_on)) = (bounded(0), bounded(0));
    let notes = Notes {
        watched: Some((removed, going_on)),
        ..Notes::default()
    };
    let upkeep = Upkeep::new().max_artifacts(0);
    let artifacts = Artifacts::builder().store_with(notes, upkeep).build();
    for number in [1, 2, 3] {
        assert!(artifacts.save(&key(number), b"code"));
    }
    let first = removals.recv().unwrap();
    for number in 0..200 {
        assert!(artifacts.save(&key(number), b"code"));
    }
    drop(artifacts);
    // It is over: when the store returns, nothing else is begun.
    drop(go_on);
    assert!(removals.recv().is_err(), "after {first}");
}

/// Code that can be compressed.
#[cfg(feature = "zstd")]
fn code() -> Vec<u8> {
    vec![7; 100_000]
}

#[cfg(feature = "zstd")]
fn find(artifacts: &Artifacts) -> bool {
    let no_room = &mut |_: &std::io::Error| false;
    let found = artifacts.find(&key(1), 0, u64::MAX, no_room).unwrap();
    let mapped_bytes = found.mapped_bytes();
    let verified = artifacts.verify(&found, no_room).unwrap();
    assert_eq!(verified.size().unwrap(), mapped_bytes);
    verified.read_code(100_000).unwrap() == code()
}

#[cfg(feature = "zstd")]
#[test]
fn the_cold_are_compressed_and_the_hot_are_not_any_more() {
    let store = Arc::new(MemoryStore::new(1 << 20));
    let upkeep = Upkeep::new().compress_after(DAY);
    let artifacts = (Artifacts::builder().store_with(store.clone(), upkeep))
        .no_keeper()
        .build();
    assert!(artifacts.save(&key(1), &code()));
    let raw_bytes = store.size().unwrap();
    let last_used = store.list().unwrap()[0].last_used;
    artifacts.sweep();
    assert_eq!(store.size().unwrap(), raw_bytes, "it is not cold yet");
    let (later, is_over) = (at(Now::read(), DAY), AtomicBool::new(false));
    artifacts.inner().keep_up(later, true, &is_over);
    assert_eq!(store.size().unwrap(), 2 * 4096);
    assert_eq!(artifacts.stats().rewritten, 1);
    assert_eq!(store.list().unwrap()[0].last_used, last_used);
    for uses in 1..4 {
        assert!(find(&artifacts));
        artifacts.sweep();
        let is_raw = store.size().unwrap() == raw_bytes;
        assert_eq!(is_raw, uses >= 2);
    }
    assert_eq!(artifacts.stats().rewritten, 2);
    assert_eq!(artifacts.stats().failures, 0);
}

#[cfg(feature = "zstd")]
#[test]
fn what_is_too_large_to_be_rewritten_stays_as_it_is() {
    for (beyond, rewritten) in [(0, 1), (1, 0)] {
        let store = Arc::new(MemoryStore::new(1 << 30));
        let upkeep = Upkeep::new().compress_after(Duration::ZERO);
        let artifacts = (Artifacts::builder().store_with(store.clone(), upkeep))
            .no_keeper()
            .build();
        assert!(artifacts.save(&key(1), &vec![7; MOST_REWRITTEN as usize + beyond]));
        artifacts.sweep();
        artifacts.sweep();
        let stats = artifacts.stats();
        assert_eq!((stats.rewritten, stats.failures), (rewritten, 0));
        assert_eq!(store.size().unwrap() > MOST_REWRITTEN, rewritten == 0);
    }
}

#[cfg(feature = "zstd")]
#[test]
fn a_tier_that_is_meant_to_be_compressed_stays_so() {
    let store = Arc::new(MemoryStore::new(1 << 20));
    let upkeep = Upkeep::new().codec(Codec::Zstd).compression_level(19);
    let artifacts = (Artifacts::builder().store_with(store.clone(), upkeep))
        .no_keeper()
        .build();
    assert!(artifacts.save(&key(1), &code()));
    for _ in 0..4 {
        assert!(find(&artifacts));
        artifacts.sweep();
    }
    assert_eq!(store.size().unwrap(), 2 * 4096);
    assert_eq!(artifacts.stats().rewritten, 0);
}

#[cfg(feature = "zstd")]
#[test]
fn what_is_corrupt_is_found_before_it_is_compressed() {
    let store = Arc::new(MemoryStore::new(1 << 20));
    let upkeep = Upkeep::new().compress_after(Duration::ZERO);
    let theirs = Artifacts::builder().store(store.clone()).secret(b"theirs");
    assert!(theirs.no_keeper().build().save(&key(1), &code()));
    let ours = (Artifacts::builder().store_with(store.clone(), upkeep))
        .no_keeper()
        .build();
    ours.sweep();
    assert_eq!(ours.stats().rejected, 1);
    assert_eq!(store.size().unwrap(), 0);
}
