//! A Postgres that a test can stop.

use std::fs;

use crate::{
    environment::{Folder, script},
    port::Port,
    process::Signal,
};

/// Connection limit of a private Postgres: more than any test needs, and few enough for a test to
/// take them all.
const MAX_CONNECTIONS: &str = "max_connections=40";

/// A private Postgres that a test can stop, crash and freeze.
pub struct PrivatePostgres {
    folder: Folder,
    port: Port,
    settings: &'static [&'static str],
}

impl PrivatePostgres {
    pub(crate) fn start(name: &str, settings: &'static [&'static str]) -> Self {
        let server = Self {
            folder: Folder::create(&format!("{name}-postgres")),
            port: Port::reserve(),
            settings,
        };
        server.start_again();
        server
    }

    pub(crate) fn url(&self) -> String {
        format!(
            "postgres://postgres:postgres@{}/orders",
            self.port.address()
        )
    }

    /// Starts Postgres after [`PrivatePostgres::crash`]. Returns when it is ready.
    #[track_caller]
    pub fn start_again(&self) {
        let port = self.port.number().to_string();
        let folder = self.folder.argument();
        let arguments = [&["start", &*folder, &port, MAX_CONNECTIONS], self.settings].concat();
        script("postgres", &arguments).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Kills Postgres.
    #[track_caller]
    pub fn crash(&self) {
        self.try_crash().unwrap_or_else(|error| panic!("{error}"));
    }

    fn try_crash(&self) -> Result<(), String> {
        script("postgres", &["stop", &self.folder.argument(), "immediate"])
    }

    /// Freezes the server and all its sessions: connections stay open and get no answer.
    #[track_caller]
    pub fn freeze(&self) {
        // The postmaster stops first, so that it starts no new session in between.
        self.signal(Signal::Stop);
    }

    /// Ends [`PrivatePostgres::freeze`].
    #[track_caller]
    pub fn thaw(&self) {
        self.signal(Signal::Continue);
    }

    #[track_caller]
    fn signal(&self, signal: Signal) {
        let sent = self
            .folder
            .pid()
            .is_some_and(|pid| send_to_all(pid, signal));
        assert!(sent, "Postgres does not run");
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        if let Some(postmaster) = self.folder.pid() {
            // A frozen server cannot end.
            send_to_all(postmaster, Signal::Continue);
        }
        if let Err(error) = self.try_crash() {
            eprintln!("{error}");
        }
    }
}

/// Sends a signal to the postmaster and its children. Returns whether the postmaster exists. A
/// session that has already ended needs no signal.
fn send_to_all(postmaster: u32, signal: Signal) -> bool {
    let sent = signal.send(postmaster);
    let children = format!("/proc/{postmaster}/task/{postmaster}/children");
    let children = fs::read_to_string(children).unwrap_or_default();
    for session in children.split_whitespace().flat_map(str::parse) {
        signal.send(session);
    }
    sent
}
