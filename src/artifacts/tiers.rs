//! Tiers of stores, one behind the other: what a pool asks before it compiles.

use std::fmt;
use std::sync::Arc;

use hashbrown::HashMap;

use super::compress::compress;
use super::footer::Codec;
use super::key::ArtifactKey;
use super::seal::Seal;
use super::store::{ArtifactStore, StoreError};
use super::upkeep::Upkeep;
use super::verify::{Opened, VerifiedArtifact};
use crate::runtime::guarded;
use crate::sync::unchecked::thread::{self, ThreadId};
use crate::sync::unchecked::{Condvar, Mutex};
use crate::sync::{AtomicBool, AtomicU64, Ordering};

/// Where a pool finds compiled code, and leaves it: stores, asked one after the other. Cheap to clone; pools that have
/// clones of one compile a module once between them.
#[derive(Clone)]
pub struct Artifacts(Arc<Inner>);

struct Inner {
    tiers: Vec<Tier>,
    seal: Seal,
    /// What is compiled, and by which thread.
    flights: Mutex<HashMap<ArtifactKey, ThreadId>>,
    flight_ended: Condvar,
    counts: Counts,
}

struct Tier {
    store: Box<dyn ArtifactStore>,
    upkeep: Upkeep,
    /// What was said of its failure; said again when it has worked meanwhile.
    is_broken: AtomicBool,
}

#[derive(Default)]
struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
    rejected: AtomicU64,
    saved: AtomicU64,
    failures: AtomicU64,
}

/// What became of artifacts, since their [`Artifacts`] was built.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ArtifactStats {
    /// Artifacts that were found and verified.
    pub hits: u64,
    /// Times that no store had a usable one.
    pub misses: u64,
    /// Artifacts that were corrupt, or incompatible.
    pub rejected: u64,
    /// Artifacts that were saved, counted for each store.
    pub saved: u64,
    /// Times that a store failed otherwise: unreadable, refused.
    pub failures: u64,
}

/// What [`Artifacts`] is built from.
#[derive(Default)]
pub struct ArtifactsBuilder {
    tiers: Vec<Tier>,
    secret: Option<Seal>,
}

impl ArtifactsBuilder {
    /// Adds a store, to be asked after those that were added before.
    pub fn store(self, store: impl ArtifactStore) -> Self {
        self.store_with(store, Upkeep::new())
    }

    /// The same, with limits of how much is kept there, and the form in which it is.
    pub fn store_with(mut self, store: impl ArtifactStore, upkeep: Upkeep) -> Self {
        self.tiers.push(Tier {
            store: Box::new(store),
            upkeep,
            is_broken: AtomicBool::new(false),
        });
        self
    }

    /// Proves artifacts with this secret: what somebody has made who does not know it is not loaded. At best 32
    /// random bytes. Without one, artifacts are proved against accidents only, and whoever can write into a store
    /// can run code in this process.
    pub fn secret(mut self, secret: &[u8]) -> Self {
        self.secret = Some(Seal::keyed(secret));
        self
    }

    /// Builds it.
    pub fn build(self) -> Artifacts {
        Artifacts(Arc::new(Inner {
            tiers: self.tiers,
            seal: self.secret.unwrap_or_else(Seal::digest),
            flights: Mutex::new(HashMap::new()),
            flight_ended: Condvar::new(),
            counts: Counts::default(),
        }))
    }
}

/// An artifact that a store has, and that is not verified yet.
pub(crate) struct Found {
    /// Boxed: it has the footer with it.
    opened: Box<Opened>,
    tier: usize,
    key: ArtifactKey,
}

impl Found {
    /// Bytes that its code takes when it is mapped.
    pub fn mapped_bytes(&self) -> u64 {
        self.opened.mapped_bytes()
    }

    /// Where to go on, should it not do.
    pub fn next_tier(&self) -> usize {
        self.tier + 1
    }
}

impl Artifacts {
    /// Begins to build one.
    pub fn builder() -> ArtifactsBuilder {
        ArtifactsBuilder::default()
    }

    /// What became of artifacts so far.
    pub fn stats(&self) -> ArtifactStats {
        let counts = &self.0.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ArtifactStats {
            hits: read(&counts.hits),
            misses: read(&counts.misses),
            rejected: read(&counts.rejected),
            saved: read(&counts.saved),
            failures: read(&counts.failures),
        }
    }

    /// The first store from `tier` on that has it, of at most so many bytes.
    pub(crate) fn find(&self, key: &ArtifactKey, tier: usize, max_bytes: u64) -> Option<Found> {
        for (at, tier) in self.0.tiers.iter().enumerate().skip(tier) {
            let found = tier.guarded("load", |store| {
                let opened = Opened::new(store.load(key, max_bytes)?, key, max_bytes)?;
                // What a footer says of lengths is what is reserved. Raw code is as long as its file.
                if opened.is_compressed() {
                    opened.check(&self.0.seal)?;
                }
                Ok(opened)
            });
            match found {
                Ok(opened) => {
                    tier.works();
                    return Some(Found {
                        opened: Box::new(opened),
                        tier: at,
                        key: *key,
                    });
                }
                Err(error) => self.note_failure(tier, key, &error),
            }
        }
        count(&self.0.counts.misses);
        None
    }

    /// Verifies it; what is not what was saved goes. Stores that were asked before, and take it without a copy, have it
    /// from now on.
    pub(crate) fn verify(&self, found: &Found) -> Option<VerifiedArtifact> {
        let tier = &self.0.tiers[found.tier];
        match found.opened.verify(&self.0.seal) {
            Ok(verified) => {
                count(&self.0.counts.hits);
                self.offer(found, &verified);
                Some(verified)
            }
            Err(error) => {
                self.note_failure(tier, &found.key, &error);
                None
            }
        }
    }

    fn offer(&self, found: &Found, verified: &VerifiedArtifact) {
        let earlier = self.0.tiers[..found.tier].iter();
        for tier in earlier.filter(|tier| !tier.store.is_read_only()) {
            if let Err(error) = tier.guarded("offer", |store| store.offer(&found.key, verified)) {
                self.note_failure(tier, &found.key, &error);
            }
        }
    }

    /// It was verified, and still wasmtime does not take it.
    pub(crate) fn reject(&self, found: &Found, reason: String) {
        let error = StoreError::Incompatible { reason };
        self.note_failure(&self.0.tiers[found.tier], &found.key, &error);
    }

    /// Saves it wherever it can be saved; whether it was anywhere.
    pub(crate) fn save(&self, key: &ArtifactKey, code: &[u8]) -> bool {
        let writable = |tier: &&Tier| !tier.store.is_read_only();
        let bytes = code.len() as u64;
        let mut raw = None;
        let mut saved = false;
        for tier in self.0.tiers.iter().filter(writable) {
            let seal = &self.0.seal;
            let body = match tier.upkeep.codec {
                Codec::Raw => None,
                Codec::Zstd => compress(code, tier.upkeep.compression_level),
            };
            let compressed =
                (body.as_deref()).map(|body| seal.encode(*key, Codec::Zstd, body, bytes));
            let encoded = match &compressed {
                Some(compressed) => compressed,
                None => raw.get_or_insert_with(|| seal.encode(*key, Codec::Raw, code, bytes)),
            };
            match tier.guarded("save", |store| store.save(key, encoded)) {
                Ok(()) => {
                    tier.works();
                    count(&self.0.counts.saved);
                    saved = true;
                }
                Err(error) => self.note_failure(tier, key, &error),
            }
        }
        saved
    }

    /// Counts it, says it, and removes what will never load.
    fn note_failure(&self, tier: &Tier, key: &ArtifactKey, error: &StoreError) {
        let counts = &self.0.counts;
        match error {
            StoreError::NotFound | StoreError::TooLarge { .. } => {}
            error if error.condemns_artifact() => {
                count(&counts.rejected);
                let removed = match tier.store.is_read_only() {
                    true => false,
                    false => tier.guarded("remove", |store| store.remove(key)).is_ok(),
                };
                guarded("a subscriber", || {
                    let store = tier.store.describe();
                    tracing::warn!(%store, %key, %error, removed, "artifact rejected");
                });
            }
            error => {
                count(&counts.failures);
                if !tier.is_broken.swap(true, Ordering::Relaxed) {
                    guarded("a subscriber", || {
                        let store = tier.store.describe();
                        let error = crate::runtime::Report(error);
                        tracing::warn!(%store, %error, "artifact store fails");
                    });
                }
            }
        }
    }

    /// This thread alone compiles and saves what has this key, in all pools that have these artifacts, until the
    /// guard goes. Waits for others that do.
    ///
    /// A thread that compiles already, and whose subscriber has led it here, waits for nobody: it could be for
    /// itself.
    pub(crate) fn hold(&self, key: &ArtifactKey) -> HeldFlight {
        let thread = thread::current().id();
        let mut flights = self.0.flights.lock();
        let is_nested = flights.values().any(|other| *other == thread);
        let mut waited = false;
        while !is_nested && flights.contains_key(key) {
            waited = true;
            self.0.flight_ended.wait(&mut flights);
        }
        if !is_nested {
            flights.insert(*key, thread);
        }
        HeldFlight {
            artifacts: self.clone(),
            key: (!is_nested).then_some(*key),
            waited,
        }
    }
}

impl Tier {
    /// A store may be the host's own code.
    fn guarded<R>(
        &self,
        what: &str,
        work: impl FnOnce(&dyn ArtifactStore) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        let panicked = || {
            let source = std::io::Error::other("it panicked");
            Err(StoreError::unreadable(
                format!("the store's {what}"),
                source,
            ))
        };
        guarded("an artifact store", || work(&*self.store)).unwrap_or_else(panicked)
    }

    fn works(&self) {
        self.is_broken.store(false, Ordering::Relaxed);
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// See [`Artifacts::hold`].
pub(crate) struct HeldFlight {
    artifacts: Artifacts,
    /// `None` if it holds nothing.
    key: Option<ArtifactKey>,
    /// Whether another had it before: it may be there now.
    pub waited: bool,
}

impl Drop for HeldFlight {
    fn drop(&mut self) {
        if let Some(key) = &self.key {
            self.artifacts.0.flights.lock().remove(key);
            self.artifacts.0.flight_ended.notify_all();
        }
    }
}

impl fmt::Debug for Artifacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stores = self.0.tiers.iter().map(|tier| tier.store.describe());
        f.debug_struct("Artifacts")
            .field("stores", &stores.collect::<Vec<_>>())
            .field("seal", &self.0.seal)
            .field("stats", &self.stats())
            .finish()
    }
}

impl fmt::Debug for ArtifactsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stores = self.tiers.iter().map(|tier| tier.store.describe());
        f.debug_struct("ArtifactsBuilder")
            .field("stores", &stores.collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
