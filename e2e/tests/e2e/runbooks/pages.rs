//! The commands of the pages: code blocks, and quoted code of the pages with procedures.

use std::{fs, path::Path};

/// Pages whose quoted code holds commands to type.
const PROCEDURES: [&str; 2] = ["docs/runbooks.md", "docs/troubleshooting.md"];

/// A command that a page names without its arguments.
const MENTION: &str = "worker rewind";

/// A block of code, or a quoted command.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) page: String,
    /// Number of its first line.
    pub(super) line: usize,
    /// Its logical lines, without comments: a command that continues is one line.
    pub(super) commands: Vec<String>,
}

/// Returns the blocks of every page, in the order of the pages.
pub(super) fn blocks() -> Vec<Block> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut pages = vec!["README.md".to_owned(), "CONTRIBUTING.md".to_owned()];
    let docs = fs::read_dir(root.join("docs")).unwrap();
    let mut names: Vec<String> = docs
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".md"))
        .collect();
    names.sort_unstable();
    pages.extend(names.iter().map(|name| format!("docs/{name}")));
    let mut found = Vec::new();
    for page in pages {
        let text = fs::read_to_string(root.join(&page)).unwrap();
        found.extend(code_blocks(&page, &text));
        if PROCEDURES.contains(&page.as_str()) {
            found.extend(quoted(&page, &text));
        }
    }
    found
}

/// Returns the indented and the fenced blocks. Diagrams are no commands.
fn code_blocks(page: &str, text: &str) -> Vec<Block> {
    let mut found: Vec<(usize, Vec<&str>)> = Vec::new();
    let (mut fence, mut open, mut after_blank) = (None, false, true);
    let mut is_generated = false;
    for (number, line) in (1..).zip(text.lines()) {
        // A generated part holds `--help`, whose examples e2e/tests/e2e/commands.rs checks.
        is_generated = match line {
            "<!-- begin: code -->" => true,
            "<!-- end: code -->" => false,
            _ => is_generated,
        };
        if is_generated {
            continue;
        }
        if let Some(language) = line.trim_start().strip_prefix("```") {
            fence = match fence {
                None => Some(language),
                Some(_) => None,
            };
            open = false;
            continue;
        }
        let is_code = match fence {
            Some(language) => language != "mermaid",
            None => line.starts_with("    ") && (open || after_blank),
        };
        after_blank = line.trim().is_empty();
        if is_code && !after_blank {
            if !open {
                found.push((number, Vec::new()));
            }
            found.last_mut().unwrap().1.push(line);
        }
        open = is_code && !after_blank;
    }
    found
        .into_iter()
        .map(|(line, lines)| Block {
            page: page.to_owned(),
            line,
            commands: logical_lines(&lines),
        })
        .collect()
}

/// Joins lines that continue a command, and removes comments.
fn logical_lines(lines: &[&str]) -> Vec<String> {
    let indent = |line: &&str| line.len() - line.trim_start().len();
    let least = lines.iter().map(indent).min().unwrap_or_default();
    let mut commands: Vec<String> = Vec::new();
    for line in lines {
        let line = without_comment(&line[least..]);
        let continues = commands.last().is_some_and(|last| {
            line.starts_with(' ') || last.ends_with('\\') || line == "done" && last.contains(" do")
        });
        match commands.last_mut().filter(|_| continues) {
            Some(last) => {
                last.push('\n');
                last.push_str(line);
            }
            None if line.is_empty() => {}
            None => commands.push(line.to_owned()),
        }
    }
    commands
}

fn without_comment(line: &str) -> &str {
    let comment = line.find(" # ").map_or(line, |start| &line[..start]);
    match comment.trim_start().starts_with("# ") {
        true => "",
        false => comment.trim_end(),
    }
}

/// Whether quoted code is a whole command: a program and at least one argument, nothing left out.
fn is_complete(code: &str) -> bool {
    let is_cut = code.contains('…') || code.contains("...");
    code.contains(' ') && !is_cut && code != MENTION && super::table::is_command(code)
}

/// Returns quoted code that looks like a command: a program and at least one argument.
fn quoted(page: &str, text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        if text.starts_with("    ") {
            continue;
        }
        let codes = text.split('`').skip(1).step_by(2);
        for code in codes.filter(|code| is_complete(code)) {
            found.push(Block {
                page: page.to_owned(),
                line,
                commands: vec![code.to_owned()],
            });
        }
    }
    found
}
