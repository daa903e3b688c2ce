//! An address that a test can move from one Redis to another.

use std::{
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    thread,
};

use super::redis::TestRedis;
use crate::config;

/// An address that a test can move from one Redis to another. Open connections stay with the old
/// server.
pub struct MovingRedis {
    port: u16,
    target: Arc<AtomicU16>,
}

impl MovingRedis {
    /// Creates an address that leads to `redis`.
    pub fn to(redis: &TestRedis) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .unwrap_or_else(|error| panic!("no free port: {error}"));
        let target = Arc::new(AtomicU16::new(redis.port));
        let port = listener.local_addr().map_or(0, |address| address.port());
        let to = Arc::clone(&target);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // If the server is down, the client's connection closes.
                if let Ok(server) = TcpStream::connect(("127.0.0.1", to.load(Ordering::SeqCst))) {
                    forward(&client, &server);
                    forward(&server, &client);
                }
            }
        });
        Self { port, target }
    }

    /// Routes new connections to `redis`.
    pub fn move_to(&self, redis: &TestRedis) {
        self.target.store(redis.port, Ordering::SeqCst);
    }

    /// Returns `config` with this address.
    pub fn config(&self, config: config::Redis) -> config::Redis {
        let (before, _) = config.url.rsplit_once(':').unwrap_or_default();
        config::Redis {
            url: format!("{before}:{}", self.port),
            ..config
        }
    }
}

/// Copies bytes from `from` to `to` on a new thread until either side closes.
fn forward(from: &TcpStream, to: &TcpStream) {
    // If a socket cannot be cloned, the connection hangs, and the test fails.
    let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else {
        return;
    };
    thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
}
