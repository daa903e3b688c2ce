//! Limits of a port.

use std::{net::IpAddr, time::Duration};

/// Limits of one port. All of them bound what clients can take from the process.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Maximum number of open connections. For one more, the connection that has waited longest for
    /// its client is closed. If none waits, the new one waits in the kernel's queue.
    pub connections: usize,
    /// Maximum number of open connections of one address (of one /64 network in IPv6); 0 for no
    /// limit. Further ones are closed at once.
    pub per_address: usize,
    /// Maximum bytes of all requests that have not arrived completely. Above it, the connection
    /// that has waited longest for its client is closed.
    pub unfinished_bytes: usize,
    /// Maximum bytes of all responses that wait for clients to read them. Above it, the connection
    /// that has waited longest is closed.
    pub unread_bytes: usize,
    /// Time without a request after which a connection gives its buffers back and may be closed in
    /// favour of a new one.
    pub rest: Duration,
}

/// Maximum number of open connections of an admin port.
pub const ADMIN_CONNECTIONS: usize = 64;

impl Limits {
    /// Limits of an admin port: few clients, which may reconnect at any time.
    pub const ADMIN: Self = Self {
        connections: ADMIN_CONNECTIONS,
        per_address: 0,
        unfinished_bytes: 512 * 1024,
        unread_bytes: 4 * 1024 * 1024,
        rest: Duration::ZERO,
    };

    /// Limits of a public port.
    pub const fn public(connections: usize, per_address: usize) -> Self {
        Self {
            connections,
            per_address,
            unfinished_bytes: 16 * 1024 * 1024,
            unread_bytes: 32 * 1024 * 1024,
            rest: Duration::from_secs(2),
        }
    }
}

/// Maximum time for requests in flight to finish after the shutdown begins.
pub(super) const DRAIN: Duration = Duration::from_secs(10);

/// A connection closes after this time without a byte from the client, or with a blocked write. The
/// client may have vanished, or may hold the connection on purpose. The kernel also closes a
/// connection whose client acknowledges nothing for this time.
pub(super) const IDLE: Duration = Duration::from_secs(75);

/// Maximum time to receive a whole request head, counted from its first byte. For the first head it
/// counts from the start of the connection. Also limits the part of a body that arrives after
/// the head, counted from the first byte of that part.
pub(super) const HEAD: Duration = Duration::from_secs(10);

/// Maximum bytes of a request head. A larger head gets 431.
pub const HEAD_BYTES: usize = 16 * 1024;

/// Maximum number of header lines. More get 431. hyper has the same limit, and its parser is
/// slower with another one.
pub(super) const HEADERS: usize = 100;

/// Maximum bytes of a response that wait in the kernel to be sent. Without this limit, the kernel
/// keeps megabytes for each client that does not read.
pub(super) const UNSENT: u32 = 128 * 1024;

/// After a response to a request that did not arrive completely, the rest of it is read and dropped
/// for at most this time and this number of bytes. The kernel would otherwise reset the
/// connection, and the client could lose the response.
pub(super) const LINGER: Duration = Duration::from_secs(1);
pub(super) const LINGER_BYTES: usize = 256 * 1024;

/// The clients that share the limit per address: one IPv4 address, or one IPv6 network, because a
/// single host usually owns a whole /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Origin {
    V4([u8; 4]),
    V6([u8; 8]),
}

impl From<IpAddr> for Origin {
    fn from(address: IpAddr) -> Self {
        // A socket for both families reports IPv4 clients as IPv6 addresses.
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}
