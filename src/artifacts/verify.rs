//! From what a store has to what may be mapped: copied, sealed, and then verified.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::ops::Range;

use super::compress::{FRAME_HEADER, decoder_bytes, decompress, window_bytes};
use super::footer::{Codec, FOOTER_BYTES, Footer};
use super::identity::Identity;
use super::key::ArtifactKey;
use super::seal::Seal;
use super::sealed::{SealedFile, Unsealed};
use super::store::{Contents, StoreError, StoredArtifact};

/// Bytes that are read at once: they are hashed while they are in the processor's cache. As a buffer they come from
/// the heap; more would be mapped, page by page, for each artifact.
const CHUNK: usize = 64 << 10;

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

    /// Its first bytes, up to `end`, piece by piece.
    pub(super) fn each_chunk(
        &self,
        end: u64,
        each: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        self.share()?.0.each_chunk(end, |error| error, each)
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
        let sealed = match self.contents.sealed() {
            Some(sealed) => sealed,
            None => self.copy()?,
        };
        self.verify_sealed(sealed, &self.page, seal)
    }

    /// As it is now: the file may become another while it is copied.
    fn copy(&self) -> Result<SealedFile, StoreError> {
        let mut copy = Unsealed::new(self.footer.file_bytes()).map_err(unsealed)?;
        self.each_chunk(|chunk| copy.write(chunk).map_err(unsealed))?;
        copy.write(&self.page).map_err(unsealed)?;
        copy.seal().map_err(unsealed)
    }

    /// The same of what was made a moment ago. It is not remembered: memory would grow with each compilation elsewhere.
    pub(crate) fn verify_new(&self, seal: &Seal) -> Result<VerifiedArtifact, StoreError> {
        if self.is_compressed() {
            return Err(corrupt("it is compressed, and nobody has asked for that"));
        }
        let sealed = self.contents.sealed();
        let sealed = sealed.ok_or_else(|| corrupt("it is not sealed"))?;
        self.prove(&sealed, &self.page, seal)?;
        Ok(VerifiedArtifact(sealed))
    }

    fn verify_sealed(
        &self,
        sealed: SealedFile,
        page: &[u8; FOOTER_BYTES],
        seal: &Seal,
    ) -> Result<VerifiedArtifact, StoreError> {
        let identity = Identity::of(&sealed);
        if !identity.is_some_and(|id| id.is_verified(seal)) {
            self.prove(&sealed, page, seal)?;
            identity.into_iter().for_each(|id| id.note_verified(seal));
        }
        Ok(VerifiedArtifact(sealed))
    }

    /// Hashed when it is sealed, and not before: until then, other processes of this user can write to it
    /// (`/proc/<pid>/fd`). It must have the footer that was read first, which says what was reserved for it.
    fn prove(
        &self,
        sealed: &SealedFile,
        page: &[u8; FOOTER_BYTES],
        seal: &Seal,
    ) -> Result<(), StoreError> {
        let stored = sealed.stored().map_err(unsealed)?;
        let sealed = Self::new(stored, &self.footer.key, u64::MAX)?;
        if sealed.page != *page {
            return Err(corrupt("it has changed while it was read"));
        }
        sealed.check(seal)
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
        each: impl FnMut(&[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let end = self.footer.padded_bytes();
        self.contents.each_chunk(end, unreadable, each)
    }

    /// Nothing is decompressed that is not verified. What comes out is a whole raw artifact, with a proof of its own.
    fn verify_compressed(&self, seal: &Seal) -> Result<VerifiedArtifact, StoreError> {
        // What its decoder takes is known when it is verified.
        StoreError::check_size(self.footer.file_bytes(), self.max_bytes)?;
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
        let body_bytes = self.footer.body_bytes;
        match &self.contents {
            Contents::Bytes(bytes) => {
                self.check(seal)?;
                let body = &bytes[..body_bytes as usize];
                decompress(body, self.window(body)?, raw.code_bytes, &mut write)?;
            }
            // Nobody can change it: it is read twice.
            Contents::File(_) if self.is_in_memory() => {
                self.check(seal)?;
                let mut header = [0; FRAME_HEADER];
                self.contents.read_at(&mut header, 0).map_err(unreadable)?;
                let body = ReadAt(&self.contents, 0..body_bytes);
                let body = BufReader::with_capacity(CHUNK, body);
                decompress(body, self.window(&header)?, raw.code_bytes, &mut write)?;
            }
            Contents::File(_) => {
                let mut body = room_for(self.footer.padded_bytes())?;
                self.check_each(seal, |chunk| {
                    body.extend_from_slice(chunk);
                    Ok(())
                })?;
                let body = &body[..body_bytes as usize];
                decompress(body, self.window(body)?, raw.code_bytes, &mut write)?;
            }
        }
        let padding = raw.padded_bytes() - raw.body_bytes;
        write(&[0; FOOTER_BYTES][..padding as usize])?;
        let page = Seal::prove(hasher, raw);
        copy.write(&page).map_err(unsealed)?;
        self.verify_sealed(copy.seal().map_err(unsealed)?, &page, seal)
    }

    /// Of the verified frame that begins so, if decompressing it takes no more than was set aside: the compressed
    /// artifact, once, and the decoder.
    fn window(&self, frame: &[u8]) -> Result<u64, StoreError> {
        let window = window_bytes(frame).ok_or_else(|| corrupt("it has no frame of Zstandard"))?;
        let decoder = decoder_bytes(window);
        StoreError::check_size(
            self.footer.file_bytes().saturating_add(decoder),
            self.max_bytes,
        )?;
        Ok(window)
    }

    /// Whether its store has brought it into memory, as bytes or as a sealed file.
    pub fn is_in_memory(&self) -> bool {
        matches!(self.contents, Contents::Bytes(_)) || self.contents.sealed().is_some()
    }
}

/// These bytes of it, one after the other.
struct ReadAt<'a>(&'a Contents, Range<u64>);

impl Read for ReadAt<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.1.end - self.1.start;
        let most = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        self.0.read_at(&mut buffer[..most], self.1.start)?;
        self.1.start += most as u64;
        Ok(most)
    }
}

impl Contents {
    pub fn len(&self) -> io::Result<u64> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.len() as u64),
            Self::File(file) => Ok(file.metadata()?.len()),
        }
    }

    /// The first bytes, up to `end`; those of a file piece by piece.
    fn each_chunk<E>(
        &self,
        end: u64,
        failed: impl Fn(io::Error) -> E,
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        if let Self::Bytes(bytes) = self {
            let end = usize::try_from(end).unwrap_or(usize::MAX);
            let all = bytes.get(..end);
            return each(all.ok_or_else(|| failed(io::ErrorKind::UnexpectedEof.into()))?);
        }
        let mut buffer = vec![0; CHUNK.min(usize::try_from(end).unwrap_or(CHUNK))];
        let mut at = 0;
        while at < end {
            let length = buffer.len().min((end - at) as usize);
            let chunk = &mut buffer[..length];
            self.read_at(chunk, at).map_err(&failed)?;
            each(chunk)?;
            at += length as u64;
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::super::key::EngineKey;
    use super::*;

    /// Until it is sealed, another process can write to it.
    #[test]
    fn what_is_sealed_is_what_is_verified() {
        let key = ArtifactKey::new(EngineKey::new(b"engine"), [7; 32]);
        let code = vec![9; 3 * FOOTER_BYTES];
        let seal = Seal::digest();
        let whole = seal.encode(key, Codec::Raw, &code, code.len() as u64);
        let whole = whole.to_vec();
        let opened = Opened::new(StoredArtifact::bytes(&whole[..]), &key, u64::MAX).unwrap();
        let sealed = |bytes: &[u8]| {
            let mut file = Unsealed::new(bytes.len() as u64).unwrap();
            file.write(bytes).unwrap();
            file.seal().unwrap()
        };
        let take = |bytes: &[u8]| opened.verify_sealed(sealed(bytes), &opened.page, &seal);
        take(&whole).unwrap();
        for at in [0, code.len() - 1, whole.len() - 1] {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert!(take(&changed).unwrap_err().condemns_artifact(), "{at}");
        }
        // Another whole artifact of the same key is not what room was made for.
        let longer = vec![9; 4 * FOOTER_BYTES];
        let longer = seal.encode(key, Codec::Raw, &longer, longer.len() as u64);
        assert!(take(&longer.to_vec()).unwrap_err().condemns_artifact());
    }
}

#[cfg(all(test, feature = "zstd"))]
mod compressed_tests {
    use super::super::compress::compress_code as compress;
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
                let most = stored.len() as u64 + decoder_bytes(bytes);
                let opened = Opened::new(source, &key(), most).unwrap();
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
    fn nothing_new_is_taken_compressed_or_open_to_writers() {
        let seal = Seal::digest();
        let bytes = code().len() as u64;
        let new = |contents: &[u8], seals: bool| {
            let mut file = Unsealed::new(contents.len() as u64).unwrap();
            file.write(contents).unwrap();
            let open = StoredArtifact::file(file.file().try_clone().unwrap());
            let sealed = seals.then(|| file.seal().unwrap().stored().unwrap());
            let opened = Opened::new(sealed.unwrap_or(open), &key(), u64::MAX);
            opened.unwrap().verify_new(&seal)
        };
        let raw = seal.encode(key(), Codec::Raw, &code(), bytes).to_vec();
        new(&raw, true).unwrap();
        let mut changed = raw.clone();
        changed[7] ^= 1;
        for (contents, seals) in [
            (&raw, false),
            (&changed, true),
            (&compressed(&seal, bytes), true),
        ] {
            let error = new(contents, seals).unwrap_err();
            assert!(error.condemns_artifact(), "{error}");
        }
    }

    #[test]
    fn what_decompressing_takes_has_to_be_set_aside() {
        let bytes = code().len() as u64;
        let seal = Seal::digest();
        let stored = compressed(&seal, bytes);
        let window = window_bytes(&stored).unwrap();
        assert!(window <= bytes.next_power_of_two());
        let needed = stored.len() as u64 + decoder_bytes(window);
        let verify = |most| {
            let stored = StoredArtifact::bytes(&stored[..]);
            Opened::new(stored, &key(), most).unwrap().verify(&seal)
        };
        verify(needed).unwrap();
        let error = verify(needed - 1).unwrap_err();
        assert!(matches!(error, StoreError::TooLarge { .. }), "{error}");
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
