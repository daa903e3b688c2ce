//! Errors of Postgres, each classified once by how the caller must react.

use std::time::Duration;

use sqlx::{error::DatabaseError, postgres::PgDatabaseError};

use super::schema::object_names;
use crate::tls::{self, POSTGRES};

/// How to react to an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Postgres is down or busy, or ended our transaction in a deadlock. The same call succeeds
    /// later.
    Transient,
    /// The wait for a lock timed out. Retry, after ending our own sessions that are frozen.
    Locked,
    /// The prepared statements of the connection are older than the schema. Retry on another
    /// connection.
    StalePlan,
    /// Wrong password, missing table or missing privilege. Retries fail until the deployment is
    /// fixed.
    Deployment,
    /// Postgres rejects the data. Bisect, then dead-letter the one record.
    Record,
    /// A unique or foreign key of ours was violated: another writer was faster, or a sequence is
    /// behind. Retry.
    Rival,
    /// The row or the deployment is at fault. It is the row if Postgres stores other rows
    /// meanwhile.
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

    /// Returns the value of the label `class` of `db_errors_total`.
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

/// A failed call to Postgres. Its text contains no personal data. Of a database error it contains
/// only SQLSTATE, constraint, and which of our tables it concerns, because message and detail may
/// quote values.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Postgres did not answer within the deadline.
    #[error("no answer from Postgres within {0:?}")]
    Deadline(Duration),
    /// Postgres answered with an error.
    #[error(
        "Postgres: SQLSTATE {code}{}{}",
        of_constraint(constraint.as_deref()),
        of_deployment(code, *object, *in_row)
    )]
    Database {
        /// SQLSTATE, five characters.
        code: String,
        /// The constraint that was violated, if Postgres names one.
        constraint: Option<String>,
        /// Whether Postgres raised the error inside a trigger, a function or a row-level security
        /// policy, so that it may depend on the row.
        in_row: bool,
        /// The table or sequence of ours that the message names.
        object: Option<&'static str>,
    },
    /// The connection could not be opened, or it broke.
    #[error("connection to Postgres: {0}")]
    Connection(String),
    /// The answer does not fit the statement.
    #[error("unexpected answer from Postgres: {0}")]
    Unexpected(String),
}

/// Returns the part of an error text that names a constraint.
fn of_constraint(name: Option<&str>) -> String {
    name.map(|name| format!(", constraint {name}"))
        .unwrap_or_default()
}

/// Returns the part of an error text that says what is wrong with the deployment, and what to do.
/// Code for a row may raise any code with another meaning.
fn of_deployment(code: &str, object: Option<&str>, in_row: bool) -> String {
    let object = object.unwrap_or("a table");
    match code {
        _ if in_row => String::new(),
        "42P01" => format!(": {object} is missing; run `worker migrate`"),
        "42703" => ": a column is missing, the schema is too old; run `worker migrate`".to_owned(),
        "42501" => format!(": the user lacks a right on {object}; grant it"),
        "3F000" => {
            ": the schema of the tables is missing; create it or correct search_path".to_owned()
        }
        "3D000" => ": the database does not exist; create it or correct its name".to_owned(),
        "28P01" => ": Postgres rejects the user or its password; correct them".to_owned(),
        "28000" => ": Postgres rejects the user, or how it connects: TLS, client certificate or \
                    address (pg_hba.conf); correct them"
            .to_owned(),
        _ => String::new(),
    }
}

/// Returns the text for an error of sqlx itself about TLS.
fn of_tls(text: &str) -> String {
    match text.contains("does not support TLS") {
        true => "the server offers no TLS, which sslmode in DATABASE_URL requires".to_owned(),
        false => format!("TLS: {text}; check the certificate files in DATABASE_URL"),
    }
}

impl StorageError {
    /// Returns how to react to this error.
    pub fn class(&self) -> Class {
        match self {
            Self::Deadline(_) | Self::Connection(_) => Class::Transient,
            Self::Unexpected(_) => Class::Unknown,
            Self::Database {
                code,
                constraint,
                in_row,
                ..
            } => classify(code, constraint.as_deref(), *in_row),
        }
    }

    /// Returns the SQLSTATE, if Postgres gave one.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Database { code, .. } => Some(code),
            _ => None,
        }
    }

    /// Returns whether the connection was silent or ended, so that other connections to the same
    /// server may be dead too.
    pub(super) fn is_outage(&self) -> bool {
        match self {
            Self::Deadline(_) | Self::Connection(_) => true,
            // The server shuts down.
            Self::Database { code, .. } => code.starts_with("57P"),
            Self::Unexpected(_) => false,
        }
    }

    /// Returns whether Postgres answers and rejects the deployment, such as a missing table, a
    /// missing right or a wrong password.
    pub fn is_rejection(&self) -> bool {
        self.class() == Class::Deployment
    }

    /// Returns whether the call took too long for its deadline, or for the limit of Postgres for
    /// one statement.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Deadline(_))
            || matches!(self, Self::Database { code, .. } if code == "57014")
    }

    /// Returns whether Postgres raised the error in code that it runs for a row. The error may then
    /// concern that row alone.
    pub fn is_in_row(&self) -> bool {
        matches!(self, Self::Database { in_row: true, .. })
    }

    /// Returns the text for a dead letter: the SQLSTATE if Postgres gave one, else the whole error.
    pub fn detail(&self) -> String {
        match self {
            Self::Database { code, .. } => format!("SQLSTATE {code}"),
            other => other.to_string(),
        }
    }

    /// Returns the constraint that the data violates, if Postgres names one.
    pub(super) fn constraint(&self) -> Option<&str> {
        match self {
            Self::Database { constraint, .. } => constraint.as_deref(),
            _ => None,
        }
    }

    /// Returns whether the connection must not be used again after this error.
    pub(super) fn spoils_connection(&self) -> bool {
        match self.class() {
            Class::Transient | Class::StalePlan | Class::Unknown => true,
            Class::Locked | Class::Deployment | Class::Record | Class::Rival => false,
        }
    }
}

/// The keys of our own tables. A duplicate means that two writers met or that a sequence is behind,
/// never that the data is bad.
const OWN_KEYS: [&str; 13] = [
    "orders_pkey",
    "idx_orders_order_uid",
    "deliveries_pkey",
    "deliveries_order_id_fkey",
    "payments_pkey",
    "payments_order_id_fkey",
    "items_pkey",
    "items_order_id_fkey",
    "cache_writes_pkey",
    "cache_repairs_pkey",
    "cache_repairs_mark_key",
    "complete_cache_pkey",
    "dead_letter_replays_pkey",
];

/// Classes of SQLSTATE that Postgres raises for reasons other than a row. A code of any other class
/// is about the row: Postgres checked its data, or a trigger raised a code of its own (`RAISE`
/// accepts every code).
const NOT_OF_A_ROW: [&str; 21] = [
    "00", "01", "02", "03", "0A", "0B", "0F", "0L", "0P", "24", "25", "26", "2B", "2D", "34", "3B",
    "55", "72", "F0", "HV", "XX",
];

/// SQLSTATE codes: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn classify(code: &str, constraint: Option<&str>, in_row: bool) -> Class {
    match code {
        "25006" | "25P03" | "25P04" | "55006" => Class::Transient,
        "55P03" => Class::Locked,
        "0A000" | "26000" if !in_row => Class::StalePlan,
        // In a row, the cause is unclear: a trigger may call `currval` before `nextval`.
        "55000" if !in_row => Class::Transient,
        "23505" | "23503" if constraint.is_some_and(|name| OWN_KEYS.contains(&name)) => {
            Class::Rival
        }
        _ => match code.get(..2) {
            _ if code.len() != 5 => Class::Unknown,
            Some("08" | "40" | "53" | "57" | "58") => Class::Transient,
            Some("28" | "3D" | "3F" | "42") if !in_row => Class::Deployment,
            Some("28" | "3D" | "3F" | "42") => Class::Unknown,
            Some(class) if NOT_OF_A_ROW.contains(&class) => Class::Unknown,
            _ => Class::Record,
        },
    }
}

/// Returns whether Postgres raised the error while it ran code for a row: the context names a
/// function, or a policy rejects the row.
fn is_in_row(error: &dyn DatabaseError) -> bool {
    let Some(error) = error.try_downcast_ref::<PgDatabaseError>() else {
        return false;
    };
    // Postgres adds lines of its own: in `COPY`, the position of the row to every error ("COPY
    // orders, line 3"); to a failed wait for a row lock, what it was doing ("while inserting index
    // tuple …", XactLockTableWaitErrorCb in lmgr.c).
    let of_postgres = |line: &str| line.starts_with("COPY ") || line.starts_with("while ");
    let in_function = error
        .r#where()
        .is_some_and(|context| context.lines().any(|line| !of_postgres(line)));
    in_function || error.routine() == Some("ExecWithCheckOptions")
}

/// Returns the table or sequence of ours that the message names. A message may quote values, so
/// nothing else of it is used. It may be in any language.
fn object_of(message: &str) -> Option<&'static str> {
    let mut words = message.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.find_map(|word| object_names().into_iter().find(|object| *object == word))
}

impl From<sqlx::Error> for StorageError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(database) => Self::Database {
                code: database.code().unwrap_or_default().into_owned(),
                constraint: database.constraint().map(str::to_owned),
                in_row: is_in_row(database.as_ref()),
                object: object_of(database.message()),
            },
            sqlx::Error::Io(io) => {
                Self::Connection(tls::cause(&io, &POSTGRES).unwrap_or_else(|| io.to_string()))
            }
            sqlx::Error::Tls(error) => {
                let cause = tls::cause(&*error, &POSTGRES);
                Self::Connection(cause.unwrap_or_else(|| of_tls(&error.to_string())))
            }
            // A file of a TLS parameter was replaced with one that cannot be used.
            sqlx::Error::Configuration(error) => Self::Connection(of_tls(&error.to_string())),
            // sqlx reads a zero byte if Postgres closes the connection before it answers.
            sqlx::Error::Protocol(message) if message.contains("SSLRequest: 0x00") => {
                Self::Connection("Postgres closed the connection during its start".to_owned())
            }
            sqlx::Error::PoolTimedOut => {
                Self::Connection("none within the deadline; it is down or busy".to_owned())
            }
            sqlx::Error::PoolClosed => Self::Connection("the pool is closed".to_owned()),
            sqlx::Error::WorkerCrashed | sqlx::Error::BeginFailed => {
                Self::Connection("the connection broke".to_owned())
            }
            // The texts of these sqlx errors name columns and types, not values.
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
            ("23505", Some("unrelated_key"), Class::Record),
            ("23505", Some("idx_orders_order_uid"), Class::Rival),
            ("23503", Some("items_order_id_fkey"), Class::Rival),
            ("23505", Some("cache_writes_pkey"), Class::Rival),
            ("23505", Some("cache_repairs_mark_key"), Class::Rival),
            ("XX000", None, Class::Unknown),
            ("25P02", None, Class::Unknown),
            ("55P02", None, Class::Unknown),
            ("HV000", None, Class::Unknown),
            ("", None, Class::Unknown),
        ] {
            assert_eq!(classify(code, constraint, false), class, "{code}");
        }
    }

    #[test]
    fn an_error_of_the_deployment_names_the_table_and_the_next_step() {
        let text = |code: &str, message: &str, in_row| {
            let error = StorageError::Database {
                code: code.to_owned(),
                constraint: None,
                in_row,
                object: object_of(message),
            };
            error.to_string()
        };
        for (code, message, expected) in [
            (
                "42P01",
                "relation \"orders\" does not exist",
                ": orders is missing; run `worker migrate`",
            ),
            (
                "42P01",
                "Relation »public.cache_repairs« existiert nicht",
                ": cache_repairs is missing; run `worker migrate`",
            ),
            (
                "42501",
                "permission denied for sequence orders_id_seq",
                ": the user lacks a right on orders_id_seq; grant it",
            ),
            (
                "42501",
                "permission denied for table secrets_of_alice",
                ": the user lacks a right on a table; grant it",
            ),
            (
                "28P01",
                "password authentication failed for user \"alice\"",
                ": Postgres rejects the user or its password; correct them",
            ),
            ("57P01", "terminating connection", ""),
        ] {
            let expected = format!("Postgres: SQLSTATE {code}{expected}");
            assert_eq!(text(code, message, false), expected);
        }
        assert_eq!(text("42501", "orders", true), "Postgres: SQLSTATE 42501");
    }

    #[test]
    fn a_connection_closed_during_its_start_is_transient() {
        let closed =
            "unexpected response from SSLRequest: 0x00 (sqlx_postgres::connection::tls:95)";
        let error = StorageError::from(sqlx::Error::Protocol(closed.to_owned()));
        assert_eq!(error.class(), Class::Transient);
        let foreign =
            "unexpected response from SSLRequest: 0x48 (sqlx_postgres::connection::tls:95)";
        let error = StorageError::from(sqlx::Error::Protocol(foreign.to_owned()));
        assert_eq!(error.class(), Class::Unknown);
    }

    #[test]
    fn codes_that_depend_on_the_row_are_record_errors() {
        let of_postgres = [
            "09000", "20000", "21000", "22003", "23514", "27000", "2F005", "38001", "39004",
            "44000", "54000", "54001", "P0001", "P0004",
        ];
        let of_triggers = [
            "45000", "50001", "60000", "99999", "I0001", "KA123", "U0001", "ZZZZZ",
        ];
        for code in of_postgres.iter().chain(&of_triggers) {
            for in_row in [false, true] {
                assert_eq!(classify(code, None, in_row), Class::Record, "{code}");
            }
        }
    }

    #[test]
    fn a_deployment_code_raised_by_a_trigger_is_ambiguous() {
        for code in [
            "42501", "42P01", "28000", "3F000", "0A000", "55000", "26000",
        ] {
            assert_ne!(classify(code, None, false), Class::Unknown, "{code}");
            assert_eq!(classify(code, None, true), Class::Unknown, "{code}");
        }
        // Transient errors stay transient inside a row.
        for code in ["40001", "53300", "57014"] {
            assert_eq!(classify(code, None, true), Class::Transient, "{code}");
        }
    }
}
