//! The machine and the services that the figures belong to.

use std::{env, fs, process::Command, thread};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::copy_floor::connect;

/// Hardware and versions. Figures can be compared only with these.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cores: usize,
    pub(crate) cpu: String,
    pub(crate) memory_mib: u64,
    pub(crate) kernel: String,
    pub(crate) rust: String,
    pub(crate) postgres: String,
    pub(crate) redis: String,
    pub(crate) kafka: String,
}

impl Machine {
    /// Describes this machine and the services from the environment.
    ///
    /// # Errors
    /// If a service does not respond.
    pub(crate) async fn this() -> anyhow::Result<Self> {
        let postgres = connect(&variable("DATABASE_URL")?)
            .await?
            .query_one("SHOW server_version", &[])
            .await?;
        // Drops what follows the dash: it names the builder of the kernel.
        let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        Ok(Self {
            cores: thread::available_parallelism()?.get(),
            cpu: line_of("/proc/cpuinfo", "model name")?,
            memory_mib: line_of("/proc/meminfo", "MemTotal")?
                .trim_end_matches(" kB")
                .parse::<u64>()?
                / 1024,
            kernel: release
                .split('-')
                .next()
                .unwrap_or_default()
                .trim()
                .to_owned(),
            rust: said("rustc", &["--version"])?,
            postgres: postgres.get(0),
            redis: redis_version(&variable("REDIS_URL")?)?,
            kafka: kafka_version(),
        })
    }

    /// Returns the description in one line.
    pub(crate) fn summary(&self) -> String {
        format!(
            "{} cores ({}), {:.0} GiB, Linux {}; PostgreSQL {}, Redis {}, Kafka {}; {}",
            self.cores,
            self.cpu,
            self.memory_mib as f64 / 1024.0,
            self.kernel,
            self.postgres,
            self.redis,
            self.kafka,
            self.rust
        )
    }
}

/// Returns the commit that is checked out, with a note if files differ from it. Changes of results
/// do not count.
///
/// # Errors
/// If the current directory is not in a Git checkout.
pub(crate) fn commit() -> anyhow::Result<String> {
    let commit = said("git", &["rev-parse", "--short", "HEAD"])?;
    let changes = said(
        "git",
        &["status", "--porcelain", "--", ":/", ":!/bench/results"],
    )?;
    Ok(match changes.is_empty() {
        true => commit,
        false => format!("{commit} and changes"),
    })
}

fn said(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| program.to_owned())?;
    anyhow::ensure!(output.status.success(), "{program} {arguments:?} failed");
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn variable(name: &str) -> anyhow::Result<String> {
    env::var(name).with_context(|| format!("{name} is not set: run scripts/bench"))
}

/// Returns the value of the first line that begins with `name` in a file of `name : value` lines.
fn line_of(path: &str, name: &str) -> anyhow::Result<String> {
    let text = fs::read_to_string(path)?;
    let line = text.lines().find(|line| line.starts_with(name));
    let value = line
        .and_then(|line| line.split_once(':'))
        .map(|(_, value)| value.trim());
    Ok(value.unwrap_or("unknown").to_owned())
}

fn redis_version(url: &str) -> anyhow::Result<String> {
    let mut connection = redis::Client::open(url)?.get_connection()?;
    let info: String = redis::cmd("INFO").arg("server").query(&mut connection)?;
    let version = info
        .lines()
        .find_map(|line| line.strip_prefix("redis_version:"));
    Ok(version.unwrap_or("unknown").trim().to_owned())
}

/// Returns the Kafka version from the names of the installed jars, because brokers do not report
/// it.
fn kafka_version() -> String {
    let version = env::var_os("ORDER_SERVICE_KAFKA_LIBS")
        .and_then(|folder| fs::read_dir(folder).ok())
        .and_then(|files| {
            files.flatten().find_map(|file| {
                let name = file.file_name().into_string().ok()?;
                Some(
                    name.strip_prefix("kafka_2.13-")?
                        .strip_suffix(".jar")?
                        .to_owned(),
                )
            })
        });
    version.unwrap_or_else(|| "unknown".to_owned())
}
