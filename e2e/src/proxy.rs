//! A road to a service that a test may cut, freeze, slow down or make lose its connections, and on which a COMMIT can be
//! lost or answered late.

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

/// What happens to a COMMIT that a client of Postgres sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Commits {
    #[default]
    Pass,
    /// It is passed on, and the answer waits.
    HoldAnswers,
    /// It is passed on, and the connection ends.
    LoseAnswers,
}

/// How the road is.
#[derive(Debug, Default)]
struct Road {
    /// Connections end, and new ones end at once.
    cut: bool,
    /// Connections stay, and nothing moves.
    frozen: bool,
    /// How long each piece takes in addition.
    delay: Duration,
    /// How likely it is that a connection ends with a piece.
    loss: f64,
    commits: Commits,
    /// A piece with this in it waits.
    held: Option<Vec<u8>>,
    /// Whether one waits.
    holds: bool,
    /// The sockets of each connection, by its number, so that they can be ended: the client's, and ours at the server.
    sockets: BTreeMap<u64, [TcpStream; 2]>,
    /// The connections whose data is taken in and lost.
    forgotten: BTreeSet<u64>,
}

/// What happens to a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Passes,
    /// It is acknowledged, and goes nowhere.
    Vanishes,
    EndsConnection,
}

#[derive(Default)]
struct State {
    road: Mutex<Road>,
    changed: Condvar,
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Road> {
        self.road.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Road)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Waits until it is clear what happens to `piece` of the connection `number`.
    fn fate(&self, number: u64, piece: &[u8], rng: &mut StdRng, is_answer_to_commit: bool) -> Fate {
        let road = self
            .changed
            .wait_while(self.lock(), |road| {
                let held = road.held.as_ref().is_some_and(|held| contains(piece, held));
                road.holds |= held;
                !road.cut
                    && !road.forgotten.contains(&number)
                    && (road.frozen
                        || held
                        || is_answer_to_commit && road.commits == Commits::HoldAnswers)
            })
            .unwrap_or_else(PoisonError::into_inner);
        let lost = road.cut
            || is_answer_to_commit && road.commits == Commits::LoseAnswers
            || road.loss > 0.0 && rng.random_bool(road.loss);
        if lost {
            return Fate::EndsConnection;
        }
        if road.forgotten.contains(&number) {
            return Fate::Vanishes;
        }
        let delay = road.delay;
        drop(road);
        if !delay.is_zero() {
            thread::sleep(delay);
        }
        Fate::Passes
    }

    fn has_forgotten(&self, number: u64) -> bool {
        self.lock().forgotten.contains(&number)
    }

    fn end(&self, number: u64) {
        let mut road = self.lock();
        road.sockets.remove(&number);
        road.forgotten.remove(&number);
    }
}

/// Passes on everything between its clients and a server, as well as the road is.
pub struct Proxy {
    address: SocketAddr,
    server: String,
    state: Arc<State>,
    ended: Arc<AtomicBool>,
}

impl Proxy {
    /// In front of the server at `HOST:PORT`, or of the one that a URL names.
    #[track_caller]
    pub fn to(server: &str) -> Self {
        Self::listening_at(server, 0)
    }

    /// As [`Proxy::to`], at a port of 127.0.0.1 that is known beforehand.
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
                // On a thread of its own, for a server that has no room for one more connection holds up whoever makes one.
                thread::spawn(move || {
                    // A server that is down is met as such: the client's connection ends.
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

    /// The URL `url` of the server by way of this proxy.
    pub fn url(&self, url: &str) -> String {
        url.replacen(&self.server, &self.address(), 1)
    }

    /// Ends every connection, and each new one at once.
    pub fn cut(&self) {
        self.state.change(|road| road.cut = true);
        self.end_connections();
    }

    /// Ends every connection; new ones are welcome.
    pub fn end_connections(&self) {
        let sockets = std::mem::take(&mut self.state.lock().sockets);
        for socket in sockets.into_values().flatten() {
            // One that has ended already needs no end.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// The ports from which the server sees the connections that are open.
    pub fn ports(&self) -> Vec<u16> {
        let road = self.state.lock();
        let ours = road.sockets.values().map(|[_, server]| server.local_addr());
        ours.filter_map(|address| Some(address.ok()?.port()))
            .collect()
    }

    /// From now on connections stay open, new ones too, and nothing passes.
    pub fn freeze(&self) {
        self.state.change(|road| road.frozen = true);
    }

    /// Forgets the connections that are open, as a middlebox does: what is sent on them is acknowledged and lost, and even
    /// their end is not passed on. New connections are served. [`Proxy::restore`] does not bring them back.
    pub fn forget_connections(&self) {
        self.state
            .change(|road| road.forgotten = road.sockets.keys().copied().collect());
    }

    /// How many forgotten connections the client still holds open.
    pub fn forgotten(&self) -> usize {
        self.state.lock().forgotten.len()
    }

    /// Lets pass everything again, at once and without loss.
    pub fn restore(&self) {
        self.state.change(|road| {
            *road = Road {
                sockets: std::mem::take(&mut road.sockets),
                forgotten: std::mem::take(&mut road.forgotten),
                ..Road::default()
            };
        });
    }

    /// From now on each piece takes so much longer, and ends its connection with that probability.
    pub fn impair(&self, delay: Duration, loss: f64) {
        self.state.change(|road| {
            road.delay = delay;
            road.loss = loss;
        });
    }

    /// From now on the answer to a COMMIT is kept back. The transaction is committed all the same.
    pub fn hold_commits(&self) {
        self.state
            .change(|road| road.commits = Commits::HoldAnswers);
    }

    /// From now on whatever has `bytes` in it is kept back, with all that comes behind it on its connection.
    pub fn hold(&self, bytes: &[u8]) {
        self.state.change(|road| road.held = Some(bytes.to_vec()));
    }

    /// Whether something is kept back because of [`Proxy::hold`].
    pub fn holds(&self) -> bool {
        self.state.lock().holds
    }

    /// From now on a connection ends as soon as its COMMIT has been passed on. The transaction is committed all the same.
    pub fn lose_commits(&self) {
        self.state
            .change(|road| road.commits = Commits::LoseAnswers);
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

/// Serves a connection on two threads of its own.
fn pass_on(client: TcpStream, server: &str, number: u64, state: &Arc<State>) -> io::Result<()> {
    let server = TcpStream::connect(server)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    {
        let mut road = state.lock();
        if road.cut {
            return Ok(());
        }
        let sockets = [client.try_clone()?, server.try_clone()?];
        road.sockets.insert(number, sockets);
    }
    let committing = Arc::new(AtomicBool::new(false));
    let (from, to) = (client.try_clone()?, server.try_clone()?);
    let mut rng = StdRng::seed_from_u64(number);
    thread::spawn({
        let (committing, state) = (Arc::clone(&committing), Arc::clone(state));
        move || {
            copy(&from, &to, |sent| {
                // The statement is sent in one piece, for it fits into the smallest packet.
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
        // The client of a forgotten connection does not learn that the server has ended it.
        if !state.has_forgotten(number) {
            end(&server, &client);
        }
    });
    Ok(())
}

/// Copies until either side ends or a piece ends the connection.
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

/// Ends both sides; the other direction notices, if it has not ended already.
fn end(one: &TcpStream, other: &TcpStream) {
    let _ = one.shutdown(Shutdown::Both);
    let _ = other.shutdown(Shutdown::Both);
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}

/// `HOST:PORT` of a URL that names both, or of itself.
fn host_and_port(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap();
    authority.rsplit('@').next().unwrap()
}
