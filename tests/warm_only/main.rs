//! Temporary.
#[path = "../common/mod.rs"]
#[allow(dead_code)]
mod common;
#[path = "../contract/warm_up.rs"]
mod warm_up;
