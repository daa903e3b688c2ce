//! CPU time and memory of processes on this machine.

use std::{fs, time::Duration};

use anyhow::Context;

/// Unit of CPU time in `/proc`: Linux reports hundredths of a second, independent of the kernel
/// clock.
const TICK: Duration = Duration::from_millis(10);

/// CPU time of the process `pid` so far, in user and kernel mode.
///
/// # Errors
/// If the process does not exist.
pub(crate) fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let stat = read(pid, "stat")?;
    // The second field is a name in parentheses that may hold any characters. utime and stime are
    // the 14th and 15th fields.
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

/// Peak resident memory of the process `pid`, in bytes.
///
/// # Errors
/// If the process does not exist.
pub(crate) fn peak_memory(pid: u32) -> anyhow::Result<u64> {
    memory(pid, "VmHWM:")
}

/// Resident memory of the process `pid`, in bytes.
///
/// # Errors
/// If the process does not exist.
pub(crate) fn resident_memory(pid: u32) -> anyhow::Result<u64> {
    memory(pid, "VmRSS:")
}

fn memory(pid: u32, field: &'static str) -> anyhow::Result<u64> {
    let status = read(pid, "status")?;
    let value = |line: &str| {
        let value = line.strip_prefix(field)?.trim().strip_suffix(" kB")?;
        value.parse::<u64>().ok()
    };
    let kibibytes = status.lines().find_map(value).context(field)?;
    Ok(kibibytes * 1024)
}

fn read(pid: u32, file: &str) -> anyhow::Result<String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).with_context(|| path)
}
