//! The command line of a program: what `--help` says about its variables, the command
//! `completions`, and the parsers of values.

use std::{io, str::FromStr, time::Duration};

use clap::{Args, CommandFactory, Parser};
use clap_complete::Shell;

use super::{output, process::Program};
use crate::config::{self, Variable};

/// Columns of a help text. Equals clap's own limit.
const COLUMNS: usize = 100;
/// Indentation of the meaning of a variable, as clap indents the help of an option.
const INDENT: &str = "          ";

const EXIT_CODES: &str = "\
Exit codes:
  0  done; also when the reader of standard output is gone, as in `| head`
  1  failed; one line on standard error begins with `error:`
  2  the command line is wrong";

/// Parses the command line of `program`. Prints an error or a help text and exits if the command
/// line asks for that.
pub fn parse<C: Parser>(program: &Program) -> C {
    let matches = with_variables(C::command(), program.name).get_matches();
    C::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// Adds the exit codes and the variables of the program to the text of `--help`.
fn with_variables(command: clap::Command, program: &str) -> clap::Command {
    let codes = command
        .get_after_long_help()
        .map_or_else(String::new, |text| format!("\n{text}"));
    command.after_long_help(format!("{EXIT_CODES}{codes}\n\n{}", variables(program)))
}

/// Lists the variables that a program reads, with defaults and meanings.
fn variables(program: &str) -> String {
    let mut text = "Environment variables:".to_owned();
    for variable in config::variables().filter(|variable| variable.is_read_by(program)) {
        let Variable { name, default, .. } = variable;
        text += &format!("\n  {name}");
        if variable.is_secret {
            text += &format!(", or {name}_FILE: the path of a file that holds it");
        }
        text += "\n";
        text += &wrapped(&variable.summary());
        if let Some(default) = default {
            text += &format!("\n{INDENT}[default: {default}]");
        }
    }
    text
}

fn wrapped(text: &str) -> String {
    let mut lines = Vec::new();
    let mut line = INDENT.to_owned();
    for word in text.split(' ') {
        let is_empty = line.len() == INDENT.len();
        if !is_empty && line.chars().count() + 1 + word.chars().count() > COLUMNS {
            lines.push(std::mem::replace(&mut line, INDENT.to_owned()));
        } else if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines.join("\n")
}

/// `completions SHELL`: prints the script with which a shell completes the command line of a
/// program.
#[derive(Args, Clone, Copy, Debug)]
pub struct Completions {
    /// The shell.
    shell: Shell,
}

impl Completions {
    /// Prints the script for the command line `C`.
    ///
    /// # Errors
    /// If standard output cannot be written.
    pub fn print<C: CommandFactory>(self, program: &Program) -> anyhow::Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut C::command(), program.name, &mut script);
        output::written(io::Write::write_all(&mut io::stdout().lock(), &script))
    }
}

/// Parses a duration such as `5s`.
///
/// # Errors
/// If the text is not a duration. The error says what to write.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| format!("not {}", config::DURATION))
}

/// Parses a whole number.
///
/// # Errors
/// If the text is not a number that fits the type. The error says what to write.
pub fn number<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    let parsed = u64::from_str(text).ok();
    parsed
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| format!("not {}", config::whole_number::<T>(0)))
}
