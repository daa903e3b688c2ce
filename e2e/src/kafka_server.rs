//! A Kafka that a test may stop.

use crate::{
    environment::{Folder, script},
    port::Port,
};

/// A broker of its own.
pub struct PrivateKafka {
    folder: Folder,
    port: Port,
    controller: Port,
}

impl PrivateKafka {
    pub(crate) fn start(name: &str) -> Self {
        let server = Self {
            folder: Folder::create(&format!("{name}-kafka")),
            port: Port::reserve(),
            controller: Port::reserve(),
        };
        server.start_again();
        server
    }

    pub(crate) fn brokers(&self) -> String {
        self.port.address()
    }

    /// Starts it after a [`PrivateKafka::stop`], with what it held; returns when it is ready.
    #[track_caller]
    pub fn start_again(&self) {
        let (port, controller) = (
            self.port.number().to_string(),
            self.controller.number().to_string(),
        );
        let folder = self.folder.argument();
        script("kafka/run", &["start", &folder, &port, &controller])
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// Ends it.
    #[track_caller]
    pub fn stop(&self) {
        self.try_stop().unwrap_or_else(|error| panic!("{error}"));
    }

    fn try_stop(&self) -> Result<(), String> {
        script("kafka/run", &["stop", &self.folder.argument()])
    }
}

impl Drop for PrivateKafka {
    fn drop(&mut self) {
        if let Err(error) = self.try_stop() {
            eprintln!("{error}");
        }
    }
}
