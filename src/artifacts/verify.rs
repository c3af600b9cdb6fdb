//! From what a store has to what may be mapped: read once, hashed while it is read, and sealed.

use std::borrow::Cow;
use std::fs::File;
use std::io;

use super::compress::decompress;
use super::footer::{Codec, FOOTER_BYTES, Footer};
use super::identity::Identity;
use super::key::ArtifactKey;
use super::seal::Seal;
use super::sealed::{SealedFile, Unsealed};
use super::store::{Contents, StoreError, StoredArtifact};

/// Bytes that are read at once: they are hashed while they are in the processor's cache.
const CHUNK: usize = 256 << 10;

/// An artifact whose footer has been read, and nothing else.
pub(crate) struct Opened {
    contents: Contents,
    footer: Footer,
    page: [u8; FOOTER_BYTES],
    /// Of heap, that may be taken to verify it.
    max_bytes: u64,
}

/// An artifact that is what was saved, and that nobody can change any more; to be shared, and not copied. It is raw.
///
/// What a store is given with [`ArtifactStore::offer`](super::ArtifactStore::offer).
#[derive(Debug)]
pub struct VerifiedArtifact(SealedFile);

// Made by `Opened::verify` alone.
impl VerifiedArtifact {
    pub(crate) fn file(&self) -> &SealedFile {
        &self.0
    }

    /// The same once more, without a copy; this is what [`ArtifactStore::load`](super::ArtifactStore::load) may return.
    ///
    /// # Errors
    /// The system's, which has no file descriptor to give.
    pub fn share(&self) -> io::Result<StoredArtifact> {
        self.0.stored()
    }

    /// The code in it, which has so many bytes: copied.
    pub(crate) fn read_code(&self, code_bytes: u64) -> Result<Vec<u8>, StoreError> {
        let mut code = room_for(code_bytes)?;
        code.resize(code_bytes as usize, 0);
        let stored = self.share().map_err(unreadable)?;
        stored.0.read_at(&mut code, 0).map_err(unreadable)?;
        Ok(code)
    }

    /// Bytes of all of it.
    ///
    /// # Errors
    /// The system's.
    pub fn size(&self) -> io::Result<u64> {
        self.0.size()
    }
}

fn room_for(bytes: u64) -> Result<Vec<u8>, StoreError> {
    let mut room = Vec::new();
    let reserved = room.try_reserve_exact(usize::try_from(bytes).unwrap_or(usize::MAX));
    reserved.map_err(|error| unsealed(io::Error::new(io::ErrorKind::OutOfMemory, error)))?;
    Ok(room)
}

fn corrupt(reason: impl Into<String>) -> StoreError {
    let reason = reason.into();
    StoreError::Corrupt { reason }
}

fn unreadable(source: io::Error) -> StoreError {
    StoreError::unreadable("an artifact cannot be read", source)
}

/// What is written into it is verified: the copy is as well, should it come back from a store in memory.
fn finish(copy: Unsealed, seal: &Seal) -> Result<VerifiedArtifact, StoreError> {
    let sealed = copy.seal().map_err(unsealed)?;
    #[cfg(target_os = "linux")]
    if let Some(identity) = Identity::of(&sealed) {
        identity.note_verified(seal);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = seal;
    Ok(VerifiedArtifact(sealed))
}

fn unsealed(source: io::Error) -> StoreError {
    StoreError::unreadable("there is no memory for an artifact", source)
}

#[cfg(feature = "warm-up")]
impl VerifiedArtifact {
    /// Its first bytes: so many as were saved are the artifact, and what is behind them is not.
    pub(crate) fn read(&self, bytes: u64) -> io::Result<Vec<u8>> {
        let length = usize::try_from(bytes).unwrap_or(usize::MAX);
        #[cfg(target_os = "linux")]
        {
            use std::os::unix::fs::FileExt;
            let mut saved = vec![0; length];
            self.0.file().read_exact_at(&mut saved, 0)?;
            Ok(saved)
        }
        #[cfg(not(target_os = "linux"))]
        {
            let saved = self.0.bytes().get(..length);
            let saved = saved.ok_or(io::ErrorKind::UnexpectedEof)?;
            Ok(saved.to_vec())
        }
    }
}

impl Opened {
    /// Reads the footer, and compares it with what was asked for. What it says of lengths is as long as the
    /// contents are; nothing of it is verified.
    pub fn new(
        stored: StoredArtifact,
        key: &ArtifactKey,
        max_bytes: u64,
    ) -> Result<Self, StoreError> {
        let contents = stored.0;
        let bytes = contents.len().map_err(unreadable)?;
        if let Contents::Bytes(_) = contents {
            StoreError::check_size(bytes, max_bytes)?;
        }
        let Some(at) = bytes.checked_sub(FOOTER_BYTES as u64) else {
            return Err(corrupt(format!("{bytes} bytes are too few")));
        };
        let mut page = [0; FOOTER_BYTES];
        contents.read_at(&mut page, at).map_err(unreadable)?;
        let footer = Footer::parse(&page)?;
        if footer.key != *key {
            return Err(corrupt(format!("it is that of {}", footer.key)));
        }
        if footer.file_bytes() != bytes {
            let said = footer.file_bytes();
            return Err(corrupt(format!("{bytes} bytes, of which it says {said}")));
        }
        Ok(Self {
            contents,
            footer,
            page,
            max_bytes,
        })
    }

    /// Bytes that its code takes when it is mapped: with the padding and the footer behind it.
    pub fn mapped_bytes(&self) -> u64 {
        self.footer.code_bytes.next_multiple_of(FOOTER_BYTES as u64) + FOOTER_BYTES as u64
    }

    /// Bytes of its code.
    pub fn code_bytes(&self) -> u64 {
        self.footer.code_bytes
    }

    /// Bytes of all of it, as it is stored.
    pub fn file_bytes(&self) -> u64 {
        self.footer.file_bytes()
    }

    /// Whether it must be decompressed.
    pub fn is_compressed(&self) -> bool {
        self.footer.codec == Codec::Zstd
    }

    /// Makes sure that it is what was saved, by whoever has the seal's secret if it has one.
    pub fn verify(&self, seal: &Seal) -> Result<VerifiedArtifact, StoreError> {
        self.check_kind(seal)?;
        match self.footer.codec {
            Codec::Raw => self.verify_raw(seal),
            Codec::Zstd => self.verify_compressed(seal),
        }
    }

    fn check_kind(&self, seal: &Seal) -> Result<(), StoreError> {
        let reason = match (self.footer.keyed, seal.is_keyed()) {
            (false, true) => "it has a digest, where a keyed one is asked for",
            (true, false) => "it has a keyed digest, and there is no secret here",
            _ => return Ok(()),
        };
        let reason = reason.into();
        Err(StoreError::Incompatible { reason })
    }

    fn verify_raw(&self, seal: &Seal) -> Result<VerifiedArtifact, StoreError> {
        if let Some(sealed) = self.contents.sealed() {
            let identity = Identity::of(&sealed);
            if !identity.is_some_and(|id| id.is_verified(seal)) {
                self.check(seal)?;
                identity.into_iter().for_each(|id| id.note_verified(seal));
            }
            return Ok(VerifiedArtifact(sealed));
        }
        // What is copied is what is hashed: whatever becomes of the file.
        let mut copy = Unsealed::new(self.footer.file_bytes()).map_err(unsealed)?;
        self.check_each(seal, |chunk| copy.write(chunk).map_err(unsealed))?;
        copy.write(&self.page).map_err(unsealed)?;
        finish(copy, seal)
    }

    /// Compares the digest.
    pub fn check(&self, seal: &Seal) -> Result<(), StoreError> {
        self.check_each(seal, |_| Ok(()))
    }

    /// Hashes the padded body, chunk by chunk, and compares the digest.
    fn check_each(
        &self,
        seal: &Seal,
        mut each: impl FnMut(&[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.check_kind(seal)?;
        let mut hasher = seal.hasher();
        self.each_chunk(|chunk| {
            hasher.update(chunk);
            each(chunk)
        })?;
        // Compared in constant time.
        match Seal::finish(hasher, self.page) == self.footer.digest {
            true => Ok(()),
            false => Err(corrupt("its digest is another")),
        }
    }

    /// The padded body.
    fn each_chunk(
        &self,
        mut each: impl FnMut(&[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let end = self.footer.padded_bytes();
        if let Contents::Bytes(bytes) = &self.contents {
            return each(&bytes[..end as usize]);
        }
        let mut buffer = vec![0; CHUNK.min(end as usize)];
        let mut at = 0;
        while at < end {
            let length = buffer.len().min((end - at) as usize);
            let chunk = &mut buffer[..length];
            self.contents.read_at(chunk, at).map_err(unreadable)?;
            each(chunk)?;
            at += length as u64;
        }
        Ok(())
    }

    /// Nothing is decompressed that is not verified. What comes out is a whole raw artifact, with a proof of its own.
    fn verify_compressed(&self, seal: &Seal) -> Result<VerifiedArtifact, StoreError> {
        StoreError::check_size(self.footer.body_bytes, self.max_bytes)?;
        let body = self.verified_body(seal)?;
        let raw = Footer {
            codec: Codec::Raw,
            body_bytes: self.footer.code_bytes,
            ..self.footer.clone()
        };
        let mut copy = Unsealed::new(raw.file_bytes()).map_err(unsealed)?;
        let mut hasher = seal.hasher();
        let mut write = |bytes: &[u8]| {
            hasher.update(bytes);
            copy.write(bytes).map_err(unsealed)
        };
        decompress(&body, raw.code_bytes, &mut write)?;
        let padding = raw.padded_bytes() - raw.body_bytes;
        write(&[0; FOOTER_BYTES][..padding as usize])?;
        let page = Seal::prove(hasher, raw);
        copy.write(&page).map_err(unsealed)?;
        finish(copy, seal)
    }

    /// The body without its padding, as nobody can change it any more.
    fn verified_body(&self, seal: &Seal) -> Result<Cow<'_, [u8]>, StoreError> {
        let body_bytes = self.footer.body_bytes as usize;
        if let Contents::Bytes(bytes) = &self.contents {
            self.check(seal)?;
            return Ok(bytes[..body_bytes].into());
        }
        let mut body = room_for(self.footer.padded_bytes())?;
        self.check_each(seal, |chunk| {
            body.extend_from_slice(chunk);
            Ok(())
        })?;
        body.truncate(body_bytes);
        Ok(body.into())
    }
}

impl Contents {
    pub fn len(&self) -> io::Result<u64> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.len() as u64),
            Self::File(file) => Ok(file.metadata()?.len()),
        }
    }

    /// Fills the buffer. A file that ends before has been cut short meanwhile.
    pub fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        match self {
            Self::Bytes(bytes) => {
                let from = usize::try_from(at).unwrap_or(usize::MAX);
                let part = bytes.get(from..).and_then(|rest| rest.get(..buffer.len()));
                buffer.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
            Self::File(file) => read_exact_at(file, buffer, at),
        }
    }

    #[cfg(target_os = "linux")]
    fn sealed(&self) -> Option<SealedFile> {
        match self {
            Self::Bytes(_) => None,
            Self::File(file) => SealedFile::of(file),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn sealed(&self) -> Option<SealedFile> {
        match self {
            Self::Bytes(bytes) => Some(SealedFile::of_bytes(bytes)),
            Self::File(_) => None,
        }
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    file.read_exact_at(buffer, at)
}

#[cfg(not(unix))]
fn read_exact_at(mut file: &File, buffer: &mut [u8], at: u64) -> io::Result<()> {
    use std::io::{Read, Seek, SeekFrom};
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(buffer)
}

#[cfg(all(test, feature = "zstd"))]
mod tests {
    use super::super::compress::compress;
    use super::super::key::EngineKey;
    use super::*;

    fn key() -> ArtifactKey {
        ArtifactKey::new(EngineKey::new(b"engine"), [7; 32])
    }

    fn code() -> Vec<u8> {
        (0..30_000_u32).map(|n| (n / 9) as u8).collect()
    }

    /// The code as an artifact, compressed, that says to have so many bytes of code.
    fn compressed(seal: &Seal, code_bytes: u64) -> Vec<u8> {
        let body = compress(&code(), 3).unwrap();
        seal.encode(key(), Codec::Zstd, &body, code_bytes).to_vec()
    }

    fn verify(bytes: &[u8], seal: &Seal) -> Result<VerifiedArtifact, StoreError> {
        Opened::new(StoredArtifact::bytes(bytes), &key(), u64::MAX)?.verify(seal)
    }

    #[cfg(unix)]
    fn in_file(bytes: &[u8]) -> File {
        use std::io::Write;
        let path = std::env::temp_dir().join(format!("wasm-pool-{}", std::process::id()));
        let mut file = (File::options().read(true).write(true).create_new(true))
            .open(&path)
            .unwrap();
        std::fs::remove_file(path).unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn what_was_compressed_comes_out_as_a_whole_raw_artifact() {
        let code = code();
        let bytes = code.len() as u64;
        for seal in [Seal::digest(), Seal::keyed(b"secret")] {
            let stored = compressed(&seal, bytes);
            let raw = seal.encode(key(), Codec::Raw, &code, bytes).to_vec();
            let mut sources = vec![StoredArtifact::bytes(&stored[..])];
            #[cfg(unix)]
            sources.push(StoredArtifact::file(in_file(&stored)));
            for source in sources {
                let opened = Opened::new(source, &key(), stored.len() as u64).unwrap();
                assert!(opened.is_compressed());
                assert_eq!(opened.mapped_bytes(), raw.len() as u64);
                let verified = opened.verify(&seal).unwrap();
                let mut contents = vec![0; raw.len()];
                let shared = verified.share().unwrap();
                shared.0.read_at(&mut contents, 0).unwrap();
                assert!(contents == raw);
                let again = Opened::new(shared, &key(), u64::MAX).unwrap();
                assert!(!again.is_compressed());
                again.verify(&seal).unwrap();
            }
            let other = Seal::keyed(b"another");
            assert!(verify(&stored, &other).is_err());
        }
    }

    #[test]
    fn no_flipped_bit_is_decompressed() {
        let seal = Seal::digest();
        let stored = compressed(&seal, code().len() as u64);
        for bit in 0..stored.len() * 8 {
            let mut flipped = stored.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let error = verify(&flipped, &seal).unwrap_err();
            assert!(error.condemns_artifact(), "bit {bit}: {error}");
            assert!(
                !error.to_string().contains("Zstandard"),
                "bit {bit}: {error}"
            );
        }
    }

    #[test]
    fn a_wrong_length_is_corrupt_though_it_is_proved() {
        let seal = Seal::digest();
        for wrong in [1, 29_999, 30_001, 1 << 30] {
            let error = verify(&compressed(&seal, wrong), &seal).unwrap_err();
            assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        }
    }
}
