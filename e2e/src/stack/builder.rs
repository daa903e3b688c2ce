//! Configuration and start of a private system.

use std::process;

use super::{build::Build, running::Stack, topics::Topics};
use crate::{
    addresses::Addresses,
    environment::{Folder, required},
    kafka::{Broker, Timestamps},
    kafka_server::PrivateKafka,
    postgres::{Database, OwnDatabase, PrivatePostgres},
    redis::{RedisServer, create_users},
    roles,
};

/// The environment variable that names the invariant that a faulty program breaks.
const BREAK: &str = "FAULT_BREAK";

/// The limit that the worker sets for the dead letter topic.
const DEAD_LETTER_MAX_BYTES: u32 = 16 << 20;

impl Stack {
    /// Returns the builder of a system. `test` is the name of the test.
    pub fn builder(test: &'static str) -> Builder {
        Builder::new(test)
    }
}

/// Builder of a [`Stack`].
pub struct Builder {
    test: &'static str,
    workers: usize,
    apis: usize,
    private_postgres: Option<&'static [&'static str]>,
    private_kafka: Option<&'static [&'static str]>,
    is_kafka_secured: bool,
    redis_url: Option<String>,
    migrate: bool,
    topics: Option<Timestamps>,
    dead_letter_max_bytes: u32,
    variables: Vec<(String, String)>,
    build: Build,
}

impl Builder {
    fn new(test: &'static str) -> Self {
        Self {
            test,
            workers: 0,
            apis: 0,
            private_postgres: None,
            private_kafka: None,
            is_kafka_secured: false,
            redis_url: None,
            migrate: true,
            topics: Some(Timestamps::LogAppend),
            dead_letter_max_bytes: DEAD_LETTER_MAX_BYTES,
            variables: Vec::new(),
            build: Build::Current,
        }
    }

    /// Sets the number of workers; the default is 0.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Sets the number of api replicas; the default is 0.
    #[must_use]
    pub fn apis(mut self, apis: usize) -> Self {
        self.apis = apis;
        self
    }

    /// Uses a private Postgres instead of a database on the shared one.
    #[must_use]
    pub fn private_postgres(self) -> Self {
        self.private_postgres_with(&[])
    }

    /// Like [`Builder::private_postgres`], with settings such as `wal_level=logical`.
    #[must_use]
    pub fn private_postgres_with(mut self, settings: &'static [&'static str]) -> Self {
        self.private_postgres = Some(settings);
        self
    }

    /// Uses a private Kafka.
    #[must_use]
    pub fn private_kafka(self) -> Self {
        self.private_kafka_with(&[])
    }

    /// Like [`Builder::private_kafka`], with settings such as `group.min.session.timeout.ms=10000`.
    #[must_use]
    pub fn private_kafka_with(mut self, settings: &'static [&'static str]) -> Self {
        self.private_kafka = Some(settings);
        self
    }

    /// Uses a private Kafka at which the programs log in and have only the rights that `worker
    /// grants` prints.
    #[must_use]
    pub fn secured_kafka(mut self) -> Self {
        self.is_kafka_secured = true;
        self.private_kafka()
    }

    /// Uses the Redis at this URL, or the cluster of these masters, instead of a private one.
    #[must_use]
    pub fn redis(mut self, url: &str) -> Self {
        self.redis_url = Some(url.to_owned());
        self
    }

    /// Uses an empty database.
    #[must_use]
    pub fn without_schema(mut self) -> Self {
        self.migrate = false;
        self
    }

    /// Creates no topics; the first worker creates them.
    #[must_use]
    pub fn without_topics(mut self) -> Self {
        self.topics = None;
        self
    }

    /// Uses producers' timestamps in the topic.
    #[must_use]
    pub fn producers_timestamps(mut self) -> Self {
        self.topics = Some(Timestamps::Create);
        self
    }

    /// Limits the size of a record in the dead letter topic.
    #[must_use]
    pub fn dead_letter_max_bytes(mut self, bytes: u32) -> Self {
        self.dead_letter_max_bytes = bytes;
        self
    }

    /// Sets an environment variable for every program.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Uses the faulty programs. They crash where [`CRASH_AT`](shared::fault::CRASH_AT) says, and
    /// hang where [`STALL_AT`](shared::fault::STALL_AT) says.
    #[must_use]
    pub fn faulty(mut self) -> Self {
        self.build = Build::Faulty;
        self
    }

    /// Uses faulty programs that break this invariant: the name of a patch in `e2e/sabotage`.
    #[must_use]
    pub fn breaking(self, invariant: &str) -> Self {
        self.faulty().variable(BREAK, invariant)
    }

    /// Starts the system. Returns when every process is ready.
    #[track_caller]
    pub fn start(self) -> Stack {
        let name = format!(
            "e2e-{}-{}-{:08x}",
            self.test,
            process::id(),
            rand::random::<u32>()
        );
        let private_kafka = self
            .private_kafka
            .map(|settings| PrivateKafka::start(&name, settings, self.is_kafka_secured));
        let brokers = private_kafka
            .as_ref()
            .map_or_else(|| required("KAFKA_BROKERS"), PrivateKafka::brokers);
        let private_postgres = self
            .private_postgres
            .map(|settings| PrivatePostgres::start(&name, settings));
        let database = private_postgres
            .is_none()
            .then(|| OwnDatabase::create(&name));
        let database_url = match (&private_postgres, &database) {
            (Some(server), _) => server.url(),
            (None, Some(database)) => database.url().to_owned(),
            (None, None) => unreachable!("one of the two was just made"),
        };
        roles::grant(&Database::new(&database_url));
        let redis = RedisServer::start(&name);
        if let Some(url) = &self.redis_url {
            create_users(url);
        }
        let topics = self.create_topics(&name, &brokers);
        let mut stack = Stack {
            workers: Vec::new(),
            apis: Vec::new(),
            addresses: Addresses {
                database_url,
                redis_url: self.redis_url.unwrap_or_else(|| redis.url()),
                brokers,
                topic: topics.topic.clone(),
                dead_letter_topic: topics.dead_letter_topic.clone(),
                group_id: name.clone(),
            },
            redis,
            topics,
            private_kafka,
            private_postgres,
            _database: database,
            folder: Folder::create(&name),
            variables: self.variables,
            build: self.build,
            started: 0,
        };
        start_programs(&mut stack, self.migrate, self.workers, self.apis);
        stack
    }

    /// Creates the topics, and in a secured Kafka the rights of the programs.
    #[track_caller]
    fn create_topics(&self, name: &str, brokers: &str) -> Topics {
        let topics = Topics {
            broker: Broker::new(brokers),
            topic: name.to_owned(),
            dead_letter_topic: format!("{name}-dlq"),
        };
        if let Some(timestamps) = self.topics {
            topics.create(timestamps, self.dead_letter_max_bytes);
        }
        if self.is_kafka_secured {
            roles::grant_in_kafka(&[
                ("KAFKA_BROKERS", brokers),
                ("KAFKA_TOPIC", &topics.topic),
                ("KAFKA_DEAD_LETTER_TOPIC", &topics.dead_letter_topic),
                ("KAFKA_GROUP_ID", name),
            ]);
        }
        topics
    }
}

#[track_caller]
fn start_programs(stack: &mut Stack, migrate: bool, workers: usize, apis: usize) {
    if migrate {
        stack.command("worker", &["migrate"]).succeeded();
        // Until then, default privileges gave more rights on the new tables.
        stack.grant_rights();
    }
    if workers > 0 {
        stack.start_workers(workers);
    }
    for _ in 0..apis {
        stack.start_api();
    }
}
