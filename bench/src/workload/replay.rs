//! A topic read from its start, without a producer beside it.

use super::{RunError, failed};
use crate::arguments::Replay;
use crate::cluster::Cluster;
use crate::load::intake::{Look, Position, Way};
use crate::load::producer::Leaders;
use crate::load::readers;
use crate::load::recorder::note;
use crate::load::routes::Routes;
use crate::load::team::{self, Shared};
use crate::result::{Finding, Progress, RunResult};
use crate::validate::Checker;
use std::sync::mpsc::sync_channel;

/// Of a digest: as many bits as every reader of the JSON form keeps.
const DIGEST_BITS: u32 = 48;

/// Runs it: once over everything that is there now, or again and again for so long.
pub(crate) fn run(name: &str, asked: &Replay, show: &mut dyn FnMut(&Progress)) -> Result<RunResult, RunError> {
    let load = &asked.load;
    let mut cluster = Cluster::connect(&load.bootstrap)?;
    let leaders = Leaders { addresses: cluster.topic(&load.topic, load.partitions)?, generation: 0 };
    let routes = Routes::new(&load.bootstrap, &load.topic, leaders);
    let ends = readers::ends(load, &routes)?;
    if ends.iter().all(|end| end.offset == 0) {
        return Err(RunError::Settings("the topic holds nothing that could be read: write to it first"));
    }
    let shared = if asked.again { Shared::start(load, None) } else { Shared::open(load) };
    ends.iter().for_each(|end| shared.acknowledge(end.partition, end.offset));
    let starts: Vec<Position> = (0..load.partitions).map(|partition| Position { partition, offset: 0 }).collect();
    let dealt = readers::deal(&starts, load.threads);
    let way = if asked.again { Way::Again } else { Way::Once };
    let (tell, told) = sync_channel(dealt.len() * asked.readers as usize);
    let mut members = Vec::new();
    for positions in (0..asked.readers).flat_map(|_| dealt.clone()) {
        let look = load.identify.map_or(Look::Headers, |run| Look::Identities(Checker::new(run)));
        let tell = tell.clone();
        // Whoever awaits it may have failed and gone.
        let done = move |look, passes| drop(tell.send((look, passes)));
        members.push(readers::member("replay", load, &shared, &routes, (positions, way, look), done));
    }
    drop(tell);
    let mut result = team::run(name, load, &shared, members, show).map_err(failed)?;
    result.settings.push(("readers".to_owned(), asked.readers.to_string()));
    let (mut passes, mut records, mut digest) = (0, 0, 0_u64);
    for (look, more) in told {
        passes += more;
        let Look::Identities(mut checker) = look else { continue };
        checker.finish_as_read();
        checker.failures.iter().for_each(|(what, times)| note(&mut result.errors, what, *times));
        result.details.extend(checker.listed);
        records += checker.records;
        digest = digest.wrapping_add(checker.digest);
    }
    let mut find = |name: &str, value, unit| result.findings.push(Finding { name: name.to_owned(), value, unit });
    if asked.again {
        find("partitions read to their end", passes as f64, "");
    }
    if load.identify.is_some() {
        find("validated", records as f64, "records");
        find("digest", (digest % (1 << DIGEST_BITS)) as f64, "");
    }
    Ok(result)
}
