//! Medians, and the spread that tells how far to trust them.

use serde::Serialize;

/// What several rounds gave.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Summary {
    /// Of at least one round.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            0 => f64::midpoint(values[middle - 1], values[middle]),
            _ => values[middle],
        };
        Self {
            median,
            min: values[0],
            max: values[values.len() - 1],
        }
    }
}

/// Prints one line of a table.
pub(crate) fn line(name: &str, summary: Summary) {
    println!(
        "  {name:<40} {:>10.2}   {:.2} to {:.2}",
        summary.median, summary.min, summary.max
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
        let summary = Summary::of([4.0, 1.0, 2.0, 9.0]);
        assert_eq!((summary.median, summary.min, summary.max), (3.0, 1.0, 9.0));
        assert_eq!(Summary::of([5.0, 1.0, 2.0]).median, 2.0);
    }
}
