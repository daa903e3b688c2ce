//! The least rights of each principal in Kafka.

use shared::{
    config::Kafka,
    grants::{Names, Subject},
};

use crate::kafka::reader_group;

/// What a right applies to.
#[derive(Clone, Copy)]
enum Resource {
    /// `KAFKA_TOPIC`.
    Topic,
    /// `KAFKA_DEAD_LETTER_TOPIC`.
    DeadLetters,
    /// `KAFKA_GROUP_ID`.
    Group,
    /// The group id of the client that reads dead letters. It joins no group, but librdkafka looks
    /// for the coordinator.
    ReaderGroup,
}

/// The rights of the worker and of the operator. Write includes Describe and, since Kafka 3.0, an
/// idempotent producer; Read includes Describe.
const RIGHTS: [(Resource, &[&str], &[&str]); 4] = [
    (Resource::Topic, &["Read"], &["Read", "Write"]),
    // The worker reads the newest dead letters and the retention at its start.
    (
        Resource::DeadLetters,
        &["Read", "Write", "DescribeConfigs"],
        // `purge` deletes records, which is Kafka's right to delete on the topic.
        &["Read", "Delete"],
    ),
    (Resource::Group, &["Read"], &["Read"]),
    (Resource::ReaderGroup, &["Describe"], &["Describe"]),
];

impl Resource {
    fn option(self, config: &Kafka) -> (&'static str, String) {
        match self {
            Self::Topic => ("--topic", config.topic.clone()),
            Self::DeadLetters => ("--topic", config.dead_letter_topic.clone()),
            Self::Group => ("--group", config.group_id.clone()),
            Self::ReaderGroup => ("--group", reader_group(config)),
        }
    }

    fn is_topic(self) -> bool {
        matches!(self, Self::Topic | Self::DeadLetters)
    }
}

/// Returns the calls of `kafka-acls.sh` that give each principal its rights. Arguments of the
/// script that runs them are passed on, such as `--command-config admin.properties`.
pub(super) fn commands(names: &Names, config: &Kafka) -> String {
    let mut text = String::new();
    for (name, subjects) in names.subjects() {
        for (resource, worker, operator) in RIGHTS {
            let mut operations: Vec<&str> = Vec::new();
            let mut add = |more: &[&'static str]| {
                for operation in more {
                    if !operations.contains(operation) {
                        operations.push(operation);
                    }
                }
            };
            if subjects.contains(&Subject::Worker) {
                add(worker);
                if config.create_topics && resource.is_topic() {
                    add(&["Create"]);
                }
            }
            if subjects.contains(&Subject::Operator) {
                add(operator);
            }
            if !operations.is_empty() {
                let (option, target) = resource.option(config);
                text += &command(config, name, &operations, option, &target);
            }
        }
    }
    text
}

fn command(config: &Kafka, name: &str, operations: &[&str], option: &str, target: &str) -> String {
    let operations: String = operations
        .iter()
        .map(|operation| format!(" --operation {operation}"))
        .collect();
    format!(
        "kafka-acls.sh --bootstrap-server {} \"$@\" --add --allow-principal {}{operations} \
         {option} {}\n",
        quoted(&config.brokers),
        quoted(&format!("User:{name}")),
        quoted(target)
    )
}

/// Quotes an argument for a shell, unless it needs no quotes.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.,:/@=+".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(operator: &str) -> Names {
        Names {
            migrate: "m".to_owned(),
            worker: "w".to_owned(),
            api: "a".to_owned(),
            operator: operator.to_owned(),
        }
    }

    #[test]
    fn the_worker_alone_neither_writes_orders_nor_deletes_dead_letters() {
        let config = Kafka {
            create_topics: false,
            ..Kafka::default()
        };
        let text = commands(&names("o"), &config);
        let worker: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("User:w"))
            .collect();
        assert_eq!(
            worker[0],
            "kafka-acls.sh --bootstrap-server localhost:9092 \"$@\" --add --allow-principal User:w \
             --operation Read --topic orders"
        );
        assert_eq!(worker.len(), 4, "{text}");
        assert!(!worker.join("\n").contains("Delete"), "{text}");
        assert!(
            !text.contains("Create") && !text.contains("User:a"),
            "{text}"
        );
        assert!(text.contains("User:o --operation Read --operation Delete --topic orders-dlq"));
    }

    #[test]
    fn one_principal_gets_each_right_once() {
        let text = commands(&names("w"), &Kafka::default());
        assert_eq!(text.lines().count(), 4);
        assert!(text.contains("Read --operation Create --operation Write --topic orders\n"));
    }

    #[test]
    fn a_group_with_a_space_is_quoted() {
        let config = Kafka {
            group_id: "a group's".to_owned(),
            ..Kafka::default()
        };
        let text = commands(&names("w"), &config);
        assert!(text.contains("--group 'a group'\\''s'\n"), "{text}");
    }
}
