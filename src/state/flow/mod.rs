//! What happens to the records, in the order of an instance's life: `define` a function, find a seat (`seats`),
//! get its module's code (`code`, in `turns`), make room (`room`, by a `plan` and its `choice` of modules, and `collect` for
//! who has waited for long), become an instance (`requests`), end a lease (`release`), tell who waits (`waiting`).
//! `spares` are made before anybody asks. `upkeep` is what time and settings bring about.

pub mod bills;
pub mod choice;
pub mod code;
pub mod collect;
pub mod define;
pub mod group_limits;
pub mod group_seats;
pub mod group_waits;
pub mod pins;
pub mod plan;
pub mod quarantine;
pub mod release;
pub mod requests;
pub mod room;
pub mod seats;
pub mod shares;
pub mod spares;
pub mod turns;
pub mod upkeep;
pub mod waiting;
