//! Compiled once, ever: where compiled code is kept beyond the life of what uses it.
//!
//! An artifact is machine code, so nothing of it is mapped before it is verified, and what is mapped cannot be
//! changed any more. Stores keep encoded artifacts and know nothing of that; [`Artifacts`] asks them one after the
//! other, verifies what they bring, and hands out what may be mapped.

#[cfg(feature = "object_store")]
mod bucket;
mod compress;
#[cfg(unix)]
mod dir;
mod footer;
mod housework;
mod identity;
mod keeper;
mod key;
mod memory;
#[cfg(test)]
mod mutations;
mod sample;
mod seal;
mod sealed;
mod store;
mod tier;
mod tiers;
mod upkeep;
mod verify;

#[cfg(feature = "zstd")]
pub(crate) use compress::decoder_bytes;
#[cfg(feature = "compiler")]
pub(crate) use footer::FOOTER_BYTES;
pub(crate) use key::module_hash;
#[cfg(feature = "warm-up")]
pub(crate) use key::snapshot_hash;
pub(crate) use seal::Seal;
#[cfg(target_os = "linux")]
pub(crate) use sealed::{SealedFile, Unsealed};
pub(crate) use tiers::{Found, MakeRoom};
#[cfg(target_os = "linux")]
pub(crate) use verify::Opened;

#[cfg(feature = "object_store")]
pub use bucket::ObjectStoreAdapter;
#[cfg(unix)]
pub use dir::{DirStore, DirStoreBuilder, EngineInfo};
pub use footer::Codec;
pub use key::{ArtifactKey, EngineKey, NotAKey};
pub use memory::MemoryStore;
pub use store::{ArtifactInfo, ArtifactStore, EncodedArtifact, StoreError, StoredArtifact};
pub use tiers::{ArtifactStats, Artifacts, ArtifactsBuilder};
pub use upkeep::Upkeep;
pub use verify::VerifiedArtifact;
