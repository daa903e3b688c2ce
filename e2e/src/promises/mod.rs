//! What the system promises, and the trials that try to break it. `make chaos` runs each trial at
//! full length and prints its measurements. `make test` runs short trials. `docs/promises.md` lists
//! the promises for users.

mod backlog;
mod broker;
mod crashes;
mod dead_letter_topic;
mod erasure;
mod everything;
mod frozen;
mod hostile;
mod list;
mod not_found;
mod offsets;
mod order_of_arrival;
mod personal_data;
mod poison;
mod postgres;
mod redis;
mod rejection;
mod report;
mod rolling;
mod run;
mod sabotage;
mod shutdown;
mod staleness;
mod stalls;
mod trial;

pub use list::{PROMISES, trial};
pub use report::{Outcome, markdown};
pub use run::{Run, Scale};
pub use sabotage::{SABOTAGES, Sabotage};
pub use trial::{Promise, Trial};
