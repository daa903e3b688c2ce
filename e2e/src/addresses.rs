//! The addresses of a system.

use std::collections::BTreeMap;

/// The addresses and names that a test needs to observe a running system from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// `postgres://` URL of the database.
    pub database_url: String,
    /// `redis://` URL of Redis.
    pub redis_url: String,
    /// Bootstrap brokers, separated by commas.
    pub brokers: String,
    /// Topic of the orders.
    pub topic: String,
    /// Dead letter topic.
    pub dead_letter_topic: String,
    /// Consumer group of the workers.
    pub group_id: String,
}

/// A running system that environment variables describe.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Variables {
    pub(crate) addresses: Addresses,
    pub(crate) api_urls: Vec<String>,
}

impl Variables {
    /// Reads the variables that begin with `E2E_`. Returns `None` when no such variable is set.
    ///
    /// # Errors
    /// A variable is missing, empty or unknown. A partial set is never intended, and a typo must
    /// not start another system.
    pub(crate) fn read(
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Option<Self>, String> {
        let mut given: BTreeMap<String, String> = environment
            .into_iter()
            .filter(|(name, _)| name.starts_with("E2E_"))
            .collect();
        if given.is_empty() {
            return Ok(None);
        }
        let mut take = |name: &str, default: Option<&str>| {
            given
                .remove(name)
                .or(default.map(str::to_owned))
                .filter(|value| !value.is_empty())
                .ok_or_else(|| {
                    format!(
                        "{name} is not set: tests against a running system need E2E_API_URLS, \
                         E2E_KAFKA_BROKERS, E2E_DATABASE_URL and E2E_REDIS_URL; `scripts/e2e` \
                         sets them"
                    )
                })
        };
        let api_urls = take("E2E_API_URLS", None)?;
        let addresses = Addresses {
            brokers: take("E2E_KAFKA_BROKERS", None)?,
            database_url: take("E2E_DATABASE_URL", None)?,
            redis_url: take("E2E_REDIS_URL", None)?,
            topic: take("E2E_KAFKA_TOPIC", Some("orders"))?,
            dead_letter_topic: take("E2E_KAFKA_DEAD_LETTER_TOPIC", Some("orders-dlq"))?,
            group_id: take("E2E_KAFKA_GROUP_ID", Some("order-worker"))?,
        };
        if let Some(name) = given.keys().next() {
            return Err(format!(
                "{name} is unknown: see e2e/README.md for the variables"
            ));
        }
        Ok(Some(Self {
            addresses,
            api_urls: api_urls
                .split(',')
                .map(|url| url.trim().trim_end_matches('/').to_owned())
                .collect(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: [(&str, &str); 4] = [
        ("E2E_API_URLS", "http://a:1/, http://b:2"),
        ("E2E_KAFKA_BROKERS", "k:9092"),
        ("E2E_DATABASE_URL", "postgres://p/orders"),
        ("E2E_REDIS_URL", "redis://r"),
    ];

    fn read(variables: &[(&str, &str)]) -> Result<Option<Variables>, String> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Variables::read(variables.iter().map(owned))
    }

    #[test]
    fn unrelated_variables_are_ignored() {
        assert_eq!(read(&[("DATABASE_URL", "postgres://p/orders")]), Ok(None));
    }

    #[test]
    fn a_complete_system_has_the_default_names() {
        let system = read(&WHOLE).unwrap().unwrap();
        assert_eq!(system.api_urls, ["http://a:1", "http://b:2"]);
        assert_eq!(system.addresses.topic, "orders");
        assert_eq!(system.addresses.dead_letter_topic, "orders-dlq");
        assert_eq!(system.addresses.group_id, "order-worker");
    }

    #[test]
    fn a_missing_empty_or_unknown_variable_is_named() {
        for left_out in WHOLE {
            let mut variables = WHOLE.to_vec();
            variables.retain(|variable| *variable != left_out);
            assert!(read(&variables).unwrap_err().contains(left_out.0));
            variables.push((left_out.0, ""));
            assert!(read(&variables).unwrap_err().contains(left_out.0));
        }
        let mut variables = WHOLE.to_vec();
        variables.push(("E2E_REDIS_URLS", "redis://r"));
        assert!(read(&variables).unwrap_err().contains("E2E_REDIS_URLS"));
    }
}
