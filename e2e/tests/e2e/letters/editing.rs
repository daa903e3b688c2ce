use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use e2e::Stack;
use shared::order::sample::Generator;

use super::{assert_contains, json, letter, replayed, send_letters, send_rejected};

/// A folder for editors and the private files, removed on drop.
struct Desk(PathBuf);

impl Desk {
    fn create() -> Self {
        let folder = std::env::temp_dir().join(format!("desk-{:016x}", rand::random::<u64>()));
        fs::create_dir_all(folder.join("private")).unwrap();
        Self(folder)
    }

    /// Writes an editor that runs these lines of bash with the file as `$1`.
    fn editor(&self, lines: &str) -> String {
        let path = self.0.join("editor");
        fs::write(&path, format!("#!/bin/bash\n{lines}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        path.to_string_lossy().into_owned()
    }

    #[track_caller]
    fn assert_clean(&self) {
        let left = fs::read_dir(self.0.join("private")).unwrap().count();
        assert_eq!(left, 0, "a value was left behind");
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        // A panic while unwinding would hide the first one.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn an_edited_dead_letter_is_checked_and_sent_with_its_version() {
    let stack = Stack::builder("edit").workers(1).apis(1).start();
    send_rejected(&stack);
    let (_, sent) = stack.progress();
    let row = json(&stack, &["list", "--uid", "one"]).remove(0);
    let (partition, offset) = (row["partition"].to_string(), row["offset"].to_string());
    let desk = Desk::create();
    let private = desk.0.join("private").to_string_lossy().into_owned();
    let edit = |lines: &str| {
        let editor = desk.editor(lines);
        let command = [
            "dead-letters",
            "edit",
            "--partition",
            &partition,
            "--offset",
            &offset,
        ];
        let variables = [("EDITOR", editor.as_str()), ("XDG_RUNTIME_DIR", &private)];
        let finished = stack.command_with("worker", &command, &variables);
        desk.assert_clean();
        finished
    };

    assert_contains(&edit("true").succeeded(), &["nothing was sent"]);
    let failed = edit("sed -i 's/no_zip!/12345/' \"$1\"; exit 3").failed();
    assert_contains(&failed, &["exit status: 3", "nothing was sent"]);
    let other = edit("sed -i 's/no_zip!/still_bad/' \"$1\"").failed();
    assert_contains(
        &other,
        &[
            "delivery.zip: 1 to 16 letters, digits, spaces or dashes",
            "nothing was sent",
        ],
    );
    let renamed = edit("sed -i 's/no_zip!/1/; s/\"one\"/\"two\"/' \"$1\"").failed();
    assert_contains(&renamed, &["order_uid", "write one"]);
    assert_eq!(stack.progress().1, sent);
    assert_eq!(replayed(&stack), Vec::<String>::new());

    // The file is private, and its directory too.
    let modes = "stat -c %a \"$1\" \"$(dirname \"$1\")\" >\"$0.modes\"; ";
    let printed = edit(&format!("{modes}sed -i 's/no_zip!/12345/' \"$1\"")).succeeded();
    assert_contains(&printed, &["sent to topic", "stores the order one"]);
    let modes = fs::read_to_string(desk.0.join("editor.modes")).unwrap();
    assert_eq!(modes, "600\n700\n");
    stack.await_status("one", 200);
    assert_eq!(stack.progress().1, sent + 1);
    assert_eq!(replayed(&stack), ["one"]);
    let stored = stack.database().order("one");
    let document = stored.document.unwrap();
    assert_eq!(document["delivery"]["zip"], "12345");
    assert_eq!(
        stored.version.offset,
        row["source_offset"].as_i64().unwrap()
    );
    assert_eq!(
        stored.version.partition,
        row["source_partition"].as_i64().unwrap() as i32
    );
}

#[test]
fn an_edited_value_that_cannot_be_sent_is_kept() {
    let stack = Stack::builder("kept").start();
    send_letters(&stack, &[letter("no-such-topic", 0, 7)]);
    let desk = Desk::create();
    let private = desk.0.join("private").to_string_lossy().into_owned();
    let order = Generator::new(1, 1..=1).next().unwrap().to_json();
    fs::write(desk.0.join("order"), &order).unwrap();
    let editor = desk.editor("cp \"${0%/*}/order\" \"$1\"");
    let command = ["dead-letters", "edit", "--partition", "0", "--offset", "0"];
    let variables = [("EDITOR", editor.as_str()), ("XDG_RUNTIME_DIR", &private)];
    let said = stack.command_with("worker", &command, &variables).failed();
    let (_, path) = said.split_once("the edited value is kept in ").unwrap();
    let (path, _) = path.split_once(';').unwrap();
    assert_eq!(fs::read(path).unwrap(), order, "{said}");
    assert_contains(&said, &[&format!("EDITOR='cp {path}'"), "no-such-topic"]);
}
