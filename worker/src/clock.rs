//! Keeps the pipeline's clock in step with the clock of Postgres.

use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use shared::{DatabaseTime, storage::Postgres};
use tokio_util::sync::CancellationToken;

use crate::pipeline::future::Clock;

/// Interval at which the worker reads the clock of Postgres.
const INTERVAL: Duration = Duration::from_secs(10);

/// Returns a clock that has read the time of Postgres once. Reads it again every ten seconds in the
/// background until `shutdown`.
pub async fn start(postgres: &Postgres, shutdown: CancellationToken) -> Arc<Clock> {
    let clock = Arc::new(Clock::default());
    observe(&clock, postgres).await;
    let (observed, postgres) = (Arc::clone(&clock), postgres.clone());
    tokio::spawn(shutdown.run_until_cancelled_owned(async move {
        loop {
            tokio::time::sleep(INTERVAL).await;
            observe(&observed, &postgres).await;
        }
    }));
    clock
}

/// Reads the clock of Postgres. If that fails, the previous reading stays in use and advances with
/// local time.
async fn observe(clock: &Clock, postgres: &Postgres) {
    match postgres.now().await {
        Ok(DatabaseTime(micros)) => {
            clock.observe(UNIX_EPOCH + Duration::from_micros(micros.unsigned_abs()));
        }
        Err(error) => tracing::debug!(%error, "clock of Postgres unknown"),
    }
}
