//! A running system that the tests of `tests/black_box` share.

use std::{
    collections::BTreeMap,
    env,
    fmt::Display,
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
};

use crate::{
    addresses::{Addresses, Variables},
    check::Check,
    http::{Answer, Http},
    kafka::Broker,
    ledger::Ledger,
    postgres::Database,
    record::Draft,
    redis::entries_of,
    stack::Stack,
    wait::until,
};

/// Reads in a row that reach every replica behind a gateway with one address.
const READS: usize = 12;

/// A running system that may have other users. Tests use their own uids, customers and seeds.
pub struct System {
    /// Seed of samples that no other test and no other run has.
    pub seed: u64,
    addresses: Addresses,
    api_urls: Vec<String>,
    broker: Broker,
    letters_since: BTreeMap<i32, i64>,
    _own: Option<Arc<Stack>>,
}

impl System {
    /// Connects to the system that the variables `E2E_...` describe. Without them it starts a
    /// system that all concurrent tests of this process share.
    ///
    /// # Panics
    /// The variables do not describe a complete system, or the system does not answer.
    #[track_caller]
    pub fn join() -> Self {
        let variables = Variables::read(env::vars()).unwrap_or_else(|error| panic!("{error}"));
        let own = variables.is_none().then(own_stack);
        let (addresses, api_urls) = match (variables, &own) {
            (Some(variables), _) => (variables.addresses, variables.api_urls),
            (None, Some(stack)) => {
                let urls = stack.apis.iter().map(|api| api.url()).collect();
                (stack.addresses().clone(), urls)
            }
            (None, None) => unreachable!("one of the two is there"),
        };
        let broker = Broker::new(&addresses.brokers);
        // Checked once, so that not every test waits for its own deadline if the system does not
        // answer.
        static REACHED: OnceLock<Result<(), String>> = OnceLock::new();
        REACHED
            .get_or_init(|| reach(&addresses, &api_urls, &broker))
            .as_ref()
            .unwrap_or_else(|error| panic!("{error}"));
        let letters_since = broker
            .watermarks(&addresses.dead_letter_topic)
            .into_iter()
            .map(|(partition, (_, end))| (partition, end))
            .collect();
        let seed = rand::random();
        // The test output shows the seed if the test fails.
        println!("seed {seed} of the samples");
        Self {
            seed,
            addresses,
            api_urls,
            broker,
            letters_since,
            _own: own,
        }
    }

    /// Returns the addresses.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Returns the URLs of the api: one for each replica, or that of a gateway in front of them.
    pub fn api_urls(&self) -> &[String] {
        &self.api_urls
    }

    /// Returns the client of the brokers.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Returns the database.
    pub fn database(&self) -> Database {
        Database::new(&self.addresses.database_url)
    }

    /// Returns a check of the records in a ledger.
    pub fn check(&self) -> Check<'_> {
        Check::of_ledger_only(&self.addresses, &self.broker, &self.letters_since)
    }

    /// Checks Postgres, Redis, the dead letter topic, and every order through the api, with and
    /// without its caches.
    #[track_caller]
    pub fn check_all(&self, ledger: &Ledger) {
        let check = self.check();
        check.postgres(ledger);
        check.redis(ledger);
        // The workers may be restarted during the test, which can duplicate dead letters.
        check.dead_letters_at_least_once(ledger);
        for url in &self.api_urls {
            check.api(ledger, url, "local");
            check.api_in_postgres(ledger, url);
        }
    }

    /// Sends records and adds them to the ledger.
    #[track_caller]
    pub fn send(&self, ledger: &mut Ledger, drafts: &[Draft]) {
        ledger.send(&self.broker, &self.addresses.topic, drafts);
    }

    /// Waits until the workers have finished every record of `ledger` and no update of its orders
    /// is missing in Redis.
    #[track_caller]
    pub fn settle(&self, ledger: &Ledger) {
        let mut ends = BTreeMap::new();
        for sent in ledger.records() {
            let end = ends.entry(sent.position.partition).or_insert(0);
            *end = (sent.position.offset + 1).max(*end);
        }
        let Addresses {
            group_id, topic, ..
        } = &self.addresses;
        until("everything that was sent finished", || {
            let partitions = ends.keys().copied();
            let committed = self.broker.committed(group_id, topic, partitions);
            let mut behind = ends
                .iter()
                .filter(|(partition, end)| committed.get(partition) < Some(end));
            match behind.next() {
                None => Ok(()),
                Some(_) => Err(format!("{committed:?} instead of {ends:?}")),
            }
        });
        let (database, uids) = (self.database(), ledger.uids());
        until("no repair mark", || match database.repair_marks_of(&uids) {
            0 => Ok(()),
            marks => Err(format!("{marks} marks")),
        });
    }

    /// Waits until `expected` accepts the answer of every replica to `GET PATH`. The error of
    /// `expected` says what is wrong.
    #[track_caller]
    pub fn await_everywhere(&self, path: &str, expected: impl Fn(&Answer) -> Result<(), String>) {
        for url in &self.api_urls {
            let url = format!("{url}{path}");
            until(
                &format!("{url} as expected, {READS} times in a row"),
                || {
                    // A new connection for each read: a gateway may serve all requests of one
                    // connection from one replica.
                    (0..READS).try_for_each(|_| match Http::new().try_get(&url, &[]) {
                        Ok(answer) => expected(&answer),
                        Err(error) => Err(error.to_string()),
                    })
                },
            );
        }
    }

    /// Waits until every replica answers `GET /order/{uid}` with that status.
    #[track_caller]
    pub fn await_status(&self, uid: &str, status: u16) {
        self.await_everywhere(&format!("/order/{uid}"), |answer| {
            match answer.status == status {
                true => Ok(()),
                false => Err(format!("{}: {}", answer.status, answer.text())),
            }
        });
    }
}

/// Checks that each part of a system is reachable.
fn reach(addresses: &Addresses, api_urls: &[String], broker: &Broker) -> Result<(), String> {
    let unreachable = |what: &str, error: &dyn Display| {
        format!("{what} is not reachable from here: {error} (see e2e/README.md)")
    };
    for topic in [&addresses.topic, &addresses.dead_letter_topic] {
        broker.try_watermarks(topic).map_err(|error| {
            let what = format!("topic {topic} of Kafka at {}", addresses.brokers);
            unreachable(&what, &error)
        })?;
    }
    Database::new(&addresses.database_url)
        .try_execute("SELECT")
        .map_err(|error| unreachable("Postgres (E2E_DATABASE_URL)", &error))?;
    entries_of(&addresses.redis_url, [])
        .map_err(|error| unreachable("Redis (E2E_REDIS_URL)", &error))?;
    for url in api_urls {
        Http::new()
            .try_get(&format!("{url}/openapi.json"), &[])
            .map_err(|error| unreachable(&format!("the api at {url}"), &error))?;
    }
    Ok(())
}

/// Returns the system that all concurrent tests of this process share. It ends with the last of
/// them. A static would leave its child processes behind as orphans.
#[track_caller]
fn own_stack() -> Arc<Stack> {
    static STACK: Mutex<Weak<Stack>> = Mutex::new(Weak::new());
    let mut shared = STACK.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let stack = Arc::new(Stack::builder("any").workers(2).apis(2).start());
        *shared = Arc::downgrade(&stack);
        stack
    })
}
