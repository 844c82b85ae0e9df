//! From the start of a broker's process to its first acknowledgement. The process is ended afterwards, by its id.

use super::RunError;
use crate::arguments::{Acks, ColdStart};
use crate::cluster::{Cluster, ClusterError};
use crate::result::{Counts, Finding, Interval, Progress, RunResult, Series, Stage};
use crate::usage::Watch;
use bytes::Bytes;
use millrace_protocol::records::BatchBuilder;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::io;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long a broker may take until it acknowledges.
const START_WITHIN: Duration = Duration::from_secs(120);
/// How long it may take to end after SIGTERM, before SIGKILL.
const STOP_WITHIN: Duration = Duration::from_secs(30);
/// Between two tries.
const TRY_AGAIN: Duration = Duration::from_millis(1);

/// Runs it.
pub(crate) fn run(name: &str, asked: &ColdStart, show: &mut dyn FnMut(&Progress)) -> Result<RunResult, RunError> {
    if asked.load.acks == Acks::None {
        return Err(RunError::Settings("a first acknowledgement needs --acks all or leader"));
    }
    let failed = |error| RunError::Io(asked.command.clone(), error);
    let watch = Watch::start(&[std::process::id()]).map_err(failed)?;
    let began = Instant::now();
    let mut counts = Counts::new();
    let mut errors = BTreeMap::new();
    for number in 0..asked.times {
        let started = Instant::now();
        let command = format!("exec {}", asked.command);
        let mut command_line = Command::new("sh");
        command_line.args(["-c", &command]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut broker = command_line.spawn().map_err(failed)?;
        let acknowledged = until_acknowledged(asked, &mut broker, started);
        let took = started.elapsed();
        stop(&mut broker).map_err(failed)?;
        match acknowledged {
            Ok(()) => {
                counts.latency.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
                counts.requests += 1;
                counts.records += 1;
                counts.bytes += u64::from(asked.load.record_size);
            }
            Err(why) => *errors.entry(why).or_insert(0) += 1,
        }
        let done = f64::from(number + 1) / f64::from(asked.times);
        let (elapsed, errors) = (began.elapsed(), errors.values().sum());
        let whole = elapsed.div_f64(done);
        let series = vec![(name.to_owned(), Counts::new())];
        show(&Progress { stage: Stage::Window, elapsed, whole, series, errors, retries: 0 });
    }
    let window = began.elapsed();
    let mut settings = asked.load.settings();
    settings.push(("command".to_owned(), asked.command.clone()));
    settings.push(("times".to_owned(), asked.times.to_string()));
    let value = counts.latency.value_at_quantile(0.5) as f64 / 1e6;
    Ok(RunResult {
        workload: name.to_owned(),
        settings,
        window,
        series: vec![Series {
            name: name.to_owned(),
            total: counts.clone(),
            intervals: vec![Interval { start: Duration::ZERO, end: window, counts }],
        }],
        findings: vec![Finding { name: "first acknowledgement".to_owned(), value, unit: "ms" }],
        errors,
        retries: BTreeMap::new(),
        details: Vec::new(),
        own: watch.end().map_err(failed)?,
        broker: None,
    })
}

fn until_acknowledged(asked: &ColdStart, broker: &mut Child, started: Instant) -> Result<(), String> {
    loop {
        let why = match first(asked) {
            Ok(()) => return Ok(()),
            Err(error) => error.to_string(),
        };
        match broker.try_wait() {
            Ok(Some(status)) => return Err(format!("the process ended before it acknowledged: {status}")),
            Ok(None) => {}
            Err(error) => return Err(error.to_string()),
        }
        if started.elapsed() > START_WITHIN {
            return Err(format!("nothing was acknowledged: {why}"));
        }
        thread::sleep(TRY_AGAIN);
    }
}

/// Tries once to have a record acknowledged.
fn first(asked: &ColdStart) -> Result<(), ClusterError> {
    let load = &asked.load;
    let leaders = Cluster::connect(&load.bootstrap)?.topic(&load.topic, load.partitions)?;
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let mut batch = BatchBuilder::new(i64::try_from(now_ms).unwrap_or(i64::MAX));
    batch.push(None, Some(&vec![0; load.record_size as usize]));
    Cluster::connect(&leaders[0].to_string())?.produce(&load.topic, load.acks.code(), Bytes::from(batch.finish()))
}

/// Ends the process and awaits its end.
fn stop(broker: &mut Child) -> io::Result<()> {
    if broker.try_wait()?.is_some() {
        return Ok(());
    }
    kill_process(Pid::from_child(broker), Signal::TERM)?;
    let asked = Instant::now();
    while broker.try_wait()?.is_none() {
        if asked.elapsed() > STOP_WITHIN {
            broker.kill()?;
            broker.wait()?;
            break;
        }
        thread::sleep(TRY_AGAIN);
    }
    Ok(())
}
