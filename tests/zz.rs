//! Temporary.
#![allow(dead_code)]
#[path = "contract/cancelled_by_others.rs"]
mod cancelled_by_others;
mod common;
#[path = "contract/graceful_end.rs"]
mod graceful_end;
#[path = "contract/stopping.rs"]
mod stopping;
