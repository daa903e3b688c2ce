//! The comparison of a few random orders that each worker runs in the background.
//!
//! A round costs two statements and one read of Redis per order, and changes nothing. Half of the
//! orders come from Redis: any entry may be wrong, also one without a row. The other half comes
//! from Postgres: any row may be incomplete, also one that is not cached.

use std::time::{Duration, Instant};

use shared::{
    cache::CacheError,
    order::{DocumentVersion, OrderUid, Version},
    storage::Flaw,
    telemetry::OutageLog,
};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{
    confirm::{Judged, Suspicion, Verdict},
    difference::Finding,
    tiers::{TierError, Tiers},
};
use crate::{metrics::Metrics, pipeline::step_size::StepSize};

/// Interval between two rounds.
const INTERVAL: Duration = Duration::from_secs(5);
/// Number of random rows in a round.
const ROWS: u32 = 10;
/// Number of random entries in a round.
const ENTRIES: usize = 10;
/// Maximum suspicions that wait for their second look. More would show the same fault.
const SUSPICIONS: usize = 100;

/// Compares random orders.
pub struct Sampling {
    /// Postgres and Redis.
    pub tiers: Tiers,
    /// Counts the results.
    pub metrics: Metrics,
    /// Limits the log of a Redis that rejects the commands of a round.
    pub rejections: OutageLog,
}

impl Sampling {
    /// Runs until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut suspicions = Vec::new();
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            let round = self.round(&mut suspicions);
            match shutdown.run_until_cancelled(round).await {
                None => return,
                Some(Ok(())) => {}
                Some(Err(TierError::Cache(error))) => self.log_rejection(&error),
                // The repair reports an outage of Postgres.
                Some(Err(error)) => tracing::debug!(%error, "consistency check skipped"),
            }
        }
    }

    /// Looks again at suspicions that are due, then compares a new sample.
    async fn round(&self, suspicions: &mut Vec<Suspicion>) -> Result<(), TierError> {
        self.look_again(suspicions).await?;
        let mut uids = self.tiers.postgres.random_uids(ROWS).await?;
        uids.extend(self.random_entries().await?);
        uids.sort_unstable();
        uids.dedup();
        uids.retain(|uid| suspicions.iter().all(|suspicion| suspicion.uid() != *uid));
        if uids.is_empty() {
            return Ok(());
        }
        // One step: a round has few orders.
        let mut size = StepSize::default();
        let findings = self.tiers.compare(&uids, &mut size).await?;
        let mut differing = Vec::new();
        for finding in findings {
            match finding.result.is_difference() {
                true => differing.push(finding.uid),
                false => self.metrics.compared(finding.result, 1),
            }
        }
        if differing.is_empty() {
            return Ok(());
        }
        for look in self.tiers.look(&differing, &mut size).await? {
            match look.judge(Instant::now()) {
                Judged::Settled(verdict) => self.report(&verdict),
                Judged::Suspect(suspicion) if suspicions.len() < SUSPICIONS => {
                    suspicions.push(suspicion)
                }
                Judged::Suspect(_) => {}
            }
        }
        Ok(())
    }

    /// Judges the suspicions that are due.
    async fn look_again(&self, suspicions: &mut Vec<Suspicion>) -> Result<(), TierError> {
        let now = Instant::now();
        let is_due = |suspicion: &Suspicion| suspicion.due() <= now;
        let due = suspicions.iter().filter(|suspicion| is_due(suspicion));
        let uids: Vec<OrderUid> = due.map(Suspicion::uid).collect();
        if uids.is_empty() {
            return Ok(());
        }
        let looks = self.tiers.look(&uids, &mut StepSize::default()).await?;
        let due = suspicions.extract_if(.., |suspicion| is_due(suspicion));
        for (suspicion, look) in due.zip(looks) {
            self.report(&suspicion.judge(look));
        }
        Ok(())
    }

    /// Returns random uids of Redis; none if Redis does not allow the command.
    async fn random_entries(&self) -> Result<Vec<OrderUid>, TierError> {
        match self.tiers.cache.random_uids(ENTRIES).await {
            Err(error @ CacheError::Rejected(_)) => {
                self.log_rejection(&error);
                Ok(Vec::new())
            }
            uids => Ok(uids?),
        }
    }

    /// Counts a verdict, and logs a fault.
    fn report(&self, verdict: &Verdict) {
        let Finding {
            uid,
            result,
            row,
            entry,
            flaw,
        } = &verdict.finding;
        self.metrics.compared(*result, 1);
        if result.is_difference() {
            tracing::error!(
                %uid,
                result = result.as_str(),
                postgres = row.as_ref().map(Version::to_string),
                redis = entry.as_ref().map(DocumentVersion::to_string),
                rows = flaw.as_ref().map(Flaw::to_string),
                runbook = "ConsistencyCheckFailed",
                "consistency check found a difference"
            );
        }
    }

    /// Logs that Redis rejects a command, once a minute. The repair reports an outage.
    fn log_rejection(&self, error: &CacheError) {
        match error {
            CacheError::Rejected(_) if self.rejections.failed() => tracing::warn!(
                %error,
                doc = "docs/operations.md#rights-of-an-acl-user",
                "Redis rejects the consistency check"
            ),
            _ => tracing::debug!(%error, "consistency check skipped"),
        }
    }
}
