//! A running system that the tests of `tests/black_box` share, whoever started it.

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

/// So many reads in a row meet every replica that a gateway hides behind one address.
const READS: usize = 12;

/// A running system with other users beside the one who holds this: tests keep to uids, customers and seeds of their own.
pub struct System {
    /// Makes samples that no other test and no other run has.
    pub seed: u64,
    addresses: Addresses,
    api_urls: Vec<String>,
    broker: Broker,
    letters_since: BTreeMap<i32, i64>,
    _own: Option<Arc<Stack>>,
}

impl System {
    /// The system that the variables `E2E_...` name, or else one that is started for the tests that run at this moment.
    ///
    /// # Panics
    /// When the variables name no whole system, or one that does not answer.
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
        // Asked once: where nobody answers, no test is to wait for its own deadline.
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
        // Shown when the test fails.
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

    /// Where it can be reached.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Its api: one URL of each replica, or of a gateway in front of several.
    pub fn api_urls(&self) -> &[String] {
        &self.api_urls
    }

    /// Its brokers.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Its database.
    pub fn database(&self) -> Database {
        Database::new(&self.addresses.database_url)
    }

    /// Compares its tiers with a ledger, as far as the ledger goes.
    pub fn check(&self) -> Check<'_> {
        Check::of_ledger_only(&self.addresses, &self.broker, &self.letters_since)
    }

    /// Postgres, Redis, the dead letter topic, and every order through the api, with and without its caches.
    #[track_caller]
    pub fn check_all(&self, ledger: &Ledger) {
        let check = self.check();
        check.postgres(ledger);
        check.redis(ledger);
        // Whoever runs the system may let its workers come and go.
        check.dead_letters_at_least_once(ledger);
        for url in &self.api_urls {
            check.api(ledger, url, "local");
            check.api_in_postgres(ledger, url);
        }
    }

    /// Sends records and takes them down.
    #[track_caller]
    pub fn send(&self, ledger: &mut Ledger, drafts: &[Draft]) {
        ledger.send(&self.broker, &self.addresses.topic, drafts);
    }

    /// Waits until the workers have finished every record of `ledger`, and Redis has learnt of its orders.
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
        until("no mark for repair left", || {
            match database.repair_marks_of(&uids) {
                0 => Ok(()),
                marks => Err(format!("{marks} marks")),
            }
        });
    }

    /// Waits until every replica answers `GET PATH` as `expected`: a message says what is wrong with an answer.
    #[track_caller]
    pub fn await_everywhere(&self, path: &str, expected: impl Fn(&Answer) -> Result<(), String>) {
        for url in &self.api_urls {
            let url = format!("{url}{path}");
            until(
                &format!("{url} as expected, {READS} times in a row"),
                || {
                    // A connection of its own each: what keeps them open may keep to one replica.
                    (0..READS).try_for_each(|_| match Http::new().try_get(&url, &[]) {
                        Ok(answer) => expected(&answer),
                        Err(error) => Err(error.to_string()),
                    })
                },
            );
        }
    }

    /// Waits until `GET /order/{uid}` has that status on every replica.
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

/// Asks each part of a system once.
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

/// One system for all tests of this process that run at the same time; it ends with the last of them, for what a static
/// holds would outlive the process as orphaned children.
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
