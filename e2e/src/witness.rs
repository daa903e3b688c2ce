//! A reader that compares every answer with the version that Postgres held before the request.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rand::{SeedableRng, rngs::StdRng, seq::IndexedRandom};
use sha2::{Digest, Sha256};
use shared::order::DocumentVersion;

use crate::{http::Http, ledger::Ledger, postgres::Database, record::Expected};

/// Interval between two reads from Postgres.
const SAMPLE: Duration = Duration::from_millis(200);
/// Interval between two requests of a reader.
const PAUSE: Duration = Duration::from_millis(5);

/// The observations.
#[derive(Debug, Default)]
pub struct Testimony {
    /// Answers with a version, or "not found".
    pub answers: usize,
    /// Answers without a version, usually 503, and requests without an answer.
    pub unanswered: usize,
    /// Answers beyond the staleness bound.
    pub stale: Vec<String>,
    /// Every version in an answer: uid, `ETag`, digest of the body.
    versions: BTreeSet<(String, String, [u8; 32])>,
}

impl Testimony {
    /// Returns how many of the answered versions were never sent, or were sent with other bytes.
    pub fn never_sent(&self, ledger: &Ledger) -> usize {
        let sent: BTreeSet<(String, String, [u8; 32])> = ledger
            .records()
            .iter()
            .filter_map(|sent| match &sent.expected {
                Expected::Order { uid, json } => Some((
                    uid.clone(),
                    format!("\"{}\"", DocumentVersion::current(sent.version())),
                    Sha256::digest(json).into(),
                )),
                Expected::Erasure { .. } | Expected::Rejected(_) => None,
            })
            .collect();
        self.versions.difference(&sent).count()
    }
}

/// The versions that Postgres held, with the times at which they were seen. Answers are compared
/// with them.
#[derive(Default)]
struct Observations {
    replicas: Vec<String>,
    held: BTreeMap<String, Vec<(Instant, String)>>,
    lenient_until: Option<Instant>,
    testimony: Testimony,
}

/// Running readers.
pub struct Witness {
    state: Arc<Mutex<Observations>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Witness {
    /// Starts to read these orders from the current replicas. No answer may be older than what
    /// Postgres held `bound` before the request.
    pub fn start(database: Database, uids: &[String], bound: Duration, seed: u64) -> Self {
        let (state, stop) = (
            Arc::new(Mutex::new(Observations::default())),
            Arc::default(),
        );
        let sampler = {
            let (state, stop, uids) = (Arc::clone(&state), Arc::clone(&stop), uids.to_vec());
            thread::spawn(move || sample(&database, &uids, &state, &stop))
        };
        let reader = |number: u64| {
            let (state, stop, uids) = (Arc::clone(&state), Arc::clone(&stop), uids.to_vec());
            let rng = StdRng::seed_from_u64(seed ^ number);
            thread::spawn(move || read(&uids, bound, rng, &state, &stop))
        };
        Self {
            threads: vec![sampler, reader(1), reader(2)],
            state,
            stop,
        }
    }

    /// Sets the URLs of the replicas that receive the requests from now on.
    pub fn ask(&self, replicas: Vec<String>) {
        lock(&self.state).replicas = replicas;
    }

    /// Accepts answers of any age for requests that begin within the next `time`.
    pub fn be_lenient(&self, time: Duration) {
        lock(&self.state).lenient_until = Some(Instant::now() + time);
    }

    /// Stops the readers and returns the observations.
    pub fn stop(mut self) -> Testimony {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("the thread does not panic");
        }
        std::mem::take(&mut lock(&self.state).testimony)
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn sample(database: &Database, uids: &[String], state: &Mutex<Observations>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        // If Postgres is down, there is nothing new to record.
        if let Ok(versions) = database.try_versions(uids) {
            let seen = Instant::now();
            let mut state = lock(state);
            for (uid, version) in versions {
                let held = state.held.entry(uid).or_default();
                let version = version.to_string();
                if held.last().is_none_or(|(_, newest)| *newest != version) {
                    held.push((seen, version));
                }
            }
        }
        thread::sleep(SAMPLE);
    }
}

fn read(
    uids: &[String],
    bound: Duration,
    mut rng: StdRng,
    state: &Mutex<Observations>,
    stop: &AtomicBool,
) {
    let http = Http::new();
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(PAUSE);
        let Some(replica) = lock(state).replicas.choose(&mut rng).cloned() else {
            continue;
        };
        let uid = uids.choose(&mut rng).expect("orders to read");
        let asked = Instant::now();
        let answer = http.try_get(&format!("{replica}/order/{uid}"), &[]);
        let mut state = lock(state);
        let (etag, body) = match &answer {
            Ok(answer) if answer.status == 200 => (answer.header("ETag"), Some(&answer.body)),
            Ok(answer) if answer.status == 404 => (None, None),
            Ok(_) | Err(_) => {
                state.testimony.unanswered += 1;
                continue;
            }
        };
        state.testimony.answers += 1;
        let version = etag.unwrap_or_default().trim_matches('"');
        let held = state.held.get(uid).into_iter().flatten();
        let due = held.take_while(|(seen, _)| *seen + bound < asked).last();
        let newer = due.filter(|(_, due)| version < due.as_str());
        let lenient = state.lenient_until.is_some_and(|until| asked < until);
        if let Some((seen, due)) = newer.filter(|_| !lenient) {
            let age = asked.duration_since(*seen);
            let complaint =
                format!("{uid} at {replica}: {version:?}, but Postgres held {due} {age:?} earlier");
            state.testimony.stale.push(complaint);
        }
        if let (Some(etag), Some(body)) = (etag, body) {
            let digest = Sha256::digest(body).into();
            let seen = (uid.clone(), etag.to_owned(), digest);
            state.testimony.versions.insert(seen);
        }
    }
}

/// Ignores poisoning: no panic can leave the state half changed.
fn lock(state: &Mutex<Observations>) -> MutexGuard<'_, Observations> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
