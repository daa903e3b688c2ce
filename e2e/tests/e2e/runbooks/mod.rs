//! Runs the commands of the pages as they are written, against a system of their own. A command
//! that is neither run nor listed with what runs it fails the test.

mod pages;
mod system;
mod table;

use std::{collections::HashMap, fmt::Write as _};

use pages::Block;
use system::System;

/// Commands that are run after every worker has stopped.
const WITHOUT_WORKERS: [&str; 4] = [
    "pg_restore",
    "worker rewind",
    "worker migrate --down",
    "worker purge",
];

/// What the output of a command contains, by the beginning of the command. `$` is its end.
const OUTPUT: [(&str, &str); 14] = [
    (
        "kcat -C -b localhost:19092 -t orders-dlq",
        "dlq-reason=malformed_json",
    ),
    ("kcat -C -b BROKER -t orders -p", " bytes"),
    ("kcat -L", "topics:"),
    ("kafka-consumer-groups.sh", "CURRENT-OFFSET"),
    ("kafka-configs.sh --describe", "configs"),
    ("kafka-configs.sh --alter", "Completed updating config"),
    ("kafka-delete-records.sh", "low_watermark"),
    ("worker dead-letters list$", "malformed_json"),
    ("worker health", "\"ok\":true"),
    ("api health", "\"ok\":true"),
    ("redis-cli HGETALL order:", "version"),
    ("redis-cli -u", "run_id:"),
    ("curl -i localhost:8080/order/", "HTTP/1.1 200"),
    ("SELECT servers", "complete_until"),
];

/// What ran a command.
enum RanBy {
    ThisTest,
    Other(&'static str),
    Nothing,
}

fn ran_by(command: &str) -> RanBy {
    match table::elsewhere(command) {
        Some(what) => RanBy::Other(what),
        None if table::is_run(command) => RanBy::ThisTest,
        None => RanBy::Nothing,
    }
}

fn is_text(block: &Block) -> bool {
    let first = block.commands.first();
    first.is_none_or(|first| table::is_text(first))
}

fn is_without_workers(block: &Block) -> bool {
    let mut commands = block.commands.iter();
    commands.any(|command| {
        WITHOUT_WORKERS
            .iter()
            .any(|start| command.starts_with(start))
    })
}

/// Runs the commands of a block in one shell. Returns what went wrong.
fn run(system: &System, block: &Block, done: &mut HashMap<Vec<String>, ()>) -> Option<String> {
    let commands: Vec<String> = block
        .commands
        .iter()
        .filter(|command| matches!(ran_by(command), RanBy::ThisTest))
        .cloned()
        .collect();
    if commands.is_empty() || done.insert(commands.clone(), ()).is_some() {
        return None;
    }
    let finished = system.run(&commands);
    let output = finished.stdout + &finished.stderr;
    let missing = OUTPUT.iter().find(|(start, expected)| {
        let is_it = |command: &String| format!("{command}$").starts_with(start);
        commands.iter().any(is_it) && !output.contains(expected)
    });
    let problem = match (finished.code, missing) {
        (Some(0), None) => return None,
        (Some(0), Some((_, expected))) => format!("prints no {expected:?}"),
        (code, _) => format!("exit code {code:?}"),
    };
    Some(format!(
        "{}:{}: {problem}\n    {}\n{output}",
        block.page,
        block.line,
        commands.join("\n    ")
    ))
}

/// Returns the list of the commands of every page, each with what ran it.
fn list(blocks: &[Block]) -> String {
    let mut text = String::new();
    for block in blocks {
        for command in &block.commands {
            let by = match ran_by(command) {
                RanBy::ThisTest => "this test",
                RanBy::Other(what) => what,
                RanBy::Nothing => continue,
            };
            let first = command.lines().next().unwrap_or_default();
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}:{} | {first} | {by}", block.page, block.line);
        }
    }
    text
}

#[test]
fn every_command_of_the_pages_runs_or_names_what_runs_it() {
    let blocks: Vec<Block> = pages::blocks()
        .into_iter()
        .filter(|block| !is_text(block))
        .collect();
    let unknown: Vec<String> = blocks
        .iter()
        .flat_map(|block| block.commands.iter().map(move |command| (block, command)))
        .filter(|(_, command)| matches!(ran_by(command), RanBy::Nothing))
        .map(|(block, command)| format!("{}:{}: {command}", block.page, block.line))
        .collect();
    assert!(
        unknown.is_empty(),
        "neither run nor listed; add them to e2e/tests/e2e/runbooks/table.rs:\n{}",
        unknown.join("\n")
    );
    let list = list(&blocks);
    assert!(
        list.lines().count() > 90,
        "the pages have more commands:\n{list}"
    );
    println!("{list}");

    let mut system = System::start();
    let (last, first): (Vec<&Block>, Vec<&Block>) =
        blocks.iter().partition(|block| is_without_workers(block));
    let mut done = HashMap::new();
    let mut problems: Vec<String> = first
        .iter()
        .filter_map(|block| run(&system, block, &mut done))
        .collect();
    system.stop_workers();
    problems.extend(
        last.iter()
            .filter_map(|block| run(&system, block, &mut done)),
    );
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
