//! Files whose content may be replaced while a process runs: secrets and certificates.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    time::Duration,
};

/// Interval at which the content is compared. A new connection uses a replaced file at the latest
/// after twice this time.
pub const INTERVAL: Duration = Duration::from_secs(2);

/// Detects that the content of files has changed. Keeps a hash, not the content.
#[derive(Debug)]
pub struct Files {
    paths: Vec<PathBuf>,
    seen: u64,
}

impl Files {
    /// Remembers the present content of `paths`. A path may be a folder of files.
    pub fn new<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        let paths: Vec<PathBuf> = paths.into_iter().map(Path::to_owned).collect();
        Self {
            seen: content(&paths),
            paths,
        }
    }

    /// Returns whether there is no file.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// Returns whether the content differs from that of the last call. Blocks while it reads.
    pub fn changed(&mut self) -> bool {
        let now = content(&self.paths);
        std::mem::replace(&mut self.seen, now) != now
    }
}

fn content(paths: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    paths.iter().for_each(|path| add(path, &mut hasher));
    hasher.finish()
}

fn add(path: &Path, hasher: &mut impl Hasher) {
    if path.is_dir() {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        // Not recursive: a folder of certificates has no subfolders that are read.
        paths.retain(|path| path.is_file());
        for path in paths {
            path.hash(hasher);
            fs::read(path).ok().hash(hasher);
        }
    } else {
        // A missing or unreadable file differs from an empty one.
        fs::read(path).ok().hash(hasher);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_content_is_reported_once() {
        let folder = std::env::temp_dir().join(format!("replaced-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&folder).unwrap();
        let file = folder.join("password");
        let mut files = Files::new([file.as_path(), folder.as_path()]);
        assert!(!files.changed());
        for content in ["", "old", "new"] {
            fs::write(&file, content).unwrap();
            assert!(files.changed(), "{content}");
            assert!(!files.changed(), "{content}");
        }
        fs::write(folder.join("another"), "").unwrap();
        assert!(files.changed(), "a file appeared in the folder");
        fs::remove_dir_all(&folder).unwrap();
        assert!(files.changed(), "the file is gone");
    }
}
