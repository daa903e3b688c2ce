//! Callers and their scopes.

mod keys;

use std::sync::Arc;

use strum::{EnumString, VariantNames};

pub use keys::Keys;

/// A permission of a caller. The text of each scope is its name in the key file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, VariantNames)]
pub enum Scope {
    /// Read and watch an order by its uid.
    #[strum(serialize = "orders:read")]
    OrdersRead,
    /// List, export and watch all orders.
    #[strum(serialize = "orders:list")]
    OrdersList,
    /// See personal data.
    #[strum(serialize = "orders:pii")]
    OrdersPii,
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// Returns whether `scope` is in the set.
    pub fn contains(self, scope: Scope) -> bool {
        self.0 & Self::bit(scope) != 0
    }

    fn bit(scope: Scope) -> u8 {
        1 << scope as u8
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(
            scopes
                .into_iter()
                .fold(0, |bits, scope| bits | Self::bit(scope)),
        )
    }
}

/// An authenticated caller; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Name of the key.
    pub name: Arc<str>,
    /// What the caller may do.
    pub scopes: Scopes,
    /// The customer whose orders the caller may see; all orders if `None`.
    pub customer: Option<Arc<str>>,
}

/// Reason why a caller is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The token is missing or unknown.
    Unauthorized,
    /// The token is valid but lacks the scope.
    Forbidden,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_the_scopes_that_it_was_built_from() {
        let scopes: Scopes = [Scope::OrdersRead, Scope::OrdersPii].into_iter().collect();
        assert!(scopes.contains(Scope::OrdersRead) && scopes.contains(Scope::OrdersPii));
        assert!(!scopes.contains(Scope::OrdersList));
        assert!(!Scopes::default().contains(Scope::OrdersRead));
    }
}
