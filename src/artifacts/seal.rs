//! What proves an artifact: a digest, which tells accidents; or a keyed one, which tells forgeries as well.

use std::fmt;

use blake3::{Hash, Hasher};

use super::footer::{Codec, DIGEST, FOOTER_BYTES, Footer};
use super::key::ArtifactKey;
use super::store::EncodedArtifact;

/// How artifacts are proved. BLAKE3 over all of them; keyed, if the host has a secret: then who does not know it
/// cannot make an artifact that is loaded.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Seal {
    key: Option<[u8; 32]>,
}

impl Seal {
    pub fn digest() -> Self {
        Self { key: None }
    }

    pub fn keyed(secret: &[u8]) -> Self {
        let key = blake3::derive_key("wasm-pool 2026-11-21 seal of an artifact", secret);
        Self { key: Some(key) }
    }

    /// Of what only tests of stores look at: of no secret.
    pub fn of_samples() -> Self {
        let key = blake3::derive_key("wasm-pool 2026-11-21 seal of a sample", b"");
        Self { key: Some(key) }
    }

    pub fn is_keyed(&self) -> bool {
        self.key.is_some()
    }

    /// Tells seals apart, and gives no secret away.
    pub fn id(&self) -> [u8; 32] {
        match &self.key {
            None => [0; 32],
            Some(key) => blake3::derive_key("wasm-pool 2026-11-21 name of a seal", key),
        }
    }

    pub fn hasher(&self) -> Hasher {
        self.key
            .as_ref()
            .map_or_else(Hasher::new, Hasher::new_keyed)
    }

    /// The digest of what the hasher has seen, the padded body, with this footer behind it.
    pub fn finish(mut hasher: Hasher, mut page: [u8; FOOTER_BYTES]) -> Hash {
        page[DIGEST].fill(0);
        hasher.update(&page);
        hasher.finalize()
    }

    /// An artifact of this body, with its proof.
    pub fn encode<'a>(
        &self,
        key: ArtifactKey,
        codec: Codec,
        body: &'a [u8],
        code_bytes: u64,
    ) -> EncodedArtifact<'a> {
        let footer = Footer {
            codec,
            keyed: self.is_keyed(),
            body_bytes: body.len() as u64,
            code_bytes,
            key,
            digest: [0; 32],
        };
        let mut encoded = EncodedArtifact {
            body,
            footer: [0; FOOTER_BYTES],
            last_used: None,
        };
        let mut hasher = self.hasher();
        let [body_part, padding, _] = encoded.parts();
        hasher.update(body_part).update(padding);
        encoded.footer = Self::prove(hasher, footer);
        encoded
    }

    /// The footer with the digest of what the hasher has seen, the padded body, and of itself.
    pub fn prove(hasher: Hasher, mut footer: Footer) -> [u8; FOOTER_BYTES] {
        footer.digest = Self::finish(hasher, footer.encode()).into();
        footer.encode()
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_keyed() { "keyed" } else { "digest" })
    }
}
