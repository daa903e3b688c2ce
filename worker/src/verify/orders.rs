//! Compares Postgres and Redis, order by order, in constant memory.

use std::{
    collections::{BTreeSet, HashMap},
    mem,
    ops::ControlFlow,
    time::Instant,
};

use shared::order::{OrderUid, Version};
use tokio::time::sleep_until;

use super::{persistently, report::Report, sample::Sample};
use crate::{
    consistency::{
        confirm::{Judged, Look, Suspicion, Verdict},
        tiers::Tiers,
    },
    pipeline::step_size::StepSize,
};

/// Uids per page of the index.
const PAGE: u32 = 5000;
/// Differing orders after which the comparison waits for the second look at them.
const SUSPECTS: usize = 1000;
/// Entries per look for rows.
const ENTRIES: usize = 500;

/// A comparison of Postgres and Redis.
pub(super) struct OrderCheck<'c> {
    pub(super) tiers: &'c Tiers,
    pub(super) sample: &'c Sample,
    /// Number of differences at which the comparison stops.
    pub(super) limit: u64,
    /// Orders that differed once.
    pub(super) suspects: BTreeSet<OrderUid>,
    pub(super) size: StepSize,
}

impl OrderCheck<'_> {
    /// Compares every order of the sample that Postgres holds, then looks for entries without a
    /// row. Returns `Break` at the limit.
    ///
    /// # Errors
    /// When a tier does not answer.
    pub(super) async fn run(&mut self, report: &mut Report) -> anyhow::Result<ControlFlow<()>> {
        if self.rows(report).await?.is_break() || self.entries(report).await?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        self.confirm(report).await
    }

    async fn rows(&mut self, report: &mut Report) -> anyhow::Result<ControlFlow<()>> {
        let postgres = &self.tiers.postgres;
        let mut last = None;
        loop {
            let page =
                persistently(async || postgres.uids_after(last.as_ref(), PAGE).await).await?;
            let Some(end) = page.last().copied() else {
                return Ok(ControlFlow::Continue(()));
            };
            last = Some(end);
            let mut uids = page;
            uids.retain(|uid| self.sample.takes(uid));
            let mut left = uids.as_slice();
            while let Some(step) = self.size.next(&mut left) {
                self.compare(step, report).await?;
                if self.confirm_if_many(report).await?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
    }

    async fn compare(&mut self, step: &[OrderUid], report: &mut Report) -> anyhow::Result<()> {
        let size = &mut self.size;
        let findings = persistently(async || self.tiers.compare(step, size).await).await?;
        for finding in findings {
            if finding.result.is_difference() {
                self.suspects.insert(finding.uid);
            } else {
                report.count(finding.result);
            }
        }
        Ok(())
    }

    /// Looks for entries without a row.
    async fn entries(&mut self, report: &mut Report) -> anyhow::Result<ControlFlow<()>> {
        let Tiers { postgres, cache } = self.tiers;
        let mut scan = persistently(async || cache.scan().await).await?;
        while let Some(uids) = persistently(async || cache.next_uids(&mut scan).await).await? {
            let uids: Vec<OrderUid> = uids
                .into_iter()
                .filter(|uid| self.sample.takes(uid))
                .collect();
            for step in uids.chunks(ENTRIES) {
                let rows = persistently(async || postgres.versions(step).await).await?;
                let rows: HashMap<OrderUid, Version> = rows.into_iter().collect();
                let orphaned = step.iter().filter(|uid| !rows.contains_key(*uid));
                self.suspects.extend(orphaned);
                if self.confirm_if_many(report).await?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    async fn confirm_if_many(&mut self, report: &mut Report) -> anyhow::Result<ControlFlow<()>> {
        match self.suspects.len() >= SUSPECTS {
            true => self.confirm(report).await,
            false => Ok(ControlFlow::Continue(())),
        }
    }

    /// Reports the orders that differ for good. Returns `Break` at the limit.
    async fn confirm(&mut self, report: &mut Report) -> anyhow::Result<ControlFlow<()>> {
        let suspects: Vec<OrderUid> = mem::take(&mut self.suspects).into_iter().collect();
        for verdict in self.judge(&suspects, report).await? {
            report.verdict(&verdict)?;
        }
        Ok(match report.differences() >= self.limit {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        })
    }

    /// Judges the orders `uids`. Looks twice at those that differ.
    pub(super) async fn judge(
        &mut self,
        uids: &[OrderUid],
        report: &mut Report,
    ) -> anyhow::Result<Vec<Verdict>> {
        let (mut verdicts, mut suspicions) = (Vec::new(), Vec::new());
        for look in self.look(uids).await? {
            match look.judge(Instant::now()) {
                Judged::Settled(verdict) => verdicts.push(verdict),
                Judged::Suspect(suspicion) => suspicions.push(suspicion),
            }
        }
        let Some(due) = suspicions.iter().map(Suspicion::due).max() else {
            return Ok(verdicts);
        };
        report.wait(suspicions.len(), due);
        sleep_until(due.into()).await;
        let uids: Vec<OrderUid> = suspicions.iter().map(Suspicion::uid).collect();
        let looks = self.look(&uids).await?;
        let judged = suspicions.iter().zip(looks);
        verdicts.extend(judged.map(|(suspicion, look)| suspicion.judge(look)));
        Ok(verdicts)
    }

    async fn look(&mut self, uids: &[OrderUid]) -> anyhow::Result<Vec<Look>> {
        let (tiers, size) = (self.tiers, &mut self.size);
        let (mut looks, mut left) = (Vec::with_capacity(uids.len()), uids);
        while let Some(step) = size.next(&mut left) {
            looks.extend(persistently(async || tiers.look(step, size).await).await?);
        }
        Ok(looks)
    }
}
