//! Produce with proof: everything that was acknowledged is read back, once, in order and unchanged.

use super::{RunError, failed};
use crate::arguments::{Acks, Load};
use crate::load::compress::Codec;
use crate::load::crew::Crew;
use crate::load::intake::{Look, Way};
use crate::load::readers;
use crate::load::recorder::note;
use crate::load::team::{self, Shared};
use crate::load::template::Content;
use crate::result::{Finding, Progress, RunResult};
use crate::validate::Checker;
use std::sync::mpsc::sync_channel;
use std::time::{SystemTime, UNIX_EPOCH};

/// Runs it.
pub(crate) fn run(name: &str, load: &Load, show: &mut dyn FnMut(&Progress)) -> Result<RunResult, RunError> {
    if load.compression != Codec::None || load.acks == Acks::None {
        return Err(RunError::Settings("--validate needs acknowledgements and uncompressed batches"));
    }
    // Different from run to run, so that what another one left behind is not taken for this one's.
    let run = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
    let crew = Crew::gather(load, Content::Identified, run)?;
    let (routes, ends) = (crew.routes.clone(), readers::ends(load, &crew.routes)?);
    let shared = Shared::start(load, None);
    let (sent, all_sent) = sync_channel(load.threads as usize);
    let mut members = crew.members(load, &shared, Some(&sent));
    let dealt = readers::deal(&ends, load.threads);
    let (read, all_read) = sync_channel(dealt.len());
    for positions in dealt {
        let partitions: Vec<u32> = positions.iter().map(|position| position.partition).collect();
        let what = (positions, Way::Everything, Look::Identities(Checker::new(run)));
        let read = read.clone();
        let done = move |look, _| {
            if let Look::Identities(checker) = look {
                // Whoever awaits it may have failed and gone.
                let _ = read.send((partitions, checker));
            }
        };
        members.push(readers::member("validate", load, &shared, &routes, what, done));
    }
    drop((sent, read));
    let mut result = team::run(name, load, &shared, members, show).map_err(failed)?;
    let sent: Vec<_> = all_sent.iter().flatten().collect();
    let mut records = 0;
    for (partitions, mut checker) in all_read {
        let own: Vec<_> = sent.iter().copied().filter(|sent| partitions.contains(&sent.partition)).collect();
        checker.finish(&own);
        checker.failures.iter().for_each(|(what, times)| note(&mut result.errors, what, *times));
        result.details.extend(checker.listed);
        records += checker.records;
    }
    result.findings.push(Finding { name: "validated".to_owned(), value: records as f64, unit: "records" });
    Ok(result)
}
