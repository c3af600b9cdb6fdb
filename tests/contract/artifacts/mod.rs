//! Compiled once, ever: artifacts.

mod corruption;
mod pools;
mod precompile;
mod shelf;
