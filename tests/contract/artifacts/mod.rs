//! Compiled once, ever: artifacts.

#[cfg(feature = "object_store")]
mod bucket;
mod corruption;
#[cfg(unix)]
mod directory;
#[cfg(unix)]
mod directory_shared;
mod pools;
mod precompile;
mod shelf;
