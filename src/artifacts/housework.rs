//! What is done for a store in the background: uses are noted, the oldest go when there are too many, cold artifacts are
//! compressed, hot ones are not any more.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant, SystemTime};

use super::compress::{compress, decoder_bytes};
use super::footer::Codec;
use super::keeper::{Event, Housework, Now};
use super::key::ArtifactKey;
use super::store::{ArtifactInfo, ArtifactStore, StoreError};
use super::tier::{Tier, Work};
use super::tiers::{Inner, count};
use super::upkeep::Upkeep;
use super::verify::{Opened, VerifiedArtifact};
use crate::sync::unchecked::{AtomicBool, Ordering};

/// A store is told of a use no more often than this, and looked through at least so often when something happens.
const HOUR: Duration = Duration::from_secs(3600);

/// How far clocks may differ: times further ahead say nothing.
const SKEW: Duration = Duration::from_secs(24 * 3600);

/// Artifacts of a store whose uses are remembered here. When there are more, those of an hour ago are forgotten.
const MOST_USES: usize = 4096;

/// Uses of a compressed artifact until it is kept raw.
const HOT: u32 = 2;

/// Bytes of code, beyond which an artifact stays in the form that it has. To rewrite one takes its code and one form
/// of it in memory, and what Zstandard works in: no budget knows of that.
const MOST_REWRITTEN: u64 = 32 << 20;

/// Of heap, to decompress one that is rewritten.
const DECODED_MOST: u64 = MOST_REWRITTEN + decoder_bytes(MOST_REWRITTEN);

/// What this process knows of a store's artifacts.
#[derive(Default)]
pub(super) struct Books {
    uses: HashMap<ArtifactKey, Use>,
    /// Those that need not be compressed: they are, or it is no use.
    settled: HashSet<ArtifactKey>,
    /// As of the last look, with what was saved since.
    bytes: u64,
    artifacts: u64,
    looked: Option<Instant>,
}

struct Use {
    last: Instant,
    told: Option<Instant>,
    /// Times that it had to be decompressed.
    decompressed: u32,
}

/// What a use leads to.
#[derive(Default, PartialEq, Debug)]
struct Reaction {
    touch: bool,
    rewrite: bool,
}

impl Books {
    fn note_use(&mut self, key: ArtifactKey, is_compressed: bool, now: Now) -> Reaction {
        let recent = |time: Instant| now.at.saturating_duration_since(time) < HOUR;
        if self.uses.len() >= MOST_USES && !self.uses.contains_key(&key) {
            self.uses.retain(|_, used| recent(used.last));
            // So many within an hour: they are new enough without this.
            if self.uses.len() >= MOST_USES {
                self.uses.clear();
            }
        }
        let used = self.uses.entry(key).or_insert(Use {
            last: now.at,
            told: None,
            decompressed: 0,
        });
        used.last = now.at;
        let touch = !used.told.is_some_and(recent);
        if touch {
            used.told = Some(now.at);
        }
        used.decompressed = match is_compressed {
            true => used.decompressed.saturating_add(1),
            false => 0,
        };
        let rewrite = used.decompressed == HOT;
        Reaction { touch, rewrite }
    }

    /// Whether the store is to be looked through now.
    fn is_due(&self, upkeep: &Upkeep, now: Now) -> bool {
        let is_old = |looked| now.at.saturating_duration_since(looked) >= HOUR;
        self.looked.is_none_or(is_old) || upkeep.is_exceeded(self.bytes, self.artifacts)
    }

    /// When it was last used, as far as anybody knows who can be believed.
    fn last_used(&self, info: &ArtifactInfo, now: Now) -> Option<SystemTime> {
        let recorded = info.last_used.filter(|time| *time <= now.wall + SKEW);
        let here = self.uses.get(&info.key).and_then(|used| {
            let ago = now.at.saturating_duration_since(used.last);
            now.wall.checked_sub(ago)
        });
        recorded.max(here)
    }
}

impl Upkeep {
    fn is_exceeded(&self, bytes: u64, artifacts: u64) -> bool {
        self.max_bytes.is_some_and(|most| bytes > most)
            || self.max_artifacts.is_some_and(|most| artifacts > most)
    }

    /// Its limits as a clean-up sees them.
    fn to_low_water(self) -> Self {
        let fraction = match self.low_water.is_finite() {
            true => self.low_water.clamp(0.0, 1.0),
            false => 0.7,
        };
        let low = |most: u64| (most as f64 * fraction).ceil() as u64;
        Self {
            max_bytes: self.max_bytes.map(low),
            max_artifacts: self.max_artifacts.map(low),
            ..self
        }
    }

    fn compresses(&self) -> Option<Duration> {
        self.compress_after.filter(|_| cfg!(feature = "zstd"))
    }
}

/// An artifact of a store that is looked through.
struct Seen {
    info: ArtifactInfo,
    last_used: Option<SystemTime>,
}

impl Housework for Inner {
    fn note(&self, event: Event, now: Now) {
        match event {
            Event::Saved { tier, bytes } => {
                let mut books = self.tiers[tier].books.lock();
                books.bytes = books.bytes.saturating_add(bytes);
                books.artifacts += 1;
            }
            Event::Used {
                tier: at,
                key,
                is_compressed,
            } => {
                let tier = &self.tiers[at];
                if tier.store.is_read_only() {
                    return;
                }
                let reaction = tier.books.lock().note_use(key, is_compressed, now);
                if reaction.touch {
                    // Nobody minds if it does not.
                    let _ = tier.guarded("touch", |store| store.touch(&key));
                }
                // A tier whose artifacts are compressed from the beginning is meant to be so.
                if reaction.rewrite && tier.upkeep.codec == Codec::Raw {
                    self.rewrite(tier, &key, Codec::Raw, None);
                }
            }
        }
    }

    fn keep_up(&self, now: Now, all: bool, is_over: &AtomicBool) {
        for tier in &self.tiers {
            let is_due = all || tier.books.lock().is_due(&tier.upkeep, now);
            if is_due && !tier.store.is_read_only() {
                self.look_through(tier, now, is_over);
            }
        }
    }
}

impl Inner {
    fn look_through(&self, tier: &Tier, now: Now, is_over: &AtomicBool) {
        tier.books.lock().looked = Some(now.at);
        if let Err(error) = tier.guarded("sweep", |store| store.sweep()) {
            self.note_broken(tier, Work::Writes, &error);
        }
        if tier.upkeep.max_bytes.is_none()
            && tier.upkeep.max_artifacts.is_none()
            && tier.upkeep.compresses().is_none()
        {
            return;
        }
        let all = match tier.guarded("list", |store| store.list()) {
            Ok(all) => all,
            Err(error) => return self.note_broken(tier, Work::Reads, &error),
        };
        let mut all: Vec<Seen> = {
            let mut books = tier.books.lock();
            books.bytes = all.iter().map(|info| info.bytes).sum();
            books.artifacts = all.len() as u64;
            let there: HashSet<_> = all.iter().map(|info| info.key).collect();
            books.settled.retain(|key| there.contains(key));
            let seen = |info: ArtifactInfo| Seen {
                last_used: books.last_used(&info, now),
                info,
            };
            all.into_iter().map(seen).collect()
        };
        all.sort_by_key(|seen| (seen.last_used, seen.info.key));
        let kept = self.clean_up(tier, &all, is_over);
        self.compress_cold(tier, kept, now, is_over);
    }

    /// Removes the oldest, if there are too many or they are too large; what stays. The newest stays if it fits.
    fn clean_up<'a>(&self, tier: &Tier, all: &'a [Seen], is_over: &AtomicBool) -> &'a [Seen] {
        let mut bytes = all.iter().map(|seen| seen.info.bytes).sum::<u64>();
        let mut artifacts = all.len() as u64;
        if !tier.upkeep.is_exceeded(bytes, artifacts) {
            return all;
        }
        let low = tier.upkeep.to_low_water();
        for (at, Seen { info, .. }) in all.iter().enumerate() {
            let is_done = !low.is_exceeded(bytes, artifacts)
                || (at + 1 == all.len() && !tier.upkeep.is_exceeded(bytes, artifacts));
            if is_done || is_over.load(Ordering::Relaxed) {
                return &all[at..];
            }
            match tier.guarded("remove", |store| store.remove(&info.key)) {
                Ok(()) => {
                    count(&self.counts.cleaned_up);
                    bytes -= info.bytes;
                    artifacts -= 1;
                    let mut books = tier.books.lock();
                    books.bytes = books.bytes.saturating_sub(info.bytes);
                    books.artifacts = books.artifacts.saturating_sub(1);
                    books.uses.remove(&info.key);
                }
                Err(error) => self.note_broken(tier, Work::Writes, &error),
            }
        }
        &[]
    }

    fn compress_cold(&self, tier: &Tier, all: &[Seen], now: Now, is_over: &AtomicBool) {
        let Some(cold_after) = tier.upkeep.compresses() else {
            return;
        };
        for Seen { info, last_used } in all {
            let is_cold = last_used.is_none_or(|used| {
                let ago = now.wall.duration_since(used);
                ago.is_ok_and(|ago| ago >= cold_after)
            });
            // They are in order: all others are newer.
            if !is_cold || is_over.load(Ordering::Relaxed) {
                return;
            }
            if tier.books.lock().settled.insert(info.key) {
                self.rewrite(tier, &info.key, Codec::Zstd, *last_used);
            }
        }
    }

    /// Keeps the artifact in another form, if its code is of [`MOST_REWRITTEN`] bytes at most.
    fn rewrite(&self, tier: &Tier, key: &ArtifactKey, to: Codec, last_used: Option<SystemTime>) {
        let rewritten = tier.guarded("peek", |store| {
            let opened = Opened::new(store.peek(key, MOST_REWRITTEN)?, key, DECODED_MOST)?;
            StoreError::check_size(opened.code_bytes(), MOST_REWRITTEN)?;
            if opened.is_compressed() == (to == Codec::Zstd) {
                return Ok(None);
            }
            let verified = opened.verify(&self.seal)?;
            Ok(Some((opened.file_bytes(), opened.code_bytes(), verified)))
        });
        let (old_bytes, code_bytes, verified) = match rewritten {
            Ok(Some(rewritten)) => rewritten,
            Ok(None) => return,
            Err(StoreError::TooLarge { .. }) => return,
            Err(error) => {
                tier.books.lock().settled.remove(key);
                return self.note_failure(tier, key, Work::Reads, &error);
            }
        };
        let saved = match to {
            Codec::Raw => self.save_raw(tier, key, code_bytes, &verified),
            Codec::Zstd => match compress(&verified, code_bytes, tier.upkeep.compression_level) {
                Some(frame) => {
                    let mut artifact = self.seal.encode(*key, to, &frame, code_bytes);
                    artifact.last_used = last_used;
                    let save = |store: &dyn ArtifactStore| store.save(key, &artifact);
                    tier.guarded("save", save).map(|()| artifact.size())
                }
                None => return,
            },
        };
        let new_bytes = match saved {
            Ok(bytes) => bytes,
            Err(error) => {
                // The next look tries again.
                tier.books.lock().settled.remove(key);
                return self.note_failure(tier, key, Work::Writes, &error);
            }
        };
        count(&self.counts.rewritten);
        let mut books = tier.books.lock();
        books.bytes = (books.bytes + new_bytes).saturating_sub(old_bytes);
        if to == Codec::Raw {
            books.settled.remove(key);
        }
    }

    /// As it was verified; in a piece of heap memory only if the store does not take it otherwise.
    fn save_raw(
        &self,
        tier: &Tier,
        key: &ArtifactKey,
        code_bytes: u64,
        verified: &VerifiedArtifact,
    ) -> Result<u64, StoreError> {
        if tier.guarded("offer", |store| store.offer(key, verified))? {
            return verified.size().map_err(|error| {
                StoreError::unreadable("an artifact in memory cannot be examined", error)
            });
        }
        let code = verified.read_code(code_bytes)?;
        let artifact = self.seal.encode(*key, Codec::Raw, &code, code_bytes);
        tier.guarded("save", |store| store.save(key, &artifact))?;
        Ok(artifact.size())
    }
}

#[cfg(test)]
#[path = "housework_tests.rs"]
mod tests;
