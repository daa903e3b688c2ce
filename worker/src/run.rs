//! `worker run`: starts the parts in order, and stops them in order.

use std::{sync::Arc, time::Duration};

use shared::{
    cache::Cache,
    config::{self, Kafka},
    order::Reason,
    runtime::{
        admin::Admin,
        backoff::Backoff,
        health::{Dependency, Probe, Report},
        shutdown,
    },
    storage::{Postgres, Role, schema},
    telemetry,
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Worker,
    kafka::{self, GroupState, dead_letter},
    metrics::Metrics,
    pipeline::{
        Pipeline,
        breaker::Breaker,
        waits::{Wait, Waits},
        write_through::WriteThrough,
    },
    repair::Repair,
};

/// Unfinished records may take so many times the bytes of one batch: two in Postgres, one on its way to Redis, one that
/// gathers.
const MEMORY_IN_BATCHES: usize = 4;

/// With lag and without a known wait, so long without progress means that the process is stuck.
const STALL: Duration = Duration::from_secs(30);

/// How long a revoked partition may be drained, as a part of the session timeout: the group waits for us.
const DRAIN_PART: u32 = 2;

/// Runs a worker until SIGTERM or SIGINT.
///
/// # Errors
/// When a variable is malformed or the admin port is taken. A service that does not answer is waited for.
pub async fn run() -> anyhow::Result<()> {
    let worker: Worker = config::load("WORKER_")?;
    let kafka: Kafka = config::load("KAFKA_")?;
    let database: config::Database = config::load("DATABASE_")?;
    let redis: config::Redis = config::load("REDIS_")?;
    let admin: config::Admin = config::load("ADMIN_")?;
    let telemetry = telemetry::init("worker", env!("CARGO_PKG_VERSION"))?;
    let shutdown = shutdown::on_signal(worker.shutdown_timeout)?;

    let postgres = Postgres::new(&database.url, &database, Role::Worker)?;
    let cache = Cache::pooled(&redis)?;
    let health = Arc::new(Health::new());
    let admin_port = health
        .admin(telemetry.registry())
        .serve(&admin.addr, shutdown.clone())
        .await?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        admin_port,
        brokers = kafka.brokers,
        topic = kafka.topic,
        group = kafka.group_id,
        "starting"
    );

    let Some(start_open) = shutdown
        .run_until_cancelled(prepare(&postgres, &kafka, &health))
        .await
    else {
        return Ok(());
    };
    work(
        worker, kafka, postgres, cache, &health, start_open, shutdown,
    )
    .await?;
    telemetry.flush();
    tracing::info!("stopped");
    Ok(())
}

/// Waits for Postgres with the right schema and for Kafka with its topics; returns whether the breaker starts open.
async fn prepare(postgres: &Postgres, kafka: &Kafka, health: &Health) -> bool {
    wait_for_schema(postgres, health).await;
    let mut backoff = Backoff::default();
    while kafka.create_topics
        && let Err(error) = kafka::create_topics(kafka).await
    {
        health.group.brokers().set(Err(&format!("{error:#}")));
        tracing::warn!(
            brokers = kafka.brokers,
            error = format!("{error:#}"),
            "waiting for Kafka"
        );
        backoff.wait().await;
    }
    newest_dead_letter_is_a_refused_row(kafka).await
}

async fn wait_for_schema(postgres: &Postgres, health: &Health) {
    let required = schema::required_version();
    let mut backoff = Backoff::default();
    loop {
        let version = postgres.schema_version().await;
        health.database.set(
            version
                .as_ref()
                .map(drop)
                .map_err(|error| error as &dyn std::fmt::Display),
        );
        match version {
            Ok(version) if version >= required => break,
            Ok(version) => tracing::warn!(
                version,
                required,
                "the database schema is too old: run `worker migrate`"
            ),
            Err(error) => tracing::warn!(%error, "waiting for Postgres (DATABASE_URL)"),
        }
        backoff.wait().await;
    }
    health
        .schema
        .store(true, std::sync::atomic::Ordering::Relaxed);
}

/// A worker that is restarted while the database refuses everything must not dead-letter another hundred records.
async fn newest_dead_letter_is_a_refused_row(kafka: &Kafka) -> bool {
    let kafka = kafka.clone();
    let newest =
        tokio::task::spawn_blocking(move || dead_letter::Reader::open(&kafka)?.newest()).await;
    match newest {
        Ok(Ok(letter)) => {
            letter.is_some_and(|letter| letter.reason() == Reason::RejectedByDatabase.as_str())
        }
        Ok(Err(error)) => {
            tracing::warn!(
                error = format!("{error:#}"),
                "the dead letter topic could not be looked at"
            );
            false
        }
        Err(_) => false,
    }
}

/// Works until `shutdown`, then stops in order: intake, what is under way, offsets, group, dead letters.
async fn work(
    worker: Worker,
    kafka: Kafka,
    postgres: Postgres,
    cache: Cache,
    health: &Health,
    start_open: bool,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let metrics = Metrics::new();
    let write_through =
        WriteThrough::new(cache.clone(), postgres.clone(), Arc::clone(&health.waits));
    let repair = Repair {
        postgres: postgres.clone(),
        cache,
        write_through: write_through.clone(),
        redis: health.redis.clone(),
        database: health.database.clone(),
    };
    let repairing = tokio::spawn(repair.run(shutdown.clone()));

    let dead_letters = dead_letter::DeadLetters::new(&kafka)?;
    let drain_limit = kafka.session_timeout / DRAIN_PART;
    let memory = worker.batch_max_bytes.saturating_mul(MEMORY_IN_BATCHES);
    let started = kafka::start(
        &kafka,
        memory,
        drain_limit,
        Arc::clone(&health.group),
        metrics.clone(),
    )?;
    let pipeline = Pipeline {
        postgres: postgres.clone(),
        write_through,
        dead_letters,
        assignment: started.assignment,
        breaker: Arc::new(Breaker::new(start_open)),
        waits: Arc::clone(&health.waits),
        metrics,
    };
    let intake = started.intake;
    let pipeline = tokio::spawn(async move { pipeline.run(&worker, intake).await });

    shutdown.cancelled().await;
    started.poller.stop().await;
    // The group is left: what is still under way now waits for a service that is down, and is read again by others.
    if tokio::time::timeout(CLOSE, pipeline).await.is_err() {
        tracing::warn!("records were still under way; they will be read again");
    }
    repairing.await?;
    if tokio::time::timeout(CLOSE, postgres.close()).await.is_err() {
        tracing::debug!("connections to Postgres were still in use");
    }
    Ok(())
}

/// How long each part may take to close once the group is left; nothing depends on it any more.
const CLOSE: Duration = Duration::from_secs(1);

/// What the probes answer from.
struct Health {
    schema: std::sync::atomic::AtomicBool,
    group: Arc<GroupState>,
    waits: Arc<Waits>,
    database: Dependency,
    redis: Dependency,
}

impl Health {
    fn new() -> Self {
        Self {
            schema: std::sync::atomic::AtomicBool::new(false),
            group: Arc::new(GroupState::new()),
            waits: Arc::new(Waits::new()),
            database: Dependency::new("postgres", "db_up"),
            redis: Dependency::new("redis", "redis_up"),
        }
    }

    fn admin(self: &Arc<Self>, registry: telemetry::Registry) -> Admin {
        let (live, ready) = (Arc::clone(self), Arc::clone(self));
        let live: Probe = Arc::new(move || live.live());
        let ready: Probe = Arc::new(move || ready.ready());
        Admin {
            live,
            ready,
            registry,
        }
    }

    /// Red when there is lag and, for 30 s, neither progress nor a known reason to wait.
    fn live(&self) -> Report {
        let stalled = self.group.lagging_for() > STALL && self.waits.idle_for() > STALL;
        self.report(!stalled)
            .with("progress", if stalled { "stalled" } else { "ok" })
            .with("lag", self.group.lag().to_string())
    }

    /// Ready once the schema is right and the group has this worker as a member, with or without partitions, unless it
    /// has stopped taking work.
    fn ready(&self) -> Report {
        let schema = self.schema.load(std::sync::atomic::Ordering::Relaxed);
        let member = self.group.is_member();
        let stopped =
            self.waits.waiting_for(Wait::Breaker) || self.waits.waiting_for(Wait::Deployment);
        self.report(schema && member && !stopped)
            .with("schema", if schema { "ok" } else { "unchecked or too old" })
            .with("group", if member { "member" } else { "joining" })
    }

    fn report(&self, ok: bool) -> Report {
        let waits: Vec<&str> = self.waits.reasons().map(Wait::as_str).collect();
        Report::new(ok)
            .with("postgres", self.database.state())
            .with("redis", self.redis.state())
            .with("kafka", self.group.brokers().state())
            .with(
                "waiting_for",
                if waits.is_empty() {
                    "nothing".to_owned()
                } else {
                    waits.join(", ")
                },
            )
    }
}
