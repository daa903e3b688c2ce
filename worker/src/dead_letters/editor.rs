//! The editor of the person at the terminal, and the private file that it opens.

use std::{
    env,
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use serde::de::IgnoredAny;
use shared::runtime::output;
use tokio::signal::unix::{SignalKind, signal};

/// The editor if neither VISUAL nor EDITOR is set.
const DEFAULT_EDITOR: &str = "vi";

/// A file that only this user can read, in a directory of its own, because editors leave backups
/// next to it. Dropping the value removes both, and so does a signal that ends the process, unless
/// the file is kept.
pub(super) struct PrivateFile {
    directory: PathBuf,
    path: PathBuf,
    is_editing: Arc<AtomicBool>,
    is_kept: bool,
}

impl PrivateFile {
    /// Creates a file with `content`.
    ///
    /// # Errors
    /// When the directory or the file cannot be written.
    pub(super) fn create(content: &[u8]) -> anyhow::Result<Self> {
        // The runtime directory of a user is in memory.
        let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let parent = runtime.filter(|path| path.is_dir());
        Self::create_in(&parent.unwrap_or_else(env::temp_dir), content)
    }

    fn create_in(parent: &Path, content: &[u8]) -> anyhow::Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let name = format!(
            "dead-letter-{}-{}",
            std::process::id(),
            now.unwrap_or_default().as_nanos()
        );
        let directory = parent.join(name);
        // Fails if the path exists, so no other user can prepare it.
        DirBuilder::new()
            .mode(0o700)
            .create(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        let file = Self {
            path: directory.join("value.json"),
            directory,
            is_editing: Arc::default(),
            is_kept: false,
        };
        file.write(content)
            .with_context(|| format!("cannot write {}", file.path.display()))?;
        file.remove_at_signal()?;
        Ok(file)
    }

    fn write(&self, content: &[u8]) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.path)?;
        file.write_all(content)
    }

    /// Removes the file before a signal ends the process. While the editor runs, SIGINT belongs to
    /// the editor.
    fn remove_at_signal(&self) -> anyhow::Result<()> {
        let (directory, is_editing) = (self.directory.clone(), Arc::clone(&self.is_editing));
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ];
        for kind in kinds {
            let mut signals = signal(kind).context("cannot handle signals")?;
            let (directory, is_editing) = (directory.clone(), Arc::clone(&is_editing));
            tokio::spawn(async move {
                while signals.recv().await.is_some() {
                    if kind == SignalKind::interrupt() && is_editing.load(Ordering::Relaxed) {
                        continue;
                    }
                    // Nothing can be done about a failure here.
                    let _ = fs::remove_dir_all(&directory);
                    std::process::exit(128 + kind.as_raw_value());
                }
            });
        }
        Ok(())
    }

    /// Opens the file in the editor, waits until it ends, and returns the new content.
    ///
    /// # Errors
    /// When the editor cannot be started, or fails.
    pub(super) fn edit(&self) -> anyhow::Result<Vec<u8>> {
        let editor = editor(|name| env::var(name).ok());
        let mut words = editor.split_whitespace();
        let program = words.next().unwrap_or(DEFAULT_EDITOR);
        self.is_editing.store(true, Ordering::Relaxed);
        let status = Command::new(program).args(words).arg(&self.path).status();
        self.is_editing.store(false, Ordering::Relaxed);
        let status = status.with_context(|| {
            format!("cannot start the editor {program:?}; set VISUAL or EDITOR to another one")
        })?;
        anyhow::ensure!(
            status.success(),
            "the editor {program:?} failed ({status}); nothing was sent"
        );
        fs::read(&self.path).context("cannot read the edited file; nothing was sent")
    }
}

impl PrivateFile {
    /// Keeps the file after the value is dropped, and returns its path.
    pub(super) fn keep(mut self) -> PathBuf {
        self.is_kept = true;
        self.path.clone()
    }
}

impl Drop for PrivateFile {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            let directory = self.directory.display();
            output::warn(format_args!(
                "cannot remove {directory}, which holds the value: {error}"
            ));
        }
    }
}

/// Returns the command line of the editor: VISUAL, else EDITOR. It may have arguments, separated by
/// blanks.
fn editor(variable: impl Fn(&str) -> Option<String>) -> String {
    let set = |name| variable(name).filter(|value| !value.trim().is_empty());
    set("VISUAL")
        .or_else(|| set("EDITOR"))
        .unwrap_or_else(|| DEFAULT_EDITOR.to_owned())
}

/// Returns `value` as a person edits it: JSON in one line gets a line per member. No other byte
/// changes. It ends with a line break, as editors write it.
pub(super) fn layout(value: &[u8]) -> Vec<u8> {
    let is_json = serde_json::from_slice::<IgnoredAny>(value).is_ok();
    let mut text = match is_json && !value.contains(&b'\n') {
        true => indent(value),
        false => value.to_vec(),
    };
    if !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    text
}

/// Inserts line breaks and indents between the tokens of a JSON text, which stay as they are: long
/// numbers, escapes and repeated keys are not lost.
fn indent(json: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(json.len() * 2);
    let (mut depth, mut in_string, mut is_escaped) = (0, false, false);
    let mut bytes = json.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if in_string {
            text.push(byte);
            in_string = is_escaped || byte != b'"';
            is_escaped = !is_escaped && byte == b'\\';
            continue;
        }
        match byte {
            b' ' | b'\t' | b'\r' => {}
            b'{' | b'[' => {
                text.push(byte);
                while bytes
                    .next_if(|next| matches!(next, b' ' | b'\t' | b'\r'))
                    .is_some()
                {}
                // An empty object or array stays in its line.
                if let Some(end) = bytes.next_if(|next| matches!(next, b'}' | b']')) {
                    text.push(end);
                } else {
                    depth += 1;
                    break_line(&mut text, depth);
                }
            }
            b'}' | b']' => {
                depth -= 1;
                break_line(&mut text, depth);
                text.push(byte);
            }
            b',' => {
                text.push(byte);
                break_line(&mut text, depth);
            }
            b':' => text.extend(b": "),
            _ => {
                in_string = byte == b'"';
                text.push(byte);
            }
        }
    }
    text
}

fn break_line(text: &mut Vec<u8>, depth: usize) {
    text.push(b'\n');
    text.resize(text.len() + 2 * depth, b' ');
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn json_in_one_line_gets_lines_and_keeps_its_tokens() {
        let json = br#"{"a":"x\"{,}\\","b": [1e400,{"c":{ }}],"a":[],"d":12345678901234567890123}"#;
        let text = r#"{
  "a": "x\"{,}\\",
  "b": [
    1e400,
    {
      "c": {}
    }
  ],
  "a": [],
  "d": 12345678901234567890123
}
"#;
        assert_eq!(String::from_utf8(layout(json)).unwrap(), text);
    }

    #[test]
    fn other_values_stay_as_they_are() {
        for (value, expected) in [
            (&b"{\n\"a\":1}"[..], &b"{\n\"a\":1}\n"[..]),
            (b"{\"a\":", b"{\"a\":\n"),
            (b"\xff", b"\xff\n"),
            (b"", b"\n"),
            (b"x\n", b"x\n"),
        ] {
            assert_eq!(layout(value), expected);
        }
    }

    #[test]
    fn visual_comes_before_editor() {
        let chosen = |visual: Option<&str>, other: Option<&str>| {
            editor(|name| {
                let value = if name == "VISUAL" { visual } else { other };
                value.map(str::to_owned)
            })
        };
        assert_eq!(chosen(Some("code --wait"), Some("nano")), "code --wait");
        assert_eq!(chosen(None, Some("nano")), "nano");
        assert_eq!(chosen(Some(" "), Some("nano")), "nano");
        assert_eq!(chosen(None, None), "vi");
    }

    #[tokio::test]
    async fn the_file_is_private_and_removed_with_its_backups() {
        let file = PrivateFile::create_in(&env::temp_dir(), b"secret").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&file.path), 0o600);
        assert_eq!(mode(&file.directory), 0o700);
        fs::write(file.directory.join("value.json~"), "backup").unwrap();
        let directory = file.directory.clone();
        drop(file);
        assert!(!directory.exists());
    }

    #[tokio::test]
    async fn a_kept_file_stays() {
        let file = PrivateFile::create_in(&env::temp_dir(), b"work").unwrap();
        let path = file.keep();
        assert_eq!(fs::read(&path).unwrap(), b"work");
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }
}
