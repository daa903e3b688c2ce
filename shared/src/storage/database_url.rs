//! `DATABASE_URL` and `DATABASE_READ_URL`: where they come from, and their TLS parameters.

use std::{
    collections::BTreeSet,
    env,
    path::{Path, PathBuf},
};

use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::{
    config::{ConfigError, Database, read_secret},
    tls::{self, File, Identity},
};

/// libpq's variable for `sslmode`, which sqlx reads too.
const PGSSLMODE: &str = "PGSSLMODE";

/// The hosts for which [`Source::warn_if_unprotected`] has logged a warning.
static WARNED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// A URL of Postgres, and the file that it is read from again.
#[derive(Clone, Debug)]
pub(super) struct Source {
    variable: &'static str,
    url: String,
    file: Option<(&'static str, PathBuf)>,
}

impl Source {
    /// The URL of the primary. `url` is [`Database::url`], except in tests.
    pub(super) fn primary(url: &str, config: &Database) -> Self {
        let file = config.url_file.clone();
        Self {
            variable: "DATABASE_URL",
            url: url.to_owned(),
            file: file.map(|file| ("DATABASE_URL_FILE", file)),
        }
    }

    /// The URL of the read replica, if there is one.
    pub(super) fn replica(config: &Database) -> Option<Self> {
        let file = config.read_url_file.clone();
        Some(Self {
            variable: "DATABASE_READ_URL",
            url: config.read_url.clone()?,
            file: file.map(|file| ("DATABASE_READ_URL_FILE", file)),
        })
    }

    /// Reads the URL again if it comes from a file. Blocks.
    ///
    /// # Errors
    /// When the file cannot be read. The URL stays as it was.
    pub(super) fn read_again(&mut self) -> Result<(), ConfigError> {
        if let Some((variable, file)) = &self.file {
            self.url = read_secret(variable, file)?;
        }
        Ok(())
    }

    /// Returns the files whose content decides how to connect.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let url = self.file.iter().map(|(_, file)| file.clone());
        let of_tls = parameters(&self.url).filter(|(name, _)| Parameter::of(name).is_some());
        let of_tls = of_tls.map(|(_, path)| PathBuf::from(path));
        url.chain(of_tls).collect()
    }

    /// Returns the options for a connection.
    ///
    /// # Errors
    /// When the URL is not a Postgres URL, or a TLS parameter or its file cannot be used. The error
    /// does not quote the URL, because it may hold a password.
    pub(super) fn connect_options(&self) -> Result<PgConnectOptions, ConfigError> {
        let is_postgres = |url: &str| {
            // sqlx does not check the scheme.
            url.starts_with("postgres://") || url.starts_with("postgresql://")
        };
        self.check_mode()?;
        let options: PgConnectOptions = self
            .url
            .parse()
            .ok()
            .filter(|_| is_postgres(&self.url))
            .ok_or_else(|| {
                self.error("not a postgres:// URL; write postgres://USER:PASSWORD@HOST:5432/NAME")
            })?;
        let has_authorities = self.check_files(options.get_ssl_mode())?;
        // As in libpq. sqlx would accept every certificate.
        Ok(match options.get_ssl_mode() {
            PgSslMode::Require if has_authorities => options.ssl_mode(PgSslMode::VerifyCa),
            _ => options,
        })
    }

    /// Checks the value of `sslmode`, which sqlx rejects without naming it.
    fn check_mode(&self) -> Result<(), ConfigError> {
        let mode = parameters(&self.url).find(|(name, _)| is_mode(name));
        match mode {
            Some((_, mode)) if mode.parse::<PgSslMode>().is_err() => Err(self.error(&format!(
                "sslmode: {mode:?} is not a mode; write verify-full, verify-ca, require, prefer or \
                 disable"
            ))),
            _ => Ok(()),
        }
    }

    /// Checks the files of the TLS parameters. Returns whether there are certificate authorities.
    fn check_files(&self, mode: PgSslMode) -> Result<bool, ConfigError> {
        let file = |wanted: Parameter| {
            let found = parameters(&self.url).find(|(name, _)| Parameter::of(name) == Some(wanted));
            found.map(|(_, path)| File {
                variable: self.variable,
                parameter: Some(wanted.name()),
                path: PathBuf::from(path),
            })
        };
        let authorities = file(Parameter::Authorities);
        let identity = match (file(Parameter::Certificate), file(Parameter::Key)) {
            (Some(certificate), Some(key)) => Some(Identity { certificate, key }),
            (None, None) => None,
            (Some(_), None) => return Err(self.error("sslcert requires sslkey; add it")),
            (None, Some(_)) => return Err(self.error("sslkey requires sslcert; add it")),
        };
        let is_optional = !matches!(
            mode,
            PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull
        );
        if authorities.is_some() && is_optional {
            return Err(self.error(
                "sslrootcert has no effect unless sslmode requires TLS; write sslmode=verify-full",
            ));
        }
        tls::check(authorities.as_ref(), identity.as_ref())?;
        Ok(authorities.is_some())
    }

    /// Logs a warning, once per host, if the URL leaves open whether the connection to another
    /// machine is encrypted.
    pub(super) fn warn_if_unprotected(&self, options: &PgConnectOptions) {
        let host = options.get_host();
        let is_stated = parameters(&self.url).any(|(name, _)| is_mode(&name))
            || env::var_os(PGSSLMODE).is_some();
        if is_stated || is_local(options) || !WARNED.lock().insert(host.to_owned()) {
            return;
        }
        tracing::warn!(
            variable = self.variable,
            host,
            "no sslmode: an attacker in the network can read the connection to Postgres; add \
             sslmode=verify-full, or sslmode=disable to accept that"
        );
    }

    fn error(&self, problem: &str) -> ConfigError {
        ConfigError::malformed(self.variable, problem)
    }
}

/// A parameter of the URL that names a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Parameter {
    Authorities,
    Certificate,
    Key,
}

impl Parameter {
    /// Returns the parameter of this name, in the spellings that sqlx accepts.
    fn of(name: &str) -> Option<Self> {
        match name {
            "sslrootcert" | "ssl-root-cert" | "ssl-ca" => Some(Self::Authorities),
            "sslcert" | "ssl-cert" => Some(Self::Certificate),
            "sslkey" | "ssl-key" => Some(Self::Key),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Authorities => "sslrootcert",
            Self::Certificate => "sslcert",
            Self::Key => "sslkey",
        }
    }
}

fn is_mode(name: &str) -> bool {
    matches!(name, "sslmode" | "ssl-mode")
}

/// Returns the parameters of a URL, decoded.
fn parameters(url: &str) -> impl Iterator<Item = (String, String)> {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    query.split('&').filter_map(move |pair| {
        let (name, value) = pair.split_once('=')?;
        Some((decoded(name), decoded(value)))
    })
}

/// Returns whether the connection does not leave this machine.
fn is_local(options: &PgConnectOptions) -> bool {
    let host = options.get_host().trim_matches(['[', ']']);
    let is_loopback = || {
        host.parse()
            .is_ok_and(|address: std::net::IpAddr| address.is_loopback())
    };
    options.get_socket().is_some()
        || Path::new(host).is_absolute()
        || host.eq_ignore_ascii_case("localhost")
        || is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(url: &str) -> Source {
        Source::primary(url, &Database::default())
    }

    fn problem(url: &str) -> String {
        let error = source(url).connect_options().err();
        error.map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_tls_parameter_that_cannot_work_is_an_error_that_names_it() {
        for (parameters, expected) in [
            (
                "sslmode=verify",
                "DATABASE_URL: sslmode: \"verify\" is not a mode; write verify-full, verify-ca, \
                 require, prefer or disable",
            ),
            (
                "sslmode=require&sslcert=/c.pem",
                "DATABASE_URL: sslcert requires sslkey; add it",
            ),
            (
                "sslmode=require&sslkey=/k.pem",
                "DATABASE_URL: sslkey requires sslcert; add it",
            ),
            (
                "sslrootcert=/ca.pem",
                "DATABASE_URL: sslrootcert has no effect unless sslmode requires TLS; write \
                 sslmode=verify-full",
            ),
            (
                "sslmode=verify-full&sslrootcert=/no%2Fwhere/ca.pem",
                "DATABASE_URL: sslrootcert: /no/where/ca.pem cannot be read: No such file or \
                 directory (os error 2); write the path of a readable file",
            ),
        ] {
            assert_eq!(
                problem(&format!("postgres://u:p@h/d?{parameters}")),
                expected
            );
        }
    }

    #[test]
    fn only_connections_to_other_machines_count_as_unprotected() {
        for (url, expected) in [
            ("postgres://u@localhost/d", true),
            ("postgres://u@127.0.0.1/d", true),
            ("postgres://u@[::1]/d", true),
            ("postgres://u@%2Frun%2Fpostgresql/d", true),
            ("postgres://u@db.internal/d", false),
            ("postgres://u@10.0.0.1/d", false),
        ] {
            let options = source(url).connect_options().unwrap();
            assert_eq!(is_local(&options), expected, "{url}");
        }
    }
}
