//! Zstandard, in memory that is bounded beforehand: a window as long as the code, and of 8 MiB at most.

#[cfg(feature = "zstd")]
pub(super) use present::{compress, compress_code, decompress};

#[cfg(not(feature = "zstd"))]
pub(super) use without::{compress, compress_code, decompress};

/// No level up to 19 has a larger window: 8 MiB.
const WINDOW_LOG: u32 = 23;

/// Heap that decompressing so much code takes beside what is decompressed: the window, and 512 KiB for all else.
/// A frame that needs more is refused.
pub(crate) const fn decoder_bytes(code_bytes: u64) -> u64 {
    (1 << window_log(code_bytes)) + (512 << 10)
}

/// Of the smallest window that has all of it in it, if there is one: Zstandard makes none that is larger.
const fn window_log(code_bytes: u64) -> u32 {
    // The smallest that there is.
    let mut log = 10;
    while log < WINDOW_LOG && (1 << log) < code_bytes {
        log += 1;
    }
    log
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
        frame().ok().filter(|frame| (frame.len() as u64) < code_bytes)
    }

    /// Hands on what this is the frame of, piece by piece, which must be so many bytes: not one more is
    /// decompressed.
    pub fn decompress(
        body: impl BufRead,
        code_bytes: u64,
        mut each: impl FnMut(&[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let corrupt = |reason: String| StoreError::Corrupt { reason };
        let frame = |error: io::Error| corrupt(format!("not what Zstandard makes: {error}"));
        let mut decoder = read::Decoder::with_buffer(body).map_err(frame)?;
        decoder
            .window_log_max(window_log(code_bytes))
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
        use super::super::WINDOW_LOG;
        use super::*;

        fn decompressed(body: &[u8], code_bytes: u64) -> Result<Vec<u8>, StoreError> {
            let mut code = Vec::new();
            decompress(body, code_bytes, |chunk| {
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
            for (bytes, most) in [(20 << 20, WINDOW_LOG), (100_000, 17)] {
                let code = vec![7; bytes];
                let with_window = |log| {
                    let mut encoder = write::Encoder::new(Vec::new(), 3).unwrap();
                    encoder.window_log(log).unwrap();
                    encoder.write_all(&code).unwrap();
                    encoder.finish().unwrap()
                };
                assert!(decompressed(&with_window(most), bytes as u64).is_ok());
                assert!(decompressed(&with_window(most + 1), bytes as u64).is_err());
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
        _: impl FnMut(&[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let reason = "it is compressed, and the feature `zstd` is not there".into();
        Err(StoreError::Refused { reason })
    }
}
