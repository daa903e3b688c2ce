//! `worker grants`: prints the least rights of each role in Postgres, Redis and Kafka.

mod kafka;

use clap::{Args, ValueEnum};
use shared::{
    cache,
    config::{self, Kafka, Redis},
    grants::Names,
    runtime::output,
    storage::schema,
};

/// Which rights to print, and for whom.
#[derive(Args, Debug)]
pub struct Grants {
    /// Print only the rights in one service, ready for its own tool.
    #[arg(long)]
    only: Option<Service>,
    /// Name of the role that owns the tables and migrates them.
    #[arg(long, value_name = "NAME", default_value = "order_migrate", value_parser = name)]
    migrate: String,
    /// Name of the role, user and principal of the workers.
    #[arg(long, value_name = "NAME", default_value = "order_worker", value_parser = name)]
    worker: String,
    /// Name of the role and user of the api.
    #[arg(long, value_name = "NAME", default_value = "order_api", value_parser = name)]
    api: String,
    /// Name for the commands of an operator: dead-letters, verify, rewind, cache. Without it, they
    /// run with the name of the workers.
    #[arg(long, value_name = "NAME", value_parser = name)]
    operator: Option<String>,
    /// Schema of the tables in Postgres.
    #[arg(long, value_name = "NAME", default_value = "public", value_parser = name)]
    schema: String,
}

/// A service in which a role needs rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Service {
    /// Statements for psql.
    Sql,
    /// Lines of a Redis ACL file.
    Redis,
    /// Calls of kafka-acls.sh for a shell.
    Kafka,
}

impl Service {
    const ALL: [Self; 3] = [Self::Sql, Self::Redis, Self::Kafka];

    fn title(self) -> &'static str {
        match self {
            Self::Sql => "Postgres: worker grants --only sql | psql",
            Self::Redis => "Redis, lines of the aclfile: worker grants --only redis",
            Self::Kafka => "Kafka: worker grants --only kafka | bash",
        }
    }
}

/// Reads a name that needs no quotes in Redis and Kafka.
fn name(text: &str) -> Result<String, String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "_-.=,@/+:".contains(c);
    let is_name = (1..=63).contains(&text.len()) && text.chars().all(is_allowed);
    match is_name {
        true => Ok(text.to_owned()),
        false => Err("not a name; write 1 to 63 letters, digits or _-.=,@/+:".to_owned()),
    }
}

/// Runs `worker grants`. Connects to no service.
///
/// # Errors
/// When a variable is invalid, or standard output cannot be written.
pub fn run(grants: &Grants) -> anyhow::Result<()> {
    match grants.only {
        Some(service) => output::print(&grants.text(service)?),
        None => {
            for service in Service::ALL {
                let text = grants.text(service)?;
                output::print(&format!("### {}\n\n{text}\n", service.title()))?;
            }
            Ok(())
        }
    }
}

impl Grants {
    fn names(&self) -> Names {
        Names {
            migrate: self.migrate.clone(),
            worker: self.worker.clone(),
            api: self.api.clone(),
            operator: self.operator.as_ref().unwrap_or(&self.worker).clone(),
        }
    }

    fn text(&self, service: Service) -> anyhow::Result<String> {
        let names = self.names();
        Ok(match service {
            Service::Sql => schema::grants(&names, &self.schema),
            Service::Redis => {
                let redis: Redis = config::load("REDIS_")?;
                cache::acl(&names, is_cluster(&redis), selects_database(&redis))
            }
            Service::Kafka => {
                let config: Kafka = config::load("KAFKA_")?;
                kafka::commands(&names, &config)
            }
        })
    }
}

fn is_cluster(redis: &Redis) -> bool {
    redis.url.contains(',')
}

/// Returns whether the URL names a database other than 0.
fn selects_database(redis: &Redis) -> bool {
    let address = redis.url.split("://").nth(1).unwrap_or_default();
    let path = address.split(['?', '#']).next().unwrap_or_default();
    let number = path.split_once('/').map_or("", |(_, number)| number);
    !["", "0"].contains(&number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_decides_which_commands_redis_needs() {
        for (url, cluster, selects) in [
            ("redis://h:6379", false, false),
            ("redis://h:6379/", false, false),
            ("redis://u:p@h/0", false, false),
            ("redis://u:p@h/1?protocol=resp3", false, true),
            ("redis://a:1,redis://b:2", true, false),
        ] {
            let redis = Redis {
                url: url.to_owned(),
                ..Redis::default()
            };
            assert_eq!(
                (is_cluster(&redis), selects_database(&redis)),
                (cluster, selects),
                "{url}"
            );
        }
    }

    #[test]
    fn a_name_with_a_quote_or_a_space_is_rejected() {
        assert!(name("CN=order-worker,O=shop").is_ok());
        for bad in ["", "a b", "a'b", "a\"b", "a;b", "a\nb", &"x".repeat(64)] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }
}
