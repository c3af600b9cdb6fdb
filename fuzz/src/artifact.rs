//! What the parser of artifacts makes of any bytes: the artifact that was saved, or a reason; never a panic.

use std::sync::{Arc, Mutex, PoisonError};

use wasm_pool::{
    ArtifactInfo, ArtifactKey, ArtifactStore, Artifacts, EncodedArtifact, StoreError,
    StoredArtifact,
};

/// Bytes of an artifact's footer, and where its digest stands in it.
const FOOTER: usize = 4096;
const DIGEST: std::ops::Range<usize> = 96..128;

/// Heap that an input may take to be decompressed in.
const MAX_BYTES: u64 = 1 << 20;

/// What became of one input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It is an artifact.
    Taken,
    /// It is none.
    Corrupt,
    /// It may be one of another version, or of another secret.
    Incompatible,
}

/// Artifacts in a store that has the input, whatever it is asked for.
#[derive(Debug)]
pub struct Target {
    input: Arc<Mutex<Vec<u8>>>,
    artifacts: Artifacts,
    key: ArtifactKey,
}

struct Input(Arc<Mutex<Vec<u8>>>);

impl ArtifactStore for Input {
    fn load(&self, _: &ArtifactKey, _: u64) -> Result<StoredArtifact, StoreError> {
        let input = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(StoredArtifact::bytes(input.clone()))
    }

    fn save(&self, _: &ArtifactKey, _: &EncodedArtifact<'_>) -> Result<(), StoreError> {
        Ok(())
    }

    fn remove(&self, _: &ArtifactKey) -> Result<(), StoreError> {
        Ok(())
    }

    fn list(&self) -> Result<Vec<ArtifactInfo>, StoreError> {
        Ok(Vec::new())
    }
}

impl Default for Target {
    fn default() -> Self {
        Self::new()
    }
}

impl Target {
    /// Its key is that of the corpus.
    pub fn new() -> Self {
        let input = Arc::default();
        let store = Input(Arc::clone(&input));
        let key = format!("{}/{}", "0a".repeat(32), "b1".repeat(32));
        Self {
            input,
            artifacts: Artifacts::builder().store(store).build(),
            key: key.parse().expect("two hashes"),
        }
    }

    /// Takes these bytes for an artifact. If the last of them is odd, the digest that they have is made right, so
    /// that what lies behind it is reached.
    ///
    /// # Panics
    ///
    /// If that is what the library does; if it fails otherwise than by a verdict on the artifact; if it takes an
    /// artifact with a bit flipped.
    pub fn run(&self, data: &[u8]) -> Outcome {
        let mut bytes = data.to_vec();
        if bytes.last().is_some_and(|last| last % 2 == 1) {
            prove(&mut bytes);
        }
        let outcome = self.take(&bytes);
        if outcome == Outcome::Taken {
            let place = data.len() / 3;
            bytes[place] ^= 1;
            assert_ne!(self.take(&bytes), Outcome::Taken, "a bit of it is another");
        }
        outcome
    }

    fn take(&self, bytes: &[u8]) -> Outcome {
        *self.input.lock().unwrap_or_else(PoisonError::into_inner) = bytes.to_vec();
        match self.artifacts.check(&self.key, MAX_BYTES) {
            Ok(()) => Outcome::Taken,
            Err(StoreError::Corrupt { .. } | StoreError::TooLarge { .. }) => Outcome::Corrupt,
            Err(StoreError::Incompatible { .. }) => Outcome::Incompatible,
            Err(other) => panic!("{other}"),
        }
    }
}

fn prove(bytes: &mut [u8]) {
    let Some(footer) = bytes.len().checked_sub(FOOTER) else {
        return;
    };
    // The bit that asks for this is no part of the format.
    if let Some(last) = bytes.last_mut() {
        *last &= !1;
    }
    let digest = footer + DIGEST.start..footer + DIGEST.end;
    bytes[digest.clone()].fill(0);
    let proof = blake3::hash(bytes);
    bytes[digest].copy_from_slice(proof.as_bytes());
}
