//! The roles that the programs of a private system connect as. They have exactly the rights that
//! `worker grants` prints. The tests themselves observe the services with all rights.

use std::{env, fmt::Write as _, os::unix::fs::symlink, path::Path, sync::OnceLock};

use crate::{
    environment::{Folder, program, required},
    postgres::Database,
    process::Finished,
    wait::{DEADLINE, until},
};

/// The password of every role.
const PASSWORD: &str = "least";

/// Who a program connects as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// `worker migrate`.
    Migrate,
    /// The other commands of the worker.
    Worker,
    /// The api.
    Api,
}

impl Role {
    /// All roles. Roles of Postgres belong to the whole server, which other tests share, so the
    /// names are fixed.
    const ALL: [Self; 3] = [Self::Migrate, Self::Worker, Self::Api];

    /// Returns the role of a program.
    pub(crate) fn of(program: &str, arguments: &[&str]) -> Self {
        match (program.starts_with("api"), arguments) {
            (true, _) => Self::Api,
            (false, ["migrate", ..]) => Self::Migrate,
            (false, _) => Self::Worker,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Migrate => "e2e_migrate",
            Self::Worker => "e2e_worker",
            Self::Api => "e2e_api",
        }
    }

    /// Replaces the credentials in `variables`: those of the tests in URLs of Postgres, and none in
    /// URLs of Redis. A test may have set others.
    pub(crate) fn connect(self, variables: &mut [(String, String)], database_url: &str) {
        let (of_tests, _) = database_url.split_once('@').unwrap_or_default();
        let login = format!("{}:{PASSWORD}", self.name());
        for (name, value) in variables {
            match name.as_str() {
                "DATABASE_URL" | "DATABASE_READ_URL" if !of_tests.is_empty() => {
                    if let Some(rest) = value.strip_prefix(of_tests) {
                        *value = format!("postgres://{login}{rest}");
                    }
                }
                "REDIS_URL" => {
                    let urls = value.split(',').map(|url| match url.split_once("://") {
                        Some(("redis", address)) if !address.contains('@') => {
                            format!("redis://{login}@{address}")
                        }
                        _ => url.to_owned(),
                    });
                    *value = urls.collect::<Vec<_>>().join(",");
                }
                _ => {}
            }
        }
    }
}

/// Returns what `worker grants` prints for a service.
pub(crate) fn printed(service: &str, variables: &[(&str, &str)]) -> String {
    let [migrate, worker, api] = Role::ALL.map(Role::name);
    #[rustfmt::skip]
    let arguments = [
        "grants", "--only", service, "--migrate", migrate, "--worker", worker, "--api", api,
    ];
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let variables: Vec<_> = variables.iter().map(owned).collect();
    Finished::run(&program("worker"), &arguments, &variables, DEADLINE)
        .unwrap_or_else(|| panic!("worker {arguments:?} still ran after {DEADLINE:?}"))
        .succeeded()
}

/// Creates the roles and gives them their rights in `database`. Call it again after a migration.
pub(crate) fn grant(database: &Database) {
    let mut sql = String::new();
    for role in Role::ALL {
        // Another test may create it at this moment. Writing to a String cannot fail.
        let _ = write!(
            sql,
            "DO $$ BEGIN CREATE ROLE {} LOGIN PASSWORD '{PASSWORD}'; \
             EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$; ",
            role.name()
        );
    }
    static GRANTS: OnceLock<String> = OnceLock::new();
    sql += GRANTS.get_or_init(|| printed("sql", &[]));
    // Two tests that both make the first role a member of the other collide once.
    until("the roles in Postgres", || database.try_execute(&sql));
}

/// Returns the lines of an ACL file with the users of the programs, for the Redis at `url`.
pub(crate) fn acl(url: &str) -> String {
    let lines = printed("redis", &[("REDIS_URL", url)]);
    lines
        .lines()
        .map(|line| format!("{line} >{PASSWORD}\n"))
        .collect()
}

/// Returns the users of a secured Kafka, as its JAAS configuration lists them.
pub(crate) fn jaas_users() -> String {
    format!("user_{}=\"{PASSWORD}\"", Role::Worker.name())
}

/// Adds the variables with which the worker logs in to the Kafka at `brokers`.
pub(crate) fn log_in_to_kafka(brokers: &str, variables: &mut Vec<(String, String)>) {
    variables.retain(|(name, _)| name != "KAFKA_BROKERS");
    let login = [
        ("KAFKA_BROKERS", brokers),
        ("KAFKA_SECURITY_PROTOCOL", "sasl_plaintext"),
        ("KAFKA_SASL_MECHANISM", "PLAIN"),
        ("KAFKA_SASL_USERNAME", Role::Worker.name()),
        ("KAFKA_SASL_PASSWORD", PASSWORD),
    ];
    variables.extend(login.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

/// Gives the worker its rights in a secured Kafka, with Kafka's own tool.
#[track_caller]
pub(crate) fn grant_in_kafka(names: &[(&str, &str)]) {
    let commands = printed("kafka", names);
    let folder = Folder::create(&format!("acls-{:016x}", rand::random::<u64>()));
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/kafka/tool");
    symlink(tool, folder.path().join("kafka-acls.sh")).unwrap();
    let path = env::var("PATH").unwrap_or_default();
    let variables = [
        ("PATH".to_owned(), format!("{}:{path}", folder.argument())),
        (
            "ORDER_SERVICE_HOME".to_owned(),
            required("ORDER_SERVICE_HOME"),
        ),
    ];
    let script = ["-euc", &*commands];
    Finished::run(Path::new("/bin/bash"), &script, &variables, DEADLINE)
        .unwrap_or_else(|| panic!("still runs after {DEADLINE:?}: {commands}"))
        .succeeded();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_credentials_of_the_tests_are_replaced() {
        let admin = "postgres://postgres:postgres@h:1/orders";
        for (name, value, expected) in [
            ("DATABASE_URL", admin, "postgres://e2e_api:least@h:1/orders"),
            (
                "DATABASE_URL",
                "postgres://other:right@h:1/orders",
                "postgres://other:right@h:1/orders",
            ),
            (
                "REDIS_URL",
                "redis://h:1,redis://h:2",
                "redis://e2e_api:least@h:1,redis://e2e_api:least@h:2",
            ),
            ("REDIS_URL", "redis://u:p@h:1", "redis://u:p@h:1"),
            ("REDIS_URL", "http://h:1", "http://h:1"),
            ("KAFKA_BROKERS", "h:1", "h:1"),
        ] {
            let mut variables = [(name.to_owned(), value.to_owned())];
            Role::Api.connect(&mut variables, admin);
            assert_eq!(variables[0].1, expected);
        }
    }
}
