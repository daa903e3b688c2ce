//! `worker run`: starts the parts in order, and stops them in order.

use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use shared::{
    DatabaseTime,
    cache::Cache,
    config::{self, Kafka},
    order::{Reason, UnknownFields},
    runtime::{
        admin::Admin,
        backoff::Backoff,
        health::{Dependency, Probe, Report},
        outage::OutageLog,
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
        breaker::RejectionBreaker,
        future::{Clock, FutureGuard},
        waits::{Wait, Waits},
        write_through::WriteThrough,
    },
    repair::Repair,
    restored,
};

/// Memory for unfinished records, as a multiple of the maximum bytes of a batch: one batch is being
/// written to Postgres or Redis while another one gathers.
///
/// Only large records need that much. Each of their bytes is held about five times: as the record,
/// the order, the row, the document and the Redis command. A factor of 3 used 259 MiB on a busy
/// machine; the promised limit is 256 MiB.
const MEMORY_IN_BATCHES: usize = 2;

/// The process counts as stuck after this time without progress, if it has lag and no known wait.
const STALL: Duration = Duration::from_secs(30);

/// A revoked partition is drained for at most the session timeout divided by this: the rest of the
/// group waits meanwhile.
const DRAIN_PART: u32 = 2;

/// Time that a shutdown needs after draining: to commit, leave the group and close.
const LEAVE: Duration = Duration::from_secs(10);

/// Number of recent dead letters with the same reason, over all partitions, that makes a starting
/// worker careful. If they are rows that Postgres rejected, the breaker starts open. If they are
/// records from the future, the first such record stops the worker. A single dead letter has no
/// effect.
const TELLING_REFUSALS: usize = 10;
/// Interval at which the worker reads the clock of Postgres.
const COMPARE_CLOCKS: Duration = Duration::from_secs(10);
/// How many of the newest dead letters the worker reads from each partition.
const LATELY: i64 = 200;

/// Runs a worker until SIGTERM or SIGINT. Waits for a service that does not answer.
///
/// # Errors
/// When a variable is malformed or the admin port is in use.
pub async fn run() -> anyhow::Result<()> {
    let worker = Worker::load()?;
    let kafka: Kafka = config::load("KAFKA_")?;
    kafka::check(&kafka)?;
    let database: config::Database = config::load("DATABASE_")?;
    let redis: config::Redis = config::load("REDIS_")?;
    let admin: config::Admin = config::load("ADMIN_")?;
    let telemetry = telemetry::init("worker", env!("CARGO_PKG_VERSION"))?;
    let shutdown = shutdown::on_signal(worker.shutdown_timeout)?;

    let postgres = Postgres::new(&database.url, &database, Role::Worker)?;
    let cache = Cache::pooled(&redis)?;
    let health = Arc::new(Health::new(STALL.max(kafka.session_timeout * 2)));
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

    let Some(lately) = shutdown
        .run_until_cancelled(prepare(&postgres, &kafka, &health))
        .await
    else {
        return Ok(());
    };
    look_back(&kafka, &postgres, worker.strict_fields, shutdown.clone());
    work(worker, kafka, postgres, cache, &health, lately, shutdown).await?;
    telemetry.flush();
    tracing::info!("stopped");
    Ok(())
}

/// Waits until Postgres has the schema and Kafka has the topics; returns what the newest dead
/// letters are.
async fn prepare(postgres: &Postgres, kafka: &Kafka, health: &Health) -> Lately {
    wait_for_schema(postgres, health).await;
    if let Ok(false) = postgres.gives_up_locks().await {
        tracing::warn!(
            "Postgres sets no lock_timeout or no idle_in_transaction_session_timeout for this session, as behind a pooler: \
             a worker that freezes would hold up the others; set both for the role (docs/operations.md)"
        );
    }
    let created = match kafka.create_topics {
        true => create_topics(kafka, health).await,
        false => Vec::new(),
    };
    // A topic that was just created holds no dead letters.
    match created.contains(&kafka.dead_letter_topic) {
        true => Lately::default(),
        false => dead_lettered_lately(kafka).await,
    }
}

/// Creates the topics that do not exist, retrying until Kafka answers; returns their names.
async fn create_topics(kafka: &Kafka, health: &Health) -> Vec<String> {
    let mut backoff = Backoff::default();
    loop {
        match kafka::create_topics(kafka).await {
            Ok(created) => return created,
            Err(error) => {
                let error = format!("{error:#}");
                health.group.brokers().set(Err(&error));
                if backoff.is_to_log() {
                    tracing::warn!(brokers = kafka.brokers, error, "waiting for Kafka");
                }
            }
        }
        backoff.wait().await;
    }
}

/// Checks in the background whether Postgres was restored from a backup. The start need not wait
/// for it: Postgres stores a record before its offset is stored.
fn look_back(kafka: &Kafka, postgres: &Postgres, strict: bool, shutdown: CancellationToken) {
    let (kafka, postgres) = (kafka.clone(), postgres.clone());
    let fields = if strict {
        UnknownFields::Refuse
    } else {
        UnknownFields::Ignore
    };
    tokio::spawn(async move {
        let look = restored::look(&kafka, &postgres, fields);
        shutdown.run_until_cancelled(look).await;
    });
}

async fn wait_for_schema(postgres: &Postgres, health: &Health) {
    let required = schema::required_version();
    let mut backoff = Backoff::default();
    let mut _waiting = None;
    loop {
        let version = postgres.schema_version().await;
        health.database.set(
            version
                .as_ref()
                .map(drop)
                .map_err(|error| error as &dyn std::fmt::Display),
        );
        let wait = match version {
            Ok(version) if version >= required => break,
            Ok(version) => {
                if backoff.is_to_log() {
                    tracing::warn!(
                        version,
                        required,
                        "the database schema is too old: run `worker migrate`"
                    );
                }
                Wait::Deployment
            }
            Err(error) => {
                if backoff.is_to_log() {
                    tracing::warn!(%error, "waiting for Postgres (DATABASE_URL)");
                }
                Wait::Postgres
            }
        };
        _waiting = Some(health.waits.begin(wait));
        backoff.wait().await;
    }
    health
        .schema
        .store(true, std::sync::atomic::Ordering::Relaxed);
}

/// The reasons that many of the newest dead letters have. A restarted worker must not dead-letter
/// another hundred records for the same reason.
#[derive(Default)]
struct Lately {
    /// Many are rows that Postgres rejected.
    database_refused: bool,
    /// Many are records from the future.
    future: bool,
}

/// Reads the newest dead letters. If that fails, both fields are true: a breaker that opens without
/// need only costs a trial with one order.
async fn dead_lettered_lately(kafka: &Kafka) -> Lately {
    let kafka = kafka.clone();
    let look = move || {
        let reader = dead_letter::Reader::open(&kafka)?;
        let many = |reason| reader.newest_have_reason(reason, TELLING_REFUSALS, LATELY);
        Ok(Lately {
            database_refused: many(Reason::RejectedByDatabase)?,
            future: many(Reason::FutureTimestamp)?,
        })
    };
    kafka::ask(look).await.unwrap_or_else(|error| {
        tracing::warn!(
            error = format!("{error:#}"),
            "the dead letter topic could not be looked at; beginning with one order"
        );
        Lately {
            database_refused: true,
            future: true,
        }
    })
}

/// Compares this worker's clock with that of Postgres: once now, then every ten seconds in the
/// background until `shutdown`.
async fn compare_clocks(clock: &Arc<Clock>, postgres: &Postgres, shutdown: CancellationToken) {
    observe(clock, postgres).await;
    let (clock, postgres) = (Arc::clone(clock), postgres.clone());
    tokio::spawn(shutdown.run_until_cancelled_owned(async move {
        loop {
            tokio::time::sleep(COMPARE_CLOCKS).await;
            observe(&clock, &postgres).await;
        }
    }));
}

/// Reads the clock of Postgres. If that fails, the previous reading stays in use and advances with
/// local time.
async fn observe(clock: &Clock, postgres: &Postgres) {
    match postgres.now().await {
        Ok(DatabaseTime(micros)) => {
            clock.observe(UNIX_EPOCH + Duration::from_micros(micros.unsigned_abs()));
        }
        Err(error) => tracing::debug!(%error, "the clock of Postgres is unknown"),
    }
}

/// Works until `shutdown`, then stops in order: intake, batches under way, offsets, group, dead
/// letters.
async fn work(
    worker: Worker,
    kafka: Kafka,
    postgres: Postgres,
    cache: Cache,
    health: &Health,
    lately: Lately,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let metrics = Metrics::new();
    let waits = Arc::clone(&health.waits);
    metrics.show_waits(move || waits.counts());
    let write_through =
        WriteThrough::new(cache.clone(), postgres.clone(), Arc::clone(&health.waits));
    let repair = Repair {
        postgres: postgres.clone(),
        cache,
        write_through: write_through.clone(),
        redis: health.redis.clone(),
        database: health.database.clone(),
        metrics: metrics.clone(),
        outage: OutageLog::default(),
        evictions: OutageLog::default(),
    };
    let repairing = tokio::spawn(repair.run(shutdown.clone()));

    let dead_letters = dead_letter::DeadLetters::new(&kafka)?;
    let shutdown_drain = worker.shutdown_timeout.saturating_sub(LEAVE);
    let drain = kafka::DrainLimits {
        revoked: shutdown_drain.min(kafka.session_timeout / DRAIN_PART),
        shutdown: shutdown_drain,
    };
    let memory = worker.batch_max_bytes.saturating_mul(MEMORY_IN_BATCHES);
    let clock = Arc::new(Clock::default());
    compare_clocks(&clock, &postgres, shutdown.clone()).await;
    let started = kafka::start(
        &kafka,
        memory,
        drain,
        Arc::clone(&health.group),
        metrics.clone(),
    )?;
    let pipeline = Pipeline {
        postgres: postgres.clone(),
        write_through,
        dead_letters,
        assignment: started.assignment,
        breaker: Arc::new(RejectionBreaker::new(lately.database_refused)),
        future: FutureGuard::new(clock, lately.future),
        waits: Arc::clone(&health.waits),
        metrics,
    };
    let intake = started.intake;
    let pipeline = tokio::spawn(async move { pipeline.run(&worker, intake).await });

    shutdown.cancelled().await;
    started.poller.stop().await;
    // The worker has left the group. A batch that is still under way waits for a service that is
    // down; other workers read its records again.
    let batches = pipeline.abort_handle();
    if tokio::time::timeout(CLOSE, pipeline).await.is_err() {
        tracing::warn!("records were still under way; they will be read again");
        // Abort the pipeline before the runtime ends. The runtime could cancel a batch first; the
        // pipeline would take that for a panic and abort the process.
        batches.abort();
    }
    repairing.await?;
    if tokio::time::timeout(CLOSE, postgres.close()).await.is_err() {
        tracing::debug!("connections to Postgres were still in use");
    }
    Ok(())
}

/// Time limit for closing each part after the worker has left the group. Nothing depends on these
/// parts any more.
const CLOSE: Duration = Duration::from_secs(1);

/// The state that the probes report.
struct Health {
    /// How long the poll thread may give no sign of life. A rebalance callback waits for the
    /// pipeline and the broker.
    silence: Duration,
    schema: std::sync::atomic::AtomicBool,
    group: Arc<GroupState>,
    waits: Arc<Waits>,
    database: Dependency,
    redis: Dependency,
}

impl Health {
    fn new(silence: Duration) -> Self {
        Self {
            silence,
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

    /// Reports the process as alive unless it is stalled. It is stalled in two cases:
    ///
    /// - For 30 s, there is lag that can be read but neither progress nor a known reason to wait.
    /// - The poll thread, which measures the lag, gives no sign of life.
    ///
    /// A partition whose fetches fail does not count, because another process would fetch the same
    /// batch.
    fn live(&self) -> Report {
        let stuck = self.group.lagging_for() > STALL && self.waits.idle_for() > STALL;
        let stalled = stuck || self.group.silent_for() > self.silence;
        self.report(!stalled)
            .with("progress", if stalled { "stalled" } else { "ok" })
    }

    /// Reports the process as ready if the schema is right, the worker is a member of the group,
    /// with or without partitions, and it has not stopped processing records.
    fn ready(&self) -> Report {
        let schema = self.schema.load(std::sync::atomic::Ordering::Relaxed);
        let member = self.group.is_member();
        let stopped = [Wait::Breaker, Wait::Deployment, Wait::Clock]
            .into_iter()
            .any(|wait| self.waits.waiting_for(wait));
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
            .with("lag", self.group.lag().to_string())
            .with("fetch_errors", fetch_errors(&self.group))
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

/// Lists the partitions whose fetches fail, such as
/// `partition 3: BadCompression; partition 5: BadCompression`.
fn fetch_errors(group: &GroupState) -> String {
    let errors: Vec<String> = group
        .unreadable()
        .into_iter()
        .map(|(partition, codes)| format!("partition {partition}: {codes}"))
        .collect();
    match errors.is_empty() {
        true => "none".to_owned(),
        false => errors.join("; "),
    }
}
