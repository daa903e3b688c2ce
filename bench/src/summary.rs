//! Medians with their spread, which shows how reliable they are.

/// Median, minimum and maximum of several rounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Summary {
    /// Summarises `values`.
    ///
    /// # Panics
    /// If `values` is empty.
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

/// Returns the percentile `rank` (0 to 1) of `sorted` by the nearest-rank method. The values of
/// `sorted` must be in ascending order.
///
/// # Panics
/// If `sorted` is empty.
pub(crate) fn percentile(sorted: &[f64], rank: f64) -> f64 {
    let index = (sorted.len() as f64 * rank).ceil() as usize;
    sorted[index.clamp(1, sorted.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_count_is_the_mean_of_the_middle_two() {
        let summary = Summary::of([4.0, 1.0, 2.0, 9.0]);
        assert_eq!((summary.median, summary.min, summary.max), (3.0, 1.0, 9.0));
        assert_eq!(Summary::of([5.0, 1.0, 2.0]).median, 2.0);
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        for (rank, expected) in [(0.0, 1.0), (0.5, 100.0), (0.99, 198.0), (1.0, 200.0)] {
            assert_eq!(percentile(&values, rank), expected);
        }
        assert_eq!(percentile(&[7.0], 0.5), 7.0);
    }
}
