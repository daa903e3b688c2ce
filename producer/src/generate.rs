//! Generated orders, and files of them.

use std::fs::File;
use std::io::{BufWriter, Write};

use anyhow::Context;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use shared::order::sample::{Defect, Generator};

use crate::cli::{Generate, Variety};

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

/// Runs `producer generate`.
pub(crate) fn run(options: &Generate) -> anyhow::Result<()> {
    let orders = Orders::new(options.num_orders, &options.variety)?;
    let (seed, invalid) = (orders.seed, orders.invalid);
    let path = &options.output;
    let as_lines = path
        .extension()
        .is_some_and(|extension| extension == "ndjson" || extension == "jsonl");
    File::create(path)
        .and_then(|file| {
            let file = BufWriter::new(file);
            if as_lines {
                write_lines(orders, file)
            } else {
                write_array(orders, file)
            }
        })
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!(
        "{} orders, {invalid} of them invalid, in {} (seed {seed})",
        options.num_orders,
        path.display()
    );
    Ok(())
}

fn write_lines(orders: Orders, mut to: impl Write) -> std::io::Result<()> {
    for order in orders {
        to.write_all(&order)?;
        to.write_all(b"\n")?;
    }
    to.flush()
}

fn write_array(orders: Orders, mut to: impl Write) -> std::io::Result<()> {
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

    fn orders(arguments: &str) -> Orders {
        let line = format!("producer generate {arguments}");
        let Command::Generate(options) = Cli::parse_from(line.split(' ')).command else {
            panic!("expected the command `generate`");
        };
        Orders::new(options.num_orders, &options.variety).unwrap()
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
