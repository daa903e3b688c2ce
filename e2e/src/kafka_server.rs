//! A Kafka broker that a test can stop.

use crate::{
    environment::{Folder, script},
    port::Port,
    process::Signal,
    proxy::Proxy,
    roles,
};

/// A private broker that is reachable only through a [`Proxy`]. A secured one has a second
/// listener, at which clients log in by SASL and have only the rights of their ACLs.
pub struct PrivateKafka {
    folder: Folder,
    port: Port,
    controller: Port,
    link: Proxy,
    secured: Option<Port>,
    settings: &'static [&'static str],
}

impl PrivateKafka {
    pub(crate) fn start(name: &str, settings: &'static [&'static str], is_secured: bool) -> Self {
        let port = Port::reserve();
        let server = Self {
            folder: Folder::create(&format!("{name}-kafka")),
            link: Proxy::to(&port.address()),
            port,
            controller: Port::reserve(),
            secured: is_secured.then(Port::reserve),
            settings,
        };
        server.start_again();
        server
    }

    pub(crate) fn brokers(&self) -> String {
        self.link.address()
    }

    /// Returns the address at which clients log in; none if the broker is not secured.
    pub(crate) fn secured_brokers(&self) -> Option<String> {
        self.secured.as_ref().map(Port::address)
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
        let secured = self.secured_settings(advertised);
        let secured: Vec<&str> = secured.iter().map(String::as_str).collect();
        script("kafka/run", &[&start, self.settings, &secured].concat())
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// Returns the settings of the second listener. The clients of the tests keep all rights at the
    /// first one.
    fn secured_settings(&self, advertised: &str) -> Vec<String> {
        let Some(secured) = &self.secured else {
            return Vec::new();
        };
        let (plain, secured) = (self.port.address(), secured.address());
        let controller = self.controller.address();
        vec![
            format!("listeners=PLAINTEXT://{plain},SASL://{secured},CONTROLLER://{controller}"),
            format!("advertised.listeners=PLAINTEXT://127.0.0.1:{advertised},SASL://{secured}"),
            "listener.security.protocol.map=\
             PLAINTEXT:PLAINTEXT,SASL:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT"
                .to_owned(),
            "listener.name.sasl.sasl.enabled.mechanisms=PLAIN".to_owned(),
            format!(
                "listener.name.sasl.plain.sasl.jaas.config=\
                 org.apache.kafka.common.security.plain.PlainLoginModule required {};",
                roles::jaas_users()
            ),
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer"
                .to_owned(),
            "super.users=User:ANONYMOUS".to_owned(),
        ]
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
