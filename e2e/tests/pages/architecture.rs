//! `docs/architecture.md`: the files and functions that it names exist.

use std::path::Path;

use crate::{page, source};

const PAGE: &str = "docs/architecture.md";
/// The heading of the table of files and functions.
const DECISIONS: &str = "## Where is it decided?\n";

/// Returns the quoted code of a line.
fn quotes(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Whether quoted code is a path of this repository.
fn is_path(code: &str) -> bool {
    let has_extension = [".rs", ".lua", ".sql", ".md"]
        .iter()
        .any(|end| code.ends_with(end));
    let is_name = code
        .chars()
        .all(|c| c.is_alphanumeric() || "/_.-".contains(c));
    is_name && (has_extension || code.ends_with('/'))
}

#[test]
fn every_file_of_the_page_exists() {
    let mut checked = 0;
    for line in page::read(PAGE).lines() {
        // A name without a folder is beside the file before it.
        let mut folder = Path::new("");
        for code in quotes(line).filter(|code| is_path(code)) {
            let path = match code.contains('/') && page::path(code).exists() {
                true => Path::new(code).to_owned(),
                false => folder.join(code),
            };
            assert!(
                page::path(path.to_str().unwrap()).exists(),
                "{PAGE} names {}",
                path.display()
            );
            checked += 1;
            if page::path(code).exists() {
                folder = Path::new(code).parent().unwrap();
            }
        }
    }
    assert!(checked > 30, "only {checked} paths were found");
}

/// Returns the rows of the table: question, file and functions.
fn decisions(page: &str) -> Vec<(&str, &str, Vec<&str>)> {
    let (_, section) = page.split_once(DECISIONS).unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    rows.map(|row| {
        let mut cells = row.trim_matches('|').split('|');
        let mut cell = || cells.next().unwrap().trim();
        let (question, file, functions) = (cell(), cell(), cell());
        let file = quotes(file).next().unwrap();
        (question, file, quotes(functions).collect())
    })
    .collect()
}

#[test]
fn every_function_of_the_table_is_in_its_file() {
    let page = page::read(PAGE);
    let decisions = decisions(&page);
    assert!(decisions.len() >= 10);
    for (question, file, functions) in decisions {
        let text = page::read(file);
        for function in functions {
            let name = function.rsplit("::").next().unwrap();
            let is_there = match file.ends_with(".rs") {
                true => ["fn", "const", "static"].iter().any(|kind| {
                    let found = |end| text.contains(&format!("{kind} {name}{end}"));
                    found("(") || found("<") || found(":")
                }),
                false => text.contains(name),
            };
            assert!(is_there, "{PAGE}, \"{question}\": {file} has no {function}");
        }
    }
}

/// Whether a source has the function, which may have type parameters.
fn has_function(source: &str, name: &str) -> bool {
    ["(", "<"]
        .iter()
        .any(|end| source.contains(&format!("fn {name}{end}")))
}

/// Whether a source has an `impl` block that names the type and has the function.
fn has_method(source: &str, owner: &str, function: &str) -> bool {
    source.split("\nimpl").skip(1).any(|text| {
        let block = text.split("\n}").next().unwrap_or_default();
        let (head, body) = block.split_once('{').unwrap_or_default();
        let mut names = head.split(|c: char| !c.is_alphanumeric());
        names.any(|name| name == owner) && has_function(body, function)
    })
}

#[test]
fn a_method_belongs_to_its_type() {
    let source =
        "\nimpl One {\n    fn run() {}\n}\nimpl<T> Run for Two<T> {\n    fn stop() {}\n}\n";
    assert!(has_method(source, "One", "run"));
    assert!(has_method(source, "Two", "stop"));
    assert!(!has_method(source, "One", "stop"));
    assert!(!has_method(source, "Two", "run"));
}

#[test]
fn every_method_of_the_page_exists() {
    let sources: Vec<String> = ["shared/src", "worker/src", "api/src"]
        .into_iter()
        .flat_map(source::files)
        .map(|file| page::read(&file))
        .collect();
    let page = page::read(PAGE);
    let methods = page.lines().flat_map(quotes).filter_map(|code| {
        let (owner, function) = code.split_once("::")?;
        let is_type = owner.starts_with(char::is_uppercase);
        is_type.then_some((owner, function))
    });
    for (owner, function) in methods {
        let is_there = sources
            .iter()
            .any(|source| has_method(source, owner, function));
        assert!(
            is_there,
            "{PAGE} names {owner}::{function}, which does not exist"
        );
    }
}
