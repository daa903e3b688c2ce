//! Reasons why a record cannot be stored.

use thiserror::Error;

/// Why a record goes to the dead letter topic. The variants are in the order of the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The value is longer than [`MAX_VALUE_BYTES`](super::MAX_VALUE_BYTES).
    TooLarge,
    /// The timestamp is further in the future than [`MAX_FUTURE`](super::MAX_FUTURE).
    FutureTimestamp,
    /// The value is not a single JSON text with the shape of an order.
    MalformedJson,
    /// Strict mode: the value has an unknown field.
    UnknownField,
    /// The value has the shape of an order but breaks a rule.
    InvalidOrder,
    /// Postgres rejects the row because of its content.
    RejectedByDatabase,
}

impl Reason {
    /// All reasons, in the order of the checks.
    pub const ALL: [Self; 6] = [
        Self::TooLarge,
        Self::FutureTimestamp,
        Self::MalformedJson,
        Self::UnknownField,
        Self::InvalidOrder,
        Self::RejectedByDatabase,
    ];

    /// Returns the stable code, used in the header `dlq-reason` and in the metric label `reason`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::FutureTimestamp => "future_timestamp",
            Self::MalformedJson => "malformed_json",
            Self::UnknownField => "unknown_field",
            Self::InvalidOrder => "invalid_order",
            Self::RejectedByDatabase => "rejected_by_database",
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The reason why a record cannot be stored.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{reason}: {detail}")]
pub struct Rejection {
    /// The stable code.
    pub reason: Reason,
    /// The rule, the field and its position. Contains no byte of the input, which may be personal
    /// data.
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_in_the_order_of_the_checks() {
        assert!(Reason::ALL.is_sorted_by(|a, b| a < b));
    }
}
