//! A database of a test on the shared Postgres.

use super::database::Database;
use crate::environment::required;

/// A private database on the shared server. Dropping this value drops the database.
pub(crate) struct OwnDatabase {
    name: String,
    server: Database,
    url: String,
}

impl OwnDatabase {
    pub(crate) fn create(name: &str) -> Self {
        let server = required("DATABASE_URL");
        let name = name.replace('-', "_");
        let own = Self {
            url: with_database(&server, &name),
            server: Database::new(&server),
            name,
        };
        own.server.execute(&format!("CREATE DATABASE {}", own.name));
        own
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for OwnDatabase {
    fn drop(&mut self) {
        let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        if let Err(error) = self.server.try_execute(&drop) {
            eprintln!("{drop}: {error}");
        }
    }
}

/// Returns `url` with another database name.
fn with_database(url: &str, name: &str) -> String {
    let (address, parameters) = match url.split_once('?') {
        Some((address, parameters)) => (address, format!("?{parameters}")),
        None => (url, String::new()),
    };
    let server = address
        .rfind('/')
        .map_or(address, |slash| &address[..slash]);
    format!("{server}/{name}{parameters}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_database_of_a_url_is_replaced() {
        for (url, expected) in [
            ("postgres://u:p@h:1/orders", "postgres://u:p@h:1/x"),
            (
                "postgres://u:p@h/orders?sslmode=require",
                "postgres://u:p@h/x?sslmode=require",
            ),
        ] {
            assert_eq!(with_database(url, "x"), expected);
        }
    }
}
