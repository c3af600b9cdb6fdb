extern crate alloc;
mod state;
