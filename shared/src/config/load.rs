//! Reads a struct from the environment. Each error names its variable.

use std::{env, ffi::OsString, fs, io, path::Path};

use serde::de::DeserializeOwned;

use super::{SECRETS, known};

/// An invalid environment variable. The process does not start.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The value has the wrong type or format. The error never quotes the value of a secret.
    #[error("{variable}: {problem}")]
    Malformed {
        /// Name of the environment variable.
        variable: String,
        /// What is wrong with its value.
        problem: String,
    },
    /// No program reads the variable.
    #[error("{variable}: unknown variable; write {nearest}, the nearest one, or unset it")]
    Unknown {
        /// Name of the environment variable.
        variable: String,
        /// The most similar name that a program reads.
        nearest: String,
    },
    /// A secret is set twice: by its value, and by the path of a file.
    #[error("{variable}: set by {variable} and by {variable}_FILE; unset one of them")]
    SetTwice {
        /// Name of the environment variable, without `_FILE`.
        variable: String,
    },
    /// The file that a variable names cannot be read.
    #[error("{variable}: cannot read {path}: {source}; write the path of a readable file")]
    SecretFile {
        /// Name of the environment variable.
        variable: String,
        /// Path of the file.
        path: String,
        /// Why the file could not be read.
        source: io::Error,
    },
}

impl ConfigError {
    /// An error about `variable`, for checks that go beyond the type of one value.
    pub fn malformed(variable: &str, problem: impl Into<String>) -> Self {
        Self::Malformed {
            variable: variable.to_owned(),
            problem: problem.into(),
        }
    }

    /// An error that quotes `value`, which must not be a secret. `expected` completes the sentence
    /// `"VALUE" is not …` and says what to write.
    pub fn not(variable: &str, value: &str, expected: &str) -> Self {
        Self::malformed(variable, format!("{value:?} is not {expected}"))
    }
}

/// Reads the struct `T` from the environment variables of the process that begin with `prefix`.
///
/// # Errors
/// If a variable is invalid, or no program reads a variable that begins with any of our prefixes.
/// The error names the first such variable.
pub fn load<T: DeserializeOwned>(prefix: &str) -> Result<T, ConfigError> {
    let variables: Result<Vec<_>, _> = env::vars_os().filter_map(utf8).collect();
    load_from(prefix, variables?)
}

/// Returns the variable as text; none if its name is not text, so that it is not ours.
fn utf8((name, value): (OsString, OsString)) -> Option<Result<(String, String), ConfigError>> {
    let name = name.into_string().ok()?;
    match value.into_string() {
        Ok(value) => Some(Ok((name, value))),
        Err(_) if known::is_ours(&name) => {
            let problem = "not UTF-8 text; write it in UTF-8";
            Some(Err(ConfigError::malformed(&name, problem)))
        }
        Err(_) => None,
    }
}

/// Like [`load`], but reads the given variables.
///
/// # Errors
/// As [`load`].
pub fn load_from<T: DeserializeOwned>(
    prefix: &str,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<T, ConfigError> {
    let mut ours: Vec<(String, String)> = Vec::new();
    for (name, value) in variables {
        known::check(&name, &value)?;
        if !name.starts_with(prefix) {
            continue;
        }
        let (variable, value) = match known::secret_of(&name) {
            Some(secret) => {
                let content = read_secret(&name, &value)?;
                // The struct keeps the path too, because the file may be replaced.
                ours.push((name.clone(), value));
                (secret.to_owned(), content)
            }
            None => (name, value),
        };
        if ours.iter().any(|(known, _)| *known == variable) {
            return Err(ConfigError::SetTwice { variable });
        }
        ours.push((variable, value));
    }
    // Parse each variable alone first, so that the error can name it: envy does not do that for all
    // types. This works because every field has a default.
    for (variable, value) in &ours {
        envy::prefixed(prefix)
            .from_iter::<_, T>([(variable.clone(), value.clone())])
            .map_err(|error| describe(variable, value, &error))?;
    }
    envy::prefixed(prefix)
        .from_iter(ours)
        .map_err(|error| ConfigError::malformed(prefix, error.to_string()))
}

fn describe(variable: &str, value: &str, error: &envy::Error) -> ConfigError {
    if SECRETS.contains(&variable) {
        return ConfigError::malformed(variable, "not valid");
    }
    match error {
        envy::Error::Custom(expected) => ConfigError::not(variable, value, expected),
        envy::Error::MissingValue(_) => ConfigError::malformed(variable, error.to_string()),
    }
}

/// Reads a text file and removes the byte order mark that some editors write before UTF-8.
///
/// # Errors
/// If the file cannot be read or is not UTF-8.
pub fn read_text(path: impl AsRef<Path>) -> io::Result<String> {
    let text = fs::read_to_string(path)?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(text) => text.to_owned(),
        None => text,
    })
}

/// Reads a secret from the file that `variable` names. `variable` ends with `_FILE`.
///
/// # Errors
/// If the file cannot be read or is not UTF-8.
pub fn read_secret(variable: &str, path: impl AsRef<Path>) -> Result<String, ConfigError> {
    match read_text(&path) {
        Ok(text) => Ok(text.trim_end_matches(['\r', '\n']).to_owned()),
        Err(source) => Err(ConfigError::SecretFile {
            variable: variable.to_owned(),
            path: path.as_ref().display().to_string(),
            source,
        }),
    }
}
