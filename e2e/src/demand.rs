//! CPU time that the host of this machine takes away (steal).

use std::fs;

/// CPU time since boot that this machine wanted, and the part of it that the host gave to other
/// machines (steal), in ticks of the kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Demand {
    wanted: u64,
    stolen: u64,
}

impl Demand {
    /// Reads the counters as of now.
    pub fn so_far() -> Self {
        let stat =
            fs::read_to_string("/proc/stat").unwrap_or_else(|error| panic!("/proc/stat: {error}"));
        Self::parse(&stat).unwrap_or_else(|| panic!("no line of all CPUs in /proc/stat: {stat}"))
    }

    /// Parses `/proc/stat`, whose first line has user, nice, system, idle, iowait, irq, softirq and
    /// steal.
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

    /// Returns the stolen part of the CPU time that was wanted since `earlier`, from 0 to 1.
    pub fn stolen_since(self, earlier: Self) -> f64 {
        let wanted = self.wanted.saturating_sub(earlier.wanted).max(1);
        self.stolen.saturating_sub(earlier.stolen) as f64 / wanted as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steal_is_a_share_of_the_wanted_cpu_time() {
        let earlier = Demand::parse("cpu  100 0 100 5000 0 0 0 10 0 0\ncpu0 1 2 3\n").unwrap();
        let later = Demand::parse("cpu  130 5 120 9000 70 2 3 50 0 0\n").unwrap();
        assert_eq!(later.stolen_since(earlier), 0.4);
        assert_eq!(later.stolen_since(later), 0.0);
        assert_eq!(Demand::parse("cpu0 1 2 3 4 5 6 7 8\n"), None);
    }
}
