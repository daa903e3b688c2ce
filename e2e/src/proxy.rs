//! A link to a service that a test can cut, freeze, delay or make lossy. It can also lose or hold
//! the answer to a COMMIT.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};

/// What the proxy does with a COMMIT of a Postgres client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Commits {
    #[default]
    Pass,
    /// Forwards it and holds the answer.
    HoldAnswers,
    /// Forwards it and closes the connection.
    LoseAnswers,
}

/// State of the link.
#[derive(Debug, Default)]
struct LinkState {
    /// Connections are closed, new ones at once.
    cut: bool,
    /// Connections stay open, but no data passes.
    frozen: bool,
    /// Additional delay of each chunk.
    delay: Duration,
    /// Probability per chunk that its connection is closed.
    loss: f64,
    commits: Commits,
    /// A chunk that contains these bytes waits.
    held: Option<Vec<u8>>,
    /// Whether a chunk has waited because of `held`.
    holds: bool,
    /// The two sockets of each connection, by its number: the client's, and ours to the server.
    /// Used to close them.
    sockets: BTreeMap<u64, [TcpStream; 2]>,
    /// The connections whose data is acknowledged and dropped.
    forgotten: BTreeSet<u64>,
}

/// What happens to a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Passes,
    /// The chunk is acknowledged and dropped.
    Vanishes,
    EndsConnection,
}

#[derive(Default)]
struct SharedState {
    link: Mutex<LinkState>,
    changed: Condvar,
}

impl SharedState {
    fn lock(&self) -> MutexGuard<'_, LinkState> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut LinkState)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Waits until the fate of `piece` of the connection `number` is decided.
    fn fate(&self, number: u64, piece: &[u8], rng: &mut StdRng, is_answer_to_commit: bool) -> Fate {
        let link = self
            .changed
            .wait_while(self.lock(), |link| {
                let held = link.held.as_ref().is_some_and(|held| contains(piece, held));
                link.holds |= held;
                !link.cut
                    && !link.forgotten.contains(&number)
                    && (link.frozen
                        || held
                        || is_answer_to_commit && link.commits == Commits::HoldAnswers)
            })
            .unwrap_or_else(PoisonError::into_inner);
        let lost = link.cut
            || is_answer_to_commit && link.commits == Commits::LoseAnswers
            || link.loss > 0.0 && rng.random_bool(link.loss);
        if lost {
            return Fate::EndsConnection;
        }
        if link.forgotten.contains(&number) {
            return Fate::Vanishes;
        }
        let delay = link.delay;
        drop(link);
        if !delay.is_zero() {
            thread::sleep(delay);
        }
        Fate::Passes
    }

    fn has_forgotten(&self, number: u64) -> bool {
        self.lock().forgotten.contains(&number)
    }

    fn end(&self, number: u64) {
        let mut link = self.lock();
        link.sockets.remove(&number);
        link.forgotten.remove(&number);
    }
}

/// Forwards all data between its clients and a server, subject to the state of the link.
pub struct Proxy {
    address: SocketAddr,
    server: String,
    state: Arc<SharedState>,
    ended: Arc<AtomicBool>,
}

impl Proxy {
    /// A proxy for the server at `HOST:PORT`, or for the server that a URL names.
    #[track_caller]
    pub fn to(server: &str) -> Self {
        Self::listening_at(server, 0)
    }

    /// Like [`Proxy::to`], on a given port of 127.0.0.1.
    #[track_caller]
    pub fn listening_at(server: &str, port: u16) -> Self {
        let server = host_and_port(server).to_owned();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            server: server.clone(),
            state: Arc::default(),
            ended: Arc::default(),
        };
        let (state, ended) = (Arc::clone(&proxy.state), Arc::clone(&proxy.ended));
        thread::spawn(move || {
            for (number, client) in (0..).zip(listener.incoming()) {
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                let (server, state) = (server.clone(), Arc::clone(&state));
                // A separate thread, because a server without room for another connection blocks
                // the connect.
                thread::spawn(move || {
                    // If the server is down, the client's connection is closed.
                    let _ = client.and_then(|client| pass_on(client, &server, number, &state));
                });
            }
        });
        proxy
    }

    /// `HOST:PORT` of the proxy.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Returns `url`, a URL of the server, with the address of the proxy.
    pub fn url(&self, url: &str) -> String {
        url.replacen(&self.server, &self.address(), 1)
    }

    /// Closes every connection, and each new one at once.
    pub fn cut(&self) {
        self.state.change(|link| link.cut = true);
        self.end_connections();
    }

    /// Closes every connection. New ones are accepted.
    pub fn end_connections(&self) {
        let sockets = std::mem::take(&mut self.state.lock().sockets);
        for socket in sockets.into_values().flatten() {
            // An error means that the socket is already closed.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Returns the ports from which the server sees the open connections.
    pub fn ports(&self) -> Vec<u16> {
        let link = self.state.lock();
        let ours = link.sockets.values().map(|[_, server]| server.local_addr());
        ours.filter_map(|address| Some(address.ok()?.port()))
            .collect()
    }

    /// Blocks all data from now on. Connections stay open, including new ones.
    pub fn freeze(&self) {
        self.state.change(|link| link.frozen = true);
    }

    /// Forgets the open connections, as a middlebox does: their data is acknowledged and dropped,
    /// and even their end is not forwarded. New connections work. [`Proxy::restore`] does not
    /// revive the forgotten ones.
    pub fn forget_connections(&self) {
        self.state
            .change(|link| link.forgotten = link.sockets.keys().copied().collect());
    }

    /// Returns how many forgotten connections the client still holds open.
    pub fn forgotten(&self) -> usize {
        self.state.lock().forgotten.len()
    }

    /// Ends all faults: data passes again, without delay or loss.
    pub fn restore(&self) {
        self.state.change(|link| {
            *link = LinkState {
                sockets: std::mem::take(&mut link.sockets),
                forgotten: std::mem::take(&mut link.forgotten),
                ..LinkState::default()
            };
        });
    }

    /// Delays each chunk by `delay` from now on, and closes its connection with the probability
    /// `loss`.
    pub fn impair(&self, delay: Duration, loss: f64) {
        self.state.change(|link| {
            link.delay = delay;
            link.loss = loss;
        });
    }

    /// Holds the answer to each COMMIT from now on. The transaction is committed nevertheless.
    pub fn hold_commits(&self) {
        self.state
            .change(|link| link.commits = Commits::HoldAnswers);
    }

    /// Holds each chunk that contains `bytes` from now on, with all later data of its connection.
    pub fn hold(&self, bytes: &[u8]) {
        self.state.change(|link| link.held = Some(bytes.to_vec()));
    }

    /// Whether [`Proxy::hold`] holds a chunk.
    pub fn holds(&self) -> bool {
        self.state.lock().holds
    }

    /// Closes a connection as soon as its COMMIT was forwarded, from now on. The transaction is
    /// committed nevertheless.
    pub fn lose_commits(&self) {
        self.state
            .change(|link| link.commits = Commits::LoseAnswers);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        self.cut();
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
    }
}

/// Serves a connection on two threads.
fn pass_on(
    client: TcpStream,
    server: &str,
    number: u64,
    state: &Arc<SharedState>,
) -> io::Result<()> {
    let server = TcpStream::connect(server)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    {
        let mut link = state.lock();
        if link.cut {
            return Ok(());
        }
        let sockets = [client.try_clone()?, server.try_clone()?];
        link.sockets.insert(number, sockets);
    }
    let committing = Arc::new(AtomicBool::new(false));
    let (from, to) = (client.try_clone()?, server.try_clone()?);
    let mut rng = StdRng::seed_from_u64(number);
    thread::spawn({
        let (committing, state) = (Arc::clone(&committing), Arc::clone(state));
        move || {
            copy(&from, &to, |sent| {
                // The statement fits into the smallest packet, so it arrives in one chunk.
                if contains(sent, b"COMMIT") {
                    committing.store(true, Ordering::SeqCst);
                }
                state.fate(number, sent, &mut rng, false)
            });
            end(&from, &to);
            state.end(number);
        }
    });
    let mut rng = StdRng::seed_from_u64(!number);
    let state = Arc::clone(state);
    thread::spawn(move || {
        copy(&server, &client, |sent| {
            let is_answer_to_commit = committing.swap(false, Ordering::SeqCst);
            state.fate(number, sent, &mut rng, is_answer_to_commit)
        });
        // The client of a forgotten connection does not notice that the server has closed it.
        if !state.has_forgotten(number) {
            end(&server, &client);
        }
    });
    Ok(())
}

/// Copies until either side closes, or a chunk ends the connection.
fn copy(mut from: &TcpStream, mut to: &TcpStream, mut fate: impl FnMut(&[u8]) -> Fate) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let ends = match fate(&buffer[..length]) {
            Fate::Passes => to.write_all(&buffer[..length]).is_err(),
            Fate::Vanishes => false,
            Fate::EndsConnection => true,
        };
        if ends {
            break;
        }
    }
}

/// Closes both sides. The other direction notices, if it has not ended already.
fn end(one: &TcpStream, other: &TcpStream) {
    let _ = one.shutdown(Shutdown::Both);
    let _ = other.shutdown(Shutdown::Both);
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}

/// Returns `HOST:PORT` of a URL, or the text itself if it is `HOST:PORT`.
fn host_and_port(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap();
    authority.rsplit('@').next().unwrap()
}
