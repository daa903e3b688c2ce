//! The command line.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use shared::order::{InvalidUid, OrderUid};
use shared::runtime::command::{Completions, duration, number};
use shared::runtime::output::Usage;

/// Generates orders and sends them to Kafka.
///
/// Environment variables configure the connection. Docs: docs/configuration.md, docs/kafka.md.
#[derive(Debug, Parser)]
#[command(version, after_long_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// The subcommand.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Exit codes in addition to those of all programs.
const EXIT_CODES: &str = "\
  3  `send --skip-bad`: all orders were sent, except for the parts of the file that it skipped
  130, 143  ended by SIGINT (Ctrl-C) or SIGTERM; what was sent before is acknowledged";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a file of generated orders.
    #[command(after_long_help = GENERATE_EXAMPLES)]
    Generate(Generate),
    /// Send orders from a file, or generated ones.
    #[command(after_long_help = SEND_EXAMPLES)]
    Send(Send),
    /// Erase orders: send a record with the uid as key and a null value.
    ///
    /// Reads all uids before it sends the first record, and asks before it sends. An erased order
    /// stays erased until a producer sends it again.
    #[command(after_long_help = ERASE_EXAMPLES)]
    Erase(Erase),
    /// Print a script with which a shell completes the commands.
    ///
    /// Example for bash: `source <(producer completions bash)`
    Completions(Completions),
}

const GENERATE_EXAMPLES: &str = "\
Examples:
  producer generate -n 3600 --invalid-rate 0.1 -o orders.json
  producer generate -n 1000000 -o - | producer send --file -";

const SEND_EXAMPLES: &str = "\
Examples:
  producer send -n 1000 --rps 100
  producer send --file orders.ndjson --skip-bad --json
  producer send -n 1 --verify http://localhost:8080";

const ERASE_EXAMPLES: &str = "\
Examples:
  producer erase b563feb7b2b84b6test --verify http://localhost:8080
  producer erase --file uids.txt --yes
  psql -Atc \"SELECT order_uid FROM orders WHERE customer_id = 'test'\" | producer erase - --yes";

#[derive(Args, Debug)]
pub(crate) struct Generate {
    /// Number of orders.
    #[arg(
        short = 'n',
        long,
        value_name = "COUNT",
        default_value_t = 100,
        value_parser = number::<u64>
    )]
    pub(crate) num_orders: u64,
    #[command(flatten)]
    pub(crate) variety: Variety,
    /// Output file; `-` is standard output.
    #[arg(short, long, value_name = "FILE", default_value = "mock.json")]
    pub(crate) output: PathBuf,
    /// Format of the file. By default `ndjson` for `-` and for names in `.ndjson` or `.jsonl`, else
    /// `array`.
    #[arg(long)]
    pub(crate) format: Option<Format>,
    /// Print the summary as JSON: `file`, `orders`, `invalid`, `seed`.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Format of a file of orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One JSON array, with one order per line.
    Array,
    /// One order per line.
    Ndjson,
}

#[derive(Args, Debug)]
pub(crate) struct Send {
    #[command(flatten)]
    pub(crate) source: OrderSource,
    #[command(flatten)]
    pub(crate) variety: Variety,
    /// Skip what is not JSON in the file and continue. Each skipped place is reported, and the exit
    /// code is 3. Without this option, the first one ends the run. Orders that are JSON but break a
    /// rule are always sent: the worker dead-letters them.
    #[arg(long, conflicts_with = "num_orders")]
    pub(crate) skip_bad: bool,
    /// Records per second; 0 sends as fast as possible.
    #[arg(
        long,
        value_name = "RATE",
        default_value_t = 0,
        value_parser = number::<u32>,
        conflicts_with = "interval"
    )]
    pub(crate) rps: u32,
    /// Time between two records, such as `500ms`.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) interval: Option<Duration>,
    /// Number of additional records with truncated JSON.
    #[arg(long, value_name = "COUNT", default_value_t = 0, value_parser = number::<u64>)]
    pub(crate) invalid_json: u64,
    /// Number of additional records of random bytes.
    #[arg(long, value_name = "COUNT", default_value_t = 0, value_parser = number::<u64>)]
    pub(crate) gibberish: u64,
    #[command(flatten)]
    pub(crate) verify: Verify,
    /// Print the summary as one JSON object, and nothing else, to standard output.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) kafka: Kafka,
}

/// Options that read the orders back.
#[derive(Args, Clone, Debug)]
pub(crate) struct Verify {
    /// After sending, request every order from the api at this http:// address. Fails if the api
    /// does not return all of them within `--timeout`; after `erase`, if it still returns one.
    #[arg(long, value_name = "URL", value_parser = http_url)]
    pub(crate) verify: Option<String>,
    /// File that holds the API key for `--verify`.
    #[arg(long, value_name = "FILE", requires = "verify")]
    pub(crate) api_key_file: Option<PathBuf>,
}

/// Where the orders come from.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct OrderSource {
    /// File with a JSON array of orders, or with one order after another (NDJSON); `-` is standard
    /// input. Each order is sent unchanged.
    #[arg(long)]
    pub(crate) file: Option<PathBuf>,
    /// Number of orders to generate.
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = number::<u64>)]
    pub(crate) num_orders: Option<u64>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Erase {
    /// Uids of the orders. `-` reads uids from standard input, one per line.
    #[arg(value_name = "UID", required_unless_present = "file", value_parser = UidOrStdin::parse)]
    pub(crate) uids: Vec<UidOrStdin>,
    /// File with one uid per line; `-` is standard input.
    #[arg(long)]
    pub(crate) file: Option<PathBuf>,
    /// Erase without a question.
    #[arg(short, long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) verify: Verify,
    /// Print the summary as one JSON object, and nothing else, to standard output.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) kafka: Kafka,
}

/// A uid on the command line, or `-`. An order with the uid `-` can be erased with a file.
#[derive(Clone, Copy, Debug)]
pub(crate) enum UidOrStdin {
    Uid(OrderUid),
    Stdin,
}

impl UidOrStdin {
    fn parse(text: &str) -> Result<Self, InvalidUid> {
        match text {
            "-" => Ok(Self::Stdin),
            text => OrderUid::parse(text).map(Self::Uid),
        }
    }

    /// Whether this is `-`.
    pub(crate) fn is_stdin(&self) -> bool {
        matches!(self, Self::Stdin)
    }

    /// Returns the uid; `None` for `-`.
    pub(crate) fn uid(&self) -> Option<OrderUid> {
        match self {
            Self::Uid(uid) => Some(*uid),
            Self::Stdin => None,
        }
    }
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
    #[arg(long, value_parser = number::<u64>)]
    seed: Option<u64>,
}

impl Variety {
    /// Returns the allowed range of items per order.
    ///
    /// # Errors
    /// If the minimum exceeds the maximum.
    pub(crate) fn items(&self) -> anyhow::Result<RangeInclusive<usize>> {
        let (min, max) = (self.min_items, self.max_items);
        let problem = || {
            Usage(format!(
                "--min-items {min} is more than --max-items {max}; raise --max-items"
            ))
        };
        anyhow::ensure!(min <= max, problem());
        Ok(min..=max)
    }

    /// Returns the given seed, or a random one.
    pub(crate) fn seed(&self) -> u64 {
        self.seed.unwrap_or_else(rand::random)
    }
}

const MIN_TIMEOUT: Duration = Duration::from_millis(1);
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// Connection to Kafka. Environment variables (`KAFKA_BROKERS`, `KAFKA_TOPIC` and so on) set what
/// these options leave out.
#[derive(Args, Clone, Debug)]
pub(crate) struct Kafka {
    /// Topic to send to [default: KAFKA_TOPIC or `orders`].
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    topic: Option<String>,
    /// Bootstrap brokers, separated by commas [default: KAFKA_BROKERS or `localhost:9092`].
    #[arg(long, value_name = "HOST:PORT,...", value_parser = NonEmptyStringValueParser::new())]
    brokers: Option<String>,
    /// Client id that the brokers see.
    #[arg(long, value_name = "NAME", default_value = "order-producer")]
    pub(crate) client_id: String,
    /// Longest wait for a broker, for the acknowledgement of a record, and for `--verify`; each on
    /// its own.
    #[arg(long, value_name = "DURATION", default_value = "25s", value_parser = timeout)]
    pub(crate) timeout: Duration,
}

impl Kafka {
    /// Returns the configuration from the environment, overridden by the command line.
    ///
    /// # Errors
    /// If a variable cannot be read; the error names it.
    pub(crate) fn config(&self) -> anyhow::Result<shared::config::Kafka> {
        let mut config: shared::config::Kafka = shared::config::load("KAFKA_")?;
        config.check_security()?;
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
        _ => Err("not a number of items from 1 to 1000; write digits only".to_owned()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("not a number from 0 to 1; write 0.1 for 10 %".to_owned()),
    }
}

/// librdkafka takes a timeout of 0 for no timeout.
fn timeout(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        timeout if (MIN_TIMEOUT..=MAX_TIMEOUT).contains(&timeout) => Ok(timeout),
        _ => Err("not a duration from 1ms to 1day; write 25s".to_owned()),
    }
}

fn http_url(text: &str) -> Result<String, String> {
    match text.strip_prefix("http://") {
        Some(address) if !address.is_empty() => Ok(text.trim_end_matches('/').to_owned()),
        _ => Err("not an http:// URL; write http://HOST:PORT".to_owned()),
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
            "producer send --file - --skip-bad --json",
            "producer generate -o - --format array --json",
            "producer erase a b-c",
            "producer erase a - --yes --verify http://localhost:8080/",
            "producer erase --file uids.txt -y --json",
            "producer completions zsh",
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
            "producer send -n 1 --skip-bad",
            "producer send -n 1 --topic=",
            "producer send -n 1 --brokers=",
            "producer completions sh",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        let Command::Generate(options) = parse("producer generate --min-items 6").unwrap().command
        else {
            panic!("expected the command `generate`");
        };
        assert!(options.variety.items().unwrap_err().is::<Usage>());
    }

    #[test]
    fn an_error_names_the_option_the_value_and_what_to_write() {
        for (option, value, expected) in [
            ("--interval", "5", "not a duration; write 5s or 250ms"),
            (
                "--timeout",
                "0s",
                "not a duration from 1ms to 1day; write 25s",
            ),
            (
                "--timeout",
                "1us",
                "not a duration from 1ms to 1day; write 25s",
            ),
            (
                "--timeout",
                "2d",
                "not a duration from 1ms to 1day; write 25s",
            ),
            (
                "--rps",
                "4294967296",
                "not a whole number from 0 to 4294967295; write digits only",
            ),
            (
                "--min-items",
                "0",
                "not a number of items from 1 to 1000; write digits only",
            ),
            (
                "--invalid-rate",
                "10%",
                "not a number from 0 to 1; write 0.1 for 10 %",
            ),
            (
                "--verify",
                "https://api",
                "not an http:// URL; write http://HOST:PORT",
            ),
            (
                "--verify",
                "http://",
                "not an http:// URL; write http://HOST:PORT",
            ),
        ] {
            let error = parse(&format!("producer send -n 1 {option} {value}")).unwrap_err();
            let text = error.to_string();
            assert!(
                text.starts_with(&format!("error: invalid value '{value}' for '{option} <"))
                    && text.contains(&format!(">': {expected}\n")),
                "{text}"
            );
        }
    }
}
