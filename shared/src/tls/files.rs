//! Certificates and keys in PEM files.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustls::{
    RootCertStore,
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{Error as PemError, PemObject},
    },
    sign::CertifiedKey,
};

use crate::config::ConfigError;

/// A file, and what names it.
#[derive(Clone, Debug)]
pub struct File {
    /// The environment variable.
    pub variable: &'static str,
    /// The parameter of the URL in the variable, if the variable is a URL.
    pub parameter: Option<&'static str>,
    /// The path.
    pub path: PathBuf,
}

impl File {
    /// The file that `variable` names.
    pub fn of(variable: &'static str, path: &Path) -> Self {
        Self {
            variable,
            parameter: None,
            path: path.to_owned(),
        }
    }

    /// An error about this file.
    fn error(&self, problem: &str) -> ConfigError {
        let path = self.path.display();
        let problem = match self.parameter {
            Some(parameter) => format!("{parameter}: {path} {problem}"),
            None => format!("{path} {problem}"),
        };
        ConfigError::malformed(self.variable, problem)
    }

    /// Returns the content.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(&self) -> Result<Vec<u8>, ConfigError> {
        fs::read(&self.path).map_err(|error| self.unreadable(&error))
    }

    fn unreadable(&self, error: &io::Error) -> ConfigError {
        self.error(&format!(
            "cannot be read: {error}; write the path of a readable file"
        ))
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
        let certificates: Result<Vec<_>, PemError> =
            CertificateDer::pem_slice_iter(&self.read()?).collect();
        match certificates {
            Ok(certificates) if !certificates.is_empty() => Ok(certificates),
            _ => Err(self.error("holds no PEM certificate; write the path of one")),
        }
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, ConfigError> {
        PrivateKeyDer::from_pem_slice(&self.read()?).map_err(|_| {
            self.error("holds no PEM key, or one with a password; write the path of one without")
        })
    }
}

/// A client certificate and its key.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate, then its chain.
    pub certificate: File,
    /// The key, without a password.
    pub key: File,
}

/// Reads the certificate authorities of a file.
///
/// # Errors
/// When the file cannot be read, or holds no certificate or an unusable one.
pub fn authorities(file: &File) -> Result<RootCertStore, ConfigError> {
    let mut store = RootCertStore::empty();
    for certificate in file.certificates()? {
        store
            .add(certificate)
            .map_err(|error| file.error(&format!("holds an unusable certificate: {error}")))?;
    }
    Ok(store)
}

/// Checks the files of a client.
///
/// # Errors
/// Names the variable whose file cannot be read or used, or whose key does not fit the certificate.
pub fn check(ca: Option<&File>, identity: Option<&Identity>) -> Result<(), ConfigError> {
    ca.map(authorities).transpose()?;
    let Some(Identity { certificate, key }) = identity else {
        return Ok(());
    };
    let (chain, private) = (certificate.certificates()?, key.key()?);
    CertifiedKey::from_der(chain, private, &ring::default_provider())
        .map(drop)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => key.error(&format!(
                "is not the key of the certificate in {}; write the paths of a pair",
                certificate.path.display()
            )),
            other => key.error(&format!("cannot be used: {other}")),
        })
}
