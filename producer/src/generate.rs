//! Generated orders, and files of them.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, Write};

use anyhow::anyhow;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use shared::order::sample::{Defect, Generator};
use shared::runtime::output;

use crate::cli::{Format, Generate, Variety};
use crate::input::is_dash;

/// Iterator over generated orders: an exact number of them, of which an exact share breaks a rule.
pub(crate) struct Orders {
    seed: u64,
    generator: Generator,
    /// Separate from the generator's random numbers: the share of invalid orders does not change
    /// the valid ones.
    rng: StdRng,
    defects: Vec<Defect>,
    left: u64,
    left_invalid: u64,
    invalid: u64,
}

impl Orders {
    /// Prepares `count` orders.
    ///
    /// # Errors
    /// If the options in `variety` contradict each other.
    pub(crate) fn new(count: u64, variety: &Variety) -> anyhow::Result<Self> {
        let seed = variety.seed();
        // Rounding is intended. A count that `f64` cannot represent would take years to send.
        let invalid = (count as f64 * variety.invalid_rate).round() as u64;
        Ok(Self {
            seed,
            generator: Generator::new(seed, variety.items()?),
            rng: StdRng::seed_from_u64(seed),
            // An order with 1001 items is as large as 300 others and would dominate the file.
            defects: Defect::of_rules()
                .filter(|defect| *defect != Defect::TooManyItems)
                .collect(),
            left: count,
            left_invalid: invalid,
            invalid,
        })
    }

    /// Returns the seed that generates the same orders again.
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// Number of orders that remain.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }
}

impl Iterator for Orders {
    /// JSON document of an order.
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        if self.left == 0 {
            return None;
        }
        let order = self.generator.next()?;
        // Selection sampling: invalid orders are at random positions, and their number is exact.
        let is_invalid = self.rng.random_range(0..self.left) < self.left_invalid;
        self.left -= 1;
        match self.defects.choose(&mut self.rng) {
            Some(defect) if is_invalid => {
                self.left_invalid -= 1;
                Some(defect.apply(&order))
            }
            _ => Some(order.to_json()),
        }
    }
}

/// The summary with `--json`.
#[derive(Serialize)]
struct Summary<'a> {
    file: &'a str,
    orders: u64,
    invalid: u64,
    seed: u64,
}

/// Runs `producer generate`.
pub(crate) fn run(options: &Generate) -> anyhow::Result<()> {
    let orders = Orders::new(options.num_orders, &options.variety)?;
    let (seed, invalid) = (orders.seed, orders.invalid);
    let path = &options.output;
    let file = path.display().to_string();
    if is_dash(path) {
        let stdout = BufWriter::new(io::stdout().lock());
        output::written(write(orders, format(options), stdout))?;
    } else {
        File::create(path)
            .and_then(|file| write(orders, format(options), BufWriter::new(file)))
            .map_err(|error| {
                anyhow!("cannot write {file}: {error}; write a path in a writable folder, or -")
            })?;
    }
    let summary = match options.json {
        true => serde_json::to_string(&Summary {
            file: &file,
            orders: options.num_orders,
            invalid,
            seed,
        })?,
        false => format!(
            "{} orders, {invalid} of them invalid, in {file} (seed {seed})",
            options.num_orders
        ),
    };
    // Standard output holds the orders.
    match is_dash(path) {
        true => output::note(summary),
        false => output::line(summary)?,
    }
    Ok(())
}

/// Returns the format of the option, or the one that the name implies.
fn format(options: &Generate) -> Format {
    let is_lines = |extension: &OsStr| extension == "ndjson" || extension == "jsonl";
    let path = &options.output;
    options.format.unwrap_or(
        match is_dash(path) || path.extension().is_some_and(is_lines) {
            true => Format::Ndjson,
            false => Format::Array,
        },
    )
}

fn write(orders: Orders, format: Format, to: impl Write) -> io::Result<()> {
    match format {
        Format::Array => write_array(orders, to),
        Format::Ndjson => write_lines(orders, to),
    }
}

fn write_lines(orders: Orders, mut to: impl Write) -> io::Result<()> {
    for order in orders {
        to.write_all(&order)?;
        to.write_all(b"\n")?;
    }
    to.flush()
}

fn write_array(orders: Orders, mut to: impl Write) -> io::Result<()> {
    let mut before = "[\n";
    for order in orders {
        to.write_all(before.as_bytes())?;
        to.write_all(&order)?;
        before = ",\n";
    }
    to.write_all(if before == ",\n" { b"\n]\n" } else { b"[]\n" })?;
    to.flush()
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use shared::order::{Reason, UnknownFields, decode};

    use super::*;
    use crate::cli::{Cli, Command};

    fn options(arguments: &str) -> Generate {
        let line = format!("producer generate {arguments}");
        let Command::Generate(options) = Cli::parse_from(line.split(' ')).command else {
            panic!("expected the command `generate`");
        };
        options
    }

    fn orders(arguments: &str) -> Orders {
        let options = options(arguments);
        Orders::new(options.num_orders, &options.variety).unwrap()
    }

    #[test]
    fn the_name_implies_the_format_unless_an_option_sets_it() {
        for (arguments, expected) in [
            ("-o a.json", Format::Array),
            ("-o ndjson", Format::Array),
            ("-o a.ndjson", Format::Ndjson),
            ("-o a.jsonl", Format::Ndjson),
            ("-o -", Format::Ndjson),
            ("-o - --format array", Format::Array),
            ("-o a.json --format ndjson", Format::Ndjson),
        ] {
            assert_eq!(format(&options(arguments)), expected, "{arguments}");
        }
    }

    #[test]
    fn the_share_of_invalid_orders_is_exact() {
        for (count, rate, expected) in
            [(1000, 0.1, 100), (1000, 0.0, 0), (50, 1.0, 50), (3, 0.5, 2)]
        {
            let invalid = orders(&format!("-n {count} --invalid-rate {rate} --seed 1"))
                .filter_map(|json| decode(&json, UnknownFields::Reject).err())
                .inspect(|rejection| assert_eq!(rejection.reason, Reason::InvalidOrder))
                .count();
            assert_eq!(invalid, expected);
        }
    }

    #[test]
    fn valid_orders_depend_only_on_the_seed() {
        let good: Vec<_> = orders("-n 200 --seed 9").collect();
        assert_eq!(orders("-n 200 --seed 9").collect::<Vec<_>>(), good);
        let same = orders("-n 200 --seed 9 --invalid-rate 0.2")
            .zip(&good)
            .filter(|(order, good)| order == *good)
            .count();
        assert_eq!(same, 160);
        assert_ne!(
            orders("-n 1").collect::<Vec<_>>(),
            orders("-n 1").collect::<Vec<_>>()
        );
    }

    #[test]
    fn files_hold_one_document_per_order() {
        for count in [0, 1, 3] {
            let arguments = format!("-n {count} --seed 5");
            let mut array = Vec::new();
            write_array(orders(&arguments), &mut array).unwrap();
            let array: Vec<serde_json::Value> = serde_json::from_slice(&array).unwrap();
            let mut lines = Vec::new();
            write_lines(orders(&arguments), &mut lines).unwrap();
            let lines: Vec<serde_json::Value> = lines
                .split(|byte| *byte == b'\n')
                .filter(|line| !line.is_empty())
                .map(|line| serde_json::from_slice(line).unwrap())
                .collect();
            assert_eq!(array.len(), count);
            assert_eq!(array, lines);
        }
    }
}
