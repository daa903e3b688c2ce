//! Reserved free ports.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};

/// Below the range from which Linux takes ports for outgoing connections, so that these never
/// collide.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// A free TCP port of the loopback interface. No other test takes it while this value lives: the
/// UDP port of the same number reserves it, across processes.
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
