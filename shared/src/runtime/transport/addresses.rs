//! The connections of each client address.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    sync::Arc,
};

use parking_lot::Mutex;

use super::limits::Origin;

/// Counts the open connections of each address, and limits them.
pub(super) struct Addresses {
    /// Maximum number for one address; 0 for no limit.
    limit: usize,
    /// Addresses with an open connection, so never more than there are connections.
    open: Mutex<HashMap<Origin, usize>>,
}

impl Addresses {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            open: Mutex::default(),
        })
    }

    /// Counts a connection from `address` until the result is dropped. Returns `None` if the
    /// address has as many as it may have.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Admission> {
        if self.limit == 0 {
            return Some(Admission(None));
        }
        let origin = Origin::from(address);
        let mut open = self.open.lock();
        let count = open.entry(origin).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(Admission(Some((Arc::clone(self), origin))))
    }
}

/// The place of one connection among those of its address.
pub(super) struct Admission(Option<(Arc<Addresses>, Origin)>);

impl Drop for Admission {
    fn drop(&mut self) {
        let Some((addresses, origin)) = self.0.take() else {
            return;
        };
        if let Entry::Occupied(mut count) = addresses.open.lock().entry(origin) {
            match count.get() {
                0 | 1 => drop(count.remove()),
                _ => *count.get_mut() -= 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_address_has_its_own_limit() {
        let addresses = Addresses::new(2);
        let first = addresses.admit(address("10.0.0.1")).unwrap();
        let _second = addresses.admit(address("10.0.0.1")).unwrap();
        assert!(addresses.admit(address("10.0.0.1")).is_none());
        // The same address, as a socket for both families reports it.
        assert!(addresses.admit(address("::ffff:10.0.0.1")).is_none());
        assert!(addresses.admit(address("10.0.0.2")).is_some());
        drop(first);
        assert!(addresses.admit(address("10.0.0.1")).is_some());
    }

    #[test]
    fn the_addresses_of_an_ipv6_network_share_a_limit() {
        let addresses = Addresses::new(1);
        let _one = addresses.admit(address("2001:db8:0:1::1")).unwrap();
        assert!(addresses.admit(address("2001:db8:0:1:ffff::2")).is_none());
        assert!(addresses.admit(address("2001:db8:0:2::1")).is_some());
    }

    #[test]
    fn closed_connections_leave_no_entry() {
        let addresses = Addresses::new(2);
        let both = ["10.0.0.1", "10.0.0.1"].map(|text| addresses.admit(address(text)));
        assert_eq!(addresses.open.lock().len(), 1);
        drop(both);
        assert!(addresses.open.lock().is_empty());
    }

    #[test]
    fn a_limit_of_zero_is_no_limit() {
        let addresses = Addresses::new(0);
        let all: Vec<_> = (0..1000)
            .map(|_| addresses.admit(address("10.0.0.1")))
            .collect();
        assert!(all.iter().all(Option::is_some));
    }
}
