//! The results as an HTML page.

use std::{fmt::Write, fs, path::Path};

use anyhow::Context;

use crate::{
    part::Part,
    results::{Kind, Results},
    table::{COLUMNS, cells},
};

const HEAD: &str = "\
<!doctype html>
<html lang='en'>
<meta charset='utf-8'>
<meta name='viewport' content='width=device-width, initial-scale=1'>
<title>order-service: measurements</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933 }
  body { max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
  h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.5rem }
  p.facts { color: #5b6774 }
  table { border-collapse: collapse; width: 100% }
  table { font-size: 14px; font-variant-numeric: tabular-nums }
  th, td { text-align: left; vertical-align: top }
  th, td { padding: .35rem .6rem; border-bottom: 1px solid #d9dee4 }
  th { color: #5b6774; font-weight: 600 }
  td:first-child { min-width: 15rem }
  td:nth-child(n+2) { white-space: nowrap }
  tr.part td { white-space: normal; background: #f4f6f8; color: #5b6774; font-size: 13px }
  .yes { color: #1a7f4b; font-weight: 600 } .no { color: #c2410c; font-weight: 600 }
</style>
<h1>order-service: measurements</h1>
<p>Medians of the rounds, with minimum and maximum in parentheses. A ratio is the median of the
rounds' ratios of ours to the floor; both sides take turns on one machine. Steal is the share of the
wanted CPU time that the host gave to other guests. Method:
<a href='../../docs/performance.md'>docs/performance.md</a>.</p>
";

/// Writes `index.html` from the last run of each kind.
///
/// # Errors
/// If a result cannot be read or a file cannot be written.
pub(crate) fn write(results: &Path) -> anyhow::Result<()> {
    let mut html = HEAD.to_owned();
    for kind in Kind::ALL {
        if let Some(run) = Results::last(kind, results)? {
            section(&mut html, kind, &run);
        }
    }
    let path = results.join("index.html");
    fs::write(&path, html).with_context(|| path.display().to_string())
}

fn section(html: &mut String, kind: Kind, run: &Results) {
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
    table(html, &run.parts);
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

/// Escapes the characters that have a meaning in markup.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
