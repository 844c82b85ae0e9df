//! One look at processes: parses `/proc`.

use super::{Io, Usage};
use std::collections::BTreeMap;
use std::{fs, io};

impl Usage {
    /// Looks at these processes; numbers of several are sums.
    ///
    /// # Errors
    /// When one does not exist.
    pub(super) fn at(pids: &[u32]) -> io::Result<Usage> {
        let mut sum = Usage { io: Some(Io::default()), ..Usage::default() };
        for &pid in pids {
            sum.add(&Usage::of(pid)?);
        }
        Ok(sum)
    }

    fn of(pid: u32) -> io::Result<Usage> {
        let strange = || io::Error::other(format!("/proc/{pid} does not read as on Linux"));
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}"));
        let (user, system) = cpu_ticks(&read("stat")?).ok_or_else(strange)?;
        let per_second = rustix::param::clock_ticks_per_second() as f64;
        let status = read("status")?;
        let mut look = Usage {
            user_seconds: user as f64 / per_second,
            system_seconds: system as f64 / per_second,
            resident: kib(&status, "VmRSS:").ok_or_else(strange)?,
            peak: kib(&status, "VmHWM:").ok_or_else(strange)?,
            threads: number(&status, "Threads:").ok_or_else(strange)?,
            io: read("io").ok().and_then(|text| parse_io(&text)),
            ..Usage::default()
        };
        for task in threads(pid) {
            // A thread may end between the listing and the look.
            let Ok(status) = read(&format!("task/{task}/status")) else { continue };
            look.voluntary_switches += number(&status, "voluntary_ctxt_switches:").unwrap_or(0);
            look.involuntary_switches += number(&status, "nonvoluntary_ctxt_switches:").unwrap_or(0);
        }
        Ok(look)
    }

    fn add(&mut self, other: &Usage) {
        self.user_seconds += other.user_seconds;
        self.system_seconds += other.system_seconds;
        self.resident += other.resident;
        self.peak += other.peak;
        self.threads += other.threads;
        self.voluntary_switches += other.voluntary_switches;
        self.involuntary_switches += other.involuntary_switches;
        self.io = self.io.zip(other.io).map(|(a, b)| Io {
            read_bytes: a.read_bytes + b.read_bytes,
            written_bytes: a.written_bytes + b.written_bytes,
            reads: a.reads + b.reads,
            writes: a.writes + b.writes,
            disk_read_bytes: a.disk_read_bytes + b.disk_read_bytes,
            disk_written_bytes: a.disk_written_bytes + b.disk_written_bytes,
        });
    }
}

fn threads(pid: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// What each thread of these processes has waited for a core in its life, nanoseconds: the second number of its
/// `schedstat`. Empty where the kernel does not tell.
pub(super) fn run_delays(pids: &[u32]) -> BTreeMap<u32, u64> {
    let of = |pid: u32, task: u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/task/{task}/schedstat")).ok()?;
        Some((task, text.split(' ').nth(1)?.parse().ok()?))
    };
    pids.iter().flat_map(|&pid| threads(pid).into_iter().filter_map(move |task| of(pid, task))).collect()
}

/// utime and stime: fields 14 and 15; the name before them may hold blanks and parentheses.
fn cpu_ticks(stat: &str) -> Option<(u64, u64)> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    Some(text.lines().find_map(|line| line.strip_prefix(name))?.trim())
}

fn number(text: &str, name: &str) -> Option<u64> {
    field(text, name)?.parse().ok()
}

/// Bytes.
fn kib(status: &str, name: &str) -> Option<u64> {
    Some(field(status, name)?.strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

fn parse_io(text: &str) -> Option<Io> {
    Some(Io {
        read_bytes: number(text, "rchar:")?,
        written_bytes: number(text, "wchar:")?,
        reads: number(text, "syscr:")?,
        writes: number(text, "syscw:")?,
        disk_read_bytes: number(text, "read_bytes:")?,
        disk_written_bytes: number(text, "write_bytes:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_behind_a_name_with_parentheses() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 99 0 0 0 150 50 7 8 20 0 9 0 1000 1 2";
        assert_eq!(cpu_ticks(stat), Some((150, 50)));
        assert_eq!(cpu_ticks("42 (a"), None);
    }

    #[test]
    fn memory_and_switches_are_read_by_their_names() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n\
                      voluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t3\n";
        assert_eq!((kib(status, "VmRSS:"), kib(status, "VmHWM:")), (Some(1 << 20), Some(2 << 20)));
        assert_eq!(kib(status, "VmSwap:"), None);
        assert_eq!(number(status, "voluntary_ctxt_switches:"), Some(7));
        assert_eq!(number(status, "nonvoluntary_ctxt_switches:"), Some(3));
    }

    #[test]
    fn io_is_read_whole_or_not_at_all() {
        let text =
            "rchar: 10\nwchar: 20\nsyscr: 3\nsyscw: 4\nread_bytes: 5\nwrite_bytes: 6\ncancelled_write_bytes: 0\n";
        let io = parse_io(text).unwrap();
        assert_eq!((io.read_bytes, io.written_bytes, io.reads, io.writes), (10, 20, 3, 4));
        assert_eq!((io.disk_read_bytes, io.disk_written_bytes), (5, 6));
        assert_eq!(parse_io("rchar: 10\n"), None);
    }

    #[test]
    fn several_processes_add_up() {
        let one = Usage::at(&[std::process::id()]).unwrap();
        let both = Usage::at(&[std::process::id(), std::process::id()]).unwrap();
        assert!(both.resident > one.resident && both.threads >= 2);
        assert_eq!(Usage::at(&[]).unwrap().threads, 0);
    }
}
