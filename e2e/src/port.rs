//! Free ports that stay ours.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};

/// Below the range from which Linux takes ports for outgoing connections, so that none of those can be in the way.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// A TCP port of the loopback interface that nobody listens on, and that no other test takes while this lives: the UDP
/// port of the same number stands for it, across processes.
pub(crate) struct Port {
    number: u16,
    _reservation: UdpSocket,
}

impl Port {
    pub(crate) fn reserve() -> Self {
        for _ in 0..10_000 {
            let number = rand::random_range(RANGE);
            let Ok(reservation) = UdpSocket::bind((Ipv4Addr::LOCALHOST, number)) else {
                continue;
            };
            if TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Self {
                    number,
                    _reservation: reservation,
                };
            }
        }
        panic!("no free port in {RANGE:?}")
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }
}
