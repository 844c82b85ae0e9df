//! How long the process's threads waited for a core, from the kernel. Read when asked for: threads pay nothing.

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use std::collections::BTreeMap;
use std::fmt::Error;
use std::fs;
use std::path::Path;

/// Writes what the threads of this process waited, those of one name together.
pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    let help = "Time that threads were ready to run and waited for a core, by their name";
    let mut family = encoder.encode_descriptor("run_queue_seconds", help, None, MetricType::Counter)?;
    for (name, seconds) in waited(Path::new("/proc/self/task")) {
        ConstCounter::new(seconds).encode(family.encode_family(&[("thread", name)])?)?;
    }
    Ok(())
}

/// Seconds by name; empty where the kernel does not tell.
fn waited(tasks: &Path) -> BTreeMap<String, f64> {
    let mut waited = BTreeMap::new();
    for task in fs::read_dir(tasks).into_iter().flatten().flatten() {
        // A thread may end between the listing and the look.
        let read = |file: &str| fs::read_to_string(task.path().join(file)).ok();
        let nanos = read("schedstat").and_then(|text| run_delay(&text));
        if let Some((nanos, name)) = nanos.zip(read("comm")) {
            *waited.entry(name.trim_end().to_owned()).or_default() += nanos as f64 / 1e9;
        }
    }
    waited
}

/// Nanoseconds in the run queue: the second number of `schedstat`.
fn run_delay(schedstat: &str) -> Option<u64> {
    schedstat.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_of_one_name_are_added_up_and_those_that_tell_nothing_left_out() {
        let tasks = tempfile::tempdir().unwrap();
        let thread = |task: &str, name: &str, schedstat: &str| {
            let directory = tasks.path().join(task);
            fs::create_dir(&directory).unwrap();
            fs::write(directory.join("comm"), format!("{name}\n")).unwrap();
            fs::write(directory.join("schedstat"), schedstat).unwrap();
        };
        thread("1", "lane-0", "7 1500000000 9\n");
        thread("2", "shard-0", "7 250000000 9\n");
        thread("3", "shard-0", "7 500000000 9\n");
        thread("4", "other", "0\n");
        let expected = BTreeMap::from([("lane-0".to_owned(), 1.5), ("shard-0".to_owned(), 0.75)]);
        assert_eq!(waited(tasks.path()), expected);
        assert!(waited(&tasks.path().join("none")).is_empty());
    }
}
