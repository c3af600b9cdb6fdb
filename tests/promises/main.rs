//! Promises that were broken once, by attack. Each test is named after the attack: `promise_NN_…`.

#[path = "../common/mod.rs"]
mod common;

mod causes;
mod imports;
mod names;
mod settings;
