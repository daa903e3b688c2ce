//! Hostile clients, each on its own connection, which it opens again when the server closes it.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use shared::runtime::descriptors;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    runtime::Runtime,
    time::{sleep, timeout},
};

use super::shapes::SHAPES;

/// Pause before a client connects again, so that the crowd leaves the replica some of the
/// processors of one machine.
const PAUSE: Duration = Duration::from_millis(500);

/// How long a client keeps a connection on which it reads nothing.
const HOLD: Duration = Duration::from_secs(20);

/// Interval between two bytes of a slow head.
const DRIP: Duration = Duration::from_secs(1);

/// What a client does on its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Sends nothing.
    Silent,
    /// Sends a head byte by byte.
    SlowHead,
    /// Sends most of a large head.
    LargeHead,
    /// Sends most of a large body.
    LargeBody,
    /// Sends one request, then nothing.
    Idle,
    /// Requests a large document many times, and reads nothing.
    SlowReader,
    /// Sends requests and closes the connection at once.
    Flood,
    /// Sends a hundred requests in one piece.
    Pipeline,
    /// Sends a request that is ambiguous, with another one behind it.
    Smuggle,
}

impl Kind {
    pub(super) const ALL: [Self; 9] = [
        Self::Silent,
        Self::SlowHead,
        Self::LargeHead,
        Self::LargeBody,
        Self::Idle,
        Self::SlowReader,
        Self::Flood,
        Self::Pipeline,
        Self::Smuggle,
    ];

    /// What a client can do at any port.
    pub(super) const WITHOUT_ORDERS: [Self; 5] = [
        Self::Silent,
        Self::SlowHead,
        Self::LargeHead,
        Self::Flood,
        Self::Smuggle,
    ];
}

/// The addresses from which clients connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// This number of addresses, in turn.
    Addresses(usize),
    /// One address.
    One,
}

impl Origin {
    fn address(self, index: usize) -> SocketAddr {
        let last = match self {
            Self::Addresses(count) => [1, index % count],
            Self::One => [2, 0],
        };
        let [block, host] = last.map(|number| number as u8);
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, block, host + 1)), 0)
    }
}

/// Running hostile clients.
pub(super) struct Crowd {
    runtime: Runtime,
    shared: Arc<Shared>,
}

struct Shared {
    server: SocketAddr,
    uids: Vec<String>,
    attacks: AtomicUsize,
    open: AtomicUsize,
    most_open: AtomicUsize,
    violations: Mutex<Vec<String>>,
}

impl Crowd {
    /// Starts `size` clients of `server`, equally many of each of `kinds`.
    pub(super) fn start(
        server: SocketAddr,
        kinds: &[Kind],
        size: usize,
        origin: Origin,
        uids: &[String],
    ) -> Self {
        let files = descriptors::raise(20_000);
        assert!(files > size as u64 + 1000, "only {files} open files");
        let runtime = Runtime::new().expect("a runtime");
        let shared = Arc::new(Shared {
            server,
            uids: uids.to_vec(),
            attacks: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            most_open: AtomicUsize::new(0),
            violations: Mutex::default(),
        });
        for index in 0..size {
            let client = Client {
                shared: Arc::clone(&shared),
                kind: kinds[index % kinds.len()],
                origin: origin.address(index / kinds.len()),
                index,
            };
            runtime.spawn(client.run());
        }
        Self { runtime, shared }
    }

    /// Returns the greatest number of connections that were open at a time.
    pub(super) fn most_open(&self) -> usize {
        self.shared.most_open.load(Ordering::Relaxed)
    }

    /// Returns the number of connections that clients opened.
    pub(super) fn attacks(&self) -> usize {
        self.shared.attacks.load(Ordering::Relaxed)
    }

    /// Ends all clients. Returns what the server should not have answered.
    pub(super) fn stop(self) -> Vec<String> {
        self.runtime.shutdown_background();
        let violations = self.shared.violations.lock();
        violations.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Client {
    shared: Arc<Shared>,
    kind: Kind,
    origin: SocketAddr,
    index: usize,
}

impl Client {
    async fn run(self) {
        let mut round = self.index;
        loop {
            // The server may close the connection at any time.
            let _ = self.attack(round).await;
            round += 1;
            sleep(PAUSE).await;
        }
    }

    async fn attack(&self, round: usize) -> io::Result<()> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(self.origin)?;
        let mut stream = socket.connect(self.shared.server).await?;
        self.shared.attacks.fetch_add(1, Ordering::Relaxed);
        let open = self.shared.open.fetch_add(1, Ordering::Relaxed) + 1;
        self.shared.most_open.fetch_max(open, Ordering::Relaxed);
        let result = self.act(&mut stream, round).await;
        self.shared.open.fetch_sub(1, Ordering::Relaxed);
        result
    }

    async fn act(&self, stream: &mut TcpStream, round: usize) -> io::Result<()> {
        let uid = &self.shared.uids[round % self.shared.uids.len()];
        let get = format!("GET /order/{uid} HTTP/1.1\r\nHost: a\r\n\r\n");
        let large = "x".repeat(15_000);
        match self.kind {
            Kind::Silent => {}
            Kind::SlowHead => {
                stream.write_all(b"GET / HTTP/1.1\r\nX: ").await?;
                loop {
                    sleep(DRIP).await;
                    stream.write_all(b"x").await?;
                }
            }
            Kind::LargeHead => {
                let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {large}");
                stream.write_all(head.as_bytes()).await?;
            }
            Kind::LargeBody => {
                let head = "POST /orders/batch-get HTTP/1.1\r\nHost: a\r\nContent-Length: 60001\r\n\
                            Content-Type: application/json\r\n\r\n";
                stream.write_all(head.as_bytes()).await?;
                stream.write_all(large.repeat(4).as_bytes()).await?;
            }
            Kind::Idle => stream.write_all(get.as_bytes()).await?,
            Kind::SlowReader => {
                let request = "GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n";
                stream.write_all(request.repeat(50).as_bytes()).await?;
                sleep(HOLD).await;
                return Ok(());
            }
            Kind::Flood => return stream.write_all(get.as_bytes()).await,
            Kind::Pipeline => {
                stream.write_all(get.repeat(100).as_bytes()).await?;
                let mut response = vec![0; 64 * 1024];
                stream.read_exact(&mut response).await?;
                return Ok(());
            }
            Kind::Smuggle => return self.smuggle(stream, round).await,
        }
        // Waits for the server to close the connection.
        let mut response = Vec::new();
        stream.read_to_end(&mut response).await.map(drop)
    }

    /// Sends an ambiguous request with a valid one behind it. Only the first may be answered, and
    /// only with an error.
    async fn smuggle(&self, stream: &mut TcpStream, round: usize) -> io::Result<()> {
        let shape = SHAPES[round % SHAPES.len()];
        let smuggled = "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n";
        stream
            .write_all([shape, smuggled].concat().as_bytes())
            .await?;
        let mut response = Vec::new();
        // A server that waits for more was tricked, too; it closes the connection after 10 s.
        let ended = timeout(HOLD, stream.read_to_end(&mut response)).await;
        let text = String::from_utf8_lossy(&response);
        let statuses: Vec<&str> = text
            .split("HTTP/1.1 ")
            .skip(1)
            .map(|response| response.get(..3).unwrap_or(response))
            .collect();
        // An evicted connection has no response.
        let is_right = match statuses[..] {
            [] => true,
            [status] => status.starts_with('4') || status == "505",
            _ => false,
        };
        if ended.is_err() || !is_right {
            let violation = format!("{shape:?}: {statuses:?}, closed: {}", ended.is_ok());
            let violations = self.shared.violations.lock();
            violations
                .unwrap_or_else(PoisonError::into_inner)
                .push(violation);
        }
        Ok(())
    }
}
