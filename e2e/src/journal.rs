//! A ledger on disk: each record before it is sent, then its position. The file is in
//! `ORDER_SERVICE_HOME/e2e/ledgers`. It is removed unless the test fails.

use std::{
    fs::{self, File},
    io::Write,
    path::PathBuf,
    thread,
};

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::{
    environment::required,
    kafka::Position,
    record::{Draft, Expected},
};

/// An open journal with one JSON object per line.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    written: usize,
}

impl Journal {
    pub(crate) fn create() -> Self {
        let folder = PathBuf::from(required("ORDER_SERVICE_HOME")).join("e2e/ledgers");
        fs::create_dir_all(&folder)
            .unwrap_or_else(|error| panic!("cannot create {}: {error}", folder.display()));
        let path = folder.join(format!("{:016x}.ndjson", rand::random::<u64>()));
        Self {
            file: File::create(&path).unwrap(),
            path,
            written: 0,
        }
    }

    /// Writes the records that are about to be sent.
    pub(crate) fn intend(&mut self, drafts: &[Draft]) {
        let lines = (self.written..).zip(drafts).map(|(number, draft)| {
            let (class, uid) = match &draft.expected {
                Expected::Order { uid, .. } => ("order", Some(uid)),
                Expected::Erasure { uid } => ("erasure", Some(uid)),
                Expected::Rejected(reason) => (reason.as_str(), None),
            };
            let value = draft.record.value.as_deref().unwrap_or_default();
            let sha256 = format!("{:x}", Sha256::digest(value));
            json!({"number": number, "class": class, "uid": uid, "sha256": sha256}).to_string()
        });
        let lines: Vec<String> = lines.collect();
        self.write(&lines);
    }

    /// Writes the positions of the acknowledged records.
    pub(crate) fn acknowledge(&mut self, positions: &[Position]) {
        let lines = (self.written..).zip(positions).map(|(number, position)| {
            json!({
                "number": number,
                "partition": position.partition,
                "offset": position.offset,
                "timestamp_ms": position.timestamp_ms,
            })
            .to_string()
        });
        let lines: Vec<String> = lines.collect();
        self.write(&lines);
        self.written += positions.len();
    }

    fn write(&mut self, lines: &[String]) {
        let text = lines.join("\n") + "\n";
        self.file.write_all(text.as_bytes()).unwrap();
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the ledger: {}", self.path.display());
        } else {
            // A file that remains is harmless.
            let _ = fs::remove_file(&self.path);
        }
    }
}
