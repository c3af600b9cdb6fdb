//! SHA-256.

use sha2::{Digest, Sha256};

/// `sha256(ptr: i32, len: i32) -> i64`: the hash of the bytes, as lower-case hexadecimal text.
///
/// # Safety
///
/// The pair must be a written buffer from `alloc`, which this call frees.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sha256(ptr: *mut u8, len: usize) -> i64 {
    abi::give(hex_digest(&unsafe { abi::take(ptr, len) }))
}

fn hex_digest(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::hex_digest;

    #[test]
    fn known_hashes() {
        assert_eq!(
            hex_digest(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(
            hex_digest(b""),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }
}
