//! Tiers of stores, one behind the other: what a pool asks before it compiles.

use std::fmt;
use std::io;
use std::sync::Arc;

use hashbrown::HashMap;

use super::compress::compress_code;
#[cfg(feature = "warm-up")]
use super::compress::decoder_bytes;
use super::footer::Codec;
use super::keeper::{Event, Keeper};
use super::key::ArtifactKey;
use super::seal::Seal;
use super::store::{ArtifactStore, StoreError};
use super::tier::{Tier, Work};
use super::upkeep::Upkeep;
use super::verify::{Opened, VerifiedArtifact};
use crate::runtime::guarded;
use crate::sync::unchecked::thread::{self, ThreadId};
use crate::sync::unchecked::{AtomicU64, Ordering};
use crate::sync::unchecked::{Condvar, Mutex};

/// Where a pool finds compiled code, and leaves it: stores, asked one after the other. Cheap to clone; pools that have
/// clones of one compile a module once between them.
#[derive(Clone)]
pub struct Artifacts {
    inner: Arc<Inner>,
    /// Goes with the last of these; what it keeps up may stay a little longer.
    keeper: Arc<Keeper>,
}

pub(super) struct Inner {
    pub tiers: Vec<Tier>,
    pub seal: Seal,
    /// What is compiled, and by which thread.
    flights: Mutex<HashMap<ArtifactKey, ThreadId>>,
    flight_ended: Condvar,
    pub counts: Counts,
}

#[derive(Default)]
pub(super) struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
    rejected: AtomicU64,
    saved: AtomicU64,
    failures: AtomicU64,
    pub cleaned_up: AtomicU64,
    pub rewritten: AtomicU64,
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
    /// Artifacts that were removed because there were too many, or too large ones ([`Upkeep`]).
    pub cleaned_up: u64,
    /// Artifacts that were compressed because nobody used them, or not any more because somebody did.
    pub rewritten: u64,
    /// Events that the keeper of the stores had no time for: uses it does not know of.
    pub events_dropped: u64,
}

/// What [`Artifacts`] is built from.
#[derive(Default)]
pub struct ArtifactsBuilder {
    tiers: Vec<Tier>,
    secret: Option<Seal>,
    no_keeper: bool,
}

impl ArtifactsBuilder {
    /// Adds a store, to be asked after those that were added before.
    pub fn store(self, store: impl ArtifactStore) -> Self {
        self.store_with(store, Upkeep::new())
    }

    /// The same, with limits of how much is kept there, and the form in which it is.
    pub fn store_with(mut self, store: impl ArtifactStore, upkeep: Upkeep) -> Self {
        self.tiers.push(Tier::new(store, upkeep));
        self
    }

    /// Proves artifacts with this secret: what somebody has made who does not know it is not loaded. At best 32
    /// random bytes. Without one, artifacts are proved against accidents only, and whoever can write into a store
    /// can run code in this process.
    pub fn secret(mut self, secret: &[u8]) -> Self {
        self.secret = Some(Seal::keyed(secret));
        self
    }

    /// Starts no thread: the host calls [`Artifacts::sweep`] now and then. Otherwise a thread is started when there is
    /// something to do for the first time; it ends with the last clone.
    pub fn no_keeper(mut self) -> Self {
        self.no_keeper = true;
        self
    }

    /// Builds it.
    pub fn build(self) -> Artifacts {
        let inner = Inner {
            tiers: self.tiers,
            seal: self.secret.unwrap_or_else(Seal::digest),
            flights: Mutex::new(HashMap::new()),
            flight_ended: Condvar::new(),
            counts: Counts::default(),
        };
        Artifacts {
            inner: Arc::new(inner),
            keeper: Arc::new(Keeper::new(!self.no_keeper)),
        }
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

    /// Bytes that were saved.
    #[cfg(feature = "warm-up")]
    pub fn saved_bytes(&self) -> u64 {
        self.opened.code_bytes()
    }

    /// Bytes of memory that it takes at most until it is read, from a store or from what was verified: each as long as
    /// what was saved, and what decompressing it takes.
    #[cfg(feature = "warm-up")]
    pub fn bytes_to_read(&self) -> u64 {
        let saved = self.saved_bytes();
        let copies = if self.opened.is_in_memory() { 3 } else { 2 };
        let decoder = match self.opened.is_compressed() {
            true => decoder_bytes(saved),
            false => 0,
        };
        saved.saturating_mul(copies).saturating_add(decoder)
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

    #[cfg(test)]
    pub(super) fn inner(&self) -> &Inner {
        &self.inner
    }

    /// What became of artifacts so far.
    pub fn stats(&self) -> ArtifactStats {
        let counts = &self.inner.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ArtifactStats {
            hits: read(&counts.hits),
            misses: read(&counts.misses),
            rejected: read(&counts.rejected),
            saved: read(&counts.saved),
            failures: read(&counts.failures),
            cleaned_up: read(&counts.cleaned_up),
            rewritten: read(&counts.rewritten),
            events_dropped: self.keeper.dropped(),
        }
    }

    /// Does now, on this thread, what is done in the background otherwise: tells stores what was used, removes what
    /// writers have left behind, cleans up, and rewrites ([`Upkeep`]). It may take long, and what a store fails at is
    /// counted and left.
    pub fn sweep(&self) {
        self.keeper.catch_up(&*self.inner);
    }

    /// Verifies what the first store has that has anything under this key, and leaves it where it is. Costs what
    /// loading it costs, without mapping it; heap of at most `max_bytes`, and its length.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if no store has it; [`StoreError::Corrupt`] or [`StoreError::Incompatible`] if it
    /// would not be loaded; what a store says that fails.
    pub fn check(&self, key: &ArtifactKey, max_bytes: u64) -> Result<(), StoreError> {
        for tier in &self.inner.tiers {
            let stored = match tier.guarded("peek", |store| store.peek(key, max_bytes)) {
                Err(StoreError::NotFound) => continue,
                stored => stored?,
            };
            return Opened::new(stored, key, max_bytes)?
                .verify(&self.inner.seal)
                .map(drop);
        }
        Err(StoreError::NotFound)
    }

    /// The first store from `tier` on that has it, of at most so many bytes. When the system has no file or no memory
    /// left, `make_room` is asked for some, and if there is, it is tried again.
    pub(crate) fn find(
        &self,
        key: &ArtifactKey,
        tier: usize,
        max_bytes: u64,
        make_room: &mut MakeRoom<'_>,
    ) -> Option<Found> {
        for (at, tier) in self.inner.tiers.iter().enumerate().skip(tier) {
            let load = |store: &dyn ArtifactStore| {
                let opened = Opened::new(store.load(key, max_bytes)?, key, max_bytes)?;
                // What a footer says of lengths is what is reserved. Raw code is as long as its file.
                if opened.is_compressed() {
                    opened.check(&self.inner.seal)?;
                }
                Ok(opened)
            };
            match with_room(make_room, || tier.guarded("load", load)) {
                Ok(opened) => {
                    tier.works(Work::Reads);
                    return Some(Found {
                        opened: Box::new(opened),
                        tier: at,
                        key: *key,
                    });
                }
                Err(error) => self.inner.note_failure(tier, key, Work::Reads, &error),
            }
        }
        count(&self.inner.counts.misses);
        None
    }

    /// Verifies it; what is not what was saved goes. `make_room` is as in [`Self::find`].
    pub(crate) fn verify(
        &self,
        found: &Found,
        make_room: &mut MakeRoom<'_>,
    ) -> Option<VerifiedArtifact> {
        let tier = &self.inner.tiers[found.tier];
        match with_room(make_room, || found.opened.verify(&self.inner.seal)) {
            Ok(verified) => {
                count(&self.inner.counts.hits);
                let used = Event::Used {
                    tier: found.tier,
                    key: found.key,
                    is_compressed: found.opened.is_compressed(),
                };
                self.keeper.tell(&self.inner, used);
                Some(verified)
            }
            Err(error) => {
                self.inner
                    .note_failure(tier, &found.key, Work::Reads, &error);
                None
            }
        }
    }

    /// Stores that were asked before the one that had it have it from now on, if they take it. That may write to a
    /// disk: it is for when nobody waits for the code any more.
    pub(crate) fn offer(&self, found: &Found, verified: &VerifiedArtifact) {
        let earlier = self.inner.tiers[..found.tier].iter().enumerate();
        for (at, tier) in earlier.filter(|(_, tier)| !tier.store.is_read_only()) {
            match tier.guarded("offer", |store| store.offer(&found.key, verified)) {
                Ok(true) => {
                    tier.works(Work::Writes);
                    let bytes = verified.size().unwrap_or(0);
                    self.keeper
                        .tell(&self.inner, Event::Saved { tier: at, bytes });
                }
                Ok(false) => {}
                Err(error) => self
                    .inner
                    .note_failure(tier, &found.key, Work::Writes, &error),
            }
        }
    }

    /// Whether it is what was saved. It is left where it is, unless it is not.
    pub(crate) fn is_whole(&self, found: &Found) -> bool {
        match found.opened.check(&self.inner.seal) {
            Ok(()) => {
                count(&self.inner.counts.hits);
                true
            }
            Err(error) => {
                let tier = &self.inner.tiers[found.tier];
                self.inner
                    .note_failure(tier, &found.key, Work::Reads, &error);
                false
            }
        }
    }

    /// It was verified, and still wasmtime does not take it.
    pub(crate) fn reject(&self, found: &Found, reason: String) {
        let error = StoreError::Incompatible { reason };
        let tier = &self.inner.tiers[found.tier];
        self.inner
            .note_failure(tier, &found.key, Work::Reads, &error);
    }

    /// Saves it wherever it can be saved; whether it was anywhere.
    pub(crate) fn save(&self, key: &ArtifactKey, code: &[u8]) -> bool {
        let bytes = code.len() as u64;
        let mut raw = None;
        let mut saved = false;
        let tiers = self.inner.tiers.iter().enumerate();
        for (at, tier) in tiers.filter(|(_, tier)| !tier.store.is_read_only()) {
            let seal = &self.inner.seal;
            let body = match tier.upkeep.codec {
                Codec::Raw => None,
                Codec::Zstd => compress_code(code, tier.upkeep.compression_level),
            };
            let compressed =
                (body.as_deref()).map(|body| seal.encode(*key, Codec::Zstd, body, bytes));
            let encoded = match &compressed {
                Some(compressed) => compressed,
                None => raw.get_or_insert_with(|| seal.encode(*key, Codec::Raw, code, bytes)),
            };
            match tier.guarded("save", |store| store.save(key, encoded)) {
                Ok(()) => {
                    tier.works(Work::Writes);
                    count(&self.inner.counts.saved);
                    let bytes = encoded.size();
                    self.keeper
                        .tell(&self.inner, Event::Saved { tier: at, bytes });
                    saved = true;
                }
                Err(error) => self.inner.note_failure(tier, key, Work::Writes, &error),
            }
        }
        saved
    }

    /// This thread alone compiles and saves what has this key, in all pools that have these artifacts, until the
    /// guard goes. Waits for others that do, as long as they take; or, if it may not wait, does it beside them.
    ///
    /// A thread that compiles already, and whose subscriber has led it here, waits for nobody: it could be for
    /// itself.
    pub(crate) fn hold(&self, key: &ArtifactKey, waits: bool) -> HeldFlight {
        let thread = thread::current().id();
        let mut flights = self.inner.flights.lock();
        let is_nested = flights.values().any(|other| *other == thread);
        let mut waited = false;
        while waits && !is_nested && flights.contains_key(key) {
            waited = true;
            self.inner.flight_ended.wait(&mut flights);
        }
        let holds = !is_nested && !flights.contains_key(key);
        if holds {
            flights.insert(*key, thread);
        }
        HeldFlight {
            artifacts: self.clone(),
            key: holds.then_some(*key),
            waited,
        }
    }
}

impl Inner {
    /// Counts it, says it, and removes what will never load.
    pub fn note_failure(&self, tier: &Tier, key: &ArtifactKey, work: Work, error: &StoreError) {
        let counts = &self.counts;
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
            error => self.note_broken(tier, work, error),
        }
    }

    /// Counts it, and says it once.
    pub fn note_broken(&self, tier: &Tier, work: Work, error: &StoreError) {
        count(&self.counts.failures);
        if tier.is_news(work) {
            guarded("a subscriber", || {
                let store = tier.store.describe();
                let error = crate::runtime::Report(error);
                tracing::warn!(%store, %error, "artifact store fails");
            });
        }
    }
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Makes room where the system has refused something for this reason; whether it is worth another try.
pub(crate) type MakeRoom<'a> = dyn FnMut(&io::Error) -> bool + 'a;

/// Does it again, as long as there is room to be made for it.
fn with_room<R>(
    make_room: &mut MakeRoom<'_>,
    work: impl Fn() -> Result<R, StoreError>,
) -> Result<R, StoreError> {
    loop {
        match work() {
            Err(StoreError::Unreadable { source, .. }) if make_room(&source) => {}
            done => return done,
        }
    }
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
            self.artifacts.inner.flights.lock().remove(key);
            self.artifacts.inner.flight_ended.notify_all();
        }
    }
}

impl fmt::Debug for Artifacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stores = self.inner.tiers.iter().map(|tier| tier.store.describe());
        f.debug_struct("Artifacts")
            .field("stores", &stores.collect::<Vec<_>>())
            .field("seal", &self.inner.seal)
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
