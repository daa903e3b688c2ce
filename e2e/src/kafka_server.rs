//! A Kafka broker that a test can stop.

use crate::{
    environment::{Folder, script},
    port::Port,
    process::Signal,
    proxy::Proxy,
};

/// A private broker that is reachable only through a [`Proxy`].
pub struct PrivateKafka {
    folder: Folder,
    port: Port,
    controller: Port,
    link: Proxy,
    settings: &'static [&'static str],
}

impl PrivateKafka {
    pub(crate) fn start(name: &str, settings: &'static [&'static str]) -> Self {
        let port = Port::reserve();
        let server = Self {
            folder: Folder::create(&format!("{name}-kafka")),
            link: Proxy::to(&port.address()),
            port,
            controller: Port::reserve(),
            settings,
        };
        server.start_again();
        server
    }

    pub(crate) fn brokers(&self) -> String {
        self.link.address()
    }

    /// The proxy in front of the broker.
    pub fn link(&self) -> &Proxy {
        &self.link
    }

    /// Starts the broker after [`PrivateKafka::stop`] or [`PrivateKafka::crash`], with its data.
    /// Returns when it is ready.
    #[track_caller]
    pub fn start_again(&self) {
        let ports = [&self.port, &self.controller].map(|port| port.number().to_string());
        let address = self.link.address();
        let (_, advertised) = address.rsplit_once(':').expect("HOST:PORT");
        let folder = self.folder.argument();
        let start = ["start", &folder, &ports[0], &ports[1], advertised];
        script("kafka/run", &[&start, self.settings].concat())
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// Stops the broker in order.
    #[track_caller]
    pub fn stop(&self) {
        self.try_stop("fast")
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// Kills the broker.
    #[track_caller]
    pub fn crash(&self) {
        self.try_stop("immediate")
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// Freezes the broker: connections stay open and get no answer.
    #[track_caller]
    pub fn freeze(&self) {
        self.signal(Signal::Stop);
    }

    /// Ends [`PrivateKafka::freeze`].
    #[track_caller]
    pub fn thaw(&self) {
        self.signal(Signal::Continue);
    }

    #[track_caller]
    fn signal(&self, signal: Signal) {
        let sent = self.folder.pid().is_some_and(|pid| signal.send(pid));
        assert!(sent, "Kafka does not run");
    }

    fn try_stop(&self, how: &str) -> Result<(), String> {
        script("kafka/run", &["stop", &self.folder.argument(), how])
    }
}

impl Drop for PrivateKafka {
    fn drop(&mut self) {
        if let Err(error) = self.try_stop("immediate") {
            eprintln!("{error}");
        }
    }
}
