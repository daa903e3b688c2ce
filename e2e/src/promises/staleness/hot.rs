//! Orders that change all the time, clients that read them all the time, and the staleness of the
//! reads.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Range,
    time::Duration,
};

use rand::{Rng, rngs::StdRng};
use shared::order::{Version, sample::Generator};

use crate::{
    commits::Commit,
    ledger::Ledger,
    promises::run::Run,
    proxy::Proxy,
    readers::{Read, Readers},
    record::Draft,
    record::Expected,
    stack::Stack,
    wait::until,
};

const HOT_ORDERS: usize = 50;

/// These orders change so rarely that the local cache expires in between.
const LUKEWARM: Range<usize> = 40..HOT_ORDERS;
const LUKEWARM_SHARE: f64 = 0.02;

/// Updates in one send. With the time for acknowledgements this gives about 200 a second.
const CHUNK: usize = 20;

/// Interval between two reads of a client.
const READ_PACE: Duration = Duration::from_micros(500);

/// Two workers and two api replicas, whose links to Redis can be cut, and orders that change.
pub(super) struct Hot {
    pub(super) stack: Stack,
    pub(super) uids: Vec<String>,
    /// The link of both replicas.
    pub(super) api_link: Proxy,
    /// The link of each worker.
    pub(super) worker_links: [Proxy; 2],
    ledger: Ledger,
    commits: Vec<Commit>,
    orders: Generator,
    rng: StdRng,
}

impl Hot {
    pub(super) fn start(run: &Run, name: &'static str, api_variables: &[(&str, &str)]) -> Self {
        let mut stack = run
            .stack(name)
            .private_postgres_with(&["wal_level=logical"])
            .start();
        stack.database().keep_commits();
        let redis = stack.addresses().redis_url.clone();
        let worker_links = [Proxy::to(&redis), Proxy::to(&redis)];
        for link in &worker_links {
            stack.start_worker_with(&[("REDIS_URL", &link.url(&redis))]);
        }
        let api_link = Proxy::to(&redis);
        let url = api_link.url(&redis);
        for _ in 0..2 {
            let variables = [&[("REDIS_URL", url.as_str())], api_variables].concat();
            let api = stack.start_api_with(&variables);
            until("announcements", || {
                match api.admin.state_of("announcements") {
                    state if state == "subscribed" => Ok(()),
                    other => Err(other),
                }
            });
        }
        let mut hot = Self {
            stack,
            uids: Vec::new(),
            api_link,
            worker_links,
            ledger: Ledger::default(),
            commits: Vec::new(),
            orders: Generator::new(run.seed, 1..=3),
            rng: run.rng(),
        };
        let first: Vec<_> = hot.orders.by_ref().take(HOT_ORDERS).collect();
        let drafts: Vec<Draft> = first.iter().map(Draft::order).collect();
        hot.uids = first
            .into_iter()
            .map(|order| order.order_uid.into())
            .collect();
        hot.stack.send(&mut hot.ledger, &drafts);
        hot.settle();
        hot
    }

    pub(super) fn readers(&self) -> Readers {
        Readers::start(&self.stack.apis, &self.uids, READ_PACE)
    }

    /// Sends this many updates of random orders.
    pub(super) fn update(&mut self, updates: usize) {
        let mut drafts = Vec::with_capacity(updates);
        for mut order in self.orders.by_ref().take(updates) {
            let among = match self.rng.random_bool(LUKEWARM_SHARE) {
                true => LUKEWARM,
                false => 0..LUKEWARM.start,
            };
            order.order_uid = self.uids[self.rng.random_range(among)].as_str().into();
            drafts.push(Draft::order(&order));
        }
        for chunk in drafts.chunks(CHUNK) {
            self.stack.send(&mut self.ledger, chunk);
        }
    }

    /// Waits until every tier and every replica holds the newest versions.
    pub(super) fn settle(&self) {
        self.stack.settle();
        self.stack.await_redis(&self.ledger);
        self.stack.await_answers(&self.ledger);
    }

    /// Asserts liveness of the workers and readiness of the api: a missing Redis must not cause
    /// restarts or remove replicas from the load balancer.
    #[track_caller]
    pub(super) fn assert_healthy(&self) {
        for worker in &self.stack.workers {
            assert_eq!(
                worker.admin.get("/livez").status,
                200,
                "liveness of a worker"
            );
        }
        for api in &self.stack.apis {
            assert_eq!(api.admin.get("/readyz").status, 200, "readiness of an api");
        }
    }

    pub(super) fn check(&self) {
        let check = self.stack.check();
        check.postgres(&self.ledger);
        check.redis_remains(&self.ledger);
        check.dead_letters(&self.ledger);
        for api in &self.stack.apis {
            check.api(&self.ledger, &api.url(), "local");
            check.api_in_postgres(&self.ledger, &api.url());
        }
    }

    /// Stops the clients. Returns what they read.
    pub(super) fn seen(&mut self, readers: Readers) -> Seen {
        let replicas = readers.stop();
        self.commits.extend(self.stack.database().commits());
        let mut commits: BTreeMap<&str, Vec<(Version, i64)>> = BTreeMap::new();
        for commit in &self.commits {
            let of_order = commits.entry(&commit.uid).or_default();
            of_order.push((commit.version, commit.at_us));
        }
        let commits = self.uids.iter().map(|uid| commits[uid.as_str()].clone());
        Seen {
            commits: commits.collect(),
            replicas,
        }
    }
}

/// The commits, and the answers of each replica in the same period.
pub(super) struct Seen {
    /// For each order, its versions and the times of their commits.
    commits: Vec<Vec<(Version, i64)>>,
    replicas: Vec<Vec<Read>>,
}

impl Seen {
    pub(super) fn reads(&self) -> usize {
        self.replicas.iter().map(Vec::len).sum()
    }

    /// Asserts that every read returned a version that was sent.
    #[track_caller]
    pub(super) fn assert_sound(&self, hot: &Hot) {
        let sent = hot.ledger.records().iter();
        let versions: BTreeSet<(&str, Version)> = sent
            .filter_map(|sent| match &sent.expected {
                Expected::Order { uid, .. } => Some((uid.as_str(), sent.version())),
                Expected::Erasure { .. } | Expected::Rejected(_) => None,
            })
            .collect();
        for read in self.replicas.iter().flatten() {
            let uid = hot.uids[read.order].as_str();
            assert_eq!(read.status, 200, "status of {uid}");
            let version = read.version.expect("an order has a version");
            assert!(
                versions.contains(&(uid, version)),
                "{uid} was never {version}"
            );
        }
    }

    /// Returns how often a replica returned an older version than before.
    pub(super) fn went_back(&self) -> usize {
        let of_replica = |reads: &Vec<Read>| {
            let mut newest = [None; HOT_ORDERS];
            let mut back = 0;
            for read in reads {
                back += usize::from(read.version < newest[read.order]);
                newest[read.order] = read.version;
            }
            back
        };
        self.replicas.iter().map(of_replica).sum()
    }

    /// Returns the lag of each commit on each replica: the time from the commit to the start of the
    /// last read that returned an older version. Ignores reads that overlap with `grace`.
    pub(super) fn lags(&self, grace: Range<i64>) -> Lags {
        let counts = |read: &&Read| read.answered_us < grace.start || grace.end <= read.at_us;
        let mut lags = Vec::new();
        for replica in &self.replicas {
            let mut reads = vec![Vec::new(); HOT_ORDERS];
            for read in replica.iter().filter(counts) {
                reads[read.order].push((read.version, read.at_us));
            }
            for (commits, mut reads) in self.commits.iter().zip(reads) {
                let Some(begin) = reads.iter().map(|(_, at_us)| *at_us).min() else {
                    continue;
                };
                reads.sort_unstable();
                // For each version: the time of the last read that returned it or an older one.
                let mut last = i64::MIN;
                for (_, at_us) in &mut reads {
                    last = last.max(*at_us);
                    *at_us = last;
                }
                let of_orders = commits.iter().filter(|(_, at_us)| *at_us >= begin);
                lags.extend(of_orders.map(|(version, at_us)| {
                    let older = reads.partition_point(|(read, _)| *read < Some(*version));
                    let last = older.checked_sub(1).map_or(*at_us, |older| reads[older].1);
                    (last - at_us).max(0)
                }));
            }
        }
        lags.sort_unstable();
        Lags(lags)
    }
}

/// Lags of the readers, in microseconds, in ascending order.
pub(super) struct Lags(Vec<i64>);

impl Lags {
    /// Returns the percentile: `percent` % of all lags do not exceed it.
    pub(super) fn percentile(&self, percent: usize) -> Lag {
        let index = (self.0.len() * percent).div_ceil(100).saturating_sub(1);
        Lag(*self.0.get(index).expect("there were updates"))
    }
}

impl fmt::Display for Lags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99, max] = [50, 99, 100].map(|percent| self.percentile(percent));
        write!(f, "p50 {p50} p99 {p99} max {max}")
    }
}

/// A lag in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lag(pub(super) i64);

impl fmt::Display for Lag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} ms", self.0 as f64 / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lag_ends_with_the_last_stale_read() {
        let version = |offset| Version::new(1, offset, 0);
        let read = |at_us, offset| Read {
            order: 0,
            at_us,
            answered_us: at_us + 3,
            status: 200,
            version: Some(version(offset)),
        };
        let seen = Seen {
            commits: vec![vec![(version(0), 0), (version(1), 10), (version(2), 20)]],
            // No read returns version 1, and a late read still returns version 0.
            replicas: vec![vec![
                read(5, 0),
                read(14, 0),
                read(25, 2),
                read(27, 0),
                read(30, 2),
            ]],
        };
        assert_eq!(seen.lags(0..0).0, [7, 17]);
        assert_eq!(seen.lags(26..28).0, [0, 4]);
        // The read began before the grace period, but its old answer arrived within it.
        assert_eq!(seen.lags(29..30).0, [0, 4]);
        assert_eq!(seen.went_back(), 1);
    }
}
