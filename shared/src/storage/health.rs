//! The state of Postgres as a dependency.

use super::StorageError;
use crate::telemetry::{Dependency, Impairment};

/// Records whether Postgres answers and accepts our calls. A missing table or right is not an
/// outage: Postgres answers, and no retry helps until an operator acts.
pub fn record_state(postgres: &Dependency, answer: Result<(), &StorageError>) {
    match answer {
        Err(error) if error.is_rejection() => {
            postgres.set_impaired(Impairment::Rejecting, &error.to_string());
        }
        answer => postgres.set(answer.map_err(|error| error as _)),
    }
}
