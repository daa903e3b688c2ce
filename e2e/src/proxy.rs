//! A road to Postgres on which the answer to a COMMIT can be late.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// Whether answers to COMMIT may pass.
#[derive(Default)]
struct Gate {
    closed: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn set_closed(&self, closed: bool) {
        *self.lock() = closed;
        self.opened.notify_all();
    }

    /// Waits until it is open.
    fn pass(&self) {
        let opened = self.opened.wait_while(self.lock(), |closed| *closed);
        drop(opened.unwrap_or_else(PoisonError::into_inner));
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Passes on everything between its clients and a Postgres, and can keep the answers to COMMIT to itself for a while.
pub struct CommitProxy {
    address: SocketAddr,
    url: String,
    gate: Arc<Gate>,
    ended: Arc<AtomicBool>,
}

impl CommitProxy {
    /// In front of the Postgres of this URL.
    #[track_caller]
    pub fn to(database_url: &str) -> Self {
        let server = host_and_port(database_url).to_owned();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let proxy = Self {
            address,
            url: database_url.replacen(&server, &address.to_string(), 1),
            gate: Arc::default(),
            ended: Arc::default(),
        };
        let (gate, ended) = (Arc::clone(&proxy.gate), Arc::clone(&proxy.ended));
        thread::spawn(move || {
            for client in listener.incoming() {
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                let passed_on = client.and_then(|client| pass_on(client, &server, &gate));
                if let Err(error) = passed_on {
                    eprintln!("proxy to {server}: {error}");
                }
            }
        });
        proxy
    }

    /// The URL of the database by way of this proxy.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// From now on the answer to a COMMIT is kept back. The transaction is committed all the same.
    pub fn hold_commits(&self) {
        self.gate.set_closed(true);
    }

    /// Lets the answers go.
    pub fn release_commits(&self) {
        self.gate.set_closed(false);
    }
}

impl Drop for CommitProxy {
    fn drop(&mut self) {
        self.release_commits();
        self.ended.store(true, Ordering::Relaxed);
        // Wakes the listener; connections end with their clients.
        let _ = TcpStream::connect(self.address);
    }
}

/// Serves a connection on two threads of its own.
fn pass_on(client: TcpStream, server: &str, gate: &Arc<Gate>) -> io::Result<()> {
    let server = TcpStream::connect(server)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let committing = Arc::new(AtomicBool::new(false));
    let up = (client.try_clone()?, server.try_clone()?);
    thread::spawn({
        let committing = Arc::clone(&committing);
        move || {
            copy(up.0, up.1, |sent| {
                // The statement is sent in one piece, for it fits into the smallest packet.
                if sent.windows(6).any(|word| word == b"COMMIT") {
                    committing.store(true, Ordering::SeqCst);
                }
            });
        }
    });
    let gate = Arc::clone(gate);
    thread::spawn(move || {
        copy(server, client, |_| {
            if committing.swap(false, Ordering::SeqCst) {
                gate.pass();
            }
        });
    });
    Ok(())
}

/// Copies until either side ends, and shows each piece before it is passed on.
fn copy(mut from: TcpStream, mut to: TcpStream, mut show: impl FnMut(&[u8])) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        show(&buffer[..length]);
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    // The other direction notices, if it has not ended already.
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

/// `HOST:PORT` of a URL that names both.
fn host_and_port(url: &str) -> &str {
    let (_, rest) = url.split_once("://").unwrap();
    let authority = rest.split(['/', '?']).next().unwrap();
    authority.rsplit('@').next().unwrap()
}
