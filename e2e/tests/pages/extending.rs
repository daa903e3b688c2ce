//! The table of `docs/extending.md`, compared with the diffs in `docs/extending`.
//! `scripts/extending-test` applies and compiles them.

use crate::page;

const PAGE: &str = "docs/extending.md";
/// The changes in the order of the page, each with its title.
const CHANGES: [(&str, &str); 6] = [
    ("optional-field", "optional field"),
    ("required-field", "required field"),
    ("rule", "rule"),
    ("dead-letter-reason", "dead-letter reason"),
    ("list-filter", "list filter"),
    ("variable", "variable"),
];

/// Limits of the optional field.
const MAX_FILES: usize = 8;
const MAX_LINES: usize = 25;

/// Returns the files of a diff, each with the number of lines that the change writes.
fn files(diff: &str) -> Vec<(&str, usize)> {
    let mut files = Vec::new();
    for line in diff.lines() {
        if let Some(file) = line.strip_prefix("+++ b/") {
            files.push((file, 0));
        } else if line.starts_with('+') && !line.starts_with("+++ ") {
            files.last_mut().unwrap().1 += 1;
        }
    }
    files
}

fn diff(change: &str) -> String {
    page::read(&format!("docs/extending/{change}.diff"))
}

#[test]
fn the_page_lists_the_files_of_each_change() {
    let rows = CHANGES.iter().map(|(change, title)| {
        let diff = diff(change);
        let files = files(&diff);
        let lines: usize = files.iter().map(|(_, lines)| lines).sum();
        let list = files
            .iter()
            .map(|(file, lines)| format!("`{file}` {lines}"));
        vec![
            format!("[{title}](extending/{change}.diff)"),
            files.len().to_string(),
            lines.to_string(),
            list.collect::<Vec<_>>().join(", "),
        ]
    });
    let columns = ["change", "files", "lines", "lines written, by file"];
    page::compare(PAGE, &page::table(&columns, rows));
}

#[test]
fn an_optional_field_is_a_small_change() {
    let diff = diff("optional-field");
    let files = files(&diff);
    let lines: usize = files.iter().map(|(_, lines)| lines).sum();
    assert!(files.len() <= MAX_FILES, "{files:?}");
    assert!(lines <= MAX_LINES, "{files:?}");
}
