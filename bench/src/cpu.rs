//! What processes of this machine have used.

use std::{fs, time::Duration};

use anyhow::Context;

/// Linux counts CPU time for user programs in hundredths of a second, whatever the kernel's own clock.
const TICK: Duration = Duration::from_millis(10);

/// CPU time of the process `pid` so far, in user and kernel mode.
///
/// # Errors
/// When there is no such process.
pub(crate) fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let stat = read(pid, "stat")?;
    // The second field is a name in parentheses that may hold anything; utime and stime are the 14th and 15th.
    let after_name = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest)
        .unwrap_or_default();
    let ticks: u32 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u32>().unwrap_or_default())
        .sum();
    Ok(TICK * ticks)
}

/// Most memory that the process `pid` ever had resident, in bytes.
///
/// # Errors
/// When there is no such process.
pub(crate) fn peak_memory(pid: u32) -> anyhow::Result<u64> {
    let status = read(pid, "status")?;
    let kibibytes: u64 = status
        .lines()
        .find_map(|line| {
            line.strip_prefix("VmHWM:")?
                .trim()
                .strip_suffix(" kB")?
                .parse()
                .ok()
        })
        .context("no VmHWM")?;
    Ok(kibibytes * 1024)
}

fn read(pid: u32, file: &str) -> anyhow::Result<String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).with_context(|| path)
}
