//! Figures as text tables.

use crate::{
    part::{Figure, Goal},
    summary::Summary,
};

/// Column heads of every table.
pub(crate) const COLUMNS: [&str; 6] = ["figure", "ours", "floor", "ratio", "goal", "reached"];

/// Returns the cells of one row: medians, with the minimum and the maximum in parentheses.
pub(crate) fn cells(figure: &Figure) -> [String; COLUMNS.len()] {
    let values = |values: &[f64]| spread(values, &figure.unit);
    [
        figure.what.clone(),
        values(&figure.ours),
        match figure.floor[..] {
            [] => String::new(),
            _ => values(&figure.floor),
        },
        figure
            .ratios()
            .map_or_else(String::new, |ratios| spread(&ratios, "")),
        figure.goal.map_or_else(String::new, |goal| match goal {
            Goal::AtLeast(least) => format!("≥ {}", number(least)),
            Goal::AtMost(most) => format!("≤ {}", number(most)),
        }),
        match figure.is_reached() {
            None => String::new(),
            Some(true) => "yes".to_owned(),
            Some(false) => "NO".to_owned(),
        },
    ]
}

fn spread(values: &[f64], unit: &str) -> String {
    let summary = Summary::of(values.iter().copied());
    let median = format!("{} {unit}", number(summary.median));
    match values.len() {
        1 => median.trim_end().to_owned(),
        _ => format!(
            "{} ({} to {})",
            median.trim_end(),
            number(summary.min),
            number(summary.max)
        ),
    }
}

/// Formats a number with three digits, or with all digits before the decimal point.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => {
            let whole = format!("{value:.0}");
            let split = whole.len() - 3;
            // Correct below a billion. No figure here is larger.
            match split {
                ..=3 => format!("{} {}", &whole[..split], &whole[split..]),
                _ => format!(
                    "{} {} {}",
                    &whole[..split - 3],
                    &whole[split - 3..split],
                    &whole[split..]
                ),
            }
        }
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Prints a table of figures to standard output.
pub(crate) fn print<'f>(figures: impl IntoIterator<Item = &'f Figure>) {
    let mut rows = vec![COLUMNS.map(str::to_owned)];
    rows.extend(figures.into_iter().map(cells));
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or_default()
    };
    let widths: [usize; COLUMNS.len()] = std::array::from_fn(width);
    for row in &rows {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        println!("{}", cells.join("  ").trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_to_three_digits() {
        for (value, text) in [
            (0.9, "0.90"),
            (12.34, "12.3"),
            (128.0, "128"),
            (24_047.4, "24 047"),
            (1_234_567.0, "1 234 567"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn a_line_shows_value_and_target() {
        let figure = Figure::new("x", "ms", [3.0, 1.0, 2.0]).goal(Goal::AtMost(1.5));
        let expected = ["x", "2.00 ms (1.00 to 3.00)", "", "", "≤ 1.50", "NO"];
        assert_eq!(cells(&figure), expected);
    }
}
