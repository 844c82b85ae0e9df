//! The machine that a result comes from, as the kernel tells. What it does not tell is left out.

use serde::Serialize;
use std::fs;

/// Facts of this machine.
#[derive(Clone, PartialEq, Serialize, Debug)]
pub(crate) struct Machine {
    /// "Linux 6.1.0 x86_64".
    pub kernel: String,
    /// The processor's model.
    pub cpu: Option<String>,
    /// Logical cores that this process may use.
    pub usable_cores: usize,
    /// Logical cores that are online.
    pub cores: Option<usize>,
    /// Bytes.
    pub memory_bytes: Option<u64>,
    /// Runnable and waiting tasks over 1, 5 and 15 minutes, before the run.
    pub load_average: Option<[f64; 3]>,
    /// How the kernel chooses the clock rate of the first core.
    pub governor: Option<String>,
}

impl Machine {
    /// Looks.
    pub(crate) fn look() -> Machine {
        let uname = rustix::system::uname();
        let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
        let read = |path: &str| fs::read_to_string(path).ok();
        let cpuinfo = read("/proc/cpuinfo").unwrap_or_default();
        Machine {
            kernel: format!("{} {} {}", text(uname.sysname()), text(uname.release()), text(uname.machine())),
            cpu: value(&cpuinfo, "model name"),
            usable_cores: std::thread::available_parallelism().map_or(1, usize::from),
            cores: Some(cpuinfo.lines().filter(|line| line.starts_with("processor")).count())
                .filter(|&cores| cores > 0),
            memory_bytes: read("/proc/meminfo").and_then(|text| memory(&text)),
            load_average: read("/proc/loadavg").and_then(|text| load_average(&text)),
            governor: read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").map(|text| text.trim().to_owned()),
        }
    }
}

fn value(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn memory(meminfo: &str) -> Option<u64> {
    Some(value(meminfo, "MemTotal")?.strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

fn load_average(text: &str) -> Option<[f64; 3]> {
    let mut words = text.split(' ').map(str::parse);
    Some([words.next()?.ok()?, words.next()?.ok()?, words.next()?.ok()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_by_their_names() {
        assert_eq!(memory("MemTotal:       1024 kB\nMemFree: 1 kB\n"), Some(1 << 20));
        assert_eq!(load_average("0.50 1.25 2.00 3/400 5\n"), Some([0.5, 1.25, 2.0]));
        assert_eq!(load_average("0.50"), None);
        assert_eq!(value("processor\t: 0\nmodel name\t: A: B\n", "model name").as_deref(), Some("A: B"));
    }

    #[test]
    fn this_machine_has_a_kernel_and_a_core() {
        let machine = Machine::look();
        assert!(machine.kernel.starts_with("Linux ") && machine.usable_cores > 0);
    }
}
