//! Compiled once, ever: artifacts.

mod corruption;
#[cfg(unix)]
mod directory;
#[cfg(unix)]
mod directory_shared;
mod pools;
mod precompile;
mod shelf;
