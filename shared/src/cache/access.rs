//! How to connect to Redis: `REDIS_URL` and the certificate files, as they are at this moment.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use redis::{
    Client, ClientTlsConfig, ErrorKind, IntoConnectionInfo, RedisError, TlsCertificates,
    cluster::ClusterClient, io::tcp::TcpSettings,
};
use tokio::time::timeout;

use super::CacheError;
use crate::{
    config::{self, ConfigError, read_secret},
    tls::{self, File, Identity, REDIS},
};

/// How long sent data may stay unacknowledged by the server's kernel.
const SILENCE: Duration = Duration::from_secs(5);

/// Time limit for trying out replaced files.
const TRY_OUT: Duration = Duration::from_secs(2);

/// Reads how to connect to Redis.
#[derive(Clone)]
pub(super) struct Access {
    config: config::Redis,
}

/// What opens connections.
pub(super) enum Clients {
    Single(Box<Client>),
    Cluster(Box<ClusterClient>),
}

impl Access {
    pub(super) fn new(config: &config::Redis) -> Self {
        Self {
            config: config.clone(),
        }
    }

    /// Returns the files whose content decides how to connect.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        let config::Redis {
            url_file,
            ca_file,
            cert_file,
            key_file,
            ..
        } = &self.config;
        let files = [url_file, ca_file, cert_file, key_file];
        files.into_iter().flatten().map(PathBuf::as_path)
    }

    /// Reads the files, and creates the client of the only node or of the cluster. Blocks.
    ///
    /// # Errors
    /// When a URL is malformed, a file cannot be used, or the timeout is zero.
    pub(super) fn clients(&self) -> Result<Clients, ConfigError> {
        if self.config.timeout.is_zero() {
            return Err(ConfigError::malformed(
                "REDIS_TIMEOUT",
                "must be longer than 0; write 100ms, for example",
            ));
        }
        let nodes = self.nodes()?;
        if let [client] = &nodes[..] {
            return Ok(Clients::Single(Box::new(client.clone())));
        }
        let infos = nodes.iter().map(|node| node.get_connection_info().clone());
        let timeout = self.config.timeout;
        let mut builder = ClusterClient::builder(infos)
            .connection_timeout(timeout)
            .response_timeout(timeout)
            .tcp_settings(tcp_settings());
        if let Some(certificates) = self.certificates()? {
            builder = builder.certs(certificates);
        }
        let client = builder.build().map_err(|_| malformed())?;
        Ok(Clients::Cluster(Box::new(client)))
    }

    /// Reads the files, and creates a client for each address of `REDIS_URL`. Blocks.
    ///
    /// # Errors
    /// When a URL is malformed, or a file cannot be used.
    pub(super) fn nodes(&self) -> Result<Vec<Client>, ConfigError> {
        let url = match &self.config.url_file {
            Some(file) => read_secret("REDIS_URL_FILE", file)?,
            None => self.config.url.clone(),
        };
        let urls: Vec<&str> = addresses(&url).collect();
        if urls.is_empty() {
            return Err(ConfigError::malformed(
                "REDIS_URL",
                "holds no address; write redis://HOST:6379",
            ));
        }
        let certificates = self.certificates()?;
        let is_tls = |url: &&str| url.starts_with("rediss://");
        if certificates.is_some() && !urls.iter().all(is_tls) {
            let variable = match self.config.ca_file {
                Some(_) => "REDIS_CA_FILE",
                None => "REDIS_CERT_FILE",
            };
            return Err(ConfigError::malformed(
                variable,
                "has no effect without TLS; write REDIS_URL=rediss://HOST:6379, or unset this",
            ));
        }
        let clients = urls
            .into_iter()
            .map(|url| client(url, certificates.as_ref()));
        clients.collect::<Result<_, _>>().map_err(|_| malformed())
    }

    /// Reads and checks the certificate files; none if there are none.
    fn certificates(&self) -> Result<Option<TlsCertificates>, ConfigError> {
        let config::Redis {
            ca_file,
            cert_file,
            key_file,
            ..
        } = &self.config;
        let of =
            |variable, path: &Option<PathBuf>| path.as_deref().map(|path| File::of(variable, path));
        let ca = of("REDIS_CA_FILE", ca_file);
        let identity = match (
            of("REDIS_CERT_FILE", cert_file),
            of("REDIS_KEY_FILE", key_file),
        ) {
            (Some(certificate), Some(key)) => Some(Identity { certificate, key }),
            (None, None) => None,
            (Some(_), None) => {
                let problem = "required by REDIS_CERT_FILE; set it";
                return Err(ConfigError::malformed("REDIS_KEY_FILE", problem));
            }
            (None, Some(_)) => {
                let problem = "required by REDIS_KEY_FILE; set it";
                return Err(ConfigError::malformed("REDIS_CERT_FILE", problem));
            }
        };
        if ca.is_none() && identity.is_none() {
            return Ok(None);
        }
        tls::check(ca.as_ref(), identity.as_ref())?;
        Ok(Some(TlsCertificates {
            root_cert: ca.as_ref().map(File::read).transpose()?,
            client_tls: match identity {
                None => None,
                Some(Identity { certificate, key }) => Some(ClientTlsConfig {
                    client_cert: certificate.read()?,
                    client_key: key.read()?,
                }),
            },
        }))
    }
}

/// Returns the addresses in `REDIS_URL`.
fn addresses(url: &str) -> impl Iterator<Item = &str> {
    url.split(',').map(str::trim).filter(|url| !url.is_empty())
}

/// Creates a client for the node at `url`.
fn client(url: &str, certificates: Option<&TlsCertificates>) -> Result<Client, RedisError> {
    let info = url.into_connection_info()?.set_tcp_settings(tcp_settings());
    match certificates {
        Some(certificates) => Client::build_with_tls(info, certificates.clone()),
        None => Client::open(info),
    }
}

/// TCP settings without Nagle's delay. On Linux, the kernel ends a connection when the server
/// acknowledges nothing for `SILENCE`. The default of the kernel is a quarter of an hour.
fn tcp_settings() -> TcpSettings {
    let settings = TcpSettings::default().set_nodelay(true);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(SILENCE);
    settings
}

/// Opens one connection, and closes it once the server has answered.
///
/// # Errors
/// When the server cannot be reached, rejects the password, or does not answer.
pub(super) async fn try_out(client: &Client) -> Result<(), CacheError> {
    let answer = async {
        let mut connection = client.get_multiplexed_async_connection().await?;
        redis::cmd("PING")
            .query_async::<redis::Value>(&mut connection)
            .await
    };
    match timeout(TRY_OUT, answer).await {
        Ok(answer) => answer.map(drop).map_err(CacheError::from),
        Err(_) => Err(CacheError::Deadline(TRY_OUT)),
    }
}

/// The error for a URL that the client rejects. It quotes nothing: the URL may hold a password.
pub(super) fn malformed() -> ConfigError {
    ConfigError::malformed(
        "REDIS_URL",
        "not a redis:// or rediss:// URL; write redis://HOST:6379",
    )
}

/// Returns why a connection failed. Quotes no text of the server, which may quote arguments.
pub(super) fn cause(error: &RedisError) -> String {
    if let Some(cause) = tls::cause(error, &REDIS) {
        return cause;
    }
    match (error.kind(), tls::io_error(error)) {
        (ErrorKind::AuthenticationFailed, _) => {
            "Redis rejects the user or the password; correct REDIS_URL".to_owned()
        }
        // The text of the operating system.
        (_, Some(io)) if io.raw_os_error().is_some() => io.to_string(),
        (_, Some(io)) => io.kind().to_string(),
        _ => error.category().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(config: config::Redis) -> String {
        let clients = Access::new(&config).clients();
        let error = clients.err().map(|error| error.to_string());
        error.unwrap_or_default()
    }

    #[test]
    fn a_malformed_url_is_an_error_that_says_what_to_write() {
        for url in ["http://:secret@host", "host:6379", "redis://host:x"] {
            let config = config::Redis {
                url: url.to_owned(),
                ..config::Redis::default()
            };
            assert_eq!(
                problem(config),
                "REDIS_URL: not a redis:// or rediss:// URL; write redis://HOST:6379"
            );
        }
    }

    #[test]
    fn a_certificate_variable_alone_is_an_error_that_names_the_other_one() {
        let path = || Some(PathBuf::from("/nowhere/file.pem"));
        let tls = || config::Redis {
            url: "rediss://localhost".to_owned(),
            ..config::Redis::default()
        };
        for (config, expected) in [
            (
                config::Redis {
                    cert_file: path(),
                    ..tls()
                },
                "REDIS_KEY_FILE: required by REDIS_CERT_FILE; set it",
            ),
            (
                config::Redis {
                    key_file: path(),
                    ..tls()
                },
                "REDIS_CERT_FILE: required by REDIS_KEY_FILE; set it",
            ),
            (
                config::Redis {
                    ca_file: path(),
                    ..tls()
                },
                "REDIS_CA_FILE: /nowhere/file.pem cannot be read: No such file or directory (os \
                 error 2); write the path of a readable file",
            ),
        ] {
            assert_eq!(problem(config), expected);
        }
    }
}
