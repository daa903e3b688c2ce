//! Chooses the orders of a sample by their uid, so that every tier and every run has the same ones.

use std::{collections::BTreeSet, fmt, str::FromStr};

use sha2::{Digest, Sha256};
use shared::order::OrderUid;

/// A share of all orders, such as `1%`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Share {
    percent: f64,
}

impl Share {
    fn takes(self, uid: &OrderUid) -> bool {
        if self.percent >= 100.0 {
            return true;
        }
        let hash = Sha256::digest(uid.as_str());
        let first = hash.iter().take(8);
        let number = first.fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
        (number as f64) < self.percent / 100.0 * 2_f64.powi(64)
    }
}

impl FromStr for Share {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = text.strip_suffix('%').map(str::parse);
        match number {
            Some(Ok(percent)) if percent > 0.0 && percent <= 100.0 => Ok(Self { percent }),
            _ => Err("not a share of the orders; write 1%, 0.1%, or 100% for all"),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.percent)
    }
}

/// The orders to compare.
#[derive(Clone, Debug)]
pub(super) enum Sample {
    /// A share of all orders.
    Share(Share),
    /// These orders.
    Orders(BTreeSet<OrderUid>),
}

impl Sample {
    pub(super) fn takes(&self, uid: &OrderUid) -> bool {
        match self {
            Self::Share(share) => share.takes(uid),
            Self::Orders(uids) => uids.contains(uid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(text: &str) -> Share {
        text.parse().unwrap()
    }

    fn taken(share: Share) -> Vec<usize> {
        let uid = |n: &usize| OrderUid::parse(&format!("order-{n}")).unwrap();
        (0..10_000).filter(|n| share.takes(&uid(n))).collect()
    }

    #[test]
    fn a_sample_is_about_its_share_and_part_of_a_larger_one() {
        let (one, ten) = (taken(share("1%")), taken(share("10%")));
        assert!((60..140).contains(&one.len()), "{}", one.len());
        assert!((850..1150).contains(&ten.len()), "{}", ten.len());
        assert!(one.iter().all(|n| ten.contains(n)));
        assert_eq!(taken(share("100%")).len(), 10_000);
    }

    /// Otherwise two releases would compare different orders.
    #[test]
    fn the_choice_does_not_change_between_releases() {
        assert_eq!(&taken(share("0.1%"))[..3], [535, 629, 2804]);
    }

    #[test]
    fn other_texts_are_rejected() {
        assert_eq!(share("0.1%").to_string(), "0.1%");
        for wrong in [
            "", "1", "%", "0%", "-1%", "101%", "NaN%", "inf%", "1 %", "0.01",
        ] {
            assert!(wrong.parse::<Share>().is_err(), "{wrong}");
        }
    }
}
