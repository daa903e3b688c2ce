//! `worker dead-letters edit`.

use std::io::{self, IsTerminal};

use clap::Args;
use shared::{
    config::{self, Kafka},
    order::{self, UnknownFields},
    runtime::output,
};

use super::{
    editor::{PrivateFile, layout},
    fate::{Candidate, Options},
    forecast::{self, Accepted},
    marks::Marks,
    replay::How,
    row::Row,
    show::Place,
};
use crate::{
    config::Worker,
    kafka::dead_letter::{self, DeadLetter, Reader},
};

/// Edits the value of one dead letter and sends the result back.
#[derive(Debug, Args)]
pub struct Edit {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    how: How,
}

impl Edit {
    pub(super) fn run(&self, kafka: &Kafka) -> anyhow::Result<()> {
        let reader = Reader::open(kafka)?;
        let letter = self.place.read(&reader)?;
        if let Some(obstacle) = letter.obstacle(self.how.as_new) {
            anyhow::bail!(obstacle.words());
        }
        let worker: Worker = config::load("WORKER_")?;
        let marks = Marks::new(reader.topic())?;
        // Before the person edits anything.
        self.check_erased(&letter, &marks)?;
        let Some(edited) = self.edited(&letter, worker.unknown_fields())? else {
            return output::line("the value did not change; nothing was sent");
        };
        if let Err(error) = self.send(kafka, &edited, &marks) {
            let path = edited.file.keep();
            let path = path.display();
            anyhow::bail!(
                "{}; the edited value is kept in {path}; to send it, run the command again with \
                 EDITOR='cp {path}'",
                output::describe(&error)
            );
        }
        marks.set(&[Row::of(&letter).place], self.how.as_new)
    }

    fn send(&self, kafka: &Kafka, edited: &Edited, marks: &Marks) -> anyhow::Result<()> {
        let letter = &edited.letter;
        // The value may have got a uid, or the order was erased meanwhile.
        self.check_erased(letter, marks)?;
        let outcome = marks.wait(forecast::against(marks.postgres(), edited.accepted));
        let sender = dead_letter::Replay::new(kafka)?;
        marks.wait(sender.send(letter, self.how.as_new))?;
        let topic = letter.source_topic().unwrap_or_default();
        // It is sent, even if the output cannot be written.
        let _ = output::line(format_args!("sent to topic {topic}; this {outcome}"));
        Ok(())
    }

    /// Checks that the record does not bring back an erased order unasked.
    fn check_erased(&self, letter: &DeadLetter, marks: &Marks) -> anyhow::Result<()> {
        let options = Options {
            as_new: self.how.as_new,
            force: self.how.force,
            again: true,
        };
        let candidate = Candidate::of(letter, options);
        let erased = marks.erased(&candidate.orders)?;
        let fate = candidate.fate(None, &erased, options);
        match fate.rejection() {
            Some(problem) => anyhow::bail!("{problem}; nothing was sent"),
            None => Ok(()),
        }
    }

    /// Lets a person edit the value until a worker would accept it. None if the value did not
    /// change.
    fn edited(&self, letter: &DeadLetter, fields: UnknownFields) -> anyhow::Result<Option<Edited>> {
        let Some(value) = &letter.record.value else {
            anyhow::bail!("its value is null, which erases the order; there is nothing to edit");
        };
        let original = layout(value);
        let file = PrivateFile::create(&original)?;
        loop {
            let text = file.edit()?;
            if without_last_break(&text) == without_last_break(&original) {
                return Ok(None);
            }
            let mut edited = letter.clone();
            edited.record.value = Some(without_last_break(&text).to_vec());
            match check(letter, &edited, self.how.as_new, fields) {
                Ok(accepted) => {
                    return Ok(Some(Edited {
                        letter: edited,
                        accepted,
                        file,
                    }));
                }
                Err(problem) => {
                    output::note(problem);
                    anyhow::ensure!(
                        io::stdin().is_terminal(),
                        "a worker would reject the value; nothing was sent"
                    );
                    output::confirm(false, "edit the value again")?;
                }
            }
        }
    }
}

/// A dead letter with a new value, which a worker accepts.
struct Edited {
    letter: DeadLetter,
    accepted: Accepted,
    file: PrivateFile,
}

/// Returns `text` without its last line break, which editors add.
fn without_last_break(text: &[u8]) -> &[u8] {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    text.strip_suffix(b"\r").unwrap_or(text)
}

/// Checks `edited` as a worker does, and that it still is the order of the dead letter.
///
/// # Errors
/// Returns what is wrong, with the broken rules in words.
fn check(
    letter: &DeadLetter,
    edited: &DeadLetter,
    as_new: bool,
    fields: UnknownFields,
) -> Result<Accepted, String> {
    let accepted = forecast::check(edited, as_new, fields).map_err(|rejection| {
        let lines = order::explain(&rejection.detail);
        let lines = lines.iter().map(|line| format!("\n  {line}"));
        format!("{rejection}{}", lines.collect::<String>())
    })?;
    // A record may have another key, but not because of a slip in the editor.
    match letter.value_uid().or_else(|| letter.key_uid()) {
        Some(uid) if uid != accepted.uid => Err(format!(
            "order_uid: {} is not the order of this dead letter; write {uid}",
            accepted.uid
        )),
        _ => Ok(accepted),
    }
}

#[cfg(test)]
mod tests {
    use shared::order::sample;

    use super::*;
    use crate::dead_letters::row::tests::letter;

    /// Returns a dead letter whose value is an order with this uid.
    fn order(uid: &str) -> DeadLetter {
        let mut order = sample::Generator::new(1, 1..=1).next().unwrap();
        order.order_uid = uid.into();
        letter("invalid_order", "", &order.to_json())
    }

    fn check_edit(letter: &DeadLetter, edited: &DeadLetter) -> Result<(), String> {
        check(letter, edited, false, UnknownFields::Ignore).map(drop)
    }

    #[test]
    fn a_broken_rule_is_explained() {
        let mut edited = order("key");
        let value = String::from_utf8(edited.record.value.clone().unwrap()).unwrap();
        let value = value.replace("\"locale\":\"", "\"locale\":\"_");
        edited.record.value = Some(value.into_bytes());
        let problem = check_edit(&order("key"), &edited).unwrap_err();
        let lines: Vec<&str> = problem.lines().collect();
        assert_eq!(lines[0], "invalid_order: locale: bcp47");
        assert!(
            lines[1].starts_with("  locale: 2 to 256 characters"),
            "{problem}"
        );
    }

    #[test]
    fn the_order_stays_the_same() {
        assert_eq!(check_edit(&order("key"), &order("key")), Ok(()));
        let problem = check_edit(&order("key"), &order("slip")).unwrap_err();
        assert!(
            problem.contains("slip") && problem.contains("write key"),
            "{problem}"
        );
        // The key and the value of a record may differ.
        assert_eq!(check_edit(&order("other"), &order("other")), Ok(()));
        assert!(check_edit(&order("other"), &order("key")).is_err());
        // The value has no uid yet.
        let broken = letter("malformed_json", "not JSON", b"{");
        assert_eq!(check_edit(&broken, &order("key")), Ok(()));
        assert!(check_edit(&broken, &order("slip")).is_err());
        let mut without_key = broken;
        without_key.record.key = None;
        assert_eq!(check_edit(&without_key, &order("any")), Ok(()));
    }

    #[test]
    fn the_line_break_of_an_editor_is_no_change() {
        for text in [&b"{}"[..], b"{}\n", b"{}\r\n"] {
            assert_eq!(without_last_break(text), b"{}");
        }
    }
}
