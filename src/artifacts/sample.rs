//! Artifacts for tests of stores: no pool takes them for code.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use super::footer::{Codec, FOOTER_BYTES, Footer};
use super::key::ArtifactKey;
use super::seal::Seal;
use super::store::{Contents, EncodedArtifact, StoreError, StoredArtifact};

impl<'a> EncodedArtifact<'a> {
    /// An artifact whose code is these bytes, for tests of a store of the host's own. It is sealed in a way that
    /// [`Artifacts`](crate::Artifacts) do not know, so no pool runs it, whatever its key;
    /// [`StoredArtifact::check_sample`] tells whether a store gives it back as it was.
    ///
    /// ```
    /// use wasm_pool::{ArtifactKey, EncodedArtifact, StoredArtifact};
    /// let key: ArtifactKey = format!("{}/{}", "0".repeat(64), "1".repeat(64)).parse().unwrap();
    /// let saved = EncodedArtifact::sample(&key, b"anything").to_vec();
    /// let loaded = StoredArtifact::bytes(saved);
    /// assert_eq!(loaded.check_sample(&key).unwrap(), b"anything");
    /// ```
    pub fn sample(key: &ArtifactKey, code: &'a [u8]) -> Self {
        Seal::of_samples().encode(*key, Codec::Raw, code, code.len() as u64)
    }
}

#[cfg(test)]
impl super::verify::VerifiedArtifact {
    /// Such an artifact, as a later store has it.
    pub(super) fn sample(key: &ArtifactKey, code: &[u8]) -> Self {
        let artifact = EncodedArtifact::sample(key, code).to_vec();
        let opened = super::verify::Opened::new(StoredArtifact::bytes(artifact), key, u64::MAX);
        opened.unwrap().verify(&Seal::of_samples()).unwrap()
    }
}

impl StoredArtifact {
    /// The code of an [`EncodedArtifact::sample`], for tests of a store. All of it is read.
    ///
    /// # Errors
    /// `Corrupt` if it is not, byte for byte, what was saved under this key; `Incompatible` for another version of
    /// the format; `Unreadable`.
    pub fn check_sample(self, key: &ArtifactKey) -> Result<Vec<u8>, StoreError> {
        let unreadable = |error| StoreError::unreadable("an artifact cannot be read", error);
        let whole = match self.0 {
            Contents::Bytes(bytes) => bytes.to_vec(),
            Contents::File(file) => read(&file).map_err(unreadable)?,
        };
        let (_, page) = whole
            .split_last_chunk::<FOOTER_BYTES>()
            .ok_or_else(|| corrupt("it is too short"))?;
        let bytes = Footer::parse(page)?.code_bytes;
        let code = usize::try_from(bytes).ok();
        let code = code.and_then(|bytes| whole.get(..bytes));
        let code = code.ok_or_else(|| corrupt("it is shorter than it says"))?;
        if EncodedArtifact::sample(key, code).to_vec() != whole {
            return Err(corrupt("it is not what was saved under this key"));
        }
        Ok(code.to_vec())
    }
}

fn corrupt(reason: &str) -> StoreError {
    let reason = reason.into();
    StoreError::Corrupt { reason }
}

/// All of it, if it ends as an artifact of its length does; else its end alone, for it could be of any length.
fn read(mut file: &File) -> io::Result<Vec<u8>> {
    let bytes = file.metadata()?.len();
    let at = bytes.saturating_sub(FOOTER_BYTES as u64);
    let mut read = Vec::new();
    file.seek(SeekFrom::Start(at))?;
    file.read_to_end(&mut read)?;
    let footer = read.as_array().map(Footer::parse);
    if matches!(footer, Some(Ok(footer)) if footer.file_bytes() == bytes) {
        read.clear();
        file.seek(SeekFrom::Start(0))?;
        file.read_to_end(&mut read)?;
    }
    Ok(read)
}
