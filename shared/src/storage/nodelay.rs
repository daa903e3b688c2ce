//! TCP_NODELAY for the connections to Postgres.
//!
//! sqlx 0.9 neither sets the option nor exposes its socket. Without it, the small last segment of a
//! large statement waits some 40 ms for the peer's delayed ACK, again and again. So this module
//! searches the open descriptors of this process for sockets that lead to the database, and sets
//! the option there.

use std::{
    fs,
    net::{SocketAddr, ToSocketAddrs},
    os::fd::{BorrowedFd, RawFd},
};

use socket2::SockRef;

/// Sets TCP_NODELAY on every socket of this process whose peer is `host:port`. Does nothing if
/// there is no `/proc` or if the peer is a Unix socket: the option only makes calls faster.
pub(super) fn set(host: &str, port: u16) {
    each_socket_to(host, port, |socket| {
        if let Err(error) = socket.set_tcp_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set on a connection to Postgres");
        }
    });
}

fn each_socket_to(host: &str, port: u16, mut action: impl FnMut(&SockRef<'_>)) {
    let Ok(peers) = (host, port)
        .to_socket_addrs()
        .map(Iterator::collect::<Vec<_>>)
    else {
        return;
    };
    let Ok(descriptors) = fs::read_dir("/proc/self/fd") else {
        return;
    };
    for entry in descriptors.flatten() {
        if let Some(descriptor) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        {
            on_socket_to(descriptor, &peers, &mut action);
        }
    }
}

#[allow(
    unsafe_code,
    reason = "sqlx hands out no socket, so its descriptor is borrowed by number"
)]
fn on_socket_to(descriptor: RawFd, peers: &[SocketAddr], action: &mut impl FnMut(&SockRef<'_>)) {
    // SAFETY: the descriptor was open a moment ago and is borrowed for a few system calls only. If
    // it is closed and reused in between, the calls fail or set the option on another socket, which
    // is harmless. Nothing is read, written or closed through it.
    let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
    let socket = SockRef::from(&borrowed);
    let peer = socket.peer_addr().ok().and_then(|peer| peer.as_socket());
    if peer.is_some_and(|peer| peers.contains(&peer)) {
        action(&socket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        storage::{ChangeSet, Role},
        testing::TestDatabase,
    };

    /// Checks the option itself instead of measuring time.
    #[tokio::test]
    async fn every_pooled_connection_has_nodelay() {
        let database = TestDatabase::migrated().await;
        let postgres = database.connect(Role::Worker);
        let empty = ChangeSet::default();
        let (first, second) = tokio::join!(postgres.now(), postgres.apply(&empty));
        assert!(first.is_ok() && second.is_ok());
        let (host, port) = postgres.peer();
        let mut options = Vec::new();
        each_socket_to(&host, port, |socket| {
            options.push(socket.tcp_nodelay().unwrap())
        });
        // Other tests of this process open their own connections to the same server.
        assert!(
            options.iter().filter(|nodelay| **nodelay).count() >= 2,
            "{options:?}"
        );
    }
}
