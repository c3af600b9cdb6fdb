//! The format: the code from the first byte on, so that the file can be mapped as it is; then zeros to the end of
//! a page; then one page, the footer, that says what it is, and proves it.
//!
//! | bytes of the footer | what |
//! |--:|---|
//! | 0–7 | `wasmpool` |
//! | 8–11 | version of the format, little-endian as all numbers here |
//! | 12 | codec: 0 raw, 1 zstd |
//! | 13 | seal: 0 digest, 1 keyed |
//! | 14–15 | zero |
//! | 16–23 | bytes of the body, without the zeros behind it |
//! | 24–31 | bytes of the code, which is the body when it is raw |
//! | 32–63 | the engine's key |
//! | 64–95 | the module's hash |
//! | 96–127 | BLAKE3 of the whole file, with these 32 bytes as zeros |
//! | 128–4095 | zero |

use super::key::{ArtifactKey, EngineKey, FORMAT_VERSION};
use super::store::StoreError;

/// Bytes of the footer, and what the body is padded to: a page of any system's that maps files by 4 KiB.
pub(crate) const FOOTER_BYTES: usize = 4096;

/// Where the digest stands in it.
pub(super) const DIGEST: std::ops::Range<usize> = 96..128;

/// No code is larger: lengths beyond it are lies, and their sums overflow nothing.
const LARGEST: u64 = 1 << 40;

/// The form in which an artifact has its code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum Codec {
    /// As it is: it is mapped where it lies.
    Raw,
    /// Compressed by Zstandard: smaller, and decompressed each time that it is loaded. With the feature `zstd`; without
    /// it, artifacts are saved raw, and those that others have compressed are not loaded.
    Zstd,
}

/// What an artifact says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Footer {
    pub codec: Codec,
    pub keyed: bool,
    pub body_bytes: u64,
    pub code_bytes: u64,
    pub key: ArtifactKey,
    pub digest: [u8; 32],
}

fn corrupt(reason: &str) -> StoreError {
    StoreError::Corrupt {
        reason: reason.into(),
    }
}

fn number<const N: usize>(page: &[u8; FOOTER_BYTES], at: usize) -> [u8; N] {
    std::array::from_fn(|byte| page[at + byte])
}

impl Footer {
    /// The body with what pads it.
    pub fn padded_bytes(&self) -> u64 {
        self.body_bytes.next_multiple_of(FOOTER_BYTES as u64)
    }

    /// The whole artifact.
    pub fn file_bytes(&self) -> u64 {
        self.padded_bytes() + FOOTER_BYTES as u64
    }

    pub fn encode(&self) -> [u8; FOOTER_BYTES] {
        let mut page = [0; FOOTER_BYTES];
        page[..8].copy_from_slice(b"wasmpool");
        page[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        page[12] = u8::from(self.codec == Codec::Zstd);
        page[13] = u8::from(self.keyed);
        page[16..24].copy_from_slice(&self.body_bytes.to_le_bytes());
        page[24..32].copy_from_slice(&self.code_bytes.to_le_bytes());
        page[32..64].copy_from_slice(self.key.engine().as_bytes());
        page[64..96].copy_from_slice(self.key.module());
        page[DIGEST].copy_from_slice(&self.digest);
        page
    }

    /// Reads it. What it says is not verified; but lengths are such that they can be added up, and no bit of
    /// the page has no meaning.
    ///
    /// # Errors
    /// `Corrupt`; `Incompatible` for another version of the format.
    pub fn parse(page: &[u8; FOOTER_BYTES]) -> Result<Self, StoreError> {
        if &page[..8] != b"wasmpool" {
            return Err(corrupt("it does not end as an artifact does"));
        }
        let version = u32::from_le_bytes(number(page, 8));
        if version != FORMAT_VERSION {
            let reason =
                format!("version {version} of the format, where {FORMAT_VERSION} is known");
            return Err(StoreError::Incompatible { reason });
        }
        let codec = match page[12] {
            0 => Codec::Raw,
            1 => Codec::Zstd,
            _ => return Err(corrupt("an unknown codec")),
        };
        if page[13] > 1 {
            return Err(corrupt("an unknown seal"));
        }
        let rest = page[14..16].iter().chain(&page[DIGEST.end..]);
        if rest.copied().any(|byte| byte != 0) {
            return Err(corrupt("something stands where nothing does"));
        }
        let body_bytes = u64::from_le_bytes(number(page, 16));
        let code_bytes = u64::from_le_bytes(number(page, 24));
        let possible = 1..=LARGEST;
        if !possible.contains(&body_bytes) || !possible.contains(&code_bytes) {
            return Err(corrupt("impossible lengths"));
        }
        if codec == Codec::Raw && body_bytes != code_bytes {
            return Err(corrupt("raw code that is not as long as itself"));
        }
        let engine = EngineKey::from_bytes(number(page, 32));
        Ok(Self {
            codec,
            keyed: page[13] == 1,
            body_bytes,
            code_bytes,
            key: ArtifactKey::new(engine, number(page, 64)),
            digest: number(page, DIGEST.start),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::key::module_hash;
    use super::*;

    fn footer() -> Footer {
        Footer {
            codec: Codec::Zstd,
            keyed: true,
            body_bytes: 4097,
            code_bytes: 123_456,
            key: ArtifactKey::new(EngineKey::new(b"engine"), module_hash(b"wasm")),
            digest: [7; 32],
        }
    }

    #[test]
    fn a_footer_is_read_as_it_was_written() {
        let footer = footer();
        assert_eq!(footer.file_bytes(), 3 * 4096);
        assert_eq!(Footer::parse(&footer.encode()).unwrap(), footer);
    }

    #[test]
    fn no_flipped_bit_is_read_as_the_same() {
        let page = footer().encode();
        for bit in 0..8 * FOOTER_BYTES {
            let mut flipped = page;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Footer::parse(&flipped).ok() != Some(footer()), "bit {bit}");
        }
    }

    #[test]
    fn another_version_is_incompatible_and_not_corrupt() {
        let mut page = footer().encode();
        page[8] = 2;
        let error = Footer::parse(&page).unwrap_err();
        assert!(matches!(error, StoreError::Incompatible { .. }), "{error}");
    }
}
