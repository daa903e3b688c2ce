//! Rust source files, parsed.

use std::{fs, path::Path};

use syn::{Attribute, Expr, ExprLit, Lit, Meta};

use crate::page;

/// Parses a source file of the repository.
pub(crate) fn parse(relative: &str) -> syn::File {
    syn::parse_file(&page::read(relative)).unwrap_or_else(|error| panic!("{relative}: {error}"))
}

/// Returns the paths of all `.rs` files below a folder of the repository, sorted.
pub(crate) fn files(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    collect(&page::path(folder), folder, &mut found);
    found.sort();
    found
}

fn collect(folder: &Path, relative: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{relative}/{}", entry.file_name().to_str().unwrap());
        match entry.file_type().unwrap().is_dir() {
            true => collect(&entry.path(), &name, found),
            false if name.ends_with(".rs") => found.push(name),
            false => {}
        }
    }
}

/// Returns a doc comment as one line.
pub(crate) fn doc(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| {
        let Meta::NameValue(pair) = &attribute.meta else {
            return None;
        };
        let text = pair.path.is_ident("doc").then(|| text(&pair.value))?;
        Some(text?.trim().to_owned())
    });
    lines.collect::<Vec<_>>().join(" ").trim().to_owned()
}

/// Returns the value of a string literal.
pub(crate) fn text(expression: &Expr) -> Option<String> {
    match expression {
        Expr::Lit(ExprLit {
            lit: Lit::Str(text),
            ..
        }) => Some(text.value()),
        _ => None,
    }
}
