//! Whoever asks the api all the time.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{http::Http, stack::Api};

/// Between two questions, so that the machine has time for the others.
const PAUSE: Duration = Duration::from_millis(2);

/// A client that asks for one order after the other, of one replica after the other, as whoever balances the load tells it.
pub struct Prober {
    replicas: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Answers>>,
}

/// What a [`Prober`] got.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// How many answers below 500.
    pub good: usize,
    /// Answers of 500 and above, and questions that were not answered at all.
    pub bad: Vec<String>,
}

impl Prober {
    /// Asks for the orders `uids`.
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

    /// From now on asks only these; no other is being asked when this returns.
    pub fn use_only(&self, replicas: &[Api]) {
        *lock(&self.replicas) = urls(replicas);
    }

    /// Ends it.
    #[track_caller]
    pub fn stop(mut self) -> Answers {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("stopped once");
        thread.join().expect("whatever is answered is counted")
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
        // Until the answer is there, so that nobody is asked who was taken away.
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
