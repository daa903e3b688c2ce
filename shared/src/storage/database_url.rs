//! `DATABASE_URL`.

use sqlx::postgres::PgConnectOptions;

use crate::config::ConfigError;

/// Reads `DATABASE_URL`.
///
/// # Errors
/// When it is not a Postgres URL. The error does not quote it, because it may hold a password.
pub(super) fn connect_options(url: &str) -> Result<PgConnectOptions, ConfigError> {
    // sqlx does not check the scheme.
    let is_postgres = url.starts_with("postgres://") || url.starts_with("postgresql://");
    url.parse().ok().filter(|_| is_postgres).ok_or_else(|| {
        ConfigError::malformed(
            "DATABASE_URL",
            "not a postgres:// URL; write postgres://USER:PASSWORD@HOST:5432/NAME",
        )
    })
}
