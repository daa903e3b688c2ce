//! Requests over many keys, by wrk: <https://github.com/wg/wrk>.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, ensure};

/// Asks for one order after another.
const SCRIPT: &str = "\
local requests, next = {}, 0
function init()
  for path in io.lines(os.getenv('BENCH_PATHS')) do
    requests[#requests + 1] = wrk.format('GET', path)
  end
end
function request()
  next = next % #requests + 1
  return requests[next]
end
function done(summary)
  local errors = summary.errors
  io.write(string.format('BENCH %d %d %d\\n', summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.timeout + errors.status))
end
";

/// Connections, each with one request under way.
const CONNECTIONS: u32 = 64;

/// What a run gave.
pub(crate) struct Run {
    pub(crate) requests: u64,
    pub(crate) per_second: f64,
}

/// The load generator, on a core of its own.
pub(crate) struct Load {
    script: PathBuf,
    paths: PathBuf,
    core: usize,
}

impl Load {
    /// Requests for `paths`; keeps its files in `folder`.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(crate) fn new(folder: &Path, paths: &[String], core: usize) -> anyhow::Result<Self> {
        let load = Self {
            script: folder.join("wrk.lua"),
            paths: folder.join("paths"),
            core,
        };
        fs::write(&load.script, SCRIPT)?;
        fs::write(&load.paths, paths.join("\n"))?;
        Ok(load)
    }

    /// Asks `url` for `duration`.
    ///
    /// # Errors
    /// When wrk is missing, or a request was not answered with 200.
    pub(crate) fn run(&self, url: &str, duration: Duration) -> anyhow::Result<Run> {
        let output = Command::new("taskset")
            .args(["-c", &self.core.to_string(), "wrk", "--threads", "1"])
            .args(["--connections", &CONNECTIONS.to_string()])
            .args(["--duration", &format!("{}s", duration.as_secs())])
            .arg("--script")
            .arg(&self.script)
            .arg(url)
            .env("BENCH_PATHS", &self.paths)
            .output()
            .context("taskset and wrk are needed: scripts/deps bench")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let numbers: Vec<u64> = text
            .lines()
            .find_map(|line| line.strip_prefix("BENCH "))
            .with_context(|| {
                format!(
                    "wrk told nothing: {text}{}",
                    String::from_utf8_lossy(&output.stderr)
                )
            })?
            .split(' ')
            .filter_map(|number| number.parse().ok())
            .collect();
        let [requests, micros, errors] = numbers[..] else {
            anyhow::bail!("wrk told something else: {text}");
        };
        ensure!(
            errors == 0,
            "{errors} of {requests} requests failed: {text}"
        );
        Ok(Run {
            requests,
            per_second: requests as f64 / (micros as f64 / 1e6),
        })
    }
}
