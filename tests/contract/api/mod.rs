//! What the handles, errors and settings offer beside calls: everything here is about the API's shape.

mod errors;
mod handles;
mod plain;
#[cfg(feature = "serde")]
mod serde;
mod values;
mod waiting;
