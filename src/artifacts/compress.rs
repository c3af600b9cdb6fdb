//! Zstandard, in memory that is bounded beforehand: a window of 8 MiB at most.

#[cfg(feature = "zstd")]
pub(super) use present::{compress, decompress};

#[cfg(not(feature = "zstd"))]
pub(super) use without::{compress, decompress};

#[cfg(feature = "zstd")]
mod present {
    use std::io::{self, Read, Write};

    use zstd::stream::{read, write};

    use crate::artifacts::store::StoreError;

    /// No level up to 19 has a larger window: 8 MiB.
    const WINDOW_LOG: u32 = 23;

    /// Bytes that are decompressed at once: they are hashed while they are in the processor's cache.
    const CHUNK: usize = 256 << 10;

    /// The code's frame, unless it is no shorter than the code.
    pub fn compress(code: &[u8], level: i32) -> Option<Vec<u8>> {
        let frame = || -> io::Result<Vec<u8>> {
            let mut encoder = write::Encoder::new(Vec::new(), level.clamp(1, 19))?;
            encoder.set_pledged_src_size(Some(code.len() as u64))?;
            encoder.write_all(code)?;
            encoder.finish()
        };
        frame().ok().filter(|frame| frame.len() < code.len())
    }

    /// Hands on what this is the frame of, piece by piece, which must be so many bytes: not one more is
    /// decompressed.
    pub fn decompress(
        body: &[u8],
        code_bytes: u64,
        mut each: impl FnMut(&[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let corrupt = |reason: String| StoreError::Corrupt { reason };
        let frame = |error: io::Error| corrupt(format!("not what Zstandard makes: {error}"));
        let mut decoder = read::Decoder::with_buffer(body).map_err(frame)?;
        decoder.window_log_max(WINDOW_LOG).map_err(frame)?;
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
                let body = compress(&code, level).unwrap();
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
            assert!(compress(b"short", 19).is_none());
        }

        #[test]
        fn a_window_that_is_too_large_is_refused() {
            let mut encoder = write::Encoder::new(Vec::new(), 3).unwrap();
            encoder.window_log(WINDOW_LOG + 1).unwrap();
            let code = vec![7; 20 << 20];
            encoder.write_all(&code).unwrap();
            let body = encoder.finish().unwrap();
            assert!(decompressed(&body, code.len() as u64).is_err());
        }
    }
}

#[cfg(not(feature = "zstd"))]
mod without {
    use crate::artifacts::store::StoreError;

    /// Left as it is.
    pub fn compress(_: &[u8], _: i32) -> Option<Vec<u8>> {
        None
    }

    /// Not the artifact's fault: others can load it.
    pub fn decompress(
        _: &[u8],
        _: u64,
        _: impl FnMut(&[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let reason = "it is compressed, and the feature `zstd` is not there".into();
        Err(StoreError::Refused { reason })
    }
}
