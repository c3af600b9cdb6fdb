//! What the handles, errors and settings offer beside calls: everything here is about the API's shape.

#[cfg(feature = "config")]
mod config;
mod errors;
mod group_keys;
mod handles;
mod plain;
mod prepare;
#[cfg(feature = "serde")]
mod serde;
mod values;
mod waiting;
