//! What is charged is at least what it takes: of the heap, and of what the kernel maps.
//!
//! A binary of its own: it counts the process's heap, so it has an allocator of its own. Each test is a
//! process of its own: the harness maps stacks for its threads whenever it likes.

#[path = "../common/mod.rs"]
mod common;

mod bookkeeping;
mod hostile_modules;
mod import_sizes;
mod modules;
mod places;
mod promised_bookkeeping;
mod true_sizes;

#[global_allocator]
static ALLOCATOR: common::heap::Counting = common::heap::Counting;
