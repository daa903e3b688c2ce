//! The command line.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use humantime_serde::re::humantime;
use shared::order::OrderUid;

/// Generates orders and sends them to Kafka.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a file of made-up orders.
    Generate(Generate),
    /// Send orders from a file, or made-up ones.
    Send(Send),
    /// Erase orders: send a null value with the uid as key.
    Erase(Erase),
}

#[derive(Args, Debug)]
pub(crate) struct Generate {
    /// How many orders.
    #[arg(short = 'n', long, default_value_t = 100)]
    pub(crate) num_orders: u64,
    #[command(flatten)]
    pub(crate) variety: Variety,
    /// Where to write them: a JSON array with an order a line, without the brackets and commas for a name in `.ndjson`
    /// or `.jsonl`.
    #[arg(short, long, value_name = "FILE", default_value = "mock.json")]
    pub(crate) output: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct Send {
    #[command(flatten)]
    pub(crate) what: What,
    #[command(flatten)]
    pub(crate) variety: Variety,
    /// Records a second; 0: as fast as possible.
    #[arg(
        long,
        value_name = "RATE",
        default_value_t = 0,
        conflicts_with = "interval"
    )]
    pub(crate) rps: u32,
    /// Pause between two records, such as `500ms`.
    #[arg(long, value_parser = humantime::parse_duration)]
    pub(crate) interval: Option<Duration>,
    /// Records with JSON that ends too early, on top of the orders.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub(crate) invalid_json: u64,
    /// Records of random bytes, on top of the orders.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub(crate) gibberish: u64,
    #[command(flatten)]
    pub(crate) verify: Verify,
    #[command(flatten)]
    pub(crate) kafka: Kafka,
}

/// Whether to read the orders back.
#[derive(Args, Debug)]
pub(crate) struct Verify {
    /// Then ask the api at this address for every order, until it answers each of them or `--timeout` is over.
    #[arg(long, value_name = "URL")]
    pub(crate) verify: Option<String>,
    /// File with the API key to ask with.
    #[arg(long, value_name = "FILE", requires = "verify")]
    pub(crate) api_key_file: Option<PathBuf>,
}

/// Where the orders come from.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct What {
    /// File with a JSON array of orders, or with one order after another (NDJSON). Each is sent as it stands there.
    #[arg(long)]
    pub(crate) file: Option<PathBuf>,
    /// How many orders to make up.
    #[arg(short = 'n', long, value_name = "COUNT")]
    pub(crate) num_orders: Option<u64>,
}

#[derive(Args, Debug)]
pub(crate) struct Erase {
    /// The orders.
    #[arg(value_name = "UID", required = true, value_parser = OrderUid::parse)]
    pub(crate) uids: Vec<OrderUid>,
    #[command(flatten)]
    pub(crate) kafka: Kafka,
}

/// What made-up orders are like.
#[derive(Args, Debug)]
pub(crate) struct Variety {
    /// Fewest lines of an order.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = items)]
    min_items: usize,
    /// Most lines of an order.
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = items)]
    max_items: usize,
    /// Share of the orders that break a rule, 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    pub(crate) invalid_rate: f64,
    /// Makes the same orders again; by default another one each time.
    #[arg(long)]
    seed: Option<u64>,
}

impl Variety {
    /// How many lines an order may have.
    ///
    /// # Errors
    /// When the fewest are more than the most.
    pub(crate) fn items(&self) -> anyhow::Result<RangeInclusive<usize>> {
        anyhow::ensure!(
            self.min_items <= self.max_items,
            "--min-items {} is more than --max-items {}",
            self.min_items,
            self.max_items
        );
        Ok(self.min_items..=self.max_items)
    }

    /// The seed given, or a new one.
    pub(crate) fn seed(&self) -> u64 {
        self.seed.unwrap_or_else(rand::random)
    }
}

/// How to reach Kafka. What is not given comes from the environment (`KAFKA_BROKERS`, `KAFKA_TOPIC` and so on).
#[derive(Args, Debug)]
pub(crate) struct Kafka {
    /// Topic to send to [default: KAFKA_TOPIC or `orders`].
    #[arg(long)]
    topic: Option<String>,
    /// Bootstrap brokers, separated by commas [default: KAFKA_BROKERS or `localhost:9092`].
    #[arg(long, value_name = "HOST:PORT,...")]
    brokers: Option<String>,
    /// Name towards the brokers.
    #[arg(long, value_name = "NAME", default_value = "order-producer")]
    pub(crate) client_id: String,
    /// How long to wait for a broker, for the acknowledgement of a record, and for what `--verify` asks for.
    #[arg(long, default_value = "25s", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Duration,
}

impl Kafka {
    /// The environment's configuration, with what the command line says instead.
    ///
    /// # Errors
    /// Names the variable that cannot be read.
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
        _ => Err("an order has 1 to 1000 lines".to_owned()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a number from 0 to 1 is expected".to_owned()),
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
    fn takes_the_documented_lines() {
        for line in [
            "producer generate",
            "producer generate -n 3600 --min-items 1 --max-items 5 --invalid-rate 0.1 --seed 42 -o orders.json",
            "producer send --file mock.json --rps 100 --invalid-json 20 --gibberish 20",
            "producer send -n 10 --interval 500ms --brokers localhost:9092 --topic orders --client-id me",
            "producer send -n 1 --verify http://localhost:8080 --api-key-file key",
            "producer erase a b-c",
        ] {
            assert!(parse(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn refuses_what_makes_no_sense() {
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
            panic!("another command");
        };
        assert!(options.variety.items().is_err());
    }
}
