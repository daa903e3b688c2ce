//! Why a record can never be stored.

use thiserror::Error;

/// Why a record goes to the dead letter topic; the variants stand in the order in which they are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The value is longer than [`MAX_VALUE_BYTES`](super::MAX_VALUE_BYTES).
    TooLarge,
    /// The timestamp lies further in the future than [`MAX_FUTURE`](super::MAX_FUTURE).
    FutureTimestamp,
    /// The value is not one JSON text of the order's shape.
    MalformedJson,
    /// Strict mode: the value has a field that the order does not have.
    UnknownField,
    /// The value has the order's shape but breaks a rule.
    InvalidOrder,
    /// The database refuses the row for what it says.
    RejectedByDatabase,
}

impl Reason {
    /// Every reason, in the order in which they are checked.
    pub const ALL: [Self; 6] = [
        Self::TooLarge,
        Self::FutureTimestamp,
        Self::MalformedJson,
        Self::UnknownField,
        Self::InvalidOrder,
        Self::RejectedByDatabase,
    ];

    /// The stable code: value of the header `dlq-reason` and of the metrics' label `reason`.
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

/// A record that can never be stored, with the reason for it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{reason}: {detail}")]
pub struct Refusal {
    /// The stable code.
    pub reason: Reason,
    /// Which rule, which field and where; never a byte of the input, which may be personal data.
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_stand_in_the_order_of_the_checks() {
        assert!(Reason::ALL.is_sorted_by(|a, b| a < b));
    }
}
