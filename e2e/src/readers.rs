//! Clients that read orders all the time and record the answers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use shared::order::{DocumentVersion, Version};

use crate::{http::Http, stack::Api};

/// One read and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Index of the order among the orders that are read.
    pub order: usize,
    /// Start of the read, in microseconds since 1970.
    pub at_us: i64,
    /// Time of the answer, in microseconds since 1970.
    pub answered_us: i64,
    /// Status of the answer.
    pub status: u16,
    /// Version in the answer, if any.
    pub version: Option<Version>,
}

/// Clients that read until they are stopped, one or more per replica.
pub struct Readers {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Vec<Read>>>,
}

impl Readers {
    /// Starts one client for each of `apis`. It reads `uids` in a loop, one read per `pace`, or
    /// slower if answers take longer.
    pub fn start(apis: &[Api], uids: &[String], pace: Duration) -> Self {
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let threads = apis.iter().map(|api| {
            let urls: Vec<String> = uids
                .iter()
                .map(|uid| format!("{}/order/{uid}", api.url()))
                .collect();
            let (stop, count) = (Arc::clone(&stop), Arc::clone(&count));
            thread::spawn(move || read(&urls, pace, &stop, &count))
        });
        Self {
            threads: threads.collect(),
            stop,
            count,
        }
    }

    /// Returns the number of answers so far.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Stops the clients. Returns the reads of each client, in the order of the replicas.
    #[track_caller]
    pub fn stop(mut self) -> Vec<Vec<Read>> {
        self.stop.store(true, Ordering::Relaxed);
        let threads = std::mem::take(&mut self.threads).into_iter();
        threads
            .map(|thread| thread.join().expect("every read has a whole answer"))
            .collect()
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn read(urls: &[String], pace: Duration, stop: &AtomicBool, count: &AtomicUsize) -> Vec<Read> {
    let http = Http::new();
    let mut reads = Vec::new();
    let mut due = Instant::now();
    for (order, url) in urls.iter().enumerate().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
        due += pace;
        let at_us = now_us();
        let answer = http.get(url);
        let answered_us = now_us();
        let version = answer.header("ETag").map(|etag| {
            let document: Result<DocumentVersion, _> = etag.trim_matches('"').parse();
            document.expect("the version of a document as ETag").version
        });
        count.fetch_add(1, Ordering::Relaxed);
        reads.push(Read {
            order,
            at_us,
            answered_us,
            status: answer.status,
            version,
        });
    }
    reads
}

/// Returns the time in microseconds since 1970, by the same clock as Postgres.
pub(crate) fn now_us() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("a clock after 1970").as_micros() as i64
}
