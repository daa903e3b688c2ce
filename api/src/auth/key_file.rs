//! The key file, and its changes while the api runs.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use shared::config::{ConfigError, read_text};
use tokio::task::spawn_blocking;

use super::{
    Checked, Usage,
    keys::{self, Keys},
};

/// The variable that names the key file.
const VARIABLE: &str = "API_KEYS_FILE";

/// Maximum size of the file.
const MAX_BYTES: u64 = 4 << 20;

/// The keys of a file.
pub(super) struct KeyFile {
    path: PathBuf,
    usage: Arc<Usage>,
    keys: ArcSwap<Keys>,
    seen: Mutex<Seen>,
}

/// Prints names, never digests.
impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.keys.load().fmt(f)
    }
}

/// What a look at the file found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    Text(String),
    Unreadable(String),
}

/// What earlier looks found.
struct Seen {
    /// What was last applied, or last reported as an error.
    settled: Content,
    /// What the last look found, if it differs.
    pending: Option<Content>,
}

/// What follows from a look.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// The file is as it was.
    Unchanged,
    /// The next look decides: an editor may be writing the file.
    Wait,
    /// The file has changed.
    Apply(Content),
}

impl Seen {
    /// Judges `found`. A change counts when two looks find the same, or `at_once`.
    fn judge(&mut self, found: Content, at_once: bool) -> Step {
        if found == self.settled {
            self.pending = None;
            return Step::Unchanged;
        }
        if !at_once && self.pending.as_ref() != Some(&found) {
            self.pending = Some(found);
            return Step::Wait;
        }
        self.pending = None;
        self.settled = found.clone();
        Step::Apply(found)
    }
}

impl KeyFile {
    /// Reads the key file at `path`.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, holds no key, or has a malformed line. The
    /// error names the number of the line and never quotes it.
    pub(super) fn open(path: &Path, usage: Arc<Usage>) -> Result<Self, ConfigError> {
        let text = read_text(path).map_err(|source| ConfigError::SecretFile {
            variable: VARIABLE.to_owned(),
            path: path.display().to_string(),
            source,
        })?;
        let entries = keys::parse(&text).map_err(|problem| {
            ConfigError::malformed(VARIABLE, format!("{}: {problem}", path.display()))
        })?;
        Ok(Self {
            path: path.to_owned(),
            keys: ArcSwap::from_pointee(Keys::new(entries, &usage)),
            usage,
            seen: Mutex::new(Seen {
                settled: Content::Text(text),
                pending: None,
            }),
        })
    }

    /// Returns the key of `token`; `None` if it is unknown.
    pub(super) fn find(&self, token: &[u8]) -> Option<Checked> {
        self.keys.load().find(token, SystemTime::now())
    }

    /// Reads the file, and applies a change that an earlier look has found, or that this one finds
    /// if it is to count `at_once`. With an unusable file, the keys stay as they are.
    ///
    /// Compares the content, because no time or number of a file changes with every write.
    pub(super) async fn look(&self, at_once: bool) {
        let path = self.path.clone();
        // A task that panics is a bug, and the file counts as unchanged.
        let Ok(found) = spawn_blocking(move || read(&path)).await else {
            return;
        };
        let step = self.seen.lock().judge(found, at_once);
        match step {
            Step::Unchanged if at_once => tracing::info!("API keys are unchanged"),
            Step::Unchanged | Step::Wait => {}
            Step::Apply(Content::Unreadable(problem)) => self.keep(&problem),
            Step::Apply(Content::Text(text)) => match keys::parse(&text) {
                Ok(entries) => self.replace(entries),
                Err(problem) => self.keep(&problem),
            },
        }
    }

    fn replace(&self, entries: Vec<keys::Entry>) {
        let (keys, difference) = self.keys.load().replaced(entries, &self.usage);
        self.usage.remove_unless(|name| keys.has_name(name));
        self.usage.set_broken(false);
        tracing::info!(
            keys = keys.len(),
            added = difference.added,
            removed = difference.removed,
            "API keys reread"
        );
        self.keys.store(Arc::new(keys));
    }

    fn keep(&self, problem: &str) {
        self.usage.set_broken(true);
        tracing::error!(
            path = %self.path.display(),
            error = problem,
            runbook = "ApiKeysUnusable",
            "rereading the API keys failed; earlier keys stay valid"
        );
    }

    /// Ends the streams of keys that have expired.
    pub(super) fn expire(&self, now: SystemTime) {
        for key in self.keys.load().expire(now) {
            tracing::warn!(key, "API key expired");
        }
    }
}

fn read(path: &Path) -> Content {
    match read_file(path) {
        Ok(text) => Content::Text(text),
        Err(error) => Content::Unreadable(error.to_string()),
    }
}

fn read_file(path: &Path) -> io::Result<String> {
    let file = fs::metadata(path)?;
    // A pipe can be read only once, and may block.
    if !file.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    if file.len() > MAX_BYTES {
        return Err(io::Error::other("more than 4 MiB"));
    }
    read_text(path)
}

#[cfg(test)]
mod tests {
    use std::{env, process};

    use prometheus::Registry;
    use shared::telemetry::metrics::render;

    use super::{
        super::{Denial, Identity},
        *,
    };
    use crate::metrics::AccessFamilies;

    /// SHA-256 of `secret`.
    const DIGEST: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

    /// A key file in a folder of its own.
    struct Disk {
        folder: PathBuf,
        path: PathBuf,
    }

    impl Disk {
        fn new(test: &str) -> Self {
            let folder = env::temp_dir().join(format!("api-keys-{test}-{}", process::id()));
            fs::create_dir_all(&folder).unwrap();
            let disk = Self {
                path: folder.join("keys"),
                folder,
            };
            disk.write("support", "");
            disk
        }

        fn line(name: &str, options: &str) -> String {
            format!("{name} sha256:{DIGEST} orders:read {options}\n")
        }

        fn write(&self, name: &str, options: &str) {
            fs::write(&self.path, Self::line(name, options)).unwrap();
        }

        fn open(&self) -> (KeyFile, Registry) {
            let registry = Registry::new();
            let families = AccessFamilies::register(&registry).unwrap();
            let usage = Arc::new(Usage::new(families));
            (KeyFile::open(&self.path, usage).unwrap(), registry)
        }
    }

    impl Drop for Disk {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }

    fn identity(file: &KeyFile) -> Arc<Identity> {
        let Some(Ok(identity)) = file.find(b"secret") else {
            panic!("the token is not valid");
        };
        identity
    }

    fn is_broken(registry: &Registry) -> bool {
        let text = String::from_utf8(render(registry).unwrap()).unwrap();
        assert!(text.contains("\napi_keys_file_broken "), "{text}");
        text.contains("\napi_keys_file_broken 1\n")
    }

    #[test]
    fn a_change_counts_when_two_looks_find_the_same() {
        let text = |text: &str| Content::Text(text.to_owned());
        let mut seen = Seen {
            settled: text("a"),
            pending: None,
        };
        assert_eq!(seen.judge(text("a"), false), Step::Unchanged);
        assert_eq!(seen.judge(text("half"), false), Step::Wait);
        assert_eq!(seen.judge(text("whole"), false), Step::Wait);
        assert_eq!(seen.judge(text("whole"), false), Step::Apply(text("whole")));
        assert_eq!(seen.judge(text("whole"), false), Step::Unchanged);
        assert_eq!(seen.judge(text("b"), false), Step::Wait);
        assert_eq!(seen.judge(text("whole"), false), Step::Unchanged);
        assert_eq!(seen.judge(text("b"), false), Step::Wait);
        assert_eq!(seen.judge(text("c"), true), Step::Apply(text("c")));
        assert_eq!(seen.judge(text("c"), true), Step::Unchanged);
    }

    /// As in Kubernetes, where a mounted Secret is a symbolic link to a folder that is replaced.
    #[tokio::test]
    async fn a_replaced_link_is_a_change() {
        let disk = Disk::new("link");
        let (old, new) = (disk.folder.join("old"), disk.folder.join("new"));
        for (folder, name) in [(&old, "old"), (&new, "new")] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("keys"), Disk::line(name, "")).unwrap();
        }
        let (data, renamed) = (disk.folder.join("data"), disk.folder.join("renamed"));
        std::os::unix::fs::symlink(&old, &data).unwrap();
        fs::remove_file(&disk.path).unwrap();
        std::os::unix::fs::symlink(data.join("keys"), &disk.path).unwrap();
        let (file, registry) = disk.open();
        let before = identity(&file);
        assert_eq!(&*before.caller.name, "old");
        file.look(false).await;

        std::os::unix::fs::symlink(&new, &renamed).unwrap();
        fs::rename(&renamed, &data).unwrap();
        file.look(false).await;
        file.look(false).await;
        assert_eq!(&*identity(&file).caller.name, "new");
        before.end().await;
        let text = String::from_utf8(render(&registry).unwrap()).unwrap();
        assert!(
            !text.contains(r#"key="old""#) && text.contains(r#"key="new""#),
            "{text}"
        );
    }

    #[tokio::test]
    async fn an_unusable_file_keeps_the_keys_until_it_is_repaired() {
        let disk = Disk::new("broken");
        let (file, registry) = disk.open();
        let kept = identity(&file);
        assert!(!is_broken(&registry));
        let broken: [&dyn Fn(); 4] = [
            &|| fs::write(&disk.path, "support sha256:").unwrap(),
            &|| fs::write(&disk.path, "").unwrap(),
            &|| fs::remove_file(&disk.path).unwrap(),
            &|| fs::create_dir(&disk.path).unwrap(),
        ];
        for (number, damage) in broken.into_iter().enumerate() {
            damage();
            file.look(true).await;
            assert!(is_broken(&registry), "{number}");
            assert!(Arc::ptr_eq(&identity(&file), &kept), "{number}");
        }
        fs::remove_dir(&disk.path).unwrap();
        disk.write("support", "");
        file.look(true).await;
        assert!(!is_broken(&registry));
        assert!(Arc::ptr_eq(&identity(&file), &kept), "the line is the same");
    }

    #[tokio::test]
    async fn an_expired_key_is_reported_as_such() {
        let disk = Disk::new("expired");
        let (file, _registry) = disk.open();
        disk.write("support", "expires=2026-01-31T00:00:00Z");
        file.look(true).await;
        let denied = file.find(b"secret").and_then(Result::err).unwrap();
        assert_eq!(denied.reason, Denial::Expired);
        assert!(
            denied
                .identity
                .is_some_and(|key| &*key.caller.name == "support")
        );
    }

    #[test]
    fn a_byte_order_mark_is_not_part_of_a_name() {
        let disk = Disk::new("mark");
        let text = format!("\u{feff}support sha256:{DIGEST} orders:read\r\n");
        fs::write(&disk.path, text).unwrap();
        assert_eq!(&*identity(&disk.open().0).caller.name, "support");
    }

    #[test]
    fn a_missing_file_names_the_variable() {
        let families = AccessFamilies::register(&Registry::new()).unwrap();
        let usage = Arc::new(Usage::new(families));
        let error = KeyFile::open(Path::new("/nowhere/keys"), usage)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("API_KEYS_FILE: cannot read /nowhere/keys"),
            "{error}"
        );
    }
}
