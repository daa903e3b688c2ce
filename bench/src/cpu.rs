//! What processes of this machine have used, and what its host did not give them.

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

/// How much CPU time this machine wanted since it started, and how much of that its host gave to other machines (steal), in
/// the kernel's ticks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Demand {
    wanted: u64,
    stolen: u64,
}

impl Demand {
    /// Up to now.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub(crate) fn so_far() -> anyhow::Result<Self> {
        let stat = fs::read_to_string("/proc/stat").context("/proc/stat")?;
        Self::parse(&stat).context("no line of all CPUs in /proc/stat")
    }

    /// Of `/proc/stat`, whose first line has user, nice, system, idle, iowait, irq, softirq and steal.
    fn parse(stat: &str) -> Option<Self> {
        let ticks: Vec<u64> = stat
            .lines()
            .find_map(|line| line.strip_prefix("cpu "))?
            .split_whitespace()
            .map_while(|field| field.parse().ok())
            .collect();
        let [user, nice, system, _idle, _iowait, irq, softirq, stolen, ..] = ticks[..] else {
            return None;
        };
        Some(Self {
            wanted: user + nice + system + irq + softirq + stolen,
            stolen,
        })
    }

    /// Which part of the CPU time that was wanted since `earlier` the host gave to others, from 0 to 1.
    pub(crate) fn stolen_since(self, earlier: Self) -> f64 {
        let wanted = self.wanted.saturating_sub(earlier.wanted).max(1);
        self.stolen.saturating_sub(earlier.stolen) as f64 / wanted as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_gave_to_others_is_a_part_of_what_was_wanted() {
        let earlier = Demand::parse("cpu  100 0 100 5000 0 0 0 10 0 0\ncpu0 1 2 3\n").unwrap();
        let later = Demand::parse("cpu  130 5 120 9000 70 2 3 50 0 0\n").unwrap();
        assert_eq!(later.stolen_since(earlier), 0.4);
        assert_eq!(later.stolen_since(later), 0.0);
        assert_eq!(Demand::parse("cpu0 1 2 3 4 5 6 7 8\n"), None);
    }
}
