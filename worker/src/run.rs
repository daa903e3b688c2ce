//! `worker run`: starts the parts in order, and stops them in order.

use std::{sync::Arc, time::Duration};

use shared::{
    cache::{Cache, MacKeys},
    config::Kafka,
    runtime::{admin::Admin, process::Process},
    startup,
    storage::{Postgres, Role},
    telemetry::OutageLog,
};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    clock,
    config::{Config, Worker},
    consistency::{sampling::Sampling, tiers::Tiers},
    health::Health,
    kafka::{self, Poller, dead_letter},
    metrics::Metrics,
    pipeline::{
        Pipeline, breaker::RejectionBreaker, future::FutureGuard, write_through::WriteThrough,
    },
    prepare::{RecentDeadLetters, prepare},
    repair::Repair,
    restored, retention,
};

/// Memory for unfinished records, as a multiple of the maximum bytes of a batch: one batch is being
/// written to Postgres or Redis while another one gathers.
///
/// Only large records need that much. Each of their bytes is held about five times: as the record,
/// the order, the row, the document and the Redis command. A factor of 3 used 259 MiB on a busy
/// machine; the promised limit is 256 MiB.
const MEMORY_IN_BATCHES: usize = 2;

/// A revoked partition is drained for at most the session timeout divided by this: the rest of the
/// group waits meanwhile.
const DRAIN_PART: u32 = 2;

/// Part of the shutdown limit that remains after draining: to commit, leave the group and close.
const AFTER_DRAIN: Duration = Duration::from_secs(10);

/// Time limit for closing each part after the worker has left the group. Nothing depends on these
/// parts any more.
const CLOSE: Duration = Duration::from_secs(1);

/// Runs a worker until `process.shutdown`. Waits for a service that does not answer.
///
/// # Errors
/// When a variable is malformed or the admin port is in use.
pub async fn run(config: Config, process: Process) -> anyhow::Result<()> {
    let Process {
        registry, shutdown, ..
    } = process;
    let postgres = Postgres::new(&config.database.url, &config.database, Role::Worker)?;
    let cache = Cache::pooled(&config.redis)?.with_mac_keys(MacKeys::of(&config.cache)?);
    let health = Arc::new(Health::new(config.kafka.session_timeout));
    let admin = Admin::new(&health, Health::live, Health::ready, registry);
    let admin_port = admin.serve(&config.admin.addr, shutdown.clone()).await?;
    tracing::info!(
        admin_port,
        brokers = config.kafka.brokers,
        topic = config.kafka.topic,
        group = config.kafka.group_id,
        "preparing"
    );
    let preparing = prepare(&postgres, &config.kafka, &health);
    let Some(recent) = shutdown.run_until_cancelled(preparing).await else {
        return Ok(());
    };
    check_restored(&config, &postgres, shutdown.clone());
    check_retention(&config.kafka, shutdown.clone());
    watch_schema(&health, &postgres, shutdown.clone());
    let Config { worker, kafka, .. } = config;
    let start = Start {
        worker,
        kafka: &kafka,
        postgres,
        cache,
        health: &health,
        recent,
        shutdown: shutdown.clone(),
    };
    let running = start.start().await?;
    shutdown.cancelled().await;
    running.stop().await
}

/// Checks in the background whether Postgres was restored from a backup. The start need not wait
/// for it: Postgres stores a record before its offset is stored.
fn check_restored(config: &Config, postgres: &Postgres, shutdown: CancellationToken) {
    let (kafka, postgres) = (config.kafka.clone(), postgres.clone());
    let fields = config.worker.unknown_fields();
    tokio::spawn(shutdown.run_until_cancelled_owned(async move {
        restored::check(&kafka, &postgres, fields).await;
    }));
}

/// Checks the retention of the dead letter topic in the background.
fn check_retention(kafka: &Kafka, shutdown: CancellationToken) {
    let kafka = kafka.clone();
    tokio::spawn(shutdown.run_until_cancelled_owned(async move {
        retention::check(&kafka).await;
    }));
}

/// Watches the schema in the background.
fn watch_schema(health: &Health, postgres: &Postgres, shutdown: CancellationToken) {
    let (schema, postgres) = (Arc::clone(&health.schema), postgres.clone());
    tokio::spawn(shutdown.run_until_cancelled_owned(async move {
        startup::watch_schema(&postgres, &schema).await;
    }));
}

/// What the working parts are started with.
struct Start<'a> {
    worker: Worker,
    kafka: &'a Kafka,
    postgres: Postgres,
    cache: Cache,
    health: &'a Health,
    recent: RecentDeadLetters,
    shutdown: CancellationToken,
}

/// The working parts, in the order in which they stop.
struct Running {
    poller: Poller,
    pipeline: JoinHandle<()>,
    repair: JoinHandle<()>,
    postgres: Postgres,
}

impl Start<'_> {
    async fn start(self) -> anyhow::Result<Running> {
        let metrics = Metrics::new();
        let waits = Arc::clone(&self.health.waits);
        let shown = Arc::clone(&waits);
        metrics.show_waits(move || shown.counts());
        let write_through = WriteThrough::new(
            self.cache.clone(),
            self.postgres.clone(),
            Arc::clone(&waits),
        );
        let dead_letters = dead_letter::DeadLetters::new(self.kafka)?;
        let repair = tokio::spawn(
            self.repair(&write_through, &metrics)
                .run(self.shutdown.clone()),
        );
        tokio::spawn(self.sampling(&metrics).run(self.shutdown.clone()));
        let clock = clock::start(&self.postgres, self.shutdown.clone()).await;
        let started = kafka::start(
            self.kafka,
            self.worker
                .batch_max_bytes
                .saturating_mul(MEMORY_IN_BATCHES),
            self.drain_limits(),
            Arc::clone(&self.health.group),
            metrics.clone(),
        )?;
        let pipeline = Pipeline {
            postgres: self.postgres.clone(),
            write_through,
            dead_letters,
            assignment: started.assignment,
            breaker: Arc::new(RejectionBreaker::new(self.recent.rejected_by_database)),
            future: FutureGuard::new(clock, self.recent.future),
            waits,
            metrics,
        };
        let (worker, intake) = (self.worker, started.intake);
        Ok(Running {
            poller: started.poller,
            pipeline: tokio::spawn(async move { pipeline.run(&worker, intake).await }),
            repair,
            postgres: self.postgres,
        })
    }

    fn repair(&self, write_through: &WriteThrough, metrics: &Metrics) -> Repair {
        Repair {
            postgres: self.postgres.clone(),
            cache: self.cache.clone(),
            write_through: write_through.clone(),
            redis: self.health.redis.clone(),
            database: self.health.database.clone(),
            schema: Arc::clone(&self.health.schema),
            metrics: metrics.clone(),
            outage: OutageLog::default(),
            evictions: OutageLog::default(),
        }
    }

    fn sampling(&self, metrics: &Metrics) -> Sampling {
        Sampling {
            tiers: Tiers {
                postgres: self.postgres.clone(),
                cache: self.cache.clone(),
            },
            metrics: metrics.clone(),
            rejections: OutageLog::default(),
        }
    }

    fn drain_limits(&self) -> kafka::DrainLimits {
        let shutdown = self.worker.shutdown_timeout.saturating_sub(AFTER_DRAIN);
        kafka::DrainLimits {
            revoked: shutdown.min(self.kafka.session_timeout / DRAIN_PART),
            shutdown,
        }
    }
}

impl Running {
    /// Stops in order: intake, batches in progress, offsets, group, dead letters, repair, Postgres.
    async fn stop(self) -> anyhow::Result<()> {
        self.poller.stop().await;
        // The worker has left the group. A batch that is still in progress waits for a service that
        // is down; other workers read its records again.
        let batches = self.pipeline.abort_handle();
        if timeout(CLOSE, self.pipeline).await.is_err() {
            tracing::warn!("unfinished records at shutdown; the group reads them again");
            // Abort the pipeline before the runtime ends. The runtime could cancel a batch first;
            // the pipeline would take that for a panic and abort the process.
            batches.abort();
        }
        self.repair.await?;
        if timeout(CLOSE, self.postgres.close()).await.is_err() {
            tracing::debug!(limit = ?CLOSE, "connections to Postgres still open at exit");
        }
        Ok(())
    }
}
