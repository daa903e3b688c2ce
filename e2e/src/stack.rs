//! A whole system of its own.

use std::{process, time::Duration};

use serde_json::Value;

use crate::{
    addresses::Addresses,
    check::Check,
    environment::{Folder, program, required},
    http::{Answer, Http},
    kafka::{Broker, Timestamps},
    kafka_server::PrivateKafka,
    ledger::Ledger,
    port::Port,
    postgres::{Database, OwnDatabase, PrivatePostgres},
    process::{Finished, Process},
    record::Draft,
    redis::RedisServer,
    wait::{DEADLINE, until},
};

/// What the worker gives the topic of orders, too.
const TOPIC_MAX_BYTES: u32 = 8 << 20;
/// What the worker gives the dead letter topic, too.
const DEAD_LETTER_MAX_BYTES: u32 = 16 << 20;

/// Set for every program of every stack, unless a test says otherwise.
const VARIABLES: [(&str, &str); 3] = [
    ("LOG_FORMAT", "json"),
    // The shortest that a broker allows by default: after a `kill -9` its partitions are free again so much sooner.
    ("KAFKA_SESSION_TIMEOUT", "6s"),
    // A busy machine is not to look like an outage.
    ("REDIS_TIMEOUT", "1s"),
];

/// Set for every api.
const API_VARIABLES: [(&str, &str); 2] = [
    // As above.
    ("DATABASE_TIMEOUT", "5s"),
    ("API_REQUEST_TIMEOUT", "15s"),
];

/// How a [`Stack`] is to be.
pub struct Builder {
    test: &'static str,
    workers: usize,
    apis: usize,
    private_postgres: bool,
    private_kafka: bool,
    migrate: bool,
    topics: Option<Timestamps>,
    dead_letter_max_bytes: u32,
    variables: Vec<(String, String)>,
}

impl Builder {
    /// With so many workers; without one unless this is called.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// With so many api replicas; without one unless this is called.
    #[must_use]
    pub fn apis(mut self, apis: usize) -> Self {
        self.apis = apis;
        self
    }

    /// With a Postgres that nobody else uses, instead of a database on the shared one.
    #[must_use]
    pub fn private_postgres(mut self) -> Self {
        self.private_postgres = true;
        self
    }

    /// With a Kafka that nobody else uses.
    #[must_use]
    pub fn private_kafka(mut self) -> Self {
        self.private_kafka = true;
        self
    }

    /// With an empty database.
    #[must_use]
    pub fn without_schema(mut self) -> Self {
        self.migrate = false;
        self
    }

    /// With topics that do not exist before the first worker creates them.
    #[must_use]
    pub fn without_topics(mut self) -> Self {
        self.topics = None;
        self
    }

    /// With timestamps of the producers in the topic.
    #[must_use]
    pub fn producers_timestamps(mut self) -> Self {
        self.topics = Some(Timestamps::Create);
        self
    }

    /// With a dead letter topic that takes no record larger than this.
    #[must_use]
    pub fn dead_letter_max_bytes(mut self, bytes: u32) -> Self {
        self.dead_letter_max_bytes = bytes;
        self
    }

    /// With a variable for every program.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it; returns once every process is ready.
    #[track_caller]
    pub fn start(self) -> Stack {
        let name = format!(
            "e2e-{}-{}-{:08x}",
            self.test,
            process::id(),
            rand::random::<u32>()
        );
        let private_kafka = self.private_kafka.then(|| PrivateKafka::start(&name));
        let brokers = private_kafka
            .as_ref()
            .map_or_else(|| required("KAFKA_BROKERS"), PrivateKafka::brokers);
        let private_postgres = self.private_postgres.then(|| PrivatePostgres::start(&name));
        let database = private_postgres
            .is_none()
            .then(|| OwnDatabase::create(&name));
        let database_url = match (&private_postgres, &database) {
            (Some(server), _) => server.url(),
            (None, Some(database)) => database.url().to_owned(),
            (None, None) => unreachable!("one of the two was just made"),
        };
        let redis = RedisServer::start(&name);
        let topics = Topics {
            broker: Broker::new(&brokers),
            topic: name.clone(),
            dead_letter_topic: format!("{name}-dlq"),
        };
        if let Some(timestamps) = self.topics {
            topics.create(timestamps, self.dead_letter_max_bytes);
        }
        let mut stack = Stack {
            workers: Vec::new(),
            apis: Vec::new(),
            addresses: Addresses {
                database_url,
                redis_url: redis.url(),
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
            started: 0,
        };
        if self.migrate {
            stack.command("worker", &["migrate"]).succeeded();
        }
        for _ in 0..self.workers {
            stack.start_worker();
        }
        for _ in 0..self.apis {
            stack.start_api();
        }
        stack
    }
}

/// Topics that are deleted with their owner.
struct Topics {
    broker: Broker,
    topic: String,
    dead_letter_topic: String,
}

impl Topics {
    fn create(&self, timestamps: Timestamps, dead_letter_max_bytes: u32) {
        self.broker
            .create_topic(&self.topic, timestamps, TOPIC_MAX_BYTES);
        self.broker.create_topic(
            &self.dead_letter_topic,
            Timestamps::LogAppend,
            dead_letter_max_bytes,
        );
    }
}

impl Drop for Topics {
    fn drop(&mut self) {
        self.broker
            .delete_topics(&[&self.topic, &self.dead_letter_topic]);
    }
}

/// A running worker.
pub struct Worker {
    /// The process.
    pub process: Process,
    admin: Port,
}

/// A running api replica.
pub struct Api {
    /// The process.
    pub process: Process,
    port: Port,
    admin: Port,
}

impl Worker {
    /// An answer of the admin port, such as to `/readyz`.
    #[track_caller]
    pub fn admin(&self, path: &str) -> Answer {
        Http::new().get(&format!("http://{}{path}", self.admin.address()))
    }

    /// Where the admin port is.
    pub fn admin_address(&self) -> String {
        self.admin.address()
    }

    /// The state of one thing, as `/readyz` tells it.
    #[track_caller]
    pub fn state_of(&self, name: &str) -> String {
        check_of(&self.admin("/readyz"), name)
    }

    /// How many records ended with that outcome.
    #[track_caller]
    pub fn messages(&self, outcome: &str) -> u64 {
        let label = format!("outcome=\"{outcome}\"");
        metric(
            &self.admin("/metrics").text(),
            "worker_messages_total",
            &label,
        )
    }

    /// How many records ended, whichever way.
    #[track_caller]
    pub fn all_messages(&self) -> u64 {
        metric(&self.admin("/metrics").text(), "worker_messages_total", "")
    }
}

impl Api {
    /// Where it answers, such as `http://127.0.0.1:8080`.
    pub fn url(&self) -> String {
        format!("http://{}", self.port.address())
    }

    /// Where it answers, such as `127.0.0.1:8080`.
    pub fn address(&self) -> String {
        self.port.address()
    }

    /// The answer to `GET /order/{uid}`.
    #[track_caller]
    pub fn order(&self, uid: &str) -> Answer {
        Http::new().get(&format!("{}/order/{uid}", self.url()))
    }

    /// The answer to `GET /order/{uid}?nocache=1`.
    #[track_caller]
    pub fn order_in_postgres(&self, uid: &str) -> Answer {
        Http::new().get(&format!("{}/order/{uid}?nocache=1", self.url()))
    }

    /// An answer of the admin port, such as to `/readyz`.
    #[track_caller]
    pub fn admin(&self, path: &str) -> Answer {
        Http::new().get(&format!("http://{}{path}", self.admin.address()))
    }

    /// Where the admin port is.
    pub fn admin_address(&self) -> String {
        self.admin.address()
    }

    /// The state of one thing, as `/readyz` tells it.
    #[track_caller]
    pub fn state_of(&self, name: &str) -> String {
        check_of(&self.admin("/readyz"), name)
    }
}

/// The state of one thing in the body of a probe's answer.
fn check_of(answer: &Answer, name: &str) -> String {
    let report: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let check = report["checks"]
        .as_array()
        .and_then(|checks| checks.iter().find(|check| check["name"] == name));
    check.map_or_else(
        || format!("no check {name} in {}", answer.text()),
        |check| check["state"].as_str().unwrap_or_default().to_owned(),
    )
}

/// The sum of the series of a counter that have a label (all of them for none).
fn metric(text: &str, name: &str, label: &str) -> u64 {
    text.lines()
        .filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let labels = series.strip_prefix(name)?;
            let ours = labels.starts_with('{') && labels.contains(label);
            ours.then(|| value.parse::<f64>().ok())?
        })
        .sum::<f64>() as u64
}

/// A system of its own; everything goes away with it, also after a panic.
pub struct Stack {
    /// Workers, in the order of their start.
    pub workers: Vec<Worker>,
    /// Api replicas, in the order of their start.
    pub apis: Vec<Api>,
    /// Its Redis.
    pub redis: RedisServer,
    addresses: Addresses,
    topics: Topics,
    private_kafka: Option<PrivateKafka>,
    private_postgres: Option<PrivatePostgres>,
    _database: Option<OwnDatabase>,
    folder: Folder,
    variables: Vec<(String, String)>,
    started: usize,
}

impl Stack {
    /// A system for a test of that name.
    pub fn builder(test: &'static str) -> Builder {
        Builder {
            test,
            workers: 0,
            apis: 0,
            private_postgres: false,
            private_kafka: false,
            migrate: true,
            topics: Some(Timestamps::LogAppend),
            dead_letter_max_bytes: DEAD_LETTER_MAX_BYTES,
            variables: Vec::new(),
        }
    }

    /// Where it can be reached.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Its brokers.
    pub fn broker(&self) -> &Broker {
        &self.topics.broker
    }

    /// Its database.
    pub fn database(&self) -> Database {
        Database::new(&self.addresses.database_url)
    }

    /// The Postgres that it has for itself.
    ///
    /// # Panics
    /// When it has none.
    pub fn postgres(&self) -> &PrivatePostgres {
        self.private_postgres
            .as_ref()
            .expect("built with a private Postgres")
    }

    /// The Kafka that it has for itself.
    ///
    /// # Panics
    /// When it has none.
    pub fn kafka(&self) -> &PrivateKafka {
        self.private_kafka
            .as_ref()
            .expect("built with a private Kafka")
    }

    /// Compares its tiers with a ledger.
    pub fn check(&self) -> Check<'_> {
        Check::new(&self.addresses, &self.topics.broker)
    }

    /// Sends records and takes them down.
    #[track_caller]
    pub fn send(&self, ledger: &mut Ledger, drafts: &[Draft]) {
        ledger.send(self.broker(), &self.addresses.topic, drafts);
    }

    /// The environment of its programs; what comes last counts.
    pub fn variables(&self, more: &[(&str, &str)]) -> Vec<(String, String)> {
        let addresses = &self.addresses;
        let own = [
            ("DATABASE_URL", addresses.database_url.as_str()),
            ("REDIS_URL", &addresses.redis_url),
            ("KAFKA_BROKERS", &addresses.brokers),
            ("KAFKA_TOPIC", &addresses.topic),
            ("KAFKA_DEAD_LETTER_TOPIC", &addresses.dead_letter_topic),
            ("KAFKA_GROUP_ID", &addresses.group_id),
        ];
        let text = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        VARIABLES
            .iter()
            .chain(&own)
            .map(text)
            .chain(self.variables.iter().cloned())
            .chain(more.iter().map(text))
            .collect()
    }

    /// Runs a command of one of the programs to its end.
    #[track_caller]
    pub fn command(&self, name: &str, arguments: &[&str]) -> Finished {
        self.command_with(name, arguments, &[])
    }

    /// As [`Stack::command`], with more variables.
    #[track_caller]
    pub fn command_with(
        &self,
        name: &str,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Finished {
        self.command_within(DEADLINE, name, arguments, variables)
            .unwrap_or_else(|| panic!("{name} {arguments:?} still ran after {DEADLINE:?}"))
    }

    /// As [`Stack::command_with`], but none when it still runs after `limit`.
    #[track_caller]
    pub fn command_within(
        &self,
        limit: Duration,
        name: &str,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Option<Finished> {
        Finished::run(&program(name), arguments, &self.variables(variables), limit)
    }

    /// Starts one more worker and waits until it is ready; it is the last of [`Stack::workers`].
    #[track_caller]
    pub fn start_worker(&mut self) -> &mut Worker {
        self.launch_worker(&[]);
        let worker = self.workers.last_mut().expect("just started");
        await_ready(&mut worker.process, &worker.admin);
        // A worker that meets a Redis of which nothing is known clears it. From then on what is there stays there.
        until("a watermark in Redis", || match self.redis.watermark() {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err("none".to_owned()),
            Err(error) => Err(error.to_string()),
        });
        worker
    }

    /// Starts one more worker, with more variables, and does not wait.
    #[track_caller]
    pub fn launch_worker(&mut self, variables: &[(&str, &str)]) -> &mut Worker {
        let admin = Port::reserve();
        let mut variables = variables.to_vec();
        let address = admin.address();
        variables.push(("ADMIN_ADDR", &address));
        let process = self.launch("worker", &["run"], &variables);
        self.workers.push(Worker { process, admin });
        self.workers.last_mut().expect("just started")
    }

    /// Starts one more api replica and waits until it is ready; it is the last of [`Stack::apis`].
    #[track_caller]
    pub fn start_api(&mut self) -> &mut Api {
        self.start_api_with(&[])
    }

    /// As [`Stack::start_api`], with more variables.
    #[track_caller]
    pub fn start_api_with(&mut self, variables: &[(&str, &str)]) -> &mut Api {
        self.launch_api(variables);
        let api = self.apis.last_mut().expect("just started");
        await_ready(&mut api.process, &api.admin);
        api
    }

    /// Starts one more api replica, with more variables, and does not wait.
    #[track_caller]
    pub fn launch_api(&mut self, variables: &[(&str, &str)]) -> &mut Api {
        let (port, admin) = (Port::reserve(), Port::reserve());
        let (address, admin_address) = (port.address(), admin.address());
        let mut all = API_VARIABLES.to_vec();
        all.extend_from_slice(variables);
        all.extend([
            ("API_ADDR", address.as_str()),
            ("ADMIN_ADDR", &admin_address),
        ]);
        let process = self.launch("api", &["serve"], &all);
        self.apis.push(Api {
            process,
            port,
            admin,
        });
        self.apis.last_mut().expect("just started")
    }

    fn launch(&mut self, name: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Process {
        self.started += 1;
        Process::start(
            &format!("{name}-{}", self.started),
            &program(name),
            arguments,
            &self.variables(variables),
            self.folder.path(),
        )
    }

    /// Asks every worker to end and expects exit code 0.
    #[track_caller]
    pub fn stop_workers(&mut self) {
        for mut worker in self.workers.drain(..) {
            worker.process.terminate();
        }
    }

    /// From now on workers belong to another group, which has read nothing yet.
    pub fn use_new_group(&mut self) {
        self.addresses.group_id = format!("{}-again", self.addresses.group_id);
    }

    /// How many records the group has finished, and how many there are.
    #[track_caller]
    pub fn progress(&self) -> (i64, i64) {
        self.broker()
            .progress(&self.addresses.group_id, &self.addresses.topic)
    }

    /// Waits until the group has finished every record, and Redis has learnt of everything.
    #[track_caller]
    pub fn settle(&self) {
        until("everything finished", || match self.progress() {
            (finished, all) if finished == all => Ok(()),
            (finished, all) => Err(format!("{finished} of {all} records finished")),
        });
        let database = self.database();
        until("no mark for repair left", || {
            match database.repair_marks() {
                0 => Ok(()),
                marks => Err(format!("{marks} marks")),
            }
        });
    }

    /// Waits until Postgres has so many orders.
    #[track_caller]
    pub fn await_orders(&self, count: usize) {
        let database = self.database();
        until(&format!("{count} orders in Postgres"), || {
            let found = database.count();
            if found >= count {
                Ok(())
            } else {
                Err(format!("{found} orders"))
            }
        });
    }

    /// Waits until `GET /order/{uid}` has that status on every replica.
    #[track_caller]
    pub fn await_status(&self, uid: &str, status: u16) {
        for api in &self.apis {
            until(
                &format!("status {status} of order {uid} at {}", api.url()),
                || match api.order(uid) {
                    answer if answer.status == status => Ok(()),
                    answer => Err(format!("{}: {}", answer.status, answer.text())),
                },
            );
        }
    }
}

#[track_caller]
fn await_ready(process: &mut Process, admin: &Port) {
    let http = Http::new();
    let url = format!("http://{}/readyz", admin.address());
    until("a ready process", || {
        if let Some(status) = process.ended() {
            panic!("it ended while it started, with {status}");
        }
        match http.try_get(&url, &[]) {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(answer.text()),
            Err(error) => Err(error.to_string()),
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_the_sum_of_its_series() {
        let text =
            "# TYPE a_total counter\na_total{x=\"1\"} 2\na_total{x=\"2\"} 3\nab_total{x=\"1\"} 7\n";
        assert_eq!(metric(text, "a_total", ""), 5);
        assert_eq!(metric(text, "a_total", "x=\"2\""), 3);
    }
}
