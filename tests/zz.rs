//! Temporary.
#![allow(dead_code)]
mod common;
#[path="contract/pristine.rs"] mod x;
