//! What the pool keeps in mind, as plain data: each record with the invariants that govern it.

pub mod amounts;
pub mod arena;
pub mod bill;
pub mod bills;
pub mod compile_turns;
pub mod conduct;
pub mod entries;
pub mod fair;
pub mod function_terms;
pub mod functions;
pub mod group;
pub mod instances;
pub mod ledger;
pub mod module_table;
pub mod modules;
pub mod owners;
pub mod policy;
pub mod queue;
pub mod recency;
pub mod requests;
pub mod shares;
pub mod spares;
