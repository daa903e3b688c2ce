//! The answers of api replicas.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use e2e::{Api, Http, Stack};
use serde_json::Value;
use shared::order::DocumentVersion;

/// A document that a replica returned.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Document {
    /// The uid of the order.
    pub(crate) uid: String,
    /// The version in its `ETag`.
    pub(crate) version: DocumentVersion,
}

/// The documents that replicas returned, by what their `ETag` says.
#[derive(Default)]
pub(crate) struct Answers(BTreeMap<Document, Vec<u8>>);

impl Answers {
    /// Reads each order from the fastest tier that has it, from Postgres, and from that tier again.
    /// The first read comes first because the second one renews the caches.
    #[track_caller]
    pub(crate) fn read(&mut self, api: &Api, uids: &[String]) {
        let http = Http::new();
        for uid in uids {
            for query in ["", "?nocache=1", ""] {
                self.ask(&http, &api.url(), uid, query);
            }
        }
    }

    /// Reads an order. Two documents with one `ETag` must have the same bytes. An erased order adds
    /// nothing.
    #[track_caller]
    fn ask(&mut self, http: &Http, url: &str, uid: &str, query: &str) {
        let url = format!("{url}/order/{uid}{query}");
        let answer = http.get(&url);
        if answer.status == 410 {
            return;
        }
        assert_eq!(answer.status, 200, "{url}: {}", answer.text());
        let version = answer.header("ETag").unwrap().trim_matches('"');
        self.insert(
            Document {
                uid: uid.to_owned(),
                version: version.parse().unwrap(),
            },
            answer.body,
        );
    }

    #[track_caller]
    fn insert(&mut self, document: Document, body: Vec<u8>) {
        let held = self
            .0
            .entry(document.clone())
            .or_insert_with(|| body.clone());
        assert!(
            *held == body,
            "{document:?} is {} and {}",
            String::from_utf8_lossy(held),
            String::from_utf8_lossy(&body)
        );
    }

    /// Adds other answers.
    #[track_caller]
    pub(crate) fn add(&mut self, other: Self) {
        for (document, body) in other.0 {
            self.insert(document, body);
        }
    }

    /// Returns the documents.
    pub(crate) fn documents(&self) -> &BTreeMap<Document, Vec<u8>> {
        &self.0
    }

    /// Returns the shapes of the documents.
    pub(crate) fn shapes(&self) -> BTreeSet<u8> {
        let versions = self.0.keys().map(|document| document.version);
        versions.map(|version| version.representation).collect()
    }

    /// Counts the documents with a note.
    pub(crate) fn notes(&self) -> usize {
        self.0.values().filter(|body| note(body).is_some()).count()
    }

    /// Asserts that a client that kept any of these documents gets a new one from `api` if the copy
    /// has the old shape, and 304 otherwise.
    #[track_caller]
    pub(crate) fn assert_old_copies_are_replaced(&self, api: &Api) {
        let http = Http::new();
        for Document { uid, version } in self.0.keys() {
            let etag = format!("\"{version}\"");
            let headers = [("If-None-Match", etag.as_str())];
            let answer = http.get_with(&format!("{}/order/{uid}", api.url()), &headers);
            let expected = match version.representation {
                1 => 200,
                _ => 304,
            };
            assert_eq!(answer.status, expected, "{uid}: {etag}");
        }
    }
}

/// Returns the note of an order.
pub(crate) fn note(body: &[u8]) -> Option<String> {
    let document: Value = serde_json::from_slice(body).unwrap();
    Some(document.get("gift_note")?.as_str()?.to_owned())
}

/// Reads orders from every tier of every replica until it is stopped.
pub(crate) struct Readers {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Answers>,
}

impl Readers {
    /// Starts to read.
    pub(crate) fn start(stack: &Stack, uids: &[String]) -> Self {
        let urls: Vec<String> = stack.apis.iter().map(Api::url).collect();
        let (uids, stop) = (uids.to_vec(), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let (http, mut answers) = (Http::new(), Answers::default());
            while !stopped.load(Ordering::Relaxed) {
                for (url, uid) in urls
                    .iter()
                    .flat_map(|url| uids.iter().map(move |uid| (url, uid)))
                {
                    answers.ask(&http, url, uid, "?nocache=1");
                    answers.ask(&http, url, uid, "");
                }
            }
            answers
        });
        Self { stop, thread }
    }

    /// Stops and returns the answers.
    #[track_caller]
    pub(crate) fn stop(self) -> Answers {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}
