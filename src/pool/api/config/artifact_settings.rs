//! The section `[artifacts]`: where compiled code is kept beyond the life of a pool.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::quantities::{Count, Field, Size, Time};
use super::{ConfigError, Fault, Reason};
use crate::artifacts::{Artifacts, ArtifactsBuilder, Codec, MemoryStore, StoreError};
#[cfg(unix)]
use crate::artifacts::{DirStore, Upkeep};
use crate::pool::api::build_error::LimitsError;

/// An artifact tier as a configuration describes it: the section `[artifacts]` of a [`Config`](crate::Config). What
/// is `None` is as the builder of artifacts has it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a section of artifacts")]
#[non_exhaustive]
pub struct ArtifactSettings {
    /// Bytes that a tier in memory may take; `None` for no such tier.
    #[serde(with = "Field::<Size>")]
    pub memory: Option<u64>,
    /// Artifacts that it may hold.
    #[serde(with = "Field::<Count>")]
    pub memory_artifacts: Option<u64>,
    /// The directory of a tier on disk; `None` for no such tier. In a file, relative to that file.
    pub directory: Option<PathBuf>,
    /// Whether the directory is only read.
    pub read_only: Option<bool>,
    /// Bytes that the directory may take.
    #[serde(with = "Field::<Size>")]
    pub max_size: Option<u64>,
    /// Artifacts that it may hold.
    #[serde(with = "Field::<Count>")]
    pub max_artifacts: Option<u64>,
    /// Where a clean-up ends, as a share of both: more than 0, at most 1.
    #[serde(deserialize_with = "share")]
    pub low_water: Option<f64>,
    /// How artifacts are written to the directory.
    pub codec: Option<Codec>,
    /// Of zstd: 1 to 19.
    #[serde(with = "Field::<Count>")]
    pub compression_level: Option<u64>,
    /// What was not used for so long is compressed.
    #[serde(with = "Field::<Time>")]
    pub compress_after: Option<Duration>,
    /// A file whose bytes are the secret that artifacts are sealed with. In a file, relative to that file.
    pub secret_file: Option<PathBuf>,
}

/// Of zstd.
const LEVELS: std::ops::RangeInclusive<u64> = 1..=19;

impl ArtifactSettings {
    /// Opens the stores that it describes: memory before the directory, which is made if it is not there.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`] for the file of the secret; [`ConfigError::Directory`] if the directory cannot
    /// be opened, or cannot be trusted. There are directories on Unix alone.
    pub fn open(&self) -> Result<Artifacts, ConfigError> {
        let mut builder = Artifacts::builder();
        if let Some(bytes) = self.memory {
            let store = MemoryStore::new(bytes);
            builder = builder.store(match self.memory_artifacts {
                Some(most) => store.max_artifacts(usize::try_from(most).unwrap_or(usize::MAX)),
                None => store,
            });
        }
        if let Some(directory) = &self.directory {
            let failed = |source| ConfigError::Directory {
                directory: directory.clone(),
                source,
            };
            builder = self.open_directory(directory, builder).map_err(failed)?;
        }
        if let Some(file) = &self.secret_file {
            let secret = std::fs::read(file).map_err(|source| ConfigError::Unreadable {
                file: file.clone(),
                source,
            })?;
            builder = builder.secret(&secret);
        }
        Ok(builder.build())
    }

    #[cfg(unix)]
    fn open_directory(
        &self,
        directory: &Path,
        builder: ArtifactsBuilder,
    ) -> Result<ArtifactsBuilder, StoreError> {
        let store = DirStore::builder(directory).read_only(self.read_only.unwrap_or(false));
        Ok(builder.store_with(store.open()?, self.upkeep()))
    }

    #[cfg(not(unix))]
    fn open_directory(
        &self,
        _: &Path,
        _: ArtifactsBuilder,
    ) -> Result<ArtifactsBuilder, StoreError> {
        let reason = "there are directories of artifacts on Unix alone".into();
        Err(StoreError::Refused { reason })
    }

    /// How the directory is kept up.
    #[cfg(unix)]
    fn upkeep(&self) -> Upkeep {
        let mut upkeep = Upkeep::new();
        upkeep.max_bytes = self.max_size;
        upkeep.max_artifacts = self.max_artifacts;
        upkeep.low_water = self.low_water.unwrap_or(upkeep.low_water);
        upkeep.codec = self.codec.unwrap_or(upkeep.codec);
        let level = self.compression_level.map(|level| level as i32);
        upkeep.compression_level = level.unwrap_or(upkeep.compression_level);
        upkeep.compress_after = self.compress_after;
        upkeep
    }

    /// Paths that are relative are so to this folder.
    pub(super) fn resolve(&mut self, folder: &Path) {
        let paths = [&mut self.directory, &mut self.secret_file];
        for path in paths.into_iter().flatten() {
            *path = folder.join(&*path);
        }
    }

    /// Each makes sense, alone and with the others.
    pub(super) fn check(&self) -> Result<(), Fault> {
        let fault = |key, reason| Fault {
            path: vec!["artifacts".into(), key],
            reason,
        };
        let zeros = [
            ("memory", self.memory),
            ("memory_artifacts", self.memory_artifacts),
            ("max_size", self.max_size),
            ("max_artifacts", self.max_artifacts),
        ];
        if let Some((field, _)) = zeros.into_iter().find(|(_, value)| *value == Some(0)) {
            let reason = Reason::Limits(LimitsError::Zero { field });
            return Err(fault(field.into(), reason));
        }
        let invalid = |key: &str, reason| Err(fault(key.into(), Reason::Text(reason)));
        if let Some(level) = self
            .compression_level
            .filter(|level| !LEVELS.contains(level))
        {
            let reason = format!("zstd has no compression level {level}: 1 to 19");
            return invalid("compression_level", reason);
        }
        let paths = [
            ("directory", &self.directory),
            ("secret_file", &self.secret_file),
        ];
        for (key, path) in paths {
            if path
                .as_ref()
                .is_some_and(|path| path.as_os_str().is_empty())
            {
                return invalid(key, "the path is empty".into());
            }
        }
        if self.memory.is_none() && self.memory_artifacts.is_some() {
            let reason = "it says how many artifacts memory may hold, but there is no `memory`";
            return invalid("memory_artifacts", reason.into());
        }
        if self.directory.is_none()
            && let Some(key) = self.says_of_directory()
        {
            let reason = "it is about the directory of artifacts, but there is no `directory`";
            return invalid(key, reason.into());
        }
        Ok(())
    }

    /// The first key that makes sense only with a directory.
    fn says_of_directory(&self) -> Option<&'static str> {
        let keys = [
            ("read_only", self.read_only.is_some()),
            ("max_size", self.max_size.is_some()),
            ("max_artifacts", self.max_artifacts.is_some()),
            ("low_water", self.low_water.is_some()),
            ("codec", self.codec.is_some()),
            ("compression_level", self.compression_level.is_some()),
            ("compress_after", self.compress_after.is_some()),
        ];
        keys.into_iter().find(|(_, said)| *said).map(|(key, _)| key)
    }
}

/// `0.7`, or `"70%"`.
fn share<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    struct Share;

    impl Visitor<'_> for Share {
        type Value = Option<f64>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a share: \"1%\" to \"100%\", or a number above 0, and at most 1")
        }

        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_f64<E: Error>(self, share: f64) -> Result<Self::Value, E> {
            match share > 0.0 && share <= 1.0 {
                true => Ok(Some(share)),
                false => Err(E::invalid_value(Unexpected::Float(share), &self)),
            }
        }

        fn visit_i64<E: Error>(self, share: i64) -> Result<Self::Value, E> {
            match share {
                1 => Ok(Some(1.0)),
                _ => Err(E::invalid_value(Unexpected::Signed(share), &self)),
            }
        }

        fn visit_u64<E: Error>(self, share: u64) -> Result<Self::Value, E> {
            self.visit_i64(i64::try_from(share).unwrap_or(i64::MAX))
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
            let number = text.trim().strip_suffix('%').map(str::trim_end);
            let digits = number.filter(|number| number.bytes().all(|b| b.is_ascii_digit()));
            match digits.and_then(|digits| digits.parse::<u8>().ok()) {
                Some(percent @ 1..=100) => Ok(Some(f64::from(percent) / 100.0)),
                _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
            }
        }
    }

    from.deserialize_any(Share)
}
