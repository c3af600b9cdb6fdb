//! Artifacts in memory, within a budget of their own.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::SystemTime;

use super::key::ArtifactKey;
use super::sealed::{SealedFile, Unsealed};
use super::store::{ArtifactInfo, ArtifactStore, EncodedArtifact, StoreError, StoredArtifact};
use super::verify::VerifiedArtifact;
use crate::sync::unchecked::{Condvar, Mutex};

/// Artifacts that a [`MemoryStore`] keeps if it is not told otherwise: each takes a file descriptor.
const ARTIFACTS: usize = 256;

/// Keeps artifacts in memory, in no more of it than it is given, not even for an instant. Those that were not used for
/// longest make room for others.
///
/// On Linux each is a file in memory (`memfd_create(2)`) that nobody can write to any more; code is mapped from there
/// without a copy, so what is loaded while it is kept here takes no memory twice. Each takes a file descriptor. Its
/// budget is the store's own: no budget of a pool knows of it.
///
/// ```
/// use wasm_pool::{ArtifactStore, Artifacts, MemoryStore};
/// let memory = MemoryStore::new(64 << 20).max_artifacts(100);
/// assert_eq!(memory.size().unwrap(), 0);
/// let artifacts = Artifacts::builder().store(memory).build();
/// # drop(artifacts);
/// ```
pub struct MemoryStore {
    max_bytes: u64,
    max_artifacts: usize,
    shelf: Mutex<Shelf>,
    /// Something that was being written is kept now, or given up.
    written: Condvar,
}

/// What is kept, and what is charged.
#[derive(Default)]
struct Shelf {
    kept: HashMap<ArtifactKey, Kept>,
    /// Who was used when, the longest ago first.
    order: BTreeMap<u64, ArtifactKey>,
    uses: u64,
    bytes: u64,
    /// What is being written has its room already.
    writing: u64,
    writers: usize,
}

struct Kept {
    file: SealedFile,
    bytes: u64,
    /// Its place in the order.
    use_: u64,
    last_used: SystemTime,
}

/// Room for an artifact that is being written.
struct Room<'a> {
    store: &'a MemoryStore,
    bytes: u64,
    /// What is in it, and is not kept yet.
    artifact: Option<(ArtifactKey, SealedFile)>,
    last_used: Option<SystemTime>,
}

impl MemoryStore {
    /// Keeps so many bytes at most, and 256 artifacts.
    pub fn new(max_bytes: u64) -> Self {
        Self {
            max_bytes,
            max_artifacts: ARTIFACTS,
            shelf: Mutex::new(Shelf::default()),
            written: Condvar::new(),
        }
    }

    /// Keeps so many artifacts at most: each takes a file descriptor on Linux.
    pub fn max_artifacts(mut self, most: usize) -> Self {
        self.max_artifacts = most;
        self
    }

    fn fits(&self, bytes: u64) -> bool {
        bytes <= self.max_bytes && self.max_artifacts > 0
    }

    /// Makes room, and waits for it where others are writing: they end. Whatever is kept of this key makes room first.
    fn room(&self, key: &ArtifactKey, bytes: u64) -> Result<Room<'_>, StoreError> {
        if !self.fits(bytes) {
            let (most, artifacts) = (self.max_bytes, self.max_artifacts);
            let reason =
                format!("{bytes} bytes, where {artifacts} artifacts may take {most} together");
            return Err(StoreError::Refused { reason });
        }
        let mut shelf = self.shelf.lock();
        // To evict others is no use as long as what is being written takes too much.
        while shelf.writing + bytes > self.max_bytes || shelf.writers >= self.max_artifacts {
            self.written.wait(&mut shelf);
        }
        shelf.remove(key);
        while shelf.bytes + shelf.writing + bytes > self.max_bytes
            || shelf.kept.len() + shelf.writers >= self.max_artifacts
        {
            let oldest = shelf.order.first_key_value().map(|(_, key)| *key);
            oldest.into_iter().for_each(|key| shelf.remove(&key));
        }
        shelf.writing += bytes;
        shelf.writers += 1;
        Ok(Room {
            store: self,
            bytes,
            artifact: None,
            last_used: None,
        })
    }
}

impl Shelf {
    fn share(&self, key: &ArtifactKey) -> Result<StoredArtifact, StoreError> {
        let kept = self.kept.get(key).ok_or(StoreError::NotFound)?;
        let stored = kept.file.stored();
        stored.map_err(|error| StoreError::unreadable("an artifact cannot be shared", error))
    }

    /// Its memory is given back before its room is, unless it is mapped: then it is the charge of who mapped it.
    fn remove(&mut self, key: &ArtifactKey) {
        if let Some(Kept {
            file, bytes, use_, ..
        }) = self.kept.remove(key)
        {
            drop(file);
            self.order.remove(&use_);
            self.bytes -= bytes;
        }
    }

    fn insert(
        &mut self,
        key: ArtifactKey,
        file: SealedFile,
        bytes: u64,
        last_used: Option<SystemTime>,
    ) {
        self.remove(&key);
        let kept = Kept {
            file,
            bytes,
            use_: self.uses,
            last_used: last_used.unwrap_or_else(SystemTime::now),
        };
        self.order.insert(self.uses, key);
        self.kept.insert(key, kept);
        self.uses += 1;
        self.bytes += bytes;
    }

    fn note_use(&mut self, key: &ArtifactKey) {
        if let Some(kept) = self.kept.get_mut(key) {
            self.order.remove(&kept.use_);
            self.order.insert(self.uses, *key);
            kept.use_ = self.uses;
            kept.last_used = SystemTime::now();
            self.uses += 1;
        }
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        let mut shelf = self.store.shelf.lock();
        shelf.writing -= self.bytes;
        shelf.writers -= 1;
        if let Some((key, file)) = self.artifact.take() {
            shelf.insert(key, file, self.bytes, self.last_used);
        }
        self.store.written.notify_all();
    }
}

fn no_memory(source: std::io::Error) -> StoreError {
    StoreError::unreadable("there is no memory for an artifact", source)
}

impl ArtifactStore for MemoryStore {
    /// However long it is: it is in memory already.
    fn load(&self, key: &ArtifactKey, _: u64) -> Result<StoredArtifact, StoreError> {
        let mut shelf = self.shelf.lock();
        let stored = shelf.share(key)?;
        shelf.note_use(key);
        Ok(stored)
    }

    fn peek(&self, key: &ArtifactKey, _: u64) -> Result<StoredArtifact, StoreError> {
        self.shelf.lock().share(key)
    }

    fn save(&self, key: &ArtifactKey, artifact: &EncodedArtifact<'_>) -> Result<(), StoreError> {
        let mut room = self.room(key, artifact.size())?;
        let mut file = Unsealed::new(artifact.size()).map_err(no_memory)?;
        for part in artifact.parts() {
            file.write(part).map_err(no_memory)?;
        }
        room.last_used = artifact.last_used();
        room.artifact = Some((*key, file.seal().map_err(no_memory)?));
        Ok(())
    }

    fn offer(&self, key: &ArtifactKey, artifact: &VerifiedArtifact) -> Result<bool, StoreError> {
        let bytes = artifact.size().map_err(no_memory)?;
        if !self.fits(bytes) {
            return Ok(false);
        }
        let mut room = self.room(key, bytes)?;
        room.artifact = Some((*key, artifact.file().try_clone().map_err(no_memory)?));
        Ok(true)
    }

    fn remove(&self, key: &ArtifactKey) -> Result<(), StoreError> {
        self.shelf.lock().remove(key);
        Ok(())
    }

    fn list(&self) -> Result<Vec<ArtifactInfo>, StoreError> {
        let shelf = self.shelf.lock();
        let info = |(key, kept): (&ArtifactKey, &Kept)| {
            ArtifactInfo::new(*key, kept.bytes).used_at(kept.last_used)
        };
        Ok(shelf.kept.iter().map(info).collect())
    }

    fn size(&self) -> Result<u64, StoreError> {
        Ok(self.shelf.lock().bytes)
    }

    fn touch(&self, key: &ArtifactKey) -> Result<(), StoreError> {
        self.shelf.lock().note_use(key);
        Ok(())
    }

    fn describe(&self) -> String {
        "memory".into()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shelf = self.shelf.lock();
        f.debug_struct("MemoryStore")
            .field("artifacts", &shelf.kept.len())
            .field("bytes", &shelf.bytes)
            .field("max_artifacts", &self.max_artifacts)
            .field("max_bytes", &self.max_bytes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::footer::Codec;
    use super::super::key::EngineKey;
    use super::super::seal::Seal;
    use super::super::tiers::{Artifacts, Found};
    use super::super::verify::Opened;
    use super::*;
    use crate::sync::unchecked::thread;

    const PAGE: u64 = 4096;

    fn key(number: u8) -> ArtifactKey {
        ArtifactKey::new(EngineKey::new(b"engine"), [number; 32])
    }

    fn save(store: &MemoryStore, number: u8, pages: u64) -> Result<(), StoreError> {
        let body = vec![number; (PAGE * (pages - 1)) as usize];
        let artifact = Seal::digest().encode(key(number), Codec::Raw, &body, body.len() as u64);
        assert_eq!(artifact.size(), pages * PAGE);
        store.save(&key(number), &artifact)
    }

    fn verified(store: &MemoryStore, number: u8) -> Option<VerifiedArtifact> {
        let stored = store.load(&key(number), u64::MAX).ok()?;
        let opened = Opened::new(stored, &key(number), u64::MAX).unwrap();
        Some(opened.verify(&Seal::digest()).unwrap())
    }

    fn find(artifacts: &Artifacts, number: u8) -> Found {
        let found = artifacts.find(&key(number), 0, u64::MAX, &mut |_| false);
        found.unwrap()
    }

    #[test]
    fn what_is_saved_is_loaded_and_listed_until_it_is_removed() {
        let store = MemoryStore::new(10 * PAGE);
        assert!(matches!(
            store.load(&key(1), PAGE),
            Err(StoreError::NotFound)
        ));
        save(&store, 1, 3).unwrap();
        save(&store, 2, 4).unwrap();
        assert_eq!(store.size().unwrap(), 7 * PAGE);
        let bytes = store.list().unwrap().into_iter().map(|info| info.bytes);
        assert_eq!(bytes.sum::<u64>(), 7 * PAGE);
        assert_eq!(verified(&store, 2).unwrap().size().unwrap(), 4 * PAGE);
        store.remove(&key(2)).unwrap();
        store.remove(&key(2)).unwrap();
        assert_eq!(store.list().unwrap()[0].key, key(1));
        assert_eq!(store.size().unwrap(), 3 * PAGE);
    }

    #[test]
    fn one_that_is_too_large_is_refused_and_moves_nothing() {
        let store = MemoryStore::new(4 * PAGE);
        save(&store, 1, 4).unwrap();
        for number in [1, 2] {
            let error = save(&store, number, 5).unwrap_err();
            assert!(matches!(error, StoreError::Refused { .. }), "{error}");
        }
        assert!(verified(&store, 1).is_some());
        let none = MemoryStore::new(u64::MAX).max_artifacts(0);
        assert!(save(&none, 1, 2).is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_was_found_elsewhere_is_shared_and_not_copied() {
        use std::os::unix::fs::MetadataExt;
        let (near, far) = (MemoryStore::new(4 * PAGE), MemoryStore::new(9 * PAGE));
        save(&far, 1, 4).unwrap();
        save(&far, 2, 5).unwrap();
        let found = verified(&far, 1).unwrap();
        assert!(near.offer(&key(1), &found).unwrap());
        let large = verified(&far, 2).unwrap();
        assert!(!near.offer(&key(2), &large).unwrap());
        assert_eq!(near.size().unwrap(), 4 * PAGE);
        let inode = |artifact: &VerifiedArtifact| artifact.file().file().metadata().unwrap().ino();
        assert_eq!(inode(&verified(&near, 1).unwrap()), inode(&found));
    }

    #[test]
    fn what_a_later_tier_has_is_in_memory_from_then_on() {
        let near = Arc::new(MemoryStore::new(4 * PAGE));
        let far = MemoryStore::new(9 * PAGE);
        save(&far, 1, 4).unwrap();
        save(&far, 2, 5).unwrap();
        let artifacts = Artifacts::builder().store(near.clone()).store(far).build();
        for number in [1, 2] {
            let found = find(&artifacts, number);
            let verified = artifacts.verify(&found, &mut |_| false).unwrap();
            artifacts.offer(&found, &verified);
        }
        assert_eq!(near.list().unwrap()[0].key, key(1));
        assert_eq!(near.list().unwrap().len(), 1);
        assert_eq!(find(&artifacts, 1).next_tier(), 1);
        assert_eq!(artifacts.stats().failures, 0);
    }

    #[test]
    fn what_is_loaded_outlives_its_removal() {
        let store = MemoryStore::new(4 * PAGE);
        save(&store, 1, 4).unwrap();
        let stored = store.load(&key(1), u64::MAX).unwrap();
        save(&store, 2, 4).unwrap();
        assert!(verified(&store, 1).is_none());
        let opened = Opened::new(stored, &key(1), u64::MAX).unwrap();
        assert!(opened.verify(&Seal::digest()).is_ok());
    }

    #[test]
    fn the_budget_holds_at_every_instant() {
        let store = MemoryStore::new(20 * PAGE).max_artifacts(6);
        let check = || {
            let shelf = store.shelf.lock();
            assert!(shelf.bytes + shelf.writing <= 20 * PAGE);
            assert!(shelf.kept.len() + shelf.writers <= 6);
            assert_eq!(shelf.kept.len(), shelf.order.len());
            let kept = shelf.kept.values().map(|kept| kept.bytes);
            assert_eq!(shelf.bytes, kept.sum::<u64>());
        };
        thread::scope(|scope| {
            let writers: Vec<_> = (0..4_u8)
                .map(|thread| {
                    let store = &store;
                    scope.spawn(move || {
                        for round in 0..300_u32 {
                            let number = (round * 7 + u32::from(thread) * 3) as u8 % 10;
                            save(store, number, 2 + u64::from(number)).unwrap();
                            let loaded = store.load(&key(number ^ 1), u64::MAX);
                            assert!(matches!(loaded, Ok(_) | Err(StoreError::NotFound)));
                            if round % 5 == 0 {
                                store.remove(&key(number)).unwrap();
                            }
                        }
                    })
                })
                .collect();
            while !writers.iter().all(thread::ScopedJoinHandle::is_finished) {
                check();
                thread::yield_now();
            }
        });
        check();
        let shelf = store.shelf.lock();
        assert_eq!((shelf.writing, shelf.writers), (0, 0));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Save(u8, u64),
        Load(u8),
        Touch(u8),
        Remove(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..8_u8, 2..12_u64).prop_map(|(key, pages)| Step::Save(key, pages)),
            2 => (0..8_u8).prop_map(Step::Load),
            1 => (0..8_u8).prop_map(Step::Touch),
            1 => (0..8_u8).prop_map(Step::Remove),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..<_>::default() })]

        /// The model: a list, the longest unused first.
        #[test]
        fn the_longest_unused_make_room(steps in prop::collection::vec(step(), 1..60)) {
            let (most, artifacts) = (20, 5);
            let store = MemoryStore::new(most * PAGE).max_artifacts(artifacts);
            let mut model: Vec<(u8, u64)> = Vec::new();
            for step in steps {
                match step {
                    Step::Save(number, pages) => {
                        save(&store, number, pages).unwrap();
                        model.retain(|(other, _)| *other != number);
                        model.push((number, pages));
                        while model.len() > artifacts || model.iter().map(|m| m.1).sum::<u64>() > most {
                            model.remove(0);
                        }
                    }
                    Step::Load(number) | Step::Touch(number) => {
                        if matches!(step, Step::Touch(_)) {
                            store.touch(&key(number)).unwrap();
                        } else {
                            let there = model.iter().any(|(other, _)| *other == number);
                            prop_assert_eq!(verified(&store, number).is_some(), there);
                        }
                        if let Some(at) = model.iter().position(|(other, _)| *other == number) {
                            let used = model.remove(at);
                            model.push(used);
                        }
                    }
                    Step::Remove(number) => {
                        store.remove(&key(number)).unwrap();
                        model.retain(|(other, _)| *other != number);
                    }
                }
                let order = store.shelf.lock().order.values().copied().collect::<Vec<_>>();
                let expected: Vec<_> = model.iter().map(|(number, _)| key(*number)).collect();
                prop_assert_eq!(order, expected);
                let bytes = model.iter().map(|m| m.1 * PAGE).sum::<u64>();
                prop_assert_eq!(store.size().unwrap(), bytes);
                prop_assert_eq!(store.list().unwrap().len(), model.len());
            }
        }
    }
}
