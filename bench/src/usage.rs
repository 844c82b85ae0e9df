//! What a process used, as the kernel tells under `/proc`.

use std::{fs, io};

/// A look at a process.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Usage {
    /// CPU seconds of all its threads, ended ones too, user and kernel.
    pub cpu_seconds: f64,
    /// Resident bytes now.
    pub resident: u64,
    /// Most resident bytes so far.
    pub peak: u64,
}

impl Usage {
    /// Looks at process `pid`.
    ///
    /// # Errors
    /// When there is no such process.
    pub(crate) fn of(pid: u32) -> io::Result<Usage> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let strange = || io::Error::other(format!("/proc/{pid} does not read as on Linux"));
        let ticks = cpu_ticks(&stat).ok_or_else(strange)?;
        Ok(Usage {
            cpu_seconds: ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
            resident: kib(&status, "VmRSS:").ok_or_else(strange)? << 10,
            peak: kib(&status, "VmHWM:").ok_or_else(strange)? << 10,
        })
    }

    /// What was used since `earlier`: the CPU seconds between, and the memory of now.
    pub(crate) fn since(&self, earlier: &Usage) -> Usage {
        Usage { cpu_seconds: self.cpu_seconds - earlier.cpu_seconds, ..*self }
    }
}

/// utime + stime: fields 14 and 15; the name before them may hold blanks and parentheses.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

fn kib(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_behind_a_name_with_parentheses() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 99 0 0 0 150 50 7 8 20 0 9 0 1000 1 2";
        assert_eq!(cpu_ticks(stat), Some(200));
        assert_eq!(cpu_ticks("42 (a"), None);
    }

    #[test]
    fn memory_is_read_by_its_name() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!((kib(status, "VmRSS:"), kib(status, "VmHWM:")), (Some(1024), Some(2048)));
        assert_eq!(kib(status, "VmSwap:"), None);
    }

    #[test]
    fn this_process_can_be_looked_at() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.resident > 0 && usage.peak >= usage.resident && usage.cpu_seconds >= 0.0);
    }
}
