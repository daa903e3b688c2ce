//! How to connect to the brokers: addresses, security, and files that may be replaced.

use std::{
    ffi::CString,
    path::{Path, PathBuf},
    time::Instant,
};

use parking_lot::Mutex;
use rdkafka::{
    ClientContext,
    bindings::{rd_kafka_error_destroy, rd_kafka_sasl_set_credentials},
    client::Client,
};

use crate::{
    config::{Kafka, read_secret},
    replaced::{Files, INTERVAL},
};

/// Returns the properties that every client needs to connect to the brokers, and those of
/// `KAFKA_OPTIONS`. Reads the files of secrets again. One that cannot be read keeps its value of
/// the start.
pub fn connection_properties(config: &Kafka) -> Vec<(String, String)> {
    let secret = |variable: &str, value: &Option<String>, file: &Option<PathBuf>| {
        let present = file
            .as_ref()
            .and_then(|file| read_secret(variable, file).ok());
        present.or_else(|| value.clone())
    };
    let user = secret(
        "KAFKA_SASL_USERNAME_FILE",
        &config.sasl_username,
        &config.sasl_username_file,
    );
    let password = secret(
        "KAFKA_SASL_PASSWORD_FILE",
        &config.sasl_password,
        &config.sasl_password_file,
    );
    let key_password = secret(
        "KAFKA_SSL_KEY_PASSWORD_FILE",
        &config.ssl_key_password,
        &config.ssl_key_password_file,
    );
    let ours = [
        ("bootstrap.servers", Some(config.brokers.clone())),
        ("security.protocol", config.security_protocol.clone()),
        ("sasl.mechanism", config.sasl_mechanism.clone()),
        ("sasl.username", user),
        ("sasl.password", password),
        ("ssl.ca.location", config.ssl_ca_location.clone()),
        (
            "ssl.certificate.location",
            config.ssl_certificate_location.clone(),
        ),
        ("ssl.key.location", config.ssl_key_location.clone()),
        ("ssl.key.password", key_password),
    ];
    let ours = ours
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    config.options.iter().cloned().chain(ours).collect()
}

/// Follows the files of one client: secrets and certificates.
///
/// librdkafka accepts a new SASL user and password at any time, and uses them for new connections.
/// It reads certificates only when a client is created, so these need a new client.
pub struct Access {
    config: Kafka,
    watched: Mutex<Watched>,
}

struct Watched {
    next: Instant,
    secrets: Files,
    certificates: Files,
}

impl Access {
    /// Remembers the present content of the files. Create the client after this.
    pub fn new(config: &Kafka) -> Self {
        let secrets = [&config.sasl_username_file, &config.sasl_password_file];
        let certificates = [
            &config.ssl_ca_location,
            &config.ssl_certificate_location,
            &config.ssl_key_location,
        ];
        let key_password = config.ssl_key_password_file.as_deref();
        let certificates = certificates.into_iter().flatten().map(Path::new);
        Self {
            watched: Mutex::new(Watched {
                next: Instant::now() + INTERVAL,
                secrets: Files::new(secrets.into_iter().flatten().map(PathBuf::as_path)),
                certificates: Files::new(certificates.chain(key_password)),
            }),
            config: config.clone(),
        }
    }

    /// Returns whether there is a file to follow.
    pub fn has_files(&self) -> bool {
        let watched = self.watched.lock();
        !(watched.secrets.is_empty() && watched.certificates.is_empty())
    }

    /// Looks at the files, at most every [`INTERVAL`]. Gives `client` a replaced user and password.
    /// Returns true if a certificate was replaced, so that a new client must take over. Call it
    /// regularly. Blocks while it reads.
    pub fn follow<C: ClientContext>(&self, client: &Client<C>) -> bool {
        let mut watched = self.watched.lock();
        if Instant::now() < watched.next {
            return false;
        }
        watched.next = Instant::now() + INTERVAL;
        if watched.secrets.changed() {
            self.renew_credentials(client);
        }
        watched.certificates.changed()
    }

    fn renew_credentials<C: ClientContext>(&self, client: &Client<C>) {
        let properties = connection_properties(&self.config);
        let value = |wanted: &str| {
            let found = properties.iter().rev().find(|(name, _)| name == wanted);
            found.and_then(|(_, value)| CString::new(value.as_str()).ok())
        };
        match (value("sasl.username"), value("sasl.password")) {
            (Some(user), Some(password)) if set_credentials(client, &user, &password) => {
                tracing::info!("Kafka password replaced; new connections use it");
            }
            _ => {
                tracing::error!("replaced Kafka password cannot be used; keeping the previous one")
            }
        }
    }
}

/// Sets the SASL user and password of new connections. Returns whether librdkafka accepts them.
#[allow(
    unsafe_code,
    reason = "rust-rdkafka has no function of its own for this"
)]
fn set_credentials<C: ClientContext>(
    client: &Client<C>,
    user: &CString,
    password: &CString,
) -> bool {
    // SAFETY: the client outlives this borrow, any thread may call this function, and librdkafka
    // copies both texts, which end with a zero byte.
    let error = unsafe {
        rd_kafka_sasl_set_credentials(client.native_ptr(), user.as_ptr(), password.as_ptr())
    };
    if error.is_null() {
        return true;
    }
    // SAFETY: the error is not null, and this is its only owner.
    unsafe { rd_kafka_error_destroy(error) };
    false
}
