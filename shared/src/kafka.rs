//! What every client of Kafka shares: limits of a silent connection, and the way back to brokers that a client has forgotten.

use std::{
    ffi::{CString, NulError},
    sync::atomic::{AtomicBool, Ordering},
};

use rdkafka::{ClientContext, Statistics, bindings::rd_kafka_brokers_add, client::Client};

/// Limits after which librdkafka closes a connection that does not answer and opens another one.
///
/// The defaults are 60 s for a request and 30 s for connecting. A connection that a middlebox has forgotten would stop its
/// partitions for that long, and outlast the time that a producer gives a record.
pub const LIMITS: [(&str, &str); 2] = [
    ("socket.timeout.ms", "10000"),
    ("socket.connection.setup.timeout.ms", "10000"),
];

/// The brokers that a client begins with, and whether it has to begin again.
///
/// A broker that is about to end may answer that there are no brokers. librdkafka from 2.10 on then forgets all that it
/// knows, those of `bootstrap.servers` too, and sets a timer to take these up again; but another answer at that moment stops
/// the timer, and nothing ever sets it again ([librdkafka 5301]). Such a client would stay away until its process ends.
///
/// So whoever has a client looks at its statistics, which need `statistics.interval.ms`, and names the brokers again
/// when it knows none.
///
/// [librdkafka 5301]: https://github.com/confluentinc/librdkafka/issues/5301
#[derive(Debug)]
pub struct Bootstrap {
    servers: CString,
    forgotten: AtomicBool,
}

impl Bootstrap {
    /// `servers` as in `bootstrap.servers`.
    ///
    /// # Errors
    /// When there is a zero byte in them.
    pub fn new(servers: &str) -> Result<Self, NulError> {
        Ok(Self {
            servers: CString::new(servers)?,
            forgotten: AtomicBool::new(false),
        })
    }

    /// To be called with each statistics of the client.
    pub fn look(&self, statistics: &Statistics) {
        // The others are librdkafka's own, such as one that stands for whoever coordinates the group.
        let is_broker = |source: &str| ["configured", "learned"].contains(&source);
        let knows_one = statistics
            .brokers
            .values()
            .any(|broker| is_broker(&broker.source));
        self.forgotten.store(!knows_one, Ordering::Relaxed);
    }

    /// To be called now and then by whoever has the client: names the brokers to it again if it knew none at the last look.
    #[allow(
        unsafe_code,
        reason = "rust-rdkafka has no function of its own for this"
    )]
    pub fn restore<C: ClientContext>(&self, client: &Client<C>) {
        if self.forgotten.swap(false, Ordering::Relaxed) {
            tracing::warn!("librdkafka has forgotten all brokers; naming them again");
            // SAFETY: the client lives as long as it is borrowed, any thread may call this, and the text, which ends with a
            // zero byte, is copied.
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

    /// As much of a broker as it takes to tell a client that there is none: a real one does that for a few milliseconds only.
    #[derive(Clone)]
    struct Broker {
        port: u16,
        names_itself: Arc<AtomicBool>,
        asked: Arc<AtomicUsize>,
    }

    impl Broker {
        fn start() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let broker = Self {
                port: listener.local_addr().unwrap().port(),
                names_itself: Arc::new(AtomicBool::new(true)),
                asked: Arc::default(),
            };
            let serving = broker.clone();
            thread::spawn(move || {
                for client in listener.incoming() {
                    let broker = serving.clone();
                    // It ends with the client's connection.
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

        /// All in version 0.
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
                    self.asked.fetch_add(1, Ordering::Relaxed);
                    let brokers = i32::from(self.names_itself.load(Ordering::Relaxed));
                    body.extend(brokers.to_be_bytes());
                    if brokers == 1 {
                        body.extend(1_i32.to_be_bytes());
                        body.extend(text("127.0.0.1"));
                        body.extend(i32::from(self.port).to_be_bytes());
                    }
                    // One topic, without an error, with one partition that has neither leader nor replicas.
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
                other => panic!("a request of the kind {other}"),
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
            self.0.look(&statistics);
        }
    }

    impl ConsumerContext for Watched {}

    /// Polls until it is so.
    fn until(consumer: &BaseConsumer<Watched>, what: &str, mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !is_so() {
            assert!(Instant::now() < deadline, "not within a minute: {what}");
            consumer.poll(Duration::from_millis(20));
        }
    }

    #[test]
    fn a_client_that_was_told_that_there_are_no_brokers_finds_back() {
        let broker = Broker::start();
        let servers = format!("127.0.0.1:{}", broker.port);
        let consumer: BaseConsumer<Watched> = ClientConfig::new()
            .set("bootstrap.servers", &servers)
            .set("group.id", "orders")
            // As when the timer has been stopped, every time.
            .set("metadata.recovery.strategy", "none")
            .set("topic.metadata.refresh.interval.ms", "100")
            .set("statistics.interval.ms", "50")
            .create_with_context(Watched(Bootstrap::new(&servers).unwrap()))
            .unwrap();
        consumer.subscribe(&["orders"]).unwrap();
        let asked = || broker.asked.load(Ordering::Relaxed);
        until(&consumer, "it asks, and asks again", || asked() > 2);

        broker.names_itself.store(false, Ordering::Relaxed);
        let forgotten = &consumer.context().0.forgotten;
        until(&consumer, "it knows no broker", || {
            forgotten.load(Ordering::Relaxed)
        });

        broker.names_itself.store(true, Ordering::Relaxed);
        let before = asked();
        until(&consumer, "it asks again", || {
            consumer.context().0.restore(consumer.client());
            asked() > before + 2
        });
    }
}
