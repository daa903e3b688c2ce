//! The clients that must not notice the hostile ones.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{http::Http, stack::Admin};

/// Clients at the public port. Each sends its requests one after another.
const CLIENTS: u32 = 8;

/// A client opens a new connection for one of this many requests.
const NEW_CONNECTION: usize = 10;

/// Interval between two probes.
const PROBES: Duration = Duration::from_millis(50);

/// Clients that request known orders at a steady rate.
pub(super) struct Honest {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Vec<String>>>,
}

impl Honest {
    /// Starts clients that send `rate` requests per second together, or fewer if answers take
    /// longer.
    pub(super) fn start(url: &str, uids: &[String], rate: u32) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let count = Arc::<AtomicUsize>::default();
        let urls: Vec<String> = uids
            .iter()
            .map(|uid| format!("{url}/order/{uid}"))
            .collect();
        let threads = (0..CLIENTS).map(|_| {
            let (stop, count, urls) = (Arc::clone(&stop), Arc::clone(&count), urls.clone());
            let pace = Duration::from_secs(1) * CLIENTS / rate;
            thread::spawn(move || request(&urls, pace, &stop, &count))
        });
        Self {
            threads: threads.collect(),
            stop,
            count,
        }
    }

    /// Returns the number of answers so far.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Stops the clients. Returns the number of answers, and what failed.
    #[track_caller]
    pub(super) fn stop(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let threads = self.threads.into_iter();
        let failures = threads.flat_map(|thread| thread.join().expect("no panic"));
        let failures = failures.collect();
        (self.count.load(Ordering::Relaxed), failures)
    }
}

fn request(urls: &[String], pace: Duration, stop: &AtomicBool, count: &AtomicUsize) -> Vec<String> {
    let mut http = Http::new();
    let mut failures = Vec::new();
    let mut due = Instant::now();
    for (number, url) in urls.iter().cycle().enumerate() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
        due += pace;
        if number % NEW_CONNECTION == 0 {
            http = Http::new();
        }
        match http.try_get(url, &[]) {
            Ok(answer) if answer.status == 200 => {}
            Ok(answer) => failures.push(format!("{url}: {}", answer.text())),
            Err(error) => failures.push(format!("{url}: {error}")),
        }
        count.fetch_add(1, Ordering::Relaxed);
    }
    failures
}

/// A client that probes the admin port, each time over a new connection, as a kubelet does.
pub(super) struct Probes {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Probed>,
}

/// What the probes saw.
#[derive(Default)]
pub(super) struct Probed {
    pub(super) count: usize,
    pub(super) slowest: Duration,
    /// 99 of 100 probes took at most this time.
    pub(super) p99: Duration,
    pub(super) failures: Vec<String>,
}

impl Probes {
    pub(super) fn start(admin: &Admin) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let urls = ["livez", "readyz"].map(|path| format!("http://{}/{path}", admin.address()));
        let thread = thread::spawn({
            let stop = Arc::clone(&stop);
            move || probe(&urls, &stop)
        });
        Self { stop, thread }
    }

    #[track_caller]
    pub(super) fn stop(self) -> Probed {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("no panic")
    }
}

fn probe(urls: &[String], stop: &AtomicBool) -> Probed {
    let mut probed = Probed::default();
    let mut times = Vec::new();
    for url in urls.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let began = Instant::now();
        match Http::new().try_get(url, &[]) {
            Ok(answer) if answer.status == 200 => {}
            Ok(answer) => probed.failures.push(format!("{url}: {}", answer.text())),
            Err(error) => probed.failures.push(format!("{url}: {error}")),
        }
        times.push(began.elapsed());
        thread::sleep(PROBES);
    }
    times.sort_unstable();
    probed.count = times.len();
    probed.slowest = times.last().copied().unwrap_or_default();
    probed.p99 = times
        .get(times.len() * 99 / 100)
        .copied()
        .unwrap_or_default();
    probed
}
