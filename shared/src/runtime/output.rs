//! What a command prints: results on standard output, notes and errors on standard error.
//!
//! No function panics when the reader of a pipe is gone, as in `worker dead-letters list | head`.
//! `println!` would.

use std::{
    fmt::Display,
    io::{self, ErrorKind, IsTerminal, Write},
    process::ExitCode,
};

use anyhow::Context;
use clap::builder::{
    Styles,
    styling::{AnsiColor, Style},
};
use serde::Serialize;

/// The reader of standard output is gone, so a command has nothing left to print for.
///
/// A command that only prints returns this error, and the program exits with 0: the reader has what
/// it wanted. A command that does more than print, or that has another verdict, continues.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the reader of standard output is gone")]
pub struct Closed;

/// An error in the command line that clap cannot find. The program exits with 2.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Prints text to standard output as it is.
///
/// # Errors
/// [`Closed`] if the reader is gone; another error if standard output cannot be written.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    written(
        stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush()),
    )
}

/// Prints a line to standard output.
///
/// # Errors
/// As for [`print()`].
pub fn line(text: impl Display) -> anyhow::Result<()> {
    written(writeln!(io::stdout().lock(), "{text}"))
}

/// Prints a value to standard output as one line of JSON.
///
/// # Errors
/// As for [`print()`], or if the value has no JSON form.
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(serde_json::to_string(value).context("cannot write a result as JSON")?)
}

/// Returns the outcome of a write to standard output: [`Closed`] for a closed pipe.
///
/// # Errors
/// If the write failed.
pub fn written(outcome: io::Result<()>) -> anyhow::Result<()> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Closed.into()),
        outcome => outcome.context("cannot write to standard output"),
    }
}

/// Treats a closed standard output as success, for a command whose effect does not depend on what
/// it prints.
///
/// # Errors
/// Every error except [`Closed`].
pub fn unless_closed(outcome: anyhow::Result<()>) -> anyhow::Result<()> {
    match outcome {
        Err(error) if is_closed(&error) => Ok(()),
        outcome => outcome,
    }
}

/// Prints a line to standard error: what a person wants to know, and a script does not. Standard
/// error may be closed.
pub fn note(text: impl Display) {
    let _reader_may_be_gone = writeln!(io::stderr().lock(), "{text}");
}

/// Prints a line to standard error that begins with `warning:`. The command continues.
pub fn warn(text: impl Display) {
    let style = AnsiColor::Yellow.on_default().bold();
    prefixed(style, "warning:", text);
}

/// Prints a line to standard error that begins with `error:`, like the errors of clap.
pub fn error(text: impl Display) {
    prefixed(*Styles::styled().get_error(), "error:", text);
}

fn prefixed(style: Style, prefix: &str, text: impl Display) {
    let mut stderr = anstream::stderr().lock();
    let _reader_may_be_gone = writeln!(stderr, "{style}{prefix}{style:#} {text}");
}

/// Prints the error of a command and returns its exit code: 2 for an error in the command line, 0
/// if only the reader of standard output is gone, else 1.
pub fn fail(error: &anyhow::Error) -> ExitCode {
    if is_closed(error) {
        return ExitCode::SUCCESS;
    }
    self::error(describe(error));
    if error.is::<Usage>() {
        note("\nFor more information, try '--help'.");
        return ExitCode::from(2);
    }
    ExitCode::FAILURE
}

fn is_closed(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.is::<Closed>())
}

/// Returns an error and its causes as one line. Omits a cause that the text before it already
/// quotes, as the errors of many libraries do.
pub fn describe(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let cause = one_line(cause);
        if cause.is_empty() || line.contains(&cause) {
            continue;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&cause);
    }
    line
}

/// Replaces each line break and the blanks around it by a space.
fn one_line(text: &(impl Display + ?Sized)) -> String {
    let mut line = String::new();
    for part in text
        .to_string()
        .lines()
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(part);
    }
    line
}

/// Asks whether to `action`, a phrase such as `erase 2 orders`, unless `--yes` was given.
///
/// # Errors
/// If the answer is not yes, or standard input is not a terminal.
pub fn confirm(yes: bool, action: &str) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    anyhow::ensure!(
        io::stdin().is_terminal() && io::stderr().is_terminal(),
        "cannot ask whether to {action}: this is not a terminal; add --yes to do it without a \
         question"
    );
    write!(io::stderr().lock(), "About to {action}. Continue? [y/N] ")?;
    let mut answer = String::new();
    io::stdin()
        .read_line(&mut answer)
        .context("cannot read the answer")?;
    anyhow::ensure!(is_yes(&answer), "not confirmed; nothing was done");
    Ok(())
}

fn is_yes(answer: &str) -> bool {
    let answer = answer.trim();
    ["y", "yes"]
        .iter()
        .any(|yes| answer.eq_ignore_ascii_case(yes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read a.txt: {source}; write another path")]
    struct Quoting {
        source: io::Error,
    }

    fn missing() -> io::Error {
        io::Error::from_raw_os_error(2)
    }

    #[test]
    fn an_error_is_one_line_and_quotes_each_cause_once() {
        let error = anyhow::Error::new(Quoting { source: missing() }).context("--file");
        assert_eq!(
            describe(&error),
            "--file: cannot read a.txt: No such file or directory (os error 2); write another path"
        );
        let error = anyhow::Error::new(missing())
            .context("a.txt")
            .context("cannot start\n  a\r\n");
        assert_eq!(
            describe(&error),
            "cannot start a: a.txt: No such file or directory (os error 2)"
        );
    }

    #[test]
    fn only_a_closed_standard_output_is_no_failure() {
        let broken = || io::Error::from(ErrorKind::BrokenPipe);
        let closed = written(Err(broken())).unwrap_err().context("listing");
        assert!(unless_closed(Err(closed)).is_ok());
        // The connection to a server may break too, which is a failure.
        let connection = anyhow::Error::new(broken()).context("cannot read from Postgres");
        assert!(unless_closed(Err(connection)).is_err());
        let full = written(Err(ErrorKind::StorageFull.into()));
        assert!(unless_closed(full).is_err());
    }

    #[test]
    fn only_yes_confirms() {
        for yes in ["y", "Y\n", "yes\r\n", " Yes "] {
            assert!(is_yes(yes), "{yes:?}");
        }
        for no in ["", "\n", "n", "no", "yy", "yes please"] {
            assert!(!is_yes(no), "{no:?}");
        }
        assert!(confirm(true, "erase 2 orders").is_ok());
    }
}
