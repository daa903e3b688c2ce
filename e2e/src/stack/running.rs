//! A private system.

use std::{path::Path, time::Duration};

use super::{
    build::Build,
    member::{Admin, Api, Worker, await_ready},
    topics::Topics,
};
use crate::{
    addresses::Addresses,
    check::Check,
    environment::{Folder, program},
    kafka::Broker,
    kafka_server::PrivateKafka,
    ledger::Ledger,
    port::Port,
    postgres::{Database, OwnDatabase, PrivatePostgres},
    process::{Finished, Process, Signal},
    record::Draft,
    redis::{RedisServer, watermark},
    roles::{self, Role, log_in_to_kafka},
    wait::{DEADLINE, until},
};

/// Variables of every program of every stack. A test can override them.
const VARIABLES: [(&str, &str); 3] = [
    ("LOG_FORMAT", "json"),
    // The shortest timeout that a broker allows by default. After a kill the worker's partitions
    // are reassigned sooner.
    ("KAFKA_SESSION_TIMEOUT", "6s"),
    // A busy machine must not look like an outage.
    ("REDIS_TIMEOUT", "1s"),
];

/// Variables of every api.
const API_VARIABLES: [(&str, &str); 2] = [
    // A busy machine must not look like an outage.
    ("DATABASE_TIMEOUT", "5s"),
    ("API_REQUEST_TIMEOUT", "15s"),
];

/// A private system. Dropping it removes everything, also after a panic.
pub struct Stack {
    /// Workers, in the order of their start.
    pub workers: Vec<Worker>,
    /// Api replicas, in the order of their start.
    pub apis: Vec<Api>,
    /// Redis.
    pub redis: RedisServer,
    pub(super) addresses: Addresses,
    pub(super) topics: Topics,
    pub(super) private_kafka: Option<PrivateKafka>,
    pub(super) private_postgres: Option<PrivatePostgres>,
    pub(super) _database: Option<OwnDatabase>,
    pub(super) folder: Folder,
    pub(super) variables: Vec<(String, String)>,
    pub(super) build: Build,
    pub(super) started: usize,
}

impl Stack {
    /// Returns the addresses.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Returns the client of the brokers.
    pub fn broker(&self) -> &Broker {
        &self.topics.broker
    }

    /// Returns the database.
    pub fn database(&self) -> Database {
        Database::new(&self.addresses.database_url)
    }

    /// Returns the private Postgres.
    ///
    /// # Panics
    /// The stack has no private Postgres.
    pub fn postgres(&self) -> &PrivatePostgres {
        self.private_postgres
            .as_ref()
            .expect("built with a private Postgres")
    }

    /// Returns the private Kafka.
    ///
    /// # Panics
    /// The stack has no private Kafka.
    pub fn kafka(&self) -> &PrivateKafka {
        self.private_kafka
            .as_ref()
            .expect("built with a private Kafka")
    }

    /// Returns a check of the whole system.
    pub fn check(&self) -> Check<'_> {
        Check::new(&self.addresses, &self.topics.broker)
    }

    /// Sends records and adds them to the ledger.
    #[track_caller]
    pub fn send(&self, ledger: &mut Ledger, drafts: &[Draft]) {
        ledger.send(self.broker(), &self.addresses.topic, drafts);
    }

    /// Returns the environment of a program, which connects as its role.
    fn variables_of(&self, role: Role, more: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut variables = self.variables(more);
        role.connect(&mut variables, &self.addresses.database_url);
        let kafka = self.private_kafka.as_ref();
        if let Some(brokers) = kafka.and_then(PrivateKafka::secured_brokers) {
            log_in_to_kafka(&brokers, &mut variables);
        }
        variables
    }

    /// Returns the value of a variable of a program.
    ///
    /// # Panics
    /// The program has no such variable.
    #[track_caller]
    pub fn variable_of(&self, program: &str, arguments: &[&str], variable: &str) -> String {
        let variables = self.variables_of(Role::of(program, arguments), &[]);
        let found = variables.into_iter().rfind(|(name, _)| name == variable);
        found
            .unwrap_or_else(|| panic!("{program} has no {variable}"))
            .1
    }

    /// Returns the environment of the programs, with all rights. Later variables override earlier
    /// ones.
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

    /// Runs a command of a program to its end.
    #[track_caller]
    pub fn command(&self, name: &str, arguments: &[&str]) -> Finished {
        self.command_with(name, arguments, &[])
    }

    /// Like [`Stack::command`], with additional variables.
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

    /// Like [`Stack::command_with`], but returns `None` if the command still runs after `limit`.
    #[track_caller]
    pub fn command_within(
        &self,
        limit: Duration,
        name: &str,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Option<Finished> {
        let variables = self.variables_of(Role::of(name, arguments), variables);
        Finished::run(&program(name), arguments, &variables, limit)
    }

    /// Runs a line of bash with commands of the worker to its end. `$BIN` is the folder of the
    /// programs.
    #[track_caller]
    pub fn shell(&self, line: &str, variables: &[(&str, &str)]) -> Finished {
        let worker = program("worker");
        let folder = worker.parent().expect("a program is in a folder");
        let mut variables = variables.to_vec();
        let folder = folder.to_string_lossy();
        variables.push(("BIN", &folder));
        let (bash, variables) = (
            Path::new("/bin/bash"),
            self.variables_of(Role::Worker, &variables),
        );
        Finished::run(bash, &["-c", line], &variables, DEADLINE)
            .unwrap_or_else(|| panic!("{line} still ran after {DEADLINE:?}"))
    }

    /// Runs a shell script of an administrator in `folder`, with the environment of the programs
    /// and all rights. They are found by their names, behind those of `folders`.
    #[track_caller]
    pub fn script(
        &self,
        script: &str,
        folder: &Path,
        folders: &[&str],
        variables: &[(&str, &str)],
    ) -> Finished {
        let programs = program("worker");
        let programs = programs.parent().and_then(Path::to_str).unwrap();
        let found = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{programs}:{found}", folders.join(":"));
        let script = format!("cd '{}'\n{script}", folder.display());
        let variables = [variables, &[("PATH", path.as_str())]].concat();
        let arguments = ["-euo", "pipefail", "-c", &script];
        let environment = self.variables(&variables);
        Finished::run(Path::new("/bin/bash"), &arguments, &environment, DEADLINE)
            .unwrap_or_else(|| panic!("still runs after {DEADLINE:?}: {script}"))
    }

    /// Gives the roles of the programs their rights, after a migration or in a new schema.
    #[track_caller]
    pub fn grant_rights(&self) {
        roles::grant(&self.database());
    }

    /// Chooses the programs that start from now on.
    pub fn use_build(&mut self, build: Build) {
        self.build = build;
    }

    /// Starts one more worker and waits until it is ready. It becomes the last of
    /// [`Stack::workers`].
    #[track_caller]
    pub fn start_worker(&mut self) -> &mut Worker {
        self.start_worker_with(&[])
    }

    /// Like [`Stack::start_worker`], with additional variables.
    #[track_caller]
    pub fn start_worker_with(&mut self, variables: &[(&str, &str)]) -> &mut Worker {
        self.launch_worker(variables);
        self.await_last_workers(1);
        self.workers.last_mut().expect("just started")
    }

    /// Starts this many more workers at once and waits until they are ready.
    #[track_caller]
    pub fn start_workers(&mut self, count: usize) {
        for _ in 0..count {
            self.launch_worker(&[]);
        }
        self.await_last_workers(count);
    }

    #[track_caller]
    fn await_last_workers(&mut self, count: usize) {
        let others = self.workers.len() - count;
        for worker in &mut self.workers[others..] {
            await_ready(&mut worker.process, &worker.admin);
        }
        // A worker clears a Redis without a watermark. Entries that are written after that stay.
        until("a watermark in Redis", || {
            let seen: Vec<_> = self.addresses.redis_url.split(',').map(watermark).collect();
            match seen.iter().any(|seen| matches!(seen, Ok(Some(_)))) {
                true => Ok(()),
                false => Err(format!("{seen:?}")),
            }
        });
    }

    /// Starts one more worker with additional variables, without waiting for it.
    #[track_caller]
    pub fn launch_worker(&mut self, variables: &[(&str, &str)]) -> &mut Worker {
        let admin = Admin::reserve();
        let mut variables = variables.to_vec();
        let address = admin.address();
        variables.push(("ADMIN_ADDR", &address));
        let process = self.launch("worker", &["run"], &variables);
        self.workers.push(Worker { process, admin });
        self.workers.last_mut().expect("just started")
    }

    /// Starts one more api replica and waits until it is ready. It becomes the last of
    /// [`Stack::apis`].
    #[track_caller]
    pub fn start_api(&mut self) -> &mut Api {
        self.start_api_with(&[])
    }

    /// Like [`Stack::start_api`], with additional variables.
    #[track_caller]
    pub fn start_api_with(&mut self, variables: &[(&str, &str)]) -> &mut Api {
        self.launch_api(variables);
        let api = self.apis.last_mut().expect("just started");
        await_ready(&mut api.process, &api.admin);
        api
    }

    /// Like [`Stack::start_api`], with a limit of open files.
    #[track_caller]
    pub fn start_api_with_open_files(&mut self, limit: u32) -> &mut Api {
        self.launch_api_behind(
            &[
                "/bin/bash",
                "-c",
                "ulimit -n $0; exec \"$@\"",
                &limit.to_string(),
            ],
            &[],
        );
        let api = self.apis.last_mut().expect("just started");
        await_ready(&mut api.process, &api.admin);
        api
    }

    /// Starts one more api replica with additional variables, without waiting for it.
    #[track_caller]
    pub fn launch_api(&mut self, variables: &[(&str, &str)]) -> &mut Api {
        self.launch_api_behind(&[], variables)
    }

    /// Like [`Stack::launch_api`], as arguments of the program `wrapper`, if there is one.
    #[track_caller]
    fn launch_api_behind(&mut self, wrapper: &[&str], variables: &[(&str, &str)]) -> &mut Api {
        let (port, admin) = (Port::reserve(), Admin::reserve());
        let (address, admin_address) = (port.address(), admin.address());
        let mut all = API_VARIABLES.to_vec();
        all.extend_from_slice(variables);
        all.extend([
            ("API_ADDR", address.as_str()),
            ("ADMIN_ADDR", &admin_address),
        ]);
        let process = self.launch_behind(wrapper, "api", &["serve"], &all);
        self.apis.push(Api {
            process,
            port,
            admin,
        });
        self.apis.last_mut().expect("just started")
    }

    /// Starts a command of a program, without waiting for its end.
    pub fn launch(
        &mut self,
        name: &str,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Process {
        self.launch_behind(&[], name, arguments, variables)
    }

    /// Like [`Stack::launch`], as arguments of the program `wrapper`, if there is one.
    fn launch_behind(
        &mut self,
        wrapper: &[&str],
        name: &str,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Process {
        self.started += 1;
        let program = program(&self.build.program(name));
        let program = program.to_str().expect("a path in UTF-8");
        let line = [wrapper, &[program], arguments].concat();
        Process::start(
            &format!("{name}-{}", self.started),
            Path::new(line[0]),
            &line[1..],
            &self.variables_of(Role::of(name, arguments), variables),
            self.folder.path(),
        )
    }

    /// Sends SIGTERM to every worker and asserts exit code 0.
    #[track_caller]
    pub fn stop_workers(&mut self) {
        self.stop_oldest_workers(self.workers.len());
    }

    /// Sends SIGTERM to the oldest workers at once and asserts exit code 0.
    #[track_caller]
    pub fn stop_oldest_workers(&mut self, count: usize) {
        let mut oldest: Vec<Worker> = self.workers.drain(..count).collect();
        for worker in &mut oldest {
            worker.process.signal(Signal::Terminate);
        }
        for worker in &mut oldest {
            worker.process.expect_orderly_end();
        }
    }

    /// Makes workers that start from now on use a new consumer group, which has read nothing.
    pub fn use_new_group(&mut self) {
        self.addresses.group_id = format!("{}-again", self.addresses.group_id);
    }
}
