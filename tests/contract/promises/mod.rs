//! Promises that were broken once, by attack. Each test is named after the attack: `promise_NN_…`.

mod bytes_of_tasks;
mod causes;
mod compilations;
mod ends_of_threads;
mod holders;
mod holding;
mod hooks;
mod host_code;
mod imports;
mod leaked;
mod names;
mod own_imports;
mod passed;
mod real_modules;
mod settings;
mod small_print;
mod stacks;
mod system;
mod time;
mod type_changes;
