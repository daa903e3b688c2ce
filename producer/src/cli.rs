//! The command line.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use shared::order::OrderUid;

/// Generates orders and sends them to Kafka.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Cli {
    /// The subcommand.
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a file of generated orders.
    Generate(Generate),
    /// Send orders from a file, or generated ones.
    Send(Send),
    /// Erase orders: send a record with the uid as key and a null value.
    Erase(Erase),
}

#[derive(Args, Debug)]
pub(crate) struct Generate {
    /// Number of orders.
    #[arg(short = 'n', long, default_value_t = 100)]
    pub(crate) num_orders: u64,
    #[command(flatten)]
    pub(crate) variety: Variety,
    /// Output file. A name in `.ndjson` or `.jsonl` gets one order per line; any other name gets a
    /// JSON array with one order per line.
    #[arg(short, long, value_name = "FILE", default_value = "mock.json")]
    pub(crate) output: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct Send {
    #[command(flatten)]
    pub(crate) source: OrderSource,
    #[command(flatten)]
    pub(crate) variety: Variety,
    /// Records per second; 0 sends as fast as possible.
    #[arg(
        long,
        value_name = "RATE",
        default_value_t = 0,
        conflicts_with = "interval"
    )]
    pub(crate) rps: u32,
    /// Time between two records, such as `500ms`.
    #[arg(long, value_parser = humantime::parse_duration)]
    pub(crate) interval: Option<Duration>,
    /// Number of additional records with truncated JSON.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub(crate) invalid_json: u64,
    /// Number of additional records of random bytes.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub(crate) gibberish: u64,
    #[command(flatten)]
    pub(crate) verify: Verify,
    #[command(flatten)]
    pub(crate) kafka: Kafka,
}

/// Options that read the orders back.
#[derive(Args, Debug)]
pub(crate) struct Verify {
    /// After sending, request every order from the api at this http:// address. Fails if the api
    /// does not return all of them within `--timeout`.
    #[arg(long, value_name = "URL")]
    pub(crate) verify: Option<String>,
    /// File that holds the API key for `--verify`.
    #[arg(long, value_name = "FILE", requires = "verify")]
    pub(crate) api_key_file: Option<PathBuf>,
}

/// Where the orders come from.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct OrderSource {
    /// File with a JSON array of orders, or with one order after another (NDJSON). Each order is
    /// sent unchanged.
    #[arg(long)]
    pub(crate) file: Option<PathBuf>,
    /// Number of orders to generate.
    #[arg(short = 'n', long, value_name = "COUNT")]
    pub(crate) num_orders: Option<u64>,
}

#[derive(Args, Debug)]
pub(crate) struct Erase {
    /// Uids of the orders.
    #[arg(value_name = "UID", required = true, value_parser = OrderUid::parse)]
    pub(crate) uids: Vec<OrderUid>,
    #[command(flatten)]
    pub(crate) kafka: Kafka,
}

/// Properties of generated orders.
#[derive(Args, Debug)]
pub(crate) struct Variety {
    /// Fewest items of an order.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = items)]
    min_items: usize,
    /// Most items of an order.
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = items)]
    max_items: usize,
    /// Share of the orders that break a rule, from 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    pub(crate) invalid_rate: f64,
    /// Seed of the generator; the same seed gives the same orders. Random by default.
    #[arg(long)]
    seed: Option<u64>,
}

impl Variety {
    /// Returns the allowed range of items per order.
    ///
    /// # Errors
    /// If the minimum exceeds the maximum.
    pub(crate) fn items(&self) -> anyhow::Result<RangeInclusive<usize>> {
        anyhow::ensure!(
            self.min_items <= self.max_items,
            "--min-items {} is more than --max-items {}; raise --max-items",
            self.min_items,
            self.max_items
        );
        Ok(self.min_items..=self.max_items)
    }

    /// Returns the given seed, or a random one.
    pub(crate) fn seed(&self) -> u64 {
        self.seed.unwrap_or_else(rand::random)
    }
}

/// Connection to Kafka. Environment variables (`KAFKA_BROKERS`, `KAFKA_TOPIC` and so on) set what
/// these options leave out.
#[derive(Args, Debug)]
pub(crate) struct Kafka {
    /// Topic to send to [default: KAFKA_TOPIC or `orders`].
    #[arg(long)]
    topic: Option<String>,
    /// Bootstrap brokers, separated by commas [default: KAFKA_BROKERS or `localhost:9092`].
    #[arg(long, value_name = "HOST:PORT,...")]
    brokers: Option<String>,
    /// Client id that the brokers see.
    #[arg(long, value_name = "NAME", default_value = "order-producer")]
    pub(crate) client_id: String,
    /// Longest wait for a broker, for the acknowledgement of a record, and for `--verify`; each on
    /// its own.
    #[arg(long, default_value = "25s", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Duration,
}

impl Kafka {
    /// Returns the configuration from the environment, overridden by the command line.
    ///
    /// # Errors
    /// If a variable cannot be read; the error names it.
    pub(crate) fn config(&self) -> anyhow::Result<shared::config::Kafka> {
        let mut config: shared::config::Kafka = shared::config::load("KAFKA_")?;
        if let Some(topic) = &self.topic {
            config.topic.clone_from(topic);
        }
        if let Some(brokers) = &self.brokers {
            config.brokers.clone_from(brokers);
        }
        Ok(config)
    }
}

fn items(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=1000) => Ok(count),
        _ => Err("expected a number of items from 1 to 1000".to_owned()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("expected a number from 0 to 1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn documented_command_lines_are_accepted() {
        for line in [
            "producer generate",
            "producer generate -n 3600 --min-items 1 --max-items 5 --invalid-rate 0.1",
            "producer generate --seed 42 -o orders.json",
            "producer send --file mock.json --rps 100 --invalid-json 20 --gibberish 20",
            "producer send -n 10 --interval 500ms --brokers localhost:9092 --topic orders",
            "producer send -n 10 --client-id me",
            "producer send -n 1 --verify http://localhost:8080 --api-key-file key",
            "producer erase a b-c",
        ] {
            assert!(parse(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn contradictory_command_lines_are_rejected() {
        for line in [
            "producer",
            "producer send",
            "producer send -n 1 --file mock.json",
            "producer send -n 1 --rps 1 --interval 1s",
            "producer send -n -1",
            "producer send -n 1 --api-key-file key",
            "producer generate --invalid-rate 1.1",
            "producer generate --invalid-rate NaN",
            "producer generate --min-items 0",
            "producer generate --max-items 1001",
            "producer erase",
            "producer erase a/b",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        let Command::Generate(options) = parse("producer generate --min-items 6").unwrap().command
        else {
            panic!("expected the command `generate`");
        };
        assert!(options.variety.items().is_err());
    }
}
