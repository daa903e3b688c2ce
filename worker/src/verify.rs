//! `worker verify`: compares Postgres, Redis and, if requested, the topic.

mod orders;
mod progress;
mod record;
mod report;
mod sample;
mod topic;

use std::{
    collections::BTreeSet, error::Error, ops::ControlFlow, process::ExitCode, time::Duration,
};

use anyhow::Context;
use clap::Args;
use shared::{
    cache::{Cache, MacKeys},
    config::{self, Database, Kafka, Redis},
    order::OrderUid,
    runtime::{backoff::Backoff, output, process},
    storage::{Postgres, Role},
};

use self::{
    orders::OrderCheck,
    record::TopicCounts,
    report::Report,
    sample::{Sample, Share},
    topic::TopicCheck,
};
use crate::{
    config::Worker,
    consistency::{confirm::is_complete, tiers::Tiers},
    pipeline::step_size::StepSize,
};

/// Minimum timeout of a call to Redis. No request waits for it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Attempts of a call before the command fails.
const ATTEMPTS: u32 = 8;
/// Exit code if the tiers differ.
const DIFFERENT: u8 = 1;
/// Exit code if the comparison could not be completed.
const FAILED: u8 = 3;

/// What to compare.
#[derive(Debug, Args)]
pub struct Verify {
    /// Compare this share of the orders. Every tier and every run has the same ones.
    #[arg(long, value_name = "PERCENT", default_value = "100%")]
    sample: Share,
    /// Compare only this order, and print what each tier holds. May be repeated.
    #[arg(long = "uid", value_name = "UID", conflicts_with = "sample")]
    uids: Vec<OrderUid>,
    /// Also read the whole topic, and look for records that Postgres lacks.
    #[arg(long)]
    topic: bool,
    /// Stop after about this many differences.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: u64,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

/// Runs `worker verify`. The exit code is 1 if the tiers differ, and 3 if the comparison could not
/// be completed.
pub fn run(verify: &Verify) -> ExitCode {
    match process::block_on(compare(verify)) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(DIFFERENT),
        Err(error) => {
            output::error(output::describe(&error));
            ExitCode::from(FAILED)
        }
    }
}

/// Compares the tiers; returns the number of differences.
async fn compare(verify: &Verify) -> anyhow::Result<u64> {
    let tiers = connect()?;
    let sample = match verify.uids.is_empty() {
        true => Sample::Share(verify.sample),
        false => Sample::Orders(BTreeSet::from_iter(verify.uids.iter().copied())),
    };
    let mut report = Report::new(verify.json);
    warn_about_repairs(&tiers).await?;
    let limit = verify.limit.max(1);
    let mut orders = OrderCheck {
        tiers: &tiers,
        sample: &sample,
        limit,
        suspects: BTreeSet::new(),
        size: StepSize::default(),
    };
    let (mut topic, mut flow) = (None, ControlFlow::Continue(()));
    if verify.topic {
        let (counts, end) = compare_topic(&tiers.postgres, &sample, limit, &mut report).await?;
        (topic, flow) = (Some(counts), end);
    }
    match &sample {
        Sample::Orders(uids) => {
            let uids: Vec<OrderUid> = uids.iter().copied().collect();
            for verdict in orders.judge(&uids, &mut report).await? {
                report.explain(&verdict)?;
            }
        }
        Sample::Share(_) if flow.is_continue() => flow = orders.run(&mut report).await?,
        Sample::Share(_) => {}
    }
    let differences = report.differences();
    let share = match verify.uids.is_empty() {
        true => verify.sample.to_string(),
        false => "by uid".to_owned(),
    };
    report.finish(&share, topic.as_ref(), flow.is_continue())?;
    Ok(differences)
}

fn connect() -> anyhow::Result<Tiers> {
    let database: Database = config::load("DATABASE_")?;
    let mut redis: Redis = config::load("REDIS_")?;
    redis.timeout = redis.timeout.max(PATIENCE);
    let keys = MacKeys::of(&config::load("CACHE_")?)?;
    Ok(Tiers {
        postgres: Postgres::new(&database.url, &database, Role::Worker)?,
        cache: Cache::pooled(&redis)?.with_mac_keys(keys),
    })
}

/// Fails early if a tier does not answer. Prints a warning if workers are repairing Redis.
async fn warn_about_repairs(tiers: &Tiers) -> anyhow::Result<()> {
    let known = persistently(async || tiers.postgres.cache_knowledge().await)
        .await
        .context("DATABASE_URL")?;
    let state = persistently(async || tiers.cache.state().await)
        .await
        .context("REDIS_URL")?;
    if !is_complete(known.complete.as_ref(), &state) {
        output::warn(
            "no worker has found this Redis complete, or one is repairing it; differences are \
             reported as pending",
        );
    }
    Ok(())
}

async fn compare_topic(
    postgres: &Postgres,
    sample: &Sample,
    limit: u64,
    report: &mut Report,
) -> anyhow::Result<(TopicCounts, ControlFlow<()>)> {
    let kafka: Kafka = config::load("KAFKA_")?;
    let worker: Worker = config::load("WORKER_")?;
    let mut check = TopicCheck {
        kafka: &kafka,
        fields: worker.unknown_fields(),
        postgres,
        sample,
        limit,
        counts: TopicCounts::default(),
    };
    let flow = check.run(report).await?;
    Ok((check.counts, flow))
}

/// Repeats a call that fails, a few times within some seconds.
async fn persistently<T, E>(mut call: impl AsyncFnMut() -> Result<T, E>) -> anyhow::Result<T>
where
    E: Error + Send + Sync + 'static,
{
    let mut backoff = Backoff::default();
    loop {
        match call().await {
            Err(error) if backoff.attempts() + 1 >= ATTEMPTS => return Err(error.into()),
            Err(_) => backoff.wait().await,
            Ok(value) => return Ok(value),
        }
    }
}
