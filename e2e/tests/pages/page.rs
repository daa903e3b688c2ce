//! The generated part of a page, between `<!-- begin: code -->` and `<!-- end: code -->`.

use std::{env, fs, path::PathBuf};

/// The command that writes the generated parts.
pub(crate) const RENEW: &str = "RENEW_PAGES=1 cargo test -p e2e --test pages";

const BEGIN: &str = "<!-- begin: code -->\n";
const END: &str = "<!-- end: code -->\n";

/// Returns the path of a file of the repository.
pub(crate) fn path(relative: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(relative)
}

/// Reads a file of the repository.
pub(crate) fn read(relative: &str) -> String {
    fs::read_to_string(path(relative)).unwrap_or_else(|error| panic!("{relative}: {error}"))
}

/// Asserts that the generated part of the page is `generated`. Writes the part instead if
/// `RENEW_PAGES` is set.
#[track_caller]
pub(crate) fn compare(page: &str, generated: &str) {
    let before = read(page);
    let (head, rest) = before.split_once(BEGIN).unwrap();
    let (part, tail) = rest.split_once(END).unwrap();
    let generated = format!("\n{}\n\n", generated.trim());
    if env::var_os("RENEW_PAGES").is_some() {
        return fs::write(path(page), format!("{head}{BEGIN}{generated}{END}{tail}")).unwrap();
    }
    let line = generated
        .lines()
        .zip(part.lines())
        .find(|(expected, found)| expected != found);
    assert!(
        part == generated,
        "{page} differs from the code; renew it with `{RENEW}`\n(expected, found): {line:#?}"
    );
}

/// Asserts that the file is `generated`. Writes it instead if `RENEW_PAGES` is set.
#[track_caller]
pub(crate) fn compare_file(file: &str, generated: &str) {
    if env::var_os("RENEW_PAGES").is_some() {
        return fs::write(path(file), generated).unwrap();
    }
    assert!(
        read(file) == generated,
        "{file} differs from the code; renew it with `{RENEW}`"
    );
}

/// Formats a Markdown table.
pub(crate) fn table(columns: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let head: Vec<String> = columns.iter().map(ToString::to_string).collect();
    let rule = format!("|{}\n", "---|".repeat(columns.len()));
    let rows: String = rows
        .into_iter()
        .map(|cells| {
            let cells = cells.iter().map(|cell| cell.replace('|', "\\|"));
            line(&cells.collect::<Vec<_>>())
        })
        .collect();
    line(&head) + &rule + &rows
}
