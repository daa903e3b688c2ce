//! The results as an HTML page with plots.

use std::{fmt::Write, fs, path::Path};

use anyhow::Context;

use crate::{
    part::Part,
    plot::{self, Labels, escape},
    report::{Kind, Run},
    table::{COLUMNS, cells},
};

const HEAD: &str = "\
<!doctype html>
<html lang='en'>
<meta charset='utf-8'>
<meta name='viewport' content='width=device-width, initial-scale=1'>
<title>order-service: what was measured</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
  h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.5rem }
  p.facts { color: #5b6774 }
  table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums }
  th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid #d9dee4; vertical-align: top }
  th { color: #5b6774; font-weight: 600 }
  td:first-child { min-width: 15rem }
  td:nth-child(n+2) { white-space: nowrap }
  tr.part td { white-space: normal; background: #f4f6f8; color: #5b6774; font-size: 13px }
  .yes { color: #1a7f4b; font-weight: 600 } .no { color: #c2410c; font-weight: 600 }
  img { max-width: 100%; height: auto; display: block; margin: 1rem 0 }
</style>
<h1>order-service: what was measured</h1>
<p>Medians of the rounds; in parentheses the least and the most. A ratio is the median of the rounds' ratios of ours to the
floor, both sides in turn on one machine. Steal is the part of the CPU time wanted meanwhile that the machine's host gave
to others. How: <a href='../../docs/performance.md'>docs/performance.md</a>.</p>
";

/// Writes `index.html` and its plots from the last run of each kind.
///
/// # Errors
/// If a result cannot be read or a file cannot be written.
pub(crate) fn write(results: &Path) -> anyhow::Result<()> {
    let mut html = HEAD.to_owned();
    for kind in Kind::ALL {
        if let Some(run) = Run::last(kind, results)? {
            section(&mut html, kind, &run, results)?;
        }
    }
    save(results, "index.html", &html)
}

fn section(html: &mut String, kind: Kind, run: &Run, results: &Path) -> anyhow::Result<()> {
    let title = match kind {
        Kind::Latest => "make bench",
        Kind::Large => "make bench-large",
    };
    // Writing to a string does not fail.
    let _ = writeln!(
        html,
        "<h2>{title}</h2>\n<p class='facts'>{} · commit {} · {}</p>",
        run.date,
        escape(&run.commit),
        escape(&run.machine.summary())
    );
    let plots = plots(run);
    let (first, others) = match kind {
        Kind::Latest => plots.split_at(plots.len().min(1)),
        Kind::Large => plots.split_at(0),
    };
    for (name, svg) in &plots {
        save(results, name, svg)?;
    }
    images(html, first);
    table(html, &run.parts);
    images(html, others);
    Ok(())
}

fn images(html: &mut String, plots: &[(&str, String)]) {
    for (name, _) in plots {
        let _ = writeln!(html, "<img src='{name}' alt='{name}'>");
    }
}

fn table(html: &mut String, parts: &[Part]) {
    let columns: String = COLUMNS.map(|column| format!("<th>{column}</th>")).concat();
    let _ = writeln!(html, "<table>\n<tr>{columns}</tr>");
    for part in parts {
        let _ = writeln!(
            html,
            "<tr class='part'><td colspan='{}'>{}: {}{}</td></tr>",
            COLUMNS.len(),
            part.name,
            escape(&part.method),
            part.steal()
                .map_or_else(String::new, |steal| format!("; {steal}"))
        );
        for figure in &part.figures {
            let class = match figure.is_reached() {
                None => "",
                Some(true) => "yes",
                Some(false) => "no",
            };
            let cells = cells(figure).map(|cell| format!("<td>{}</td>", escape(&cell)));
            let [others @ .., last] = &cells;
            let last = last.replacen("<td>", &format!("<td class='{class}'>"), 1);
            let _ = writeln!(html, "<tr>{}{last}</tr>", others.concat());
        }
    }
    html.push_str("</table>\n");
}

/// Returns the file name and content of each plot.
fn plots(run: &Run) -> Vec<(&'static str, String)> {
    let figures: Vec<_> = run.parts.iter().flat_map(|part| &part.figures).collect();
    let mut plots = Vec::new();
    if figures.iter().any(|figure| figure.goal.is_some()) {
        plots.push(("goals.svg", plot::goals(&figures)));
    }
    let rows = |title| Labels {
        title,
        x: "orders stored",
        y: "µs of CPU",
        is_log: true,
        marks: &[],
    };
    let labels = [
        (
            "latency",
            "latency.svg",
            Labels {
                title: "From produce to visible",
                x: "ms",
                y: "% of the orders",
                is_log: true,
                marks: &[(15.0, 50.0, "goal, p50"), (50.0, 99.0, "goal, p99")],
            },
        ),
        ("cold", "cold.svg", rows("What a cold read costs")),
        (
            "growth",
            "growth.svg",
            rows("What a new order and a cold read cost"),
        ),
        (
            "workers",
            "workers.svg",
            Labels {
                title: "What an order costs with several workers",
                x: "workers",
                y: "µs of CPU",
                is_log: false,
                marks: &[],
            },
        ),
    ];
    for (part, file, labels) in labels {
        if let Some(part) = run.part(part)
            && !part.curves.is_empty()
        {
            plots.push((file, plot::curves(&labels, &part.curves)));
        }
    }
    plots
}

fn save(results: &Path, name: &str, content: &str) -> anyhow::Result<()> {
    let path = results.join(name);
    fs::write(&path, content).with_context(|| path.display().to_string())
}
