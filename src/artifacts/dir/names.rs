//! Names of files: made from keys alone, and no others are the store's.

use std::hash::{BuildHasher, RandomState};

use super::super::key::{ArtifactKey, EngineKey};

const ARTIFACT: &str = ".wpa";
const UNFINISHED: &str = ".tmp";

/// What a name in an engine's directory is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Own {
    Artifact(ArtifactKey),
    /// What somebody is writing, or was when it ended.
    Unfinished,
}

fn module(key: &ArtifactKey) -> String {
    EngineKey::from_bytes(*key.module()).to_string()
}

pub(super) fn of_artifact(key: &ArtifactKey) -> String {
    module(key) + ARTIFACT
}

/// One that nobody has used before: 64 random bits.
pub(super) fn of_unfinished(key: &ArtifactKey) -> String {
    let random = RandomState::new().hash_one(std::process::id());
    format!("{}.{random:016x}{UNFINISHED}", module(key))
}

/// `None`: it is not the store's.
pub(super) fn parse(engine: &EngineKey, name: &str) -> Option<Own> {
    let key = |module: &str| -> Option<ArtifactKey> { format!("{engine}/{module}").parse().ok() };
    if let Some(module) = name.strip_suffix(ARTIFACT) {
        return key(module).map(Own::Artifact);
    }
    let (module, random) = name.strip_suffix(UNFINISHED)?.split_once('.')?;
    let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let is_ours = random.len() == 16 && random.bytes().all(digit) && key(module).is_some();
    is_ours.then_some(Own::Unfinished)
}

#[cfg(test)]
mod tests {
    use super::super::super::key::module_hash;
    use super::*;

    #[test]
    fn only_names_that_it_gives_are_its_own() {
        let engine = EngineKey::new(b"engine");
        let key = ArtifactKey::new(engine, module_hash(b"module"));
        let [artifact, unfinished] = [of_artifact(&key), of_unfinished(&key)];
        assert_eq!(parse(&engine, &artifact), Some(Own::Artifact(key)));
        assert_eq!(parse(&engine, &unfinished), Some(Own::Unfinished));
        assert_ne!(unfinished, of_unfinished(&key));
        for other in [
            artifact.to_uppercase(),
            artifact.replace(".wpa", ""),
            artifact.replace(".wpa", ".wpa~"),
            format!(".{artifact}"),
            format!("0{artifact}"),
            unfinished.replacen('.', "", 1),
            unfinished.replace(".tmp", "0.tmp"),
            "README.tmp".into(),
            "notes.wpa".into(),
            "../x.wpa".into(),
        ] {
            assert_eq!(parse(&engine, &other), None, "{other}");
        }
    }
}
