//! Code that all Kafka clients share: how to connect, timeouts for silent connections, and recovery
//! of the broker list.

mod access;
mod diagnosis;
mod options;

pub use access::{Access, connection_properties};
pub use diagnosis::{broker_in, handshake_problem};
pub use options::{check_options, rejected};

use std::{
    ffi::{CString, NulError},
    sync::atomic::{AtomicBool, Ordering},
};

use rdkafka::{ClientContext, Statistics, bindings::rd_kafka_brokers_add, client::Client};

/// Timeouts after which librdkafka closes a silent connection and opens another one.
///
/// librdkafka's defaults are 60 s for a request and 30 s for a connection attempt. If a middlebox
/// has dropped a connection, its partitions stop for that long. That exceeds the time that a
/// producer gives a record.
pub const LIMITS: [(&str, &str); 2] = [
    ("socket.timeout.ms", "10000"),
    ("socket.connection.setup.timeout.ms", "10000"),
];

/// The bootstrap brokers, and whether the client has lost its list of brokers.
///
/// A broker that shuts down may answer that there are no brokers. librdkafka 2.10 and later then
/// drops every known broker, including those of `bootstrap.servers`, and sets a timer to add these
/// again. If another answer arrives at that moment, it stops the timer, and librdkafka never
/// restarts it ([librdkafka 5301]). Without a workaround, such a client stays disconnected until
/// its process ends.
///
/// The owner of a client therefore passes its statistics to [`Bootstrap::observe`] and calls
/// [`Bootstrap::restore`] regularly. The client must set `statistics.interval.ms`.
///
/// [librdkafka 5301]: https://github.com/confluentinc/librdkafka/issues/5301
#[derive(Debug)]
pub struct Bootstrap {
    servers: CString,
    forgotten: AtomicBool,
}

impl Bootstrap {
    /// Creates the state for `servers`, in the format of `bootstrap.servers`.
    ///
    /// # Errors
    /// If `servers` contains a zero byte.
    pub fn new(servers: &str) -> Result<Self, NulError> {
        Ok(Self {
            servers: CString::new(servers)?,
            forgotten: AtomicBool::new(false),
        })
    }

    /// Checks whether the client still knows a broker. Call it with each statistics event of the
    /// client.
    pub fn observe(&self, statistics: &Statistics) {
        // Other sources are internal to librdkafka, such as the logical broker of the group
        // coordinator.
        let is_broker = |source: &str| ["configured", "learned"].contains(&source);
        let knows_one = statistics
            .brokers
            .values()
            .any(|broker| is_broker(&broker.source));
        self.forgotten.store(!knows_one, Ordering::Relaxed);
    }

    /// Adds the bootstrap brokers again if the client knew none at the last
    /// [`observe`](Self::observe). Call it regularly.
    #[allow(
        unsafe_code,
        reason = "rust-rdkafka has no function of its own for this"
    )]
    pub fn restore<C: ClientContext>(&self, client: &Client<C>) {
        if self.forgotten.swap(false, Ordering::Relaxed) {
            tracing::warn!("librdkafka lost its list of brokers; adding KAFKA_BROKERS again");
            // SAFETY: the client outlives this borrow, any thread may call this function, and
            // librdkafka copies the text, which ends with a zero byte.
            unsafe { rd_kafka_brokers_add(client.native_ptr(), self.servers.as_ptr()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Read, Write},
        net::{TcpListener, TcpStream},
        sync::{Arc, atomic::AtomicUsize},
        thread,
        time::{Duration, Instant},
    };

    use rdkafka::{
        ClientConfig,
        consumer::{BaseConsumer, Consumer, ConsumerContext},
    };

    use super::*;

    const API_VERSIONS: i16 = 18;
    const METADATA: i16 = 3;
    const FIND_COORDINATOR: i16 = 10;
    const UNSUPPORTED_VERSION: i16 = 35;
    const LEADER_NOT_AVAILABLE: i16 = 5;
    const COORDINATOR_NOT_AVAILABLE: i16 = 15;

    /// A minimal broker that can answer that there are no brokers. A real broker does that for a
    /// few milliseconds only.
    #[derive(Clone)]
    struct Broker {
        port: u16,
        names_itself: Arc<AtomicBool>,
        requests: Arc<AtomicUsize>,
    }

    impl Broker {
        fn start() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let broker = Self {
                port: listener.local_addr().unwrap().port(),
                names_itself: Arc::new(AtomicBool::new(true)),
                requests: Arc::default(),
            };
            let serving = broker.clone();
            thread::spawn(move || {
                for client in listener.incoming() {
                    let broker = serving.clone();
                    // The thread ends when the client closes the connection.
                    thread::spawn(move || broker.serve(client.unwrap()));
                }
            });
            broker
        }

        fn serve(&self, mut client: TcpStream) -> io::Result<()> {
            loop {
                let mut size = [0; 4];
                client.read_exact(&mut size)?;
                let mut request = vec![0; i32::from_be_bytes(size) as usize];
                client.read_exact(&mut request)?;
                let number = |at: usize| i16::from_be_bytes([request[at], request[at + 1]]);
                let body = self.answer(number(0), number(2));
                client.write_all(&(body.len() as i32 + 4).to_be_bytes())?;
                client.write_all(&request[4..8])?;
                client.write_all(&body)?;
            }
        }

        /// Builds the answer to a request. All answers have version 0.
        fn answer(&self, api: i16, version: i16) -> Vec<u8> {
            let mut body = Vec::new();
            match api {
                API_VERSIONS if version > 0 => {
                    body.extend(UNSUPPORTED_VERSION.to_be_bytes());
                    body.extend(0_i32.to_be_bytes());
                }
                API_VERSIONS => {
                    body.extend(0_i16.to_be_bytes());
                    body.extend(3_i32.to_be_bytes());
                    for api in [API_VERSIONS, METADATA, FIND_COORDINATOR] {
                        body.extend([api, 0, 0].map(i16::to_be_bytes).as_flattened());
                    }
                }
                METADATA => {
                    self.requests.fetch_add(1, Ordering::Relaxed);
                    let brokers = i32::from(self.names_itself.load(Ordering::Relaxed));
                    body.extend(brokers.to_be_bytes());
                    if brokers == 1 {
                        body.extend(1_i32.to_be_bytes());
                        body.extend(text("127.0.0.1"));
                        body.extend(i32::from(self.port).to_be_bytes());
                    }
                    // One topic, without an error, with one partition that has neither leader nor
                    // replicas.
                    body.extend(1_i32.to_be_bytes());
                    body.extend(0_i16.to_be_bytes());
                    body.extend(text("orders"));
                    body.extend(1_i32.to_be_bytes());
                    body.extend(LEADER_NOT_AVAILABLE.to_be_bytes());
                    body.extend([0, -1, 0, 0].map(i32::to_be_bytes).as_flattened());
                }
                FIND_COORDINATOR => {
                    body.extend(COORDINATOR_NOT_AVAILABLE.to_be_bytes());
                    body.extend((-1_i32).to_be_bytes());
                    body.extend(text(""));
                    body.extend((-1_i32).to_be_bytes());
                }
                other => panic!("unexpected request of kind {other}"),
            }
            body
        }
    }

    fn text(text: &str) -> Vec<u8> {
        [&(text.len() as i16).to_be_bytes(), text.as_bytes()].concat()
    }

    struct Watched(Bootstrap);

    impl ClientContext for Watched {
        fn stats(&self, statistics: Statistics) {
            self.0.observe(&statistics);
        }
    }

    impl ConsumerContext for Watched {}

    /// Polls the consumer until `is_so` returns true. Panics after a minute.
    fn until(consumer: &BaseConsumer<Watched>, what: &str, mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !is_so() {
            assert!(Instant::now() < deadline, "no {what} within a minute");
            consumer.poll(Duration::from_millis(20));
        }
    }

    #[test]
    fn a_client_reconnects_after_an_answer_without_brokers() {
        let broker = Broker::start();
        let servers = format!("127.0.0.1:{}", broker.port);
        let consumer: BaseConsumer<Watched> = ClientConfig::new()
            .set("bootstrap.servers", &servers)
            .set("group.id", "orders")
            // Has the same effect as the stopped timer, in every run.
            .set("metadata.recovery.strategy", "none")
            .set("topic.metadata.refresh.interval.ms", "100")
            .set("statistics.interval.ms", "50")
            .create_with_context(Watched(Bootstrap::new(&servers).unwrap()))
            .unwrap();
        consumer.subscribe(&["orders"]).unwrap();
        let requests = || broker.requests.load(Ordering::Relaxed);
        until(&consumer, "metadata requests", || requests() > 2);

        broker.names_itself.store(false, Ordering::Relaxed);
        let forgotten = &consumer.context().0.forgotten;
        until(&consumer, "a client without brokers", || {
            forgotten.load(Ordering::Relaxed)
        });

        broker.names_itself.store(true, Ordering::Relaxed);
        let before = requests();
        until(&consumer, "another metadata request", || {
            consumer.context().0.restore(consumer.client());
            requests() > before + 2
        });
    }
}
