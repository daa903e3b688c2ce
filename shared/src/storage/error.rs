//! Errors of Postgres, classified once by what is to be done about them.

use std::time::Duration;

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The service is down, busy or chose us as a deadlock's victim: the same call succeeds later.
    Transient,
    /// Somebody holds a lock that we waited for too long; retry, after ending sessions of ours that are frozen.
    Locked,
    /// The connection's prepared statements are older than the schema: retry on another connection.
    StalePlan,
    /// Wrong password, missing table, missing right: no retry helps until somebody mends the deployment.
    Deployment,
    /// Postgres refuses the data: bisect, then dead-letter the one record.
    Record,
    /// A unique or foreign key of ours: another writer was faster. Retry.
    Rival,
    /// Something this version does not know.
    Unknown,
}

impl Class {
    /// Every class, in no particular order.
    pub const ALL: [Self; 7] = [
        Self::Transient,
        Self::Locked,
        Self::StalePlan,
        Self::Deployment,
        Self::Record,
        Self::Rival,
        Self::Unknown,
    ];

    /// The value of the label `class` of `db_errors_total`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Locked => "locked",
            Self::StalePlan => "stale_plan",
            Self::Deployment => "deployment",
            Self::Record => "record",
            Self::Rival => "rival",
            Self::Unknown => "unknown",
        }
    }
}

/// A call to Postgres that failed. Its text holds no personal data: of a database error only SQLSTATE and constraint are
/// told, for message and detail may quote values.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// No answer within the deadline.
    #[error("no answer from Postgres within {0:?}")]
    Deadline(Duration),
    /// Postgres answered with an error.
    #[error("Postgres: SQLSTATE {code}{}", constraint.as_deref().map(|name| format!(", constraint {name}")).unwrap_or_default())]
    Database {
        /// SQLSTATE, five characters.
        code: String,
        /// The constraint that was broken, where Postgres names one.
        constraint: Option<String>,
    },
    /// The connection could not be made or broke.
    #[error("connection to Postgres: {0}")]
    Connection(String),
    /// The answer was not what the statement asks for.
    #[error("unexpected answer from Postgres: {0}")]
    Unexpected(String),
}

impl StorageError {
    /// What to do about it.
    pub fn class(&self) -> Class {
        match self {
            Self::Deadline(_) | Self::Connection(_) => Class::Transient,
            Self::Unexpected(_) => Class::Unknown,
            Self::Database { code, constraint } => classify(code, constraint.as_deref()),
        }
    }

    /// SQLSTATE, where Postgres gave one.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Database { code, .. } => Some(code),
            _ => None,
        }
    }

    /// Whether the connection was silent or ended, so that others to the same server may be dead too.
    pub(super) fn is_outage(&self) -> bool {
        match self {
            Self::Deadline(_) | Self::Connection(_) => true,
            // The server shuts down.
            Self::Database { code, .. } => code.starts_with("57P"),
            Self::Unexpected(_) => false,
        }
    }

    /// Whether the connection that the error came over must not be used again.
    pub(super) fn spoils_connection(&self) -> bool {
        match self.class() {
            Class::Transient | Class::StalePlan | Class::Unknown => true,
            Class::Locked | Class::Deployment | Class::Record | Class::Rival => false,
        }
    }
}

/// The keys of our own tables: breaking one of them means that two writers met, never that the data is bad.
const OWN_KEYS: [&str; 8] = [
    "orders_pkey",
    "idx_orders_order_uid",
    "deliveries_pkey",
    "deliveries_order_id_fkey",
    "payments_pkey",
    "payments_order_id_fkey",
    "items_pkey",
    "items_order_id_fkey",
];

/// SQLSTATE codes: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn classify(code: &str, constraint: Option<&str>) -> Class {
    match code {
        "40001" | "40P01" | "25006" | "25P03" | "25P04" | "55000" | "55006" => Class::Transient,
        "55P03" => Class::Locked,
        "0A000" | "26000" => Class::StalePlan,
        "3D000" | "3F000" => Class::Deployment,
        "23505" | "23503" if constraint.is_some_and(|name| OWN_KEYS.contains(&name)) => {
            Class::Rival
        }
        _ => match code.get(..2) {
            Some("08" | "53" | "57" | "58") => Class::Transient,
            Some("28" | "42") => Class::Deployment,
            Some("22" | "23") => Class::Record,
            _ => Class::Unknown,
        },
    }
}

impl From<sqlx::Error> for StorageError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(database) => Self::Database {
                code: database.code().unwrap_or_default().into_owned(),
                constraint: database.constraint().map(str::to_owned),
            },
            sqlx::Error::Io(io) => Self::Connection(io.to_string()),
            sqlx::Error::Tls(tls) => Self::Connection(tls.to_string()),
            sqlx::Error::PoolTimedOut => {
                Self::Connection("no connection to be had in time".to_owned())
            }
            sqlx::Error::PoolClosed => Self::Connection("the pool is closed".to_owned()),
            sqlx::Error::WorkerCrashed | sqlx::Error::BeginFailed => {
                Self::Connection("the connection broke".to_owned())
            }
            // What sqlx says of these names columns and types, not values.
            other => Self::Unexpected(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sqlstate_class_has_its_strategy() {
        for (code, constraint, class) in [
            ("08006", None, Class::Transient),
            ("40001", None, Class::Transient),
            ("40P01", None, Class::Transient),
            ("53300", None, Class::Transient),
            ("57P01", None, Class::Transient),
            ("58030", None, Class::Transient),
            ("25006", None, Class::Transient),
            ("25P03", None, Class::Transient),
            ("55000", None, Class::Transient),
            ("55P03", None, Class::Locked),
            ("0A000", None, Class::StalePlan),
            ("26000", None, Class::StalePlan),
            ("28P01", None, Class::Deployment),
            ("3D000", None, Class::Deployment),
            ("3F000", None, Class::Deployment),
            ("42P01", None, Class::Deployment),
            ("22021", None, Class::Record),
            ("23514", Some("orders_check"), Class::Record),
            ("23505", Some("somebody_elses_key"), Class::Record),
            ("23505", Some("idx_orders_order_uid"), Class::Rival),
            ("23503", Some("items_order_id_fkey"), Class::Rival),
            ("XX000", None, Class::Unknown),
            ("", None, Class::Unknown),
        ] {
            assert_eq!(classify(code, constraint), class, "{code}");
        }
    }
}
