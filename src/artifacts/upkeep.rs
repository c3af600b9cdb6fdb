//! How a store is kept up: plain data.

use std::time::Duration;

use super::footer::Codec;

/// How the artifacts of a store are kept: how many, how large, and in what form. Plain data; what is not set is as
/// [`Upkeep::new`] has it.
///
/// ```
/// use std::time::Duration;
/// use wasm_pool::{Codec, Upkeep};
/// let upkeep = Upkeep::new()
///     .max_bytes(10 << 30)
///     .compress_after(Duration::from_secs(7 * 24 * 3600));
/// assert_eq!(upkeep.low_water, 0.7);
/// assert_eq!(upkeep.codec, Codec::Raw);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct Upkeep {
    /// Bytes that the store may have; when it has more, those that were not used for longest go. Without a limit, none
    /// go.
    pub max_bytes: Option<u64>,
    /// Artifacts that the store may have, likewise.
    pub max_artifacts: Option<u64>,
    /// What a clean-up leaves, as a fraction of the limits: from 0 to 1, and 0.7 if not set.
    pub low_water: f64,
    /// The form in which new artifacts are saved: raw, if not set. What a later store had is kept as it was verified,
    /// which is raw.
    pub codec: Codec,
    /// How hard to compress: from 1, which is fast, to 19, which is small; beyond these, the nearer. 3, if not set.
    pub compression_level: i32,
    /// Raw artifacts that were not used for so long are compressed, if their code is of 32 MiB at most. Without the
    /// feature `zstd`, none are.
    pub compress_after: Option<Duration>,
}

impl Default for Upkeep {
    fn default() -> Self {
        Self {
            max_bytes: None,
            max_artifacts: None,
            low_water: 0.7,
            codec: Codec::Raw,
            compression_level: 3,
            compress_after: None,
        }
    }
}

impl Upkeep {
    /// No limits; raw artifacts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`Self::max_bytes`].
    pub fn max_bytes(mut self, most: u64) -> Self {
        self.max_bytes = Some(most);
        self
    }

    /// Sets [`Self::max_artifacts`].
    pub fn max_artifacts(mut self, most: u64) -> Self {
        self.max_artifacts = Some(most);
        self
    }

    /// Sets [`Self::low_water`].
    pub fn low_water(mut self, fraction: f64) -> Self {
        self.low_water = fraction;
        self
    }

    /// Sets [`Self::codec`].
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// Sets [`Self::compression_level`].
    pub fn compression_level(mut self, level: i32) -> Self {
        self.compression_level = level;
        self
    }

    /// Sets [`Self::compress_after`].
    pub fn compress_after(mut self, unused_for: Duration) -> Self {
        self.compress_after = Some(unused_for);
        self
    }
}
