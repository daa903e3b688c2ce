//! Plots as SVG text.

use std::fmt::Write;

use crate::{
    part::{Curve, Figure, Goal},
    summary::Summary,
    table::number,
};

const FONT: &str = "font-family='system-ui, sans-serif' font-size='13'";
const INK: &str = "#1f2933";
const FAINT: &str = "#d9dee4";
const GOOD: &str = "#1a7f4b";
const BAD: &str = "#c2410c";
/// Colours that readers with red-green colour blindness can also distinguish.
const COLOURS: [&str; 5] = ["#0b62a4", "#d97706", "#1a7f4b", "#8b3fa8", "#475569"];

/// An axis that maps values to pixels.
#[derive(Clone, Copy)]
struct Axis {
    from: f64,
    to: f64,
    start: f64,
    length: f64,
    is_log: bool,
}

impl Axis {
    fn at(&self, value: f64) -> f64 {
        let scale = |value: f64| if self.is_log { value.ln() } else { value };
        let share = (scale(value) - scale(self.from)) / (scale(self.to) - scale(self.from));
        self.start + share.clamp(0.0, 1.0) * self.length
    }

    /// Returns round values for the labels of the axis.
    fn ticks(&self) -> Vec<f64> {
        let mut ticks = Vec::new();
        if self.is_log {
            let mut power = 10_f64.powf(self.from.log10().floor());
            while power <= self.to * 1.001 {
                ticks.extend([1.0, 2.0, 5.0].map(|digit| digit * power));
                power *= 10.0;
            }
            if self.to / self.from > 1000.0 {
                ticks.retain(|tick| (tick.log10() - tick.log10().round()).abs() < 1e-6);
            }
        } else {
            let rough = (self.to - self.from) / 5.0;
            let power = 10_f64.powf(rough.log10().floor());
            let digits = [1.0, 2.0, 5.0, 10.0];
            let step = digits
                .iter()
                .map(|digit| digit * power)
                .find(|step| *step >= rough);
            let step = step.unwrap_or(rough);
            let mut tick = self.from;
            while tick <= self.to * 1.001 {
                ticks.push(tick);
                tick += step;
            }
        }
        ticks.retain(|tick| (self.from * 0.999..=self.to * 1.001).contains(tick));
        ticks
    }
}

fn open(width: f64, height: f64, title: &str) -> String {
    format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' height='{height}' {FONT} \
         fill='{INK}'><title>{title}</title><rect width='100%' height='100%' fill='white'/>\n",
        title = escape(title)
    )
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, colour: &str, words: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(
        svg,
        "<text x='{x:.1}' y='{y:.1}' text-anchor='{anchor}' fill='{colour}'>{}</text>",
        escape(words)
    );
}

fn line(svg: &mut String, (x1, y1): (f64, f64), (x2, y2): (f64, f64), colour: &str, width: f64) {
    let _ = writeln!(
        svg,
        "<line x1='{x1:.1}' y1='{y1:.1}' x2='{x2:.1}' y2='{y2:.1}' stroke='{colour}' stroke-width='{width}'/>"
    );
}

fn dot(svg: &mut String, x: f64, y: f64, radius: f64, colour: &str, opacity: f64) {
    let _ = writeln!(
        svg,
        "<circle cx='{x:.1}' cy='{y:.1}' r='{radius}' fill='{colour}' fill-opacity='{opacity}'/>"
    );
}

/// Escapes the characters that have a meaning in markup.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('\'', "&#39;")
}

/// Plots every figure with a goal on one scale: 1 is the goal, more is better. A dot is a round, a
/// bar is the median.
pub(crate) fn goals(figures: &[&Figure]) -> String {
    const WIDTH: f64 = 940.0;
    const LEFT: f64 = 310.0;
    const RIGHT: f64 = 250.0;
    const ROW: f64 = 30.0;
    const TOP: f64 = 44.0;
    let judged: Vec<(&Figure, Goal, Vec<f64>)> = figures
        .iter()
        .filter_map(|figure| Some((*figure, figure.goal?, figure.judged())))
        .collect();
    let bottom = TOP + ROW * judged.len() as f64;
    let better = |goal, value: f64| match goal {
        Goal::AtLeast(least) => value / least,
        Goal::AtMost(most) => most / value,
    };
    let axis = Axis {
        from: 0.25,
        to: 20.0,
        start: LEFT,
        length: WIDTH - LEFT - RIGHT,
        is_log: true,
    };
    let mut svg = open(WIDTH, bottom + 34.0, "How far the goals are reached");
    for tick in axis.ticks() {
        let x = axis.at(tick);
        line(&mut svg, (x, TOP - 8.0), (x, bottom), FAINT, 1.0);
        text(
            &mut svg,
            x,
            bottom + 18.0,
            "middle",
            INK,
            &format!("{tick}×"),
        );
    }
    let goal = axis.at(1.0);
    line(&mut svg, (goal, TOP - 8.0), (goal, bottom), INK, 2.0);
    text(&mut svg, goal, TOP - 16.0, "middle", INK, "goal");
    text(&mut svg, WIDTH - RIGHT, TOP - 16.0, "end", INK, "better →");
    for (row, (figure, goal, values)) in judged.iter().enumerate() {
        let y = TOP + ROW * (row as f64 + 0.5);
        let colour = match figure.is_reached() {
            Some(true) => GOOD,
            _ => BAD,
        };
        text(&mut svg, LEFT - 12.0, y + 4.0, "end", INK, &figure.what);
        for value in values {
            dot(
                &mut svg,
                axis.at(better(*goal, *value)),
                y,
                4.0,
                colour,
                0.35,
            );
        }
        let median = Summary::of(values.iter().copied()).median;
        let x = axis.at(better(*goal, median));
        line(&mut svg, (x, y - 9.0), (x, y + 9.0), colour, 3.0);
        let unit = match figure.floor[..] {
            [] => figure.unit.as_str(),
            _ => "of the floor",
        };
        let (sign, limit) = match goal {
            Goal::AtLeast(limit) => ("≥", limit),
            Goal::AtMost(limit) => ("≤", limit),
        };
        let words = format!("{} {unit}, goal {sign} {}", number(median), number(*limit));
        text(
            &mut svg,
            WIDTH - RIGHT + 12.0,
            y + 4.0,
            "start",
            colour,
            &words,
        );
    }
    svg + "</svg>\n"
}

/// Labels of a plot of curves.
pub(crate) struct Labels<'l> {
    pub(crate) title: &'l str,
    pub(crate) x: &'l str,
    pub(crate) y: &'l str,
    /// Whether the x axis is logarithmic.
    pub(crate) is_log: bool,
    /// Points to mark, each with a label.
    pub(crate) marks: &'l [(f64, f64, &'l str)],
}

/// Plots curves over common axes. The y axis begins at 0.
pub(crate) fn curves(labels: &Labels<'_>, curves: &[Curve]) -> String {
    const WIDTH: f64 = 720.0;
    const HEIGHT: f64 = 360.0;
    const LEFT: f64 = 62.0;
    const RIGHT: f64 = 170.0;
    const TOP: f64 = 48.0;
    const BOTTOM: f64 = 50.0;
    let points = || curves.iter().flat_map(|curve| &curve.points).copied();
    let marks = || labels.marks.iter().map(|(x, y, _)| (*x, *y));
    let all = || points().chain(marks());
    let most = |value: fn((f64, f64)) -> f64| all().map(value).fold(f64::MIN, f64::max);
    let least = all().map(|(x, _)| x).fold(f64::MAX, f64::min);
    let x = Axis {
        from: if labels.is_log { least } else { 0.0 },
        to: most(|point| point.0),
        start: LEFT,
        length: WIDTH - LEFT - RIGHT,
        is_log: labels.is_log,
    };
    let y = Axis {
        from: 0.0,
        to: most(|point| point.1) * 1.05,
        start: HEIGHT - BOTTOM,
        length: -(HEIGHT - BOTTOM - TOP),
        is_log: false,
    };
    let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
    let mut svg = open(WIDTH, HEIGHT, labels.title);
    text(&mut svg, LEFT, 18.0, "start", INK, labels.title);
    text(&mut svg, LEFT, 36.0, "start", "#5b6774", labels.y);
    for tick in y.ticks() {
        let at = y.at(tick);
        line(&mut svg, (LEFT, at), (right, at), FAINT, 1.0);
        text(
            &mut svg,
            LEFT - 8.0,
            at + 4.0,
            "end",
            INK,
            &format!("{tick:.0}"),
        );
    }
    for tick in x.ticks() {
        let at = x.at(tick);
        line(&mut svg, (at, bottom), (at, bottom + 5.0), INK, 1.0);
        let words = match tick {
            1e6.. => format!("{:.0} M", tick / 1e6),
            1e4.. => format!("{:.0} k", tick / 1e3),
            _ => format!("{tick}"),
        };
        text(&mut svg, at, bottom + 20.0, "middle", INK, &words);
    }
    line(&mut svg, (LEFT, bottom), (right, bottom), INK, 1.0);
    text(&mut svg, right, HEIGHT - 10.0, "end", "#5b6774", labels.x);
    for (mark_x, mark_y, words) in labels.marks {
        let (at_x, at_y) = (x.at(*mark_x), y.at(*mark_y));
        line(&mut svg, (at_x, bottom), (at_x, at_y), BAD, 1.0);
        dot(&mut svg, at_x, at_y, 4.0, BAD, 1.0);
        text(&mut svg, at_x + 8.0, at_y + 16.0, "start", BAD, words);
    }
    let mut named = Vec::new();
    for (curve, colour) in curves.iter().zip(COLOURS.iter().cycle()) {
        let path: Vec<String> = curve
            .points
            .iter()
            .map(|point| format!("{:.1},{:.1}", x.at(point.0), y.at(point.1)))
            .collect();
        let _ = writeln!(
            svg,
            "<polyline points='{}' fill='none' stroke='{colour}' stroke-width='2'/>",
            path.join(" ")
        );
        if curve.points.len() <= 10 {
            for point in &curve.points {
                dot(&mut svg, x.at(point.0), y.at(point.1), 4.0, colour, 1.0);
            }
        }
        if let Some(last) = curve.points.last() {
            named.push((y.at(last.1), curve.name.as_str(), *colour));
        }
    }
    // Names are next to the ends of the curves, but never overlap.
    named.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut free = f64::MIN;
    for (at, name, colour) in named {
        let at = at.max(free);
        free = at + 17.0;
        text(&mut svg, right + 10.0, at + 4.0, "start", colour, name);
    }
    svg + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logarithmic_axis_gives_each_factor_the_same_room() {
        let axis = Axis {
            from: 1.0,
            to: 100.0,
            start: 0.0,
            length: 200.0,
            is_log: true,
        };
        assert!((axis.at(10.0) - 100.0).abs() < 1e-9);
        assert_eq!(axis.ticks(), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
    }

    #[test]
    fn a_linear_axis_has_round_ticks() {
        let axis = Axis {
            from: 0.0,
            to: 95.0,
            start: 0.0,
            length: 1.0,
            is_log: false,
        };
        assert_eq!(axis.ticks(), [0.0, 20.0, 40.0, 60.0, 80.0]);
    }

    #[test]
    fn the_name_of_a_figure_is_no_markup() {
        let figure = Figure::new("<a & b>", "ms", [1.0]).goal(Goal::AtMost(2.0));
        let svg = goals(&[&figure]);
        assert!(svg.contains("&lt;a &amp; b&gt;") && !svg.contains("<a &"));
    }
}
