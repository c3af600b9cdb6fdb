//! Why a configuration is refused, and where in it.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

use crate::artifacts::StoreError;
use crate::pool::api::build_error::LimitsError;

/// A place in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigPlace {
    /// The file; `None` if the text did not come from one.
    pub file: Option<PathBuf>,
    /// From 1.
    pub line: usize,
    /// Characters from the beginning of the line, from 1.
    pub column: usize,
}

/// `pool.toml:3:10`, as compilers write it; or `line 3, column 10`.
impl fmt::Display for ConfigPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column } = self;
        match file {
            Some(file) => write!(f, "{}:{line}:{column}", file.display()),
            None => write!(f, "line {line}, column {column}"),
        }
    }
}

impl ConfigPlace {
    /// Where a span begins; what has none is of the whole text.
    pub(crate) fn of(span: Option<Range<usize>>, text: &str) -> Self {
        let start = span.map_or(0, |span| span.start).min(text.len());
        let before = text.get(..start).unwrap_or(text);
        let line = before.rsplit('\n').next().unwrap_or(before);
        Self {
            file: None,
            line: before.matches('\n').count() + 1,
            column: line.chars().count() + 1,
        }
    }
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read, or is not UTF-8.
    #[error("cannot read {}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not TOML, has a key that there is none of, or a value that makes no sense for its key.
    #[error("{place}: {reason}")]
    Invalid {
        /// Where.
        place: ConfigPlace,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// A setting that no pool could be built with.
    #[error("{place}: no pool could be built with this")]
    Limits {
        /// Where.
        place: ConfigPlace,
        /// Why.
        source: LimitsError,
    },
    /// The directory of artifacts cannot be opened, or is not to be trusted.
    #[error("no artifacts in {}", directory.display())]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// Why.
        source: StoreError,
    },
}

impl ConfigError {
    /// Where in the configuration; `None` if it could not be read.
    pub fn place(&self) -> Option<&ConfigPlace> {
        match self {
            Self::Unreadable { .. } | Self::Directory { .. } => None,
            Self::Invalid { place, .. } | Self::Limits { place, .. } => Some(place),
        }
    }

    /// The same, of a text that came from this file.
    pub(crate) fn in_file(mut self, path: PathBuf) -> Self {
        match &mut self {
            Self::Unreadable { file, .. } => *file = path,
            Self::Invalid { place, .. } | Self::Limits { place, .. } => place.file = Some(path),
            Self::Directory { .. } => {}
        }
        self
    }
}
