//! Tests: what is not exactly what was saved is never taken, and what version 1 saved is taken for ever.

use std::io::Write;

use super::footer::{Codec, FOOTER_BYTES};
use super::key::{ArtifactKey, EngineKey, module_hash};
use super::seal::Seal;
use super::store::{StoreError, StoredArtifact};
use super::verify::Opened;

/// Without a memory for files: each change is another.
fn take(bytes: Vec<u8>, key: &ArtifactKey, seal: &Seal) -> Result<(), StoreError> {
    let opened = Opened::new(StoredArtifact::bytes(bytes), key, u64::MAX)?;
    opened.verify(seal).map(drop)
}

fn key(of: &[u8]) -> ArtifactKey {
    ArtifactKey::new(EngineKey::new(b"an engine"), module_hash(of))
}

/// Machine code of a guest.
fn code(guest: &str) -> Vec<u8> {
    let root = env!("CARGO_MANIFEST_DIR");
    let wasm = std::fs::read(format!("{root}/examples/guests/prebuilt/{guest}.wasm")).unwrap();
    let engine = wasmtime::Engine::default();
    engine.precompile_module(&wasm).unwrap()
}

fn artifact(guest: &str, seal: &Seal) -> (ArtifactKey, Vec<u8>) {
    let code = code(guest);
    let key = key(guest.as_bytes());
    let encoded = seal.encode(key, Codec::Raw, &code, code.len() as u64);
    (key, encoded.to_vec())
}

#[test]
fn no_single_bit_may_be_another() {
    let seal = Seal::digest();
    let (key, whole) = artifact("math_add", &seal);
    take(whole.clone(), &key, &seal).unwrap();
    let mut bytes = whole;
    for bit in 0..8 * bytes.len() {
        bytes[bit / 8] ^= 1 << (bit % 8);
        let error = take(bytes.clone(), &key, &seal).expect_err("a flipped bit");
        assert!(error.condemns_artifact(), "bit {bit}: {error}");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

/// xorshift64*, which is enough to choose places.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        high as usize % most.max(1)
    }
}

/// One artifact, changed in one of the ways that files change.
fn mutation(dice: &mut Dice, whole: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    let at = dice.below(bytes.len());
    match dice.below(6) {
        0 => bytes[at] ^= 1 << dice.below(8),
        1 => bytes.truncate(at),
        // A page of another artifact, as a file system might leave it.
        2 => {
            let at = at / FOOTER_BYTES * FOOTER_BYTES;
            let length = FOOTER_BYTES.min(other.len().saturating_sub(at));
            bytes[at..at + length].copy_from_slice(&other[at..at + length]);
        }
        // The end of another.
        3 => bytes
            .splice(at.., other[at.min(other.len())..].iter().copied())
            .for_each(drop),
        // A hole.
        4 => {
            let end = bytes.len().min(at + 1 + dice.below(5000));
            bytes[at..end].fill(0);
        }
        // Something more.
        _ => bytes
            .splice(at..at, (0..=dice.below(64)).map(|n| n as u8))
            .for_each(drop),
    }
    bytes
}

#[test]
fn ten_thousand_mutations_are_ten_thousand_misses() {
    for seal in [Seal::digest(), Seal::keyed(b"a secret")] {
        let (key, whole) = artifact("text_soundex", &seal);
        let (_, other) = artifact("text_levenshtein", &seal);
        let (mut dice, mut tried) = (Dice(20_261_121), 0);
        while tried < 10_000 {
            let bytes = mutation(&mut dice, &whole, &other);
            if bytes == whole {
                continue;
            }
            let error = take(bytes, &key, &seal).expect_err("a mutation");
            assert!(error.condemns_artifact(), "{error}");
            tried += 1;
        }
        // Swapped between keys.
        let error = take(other, &key, &seal).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    }
}

/// A file that is written to between the look at its footer and its verification, and after it.
#[test]
fn a_file_that_changes_on_the_way_is_not_taken() {
    use std::os::unix::fs::FileExt;
    let seal = Seal::digest();
    let (key, whole) = artifact("math_add", &seal);
    let path = std::env::temp_dir().join(format!("wasm-pool-changes-{}", std::process::id()));
    let mut options = std::fs::File::options();
    let mut file = options
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    std::fs::remove_file(&path).unwrap();
    file.write_all(&whole).unwrap();

    let stored = StoredArtifact::file(file.try_clone().unwrap());
    let opened = Opened::new(stored, &key, u64::MAX).unwrap();
    let verified = opened.verify(&seal).unwrap();
    file.write_all_at(b"changed", 64).unwrap();
    assert!(opened.verify(&seal).is_err());
    // What was verified is as it was.
    let again = Opened::new(verified.share().unwrap(), &key, u64::MAX).unwrap();
    again.verify(&seal).unwrap();
    // And a file that is cut short is an error, and no signal.
    file.set_len(100).unwrap();
    assert!(opened.verify(&seal).is_err());
}

/// What a release has saved, later ones load, or pass over.
mod version_1 {
    use super::*;

    const BODY_BYTES: usize = 5000;

    fn body() -> Vec<u8> {
        (0..BODY_BYTES).map(|byte| (byte % 251) as u8).collect()
    }

    fn fixture(name: &str) -> Vec<u8> {
        let root = env!("CARGO_MANIFEST_DIR");
        let path = format!("{root}/tests/real/artifacts/version-1-{name}.wpa");
        std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn fixture_key() -> ArtifactKey {
        format!("{}/{}", "0a".repeat(32), "b1".repeat(32))
            .parse()
            .unwrap()
    }

    fn code_of(name: &str, seal: &Seal) -> Result<Vec<u8>, StoreError> {
        let stored = StoredArtifact::bytes(fixture(name));
        let opened = Opened::new(stored, &fixture_key(), u64::MAX)?;
        let raw = opened.verify(seal)?.share().unwrap();
        let mut bytes = raw.to_vec().unwrap();
        bytes.truncate(BODY_BYTES);
        Ok(bytes)
    }

    #[test]
    fn raw_and_keyed_fixtures_load() {
        assert_eq!(code_of("raw", &Seal::digest()).unwrap(), body());
        assert_eq!(code_of("keyed", &Seal::keyed(b"fixture")).unwrap(), body());
        assert!(code_of("keyed", &Seal::keyed(b"other")).is_err());
    }

    #[test]
    #[cfg(feature = "zstd")]
    fn the_compressed_fixture_loads() {
        assert_eq!(code_of("zstd", &Seal::digest()).unwrap(), body());
    }

    /// They are as today's code writes them: another layout needs another version.
    #[test]
    fn version_1_is_written_as_it_was() {
        for (name, seal) in [("raw", Seal::digest()), ("keyed", Seal::keyed(b"fixture"))] {
            let body = body();
            let encoded = seal.encode(fixture_key(), Codec::Raw, &body, BODY_BYTES as u64);
            assert!(encoded.to_vec() == fixture(name), "{name}");
        }
    }
}
