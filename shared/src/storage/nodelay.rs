//! TCP_NODELAY for the connections to Postgres.
//!
//! sqlx 0.9 neither sets it nor hands out its socket. Without it the small last segment of a large statement waits for
//! the peer's delayed ACK, some 40 ms, again and again. So the open descriptors of this process are searched for sockets
//! that lead to the database, and the option is set there.

use std::{
    fs,
    net::{SocketAddr, ToSocketAddrs},
    os::fd::{BorrowedFd, RawFd},
};

use socket2::SockRef;

/// Sets TCP_NODELAY on every socket of this process whose peer is `host:port`. Quietly does nothing where there is no
/// `/proc` or where the peer is a Unix socket: the option only makes things faster.
pub(super) fn set(host: &str, port: u16) {
    let Ok(peers) = (host, port)
        .to_socket_addrs()
        .map(Iterator::collect::<Vec<_>>)
    else {
        return;
    };
    let Ok(descriptors) = fs::read_dir("/proc/self/fd") else {
        return;
    };
    let numbers =
        descriptors.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<RawFd>().ok());
    for descriptor in numbers {
        set_on(descriptor, &peers);
    }
}

#[allow(
    unsafe_code,
    reason = "sqlx hands out no socket, so its descriptor is borrowed by number"
)]
fn set_on(descriptor: RawFd, peers: &[SocketAddr]) {
    // SAFETY: the number was open a moment ago and is borrowed for two system calls only. Were it closed and reused in
    // between, the calls would fail or set the option on another socket, which is harmless; nothing is read, written or
    // closed through it.
    let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
    let socket = SockRef::from(&borrowed);
    let leads_to_database = socket
        .peer_addr()
        .ok()
        .and_then(|peer| peer.as_socket())
        .is_some_and(|peer| peers.contains(&peer));
    if leads_to_database && let Err(error) = socket.set_tcp_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set on a connection to Postgres");
    }
}
