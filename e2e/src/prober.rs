//! Continuous requests to the api.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{http::Http, stack::Api};

/// Pause between two requests, which leaves CPU time for the other processes.
const PAUSE: Duration = Duration::from_millis(2);

/// A client that requests one order after the other from one replica after the other. The test
/// chooses the replicas, as a load balancer would.
pub struct Prober {
    replicas: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Answers>>,
}

/// The answers that a [`Prober`] received.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// Number of answers below 500.
    pub good: usize,
    /// Answers of 500 and above, and requests without an answer.
    pub bad: Vec<String>,
}

impl Prober {
    /// Starts requests for the orders `uids`.
    pub fn start(replicas: &[Api], uids: Vec<String>) -> Self {
        let replicas = Arc::new(Mutex::new(urls(replicas)));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (replicas, stop) = (Arc::clone(&replicas), Arc::clone(&stop));
            move || ask(&replicas, &uids, &stop)
        });
        Self {
            replicas,
            stop,
            thread: Some(thread),
        }
    }

    /// Restricts the requests to these replicas. When this returns, no request to another replica
    /// is in flight.
    pub fn use_only(&self, replicas: &[Api]) {
        *lock(&self.replicas) = urls(replicas);
    }

    /// Stops the requests and returns the answers.
    #[track_caller]
    pub fn stop(mut self) -> Answers {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("stopped once");
        thread.join().expect("the thread does not panic")
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn urls(replicas: &[Api]) -> Vec<String> {
    replicas.iter().map(Api::url).collect()
}

fn lock(replicas: &Mutex<Vec<String>>) -> MutexGuard<'_, Vec<String>> {
    replicas.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ask(replicas: &Mutex<Vec<String>>, uids: &[String], stop: &AtomicBool) -> Answers {
    let http = Http::new();
    let mut answers = Answers::default();
    for (number, uid) in uids.iter().cycle().enumerate() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        // Holds the lock until the answer has arrived, so that no request reaches a removed
        // replica.
        let replicas = lock(replicas);
        let url = format!("{}/order/{uid}", replicas[number % replicas.len()]);
        match http.try_get(&url, &[]) {
            Ok(answer) if answer.status < 500 => answers.good += 1,
            Ok(answer) => answers.bad.push(format!("{url}: {}", answer.text())),
            Err(error) => answers.bad.push(format!("{url}: {error}")),
        }
        drop(replicas);
        thread::sleep(PAUSE);
    }
    answers
}
