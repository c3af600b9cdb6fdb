//! What an artifact is of.

use std::fmt;
use std::str::FromStr;

/// The version of the format, which is part of every key: another format is another artifact.
pub(crate) const FORMAT_VERSION: u32 = 1;

/// Bytes of a hash.
pub(crate) const HASH_BYTES: usize = 32;

/// Everything but the module that decides what its compiled code is: the engine's settings, its target, the
/// exact version of wasmtime, the version of the artifacts' format. 32 bytes of BLAKE3.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EngineKey([u8; HASH_BYTES]);

impl EngineKey {
    /// Of an engine with this hash of its compatibility, which covers wasmtime's version.
    pub(crate) fn new(compatibility: &[u8]) -> Self {
        let mut hasher =
            blake3::Hasher::new_derive_key("wasm-pool 2026-11-21 engine of an artifact");
        hasher.update(&FORMAT_VERSION.to_le_bytes());
        hasher.update(compatibility);
        Self(hasher.finalize().into())
    }

    /// The hash.
    pub fn as_bytes(&self) -> &[u8; HASH_BYTES] {
        &self.0
    }

    /// From a hash that was read.
    pub fn from_bytes(bytes: [u8; HASH_BYTES]) -> Self {
        Self(bytes)
    }
}

/// What an artifact is of: a module, compiled for an engine. Two modules, or two engines that cannot run each other's
/// code, never have the same key. As text, both hashes in hexadecimal digits, with a slash between them.
///
/// ```
/// use wasm_pool::ArtifactKey;
/// let text = format!("{}/{}", "0a".repeat(32), "f7".repeat(32));
/// let key: ArtifactKey = text.parse().unwrap();
/// assert_eq!(key.module()[0], 0xf7);
/// assert_eq!(key.to_string(), text);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ArtifactKey {
    engine: EngineKey,
    module: [u8; HASH_BYTES],
}

impl ArtifactKey {
    pub(crate) fn new(engine: EngineKey, module: [u8; HASH_BYTES]) -> Self {
        Self { engine, module }
    }

    /// The engine that it is compiled for: what is of another cannot run in this one.
    pub fn engine(&self) -> &EngineKey {
        &self.engine
    }

    /// The hash of the module, and of what is done to it before it is compiled.
    pub fn module(&self) -> &[u8; HASH_BYTES] {
        &self.module
    }

    /// From hashes that were read.
    pub fn from_parts(engine: EngineKey, module: [u8; HASH_BYTES]) -> Self {
        Self { engine, module }
    }
}

/// The hash of a module as it is.
pub(crate) fn module_hash(wasm: &[u8]) -> [u8; HASH_BYTES] {
    let mut hasher = blake3::Hasher::new_derive_key("wasm-pool 2026-11-21 module of an artifact");
    hasher.update(wasm);
    hasher.finalize().into()
}

/// The hash of the snapshot that a module of this hash leaves when it is warmed up by this export.
#[cfg(feature = "warm-up")]
pub(crate) fn snapshot_hash(module: &[u8; HASH_BYTES], export: &str) -> [u8; HASH_BYTES] {
    let mut hasher =
        blake3::Hasher::new_derive_key("wasm-pool 2026-11-21 snapshot of a warmed-up module");
    hasher.update(module);
    hasher.update(export.as_bytes());
    hasher.finalize().into()
}

/// Why a text is not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not the key of an artifact: two hashes of 64 hexadecimal digits, in lower case, with a slash between them"
)]
pub struct NotAKey;

impl FromStr for EngineKey {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        parse(text).map(Self).ok_or(NotAKey)
    }
}

impl FromStr for ArtifactKey {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        let (engine, module) = text.split_once('/').ok_or(NotAKey)?;
        Ok(Self {
            engine: engine.parse()?,
            module: parse(module).ok_or(NotAKey)?,
        })
    }
}

/// Lower case only: one name is one key.
fn parse(text: &str) -> Option<[u8; HASH_BYTES]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let text = text.as_bytes();
    let mut hash = [0; HASH_BYTES];
    if text.len() != 2 * HASH_BYTES {
        return None;
    }
    for (byte, pair) in hash.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(hash)
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for EngineKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for EngineKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EngineKey({self})")
    }
}

impl fmt::Display for ArtifactKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.engine, Hex(&self.module))
    }
}

impl fmt::Debug for ArtifactKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ArtifactKey({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_is_written_and_in_no_other_way() {
        let key = ArtifactKey::new(EngineKey::new(b"engine"), module_hash(b"module"));
        let text = key.to_string();
        assert_eq!(text.parse(), Ok(key));
        for wrong in [
            text.to_uppercase(),
            text.replace('/', "-"),
            format!("{text}0"),
            format!("../{text}"),
            text.replacen(&text[..1], "g", 1),
            String::new(),
        ] {
            assert_eq!(wrong.parse::<ArtifactKey>(), Err(NotAKey), "{wrong}");
        }
    }
}
