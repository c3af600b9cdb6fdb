//! Zstandard, in memory that is bounded beforehand: a window of 8 MiB at most.

#[cfg(feature = "zstd")]
pub(super) use present::{compress, compress_code, decompress};

#[cfg(not(feature = "zstd"))]
pub(super) use without::{compress, compress_code, decompress};

/// No level up to 19 has a larger window: 8 MiB.
const WINDOW_LOG: u32 = 23;

/// Bytes of a frame that say how large its window is.
pub(super) const FRAME_HEADER: usize = 14;

/// Heap that decompressing so much code takes beside what is decompressed, of a frame that [`compress`] has made: the
/// window, and 512 KiB for all else. It is no larger than the code, up to a power of two.
pub(crate) const fn decoder_bytes(code_bytes: u64) -> u64 {
    (1 << window_log(code_bytes)) + (512 << 10)
}

/// Of the smallest window that has so many bytes in it, if there is one.
const fn window_log(bytes: u64) -> u32 {
    // The smallest that there is.
    let mut log = 10;
    while log < WINDOW_LOG && (1 << log) < bytes {
        log += 1;
    }
    log
}

/// Bytes of the window of a frame that begins so (RFC 8878, 3.1.1.1); `None` if none does.
pub(super) fn window_bytes(header: &[u8]) -> Option<u64> {
    let rest = header.strip_prefix(&[0x28, 0xb5, 0x2f, 0xfd])?;
    let (descriptor, rest) = rest.split_first()?;
    if descriptor & 0x20 == 0 {
        let window = rest.first()?;
        let base = 1_u64 << (10 + (window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    // A single segment: its window is as long as its contents.
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let (length, least) = [(1, 0), (2, 256), (4, 0), (8, 0)][usize::from(descriptor >> 6)];
    let mut bytes = [0; 8];
    bytes[..length].copy_from_slice(rest.get(dictionary..dictionary + length)?);
    Some(u64::from_le_bytes(bytes).saturating_add(least))
}

#[cfg(feature = "zstd")]
mod present {
    use std::io::{self, BufRead, Read, Write};

    use zstd::stream::{read, write};

    use super::window_log;
    use crate::artifacts::store::StoreError;
    use crate::artifacts::verify::VerifiedArtifact;

    /// Bytes that are read or decompressed at once: they are hashed while they are in the processor's cache.
    const CHUNK: usize = 64 << 10;

    /// The frame of an artifact's code, unless it is no shorter than the code.
    pub fn compress(artifact: &VerifiedArtifact, code_bytes: u64, level: i32) -> Option<Vec<u8>> {
        let read = |write: &mut dyn FnMut(&[u8]) -> io::Result<()>| {
            artifact.each_chunk(code_bytes, |chunk| write(chunk))
        };
        compress_each(code_bytes, level, read)
    }

    /// The frame of code, unless it is no shorter than that.
    pub fn compress_code(code: &[u8], level: i32) -> Option<Vec<u8>> {
        compress_each(code.len() as u64, level, |write| write(code))
    }

    fn compress_each(
        code_bytes: u64,
        level: i32,
        read: impl FnOnce(&mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()>,
    ) -> Option<Vec<u8>> {
        let frame = || -> io::Result<Vec<u8>> {
            let mut encoder = write::Encoder::new(Vec::new(), level.clamp(1, 19))?;
            encoder.set_pledged_src_size(Some(code_bytes))?;
            read(&mut |chunk| encoder.write_all(chunk))?;
            encoder.finish()
        };
        frame()
            .ok()
            .filter(|frame| (frame.len() as u64) < code_bytes)
    }

    /// Hands on what this is the frame of, piece by piece, which must be so many bytes: not one more is
    /// decompressed. Takes the decoder's memory for a window of so many bytes.
    pub fn decompress(
        body: impl BufRead,
        window_bytes: u64,
        code_bytes: u64,
        mut each: impl FnMut(&[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let corrupt = |reason: String| StoreError::Corrupt { reason };
        let frame = |error: io::Error| corrupt(format!("not what Zstandard makes: {error}"));
        let mut decoder = read::Decoder::with_buffer(body).map_err(frame)?;
        decoder
            .window_log_max(window_log(window_bytes))
            .map_err(frame)?;
        let mut buffer = vec![0; CHUNK];
        let mut left = code_bytes;
        while left > 0 {
            let most = buffer.len().min(usize::try_from(left).unwrap_or(CHUNK));
            let read = decoder.read(&mut buffer[..most]).map_err(frame)?;
            if read == 0 {
                return Err(corrupt(format!("{left} of {code_bytes} bytes are missing")));
            }
            each(&buffer[..read])?;
            left -= read as u64;
        }
        match decoder.read(&mut buffer[..1]).map_err(frame)? {
            0 => Ok(()),
            _ => Err(corrupt(format!("more than {code_bytes} bytes"))),
        }
    }

    #[cfg(test)]
    mod tests {
        use super::super::{FRAME_HEADER, WINDOW_LOG, window_bytes};
        use super::*;

        fn decompressed(body: &[u8], code_bytes: u64) -> Result<Vec<u8>, StoreError> {
            let mut code = Vec::new();
            let window = window_bytes(body).unwrap_or(0);
            decompress(body, window, code_bytes, |chunk| {
                code.extend_from_slice(chunk);
                Ok(())
            })?;
            Ok(code)
        }

        #[test]
        fn exactly_what_was_compressed_comes_out() {
            let code: Vec<u8> = (0..3_000_000_u32).map(|n| (n / 7 % 251) as u8).collect();
            for level in [i32::MIN, 1, 3, 19, i32::MAX] {
                let body = compress_code(&code, level).unwrap();
                let bytes = code.len() as u64;
                assert!(body.len() < code.len() / 2);
                assert!(decompressed(&body, bytes).unwrap() == code);
                for wrong in [0, 1, bytes - 1, bytes + 1, u64::MAX] {
                    let error = decompressed(&body, wrong).unwrap_err();
                    assert!(error.condemns_artifact(), "{error}");
                }
                for wrong in [&body[..body.len() - 1], &[&body[..], &[1]].concat()] {
                    assert!(decompressed(wrong, bytes).is_err());
                }
            }
        }

        #[test]
        fn what_does_not_shrink_is_left_as_it_is() {
            assert!(compress_code(b"short", 19).is_none());
        }

        #[test]
        fn a_window_that_is_too_large_is_refused() {
            let code = vec![7; 20 << 20];
            let bytes = code.len() as u64;
            let with_window = |log| {
                let mut encoder = write::Encoder::new(Vec::new(), 3).unwrap();
                encoder.window_log(log).unwrap();
                encoder.write_all(&code).unwrap();
                encoder.finish().unwrap()
            };
            for log in [10, 17, WINDOW_LOG] {
                let body = with_window(log);
                assert_eq!(window_bytes(&body), Some(1 << log));
                assert!(decompressed(&body, bytes).is_ok());
            }
            assert!(decompressed(&with_window(WINDOW_LOG + 1), bytes).is_err());
            // One that is larger than what is set aside for it.
            assert!(decompress(&with_window(17)[..], 1 << 16, bytes, |_| Ok(())).is_err());
            // Nor may a second frame have one.
            let frames = [with_window(10), with_window(17)].concat();
            assert!(decompressed(&frames, 2 * bytes).is_err());
        }

        #[test]
        fn no_frame_that_is_made_here_has_a_larger_window_than_is_reserved() {
            for bytes in [1, 600, 1025, 5000, 65_536, 100_001, 9 << 20] {
                let code = vec![7; bytes];
                for level in [1, 3, 19] {
                    let Some(body) = compress_code(&code, level) else {
                        continue;
                    };
                    let window = window_bytes(&body[..FRAME_HEADER.min(body.len())]).unwrap();
                    assert!(window <= 1 << window_log(bytes as u64), "{bytes}, {level}");
                }
            }
            for no_frame in [
                &b""[..],
                b"what is this?",
                &[0x28, 0xb5, 0x2f, 0xfd, 0xe0, 1],
            ] {
                assert_eq!(window_bytes(no_frame), None);
            }
        }
    }
}

#[cfg(not(feature = "zstd"))]
mod without {
    use std::io::BufRead;

    use crate::artifacts::store::StoreError;
    use crate::artifacts::verify::VerifiedArtifact;

    /// Left as it is.
    pub fn compress(_: &VerifiedArtifact, _: u64, _: i32) -> Option<Vec<u8>> {
        None
    }

    /// Likewise.
    pub fn compress_code(_: &[u8], _: i32) -> Option<Vec<u8>> {
        None
    }

    /// Not the artifact's fault: others can load it.
    pub fn decompress(
        _: impl BufRead,
        _: u64,
        _: u64,
        _: impl FnMut(&[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let reason = "it is compressed, and the feature `zstd` is not there".into();
        Err(StoreError::Refused { reason })
    }
}
