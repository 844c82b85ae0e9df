//! The readers of a run: who reads what, from where.

use crate::arguments::Load;
use crate::cluster::Cluster;
use crate::load::intake::{Intake, Look, Position, Way};
use crate::load::reader::Reader;
use crate::load::recorder::Recorder;
use crate::load::routes::Routes;
use crate::load::team::{Member, Shared};
use crate::workload::RunError;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

/// Where every partition ends now.
///
/// # Errors
/// When a leader does not tell.
pub(crate) fn ends(load: &Load, routes: &Routes) -> Result<Vec<Position>, RunError> {
    let mut nodes: BTreeMap<SocketAddr, Vec<u32>> = BTreeMap::new();
    for (address, partition) in routes.latest().addresses.into_iter().zip(0..) {
        nodes.entry(address).or_default().push(partition);
    }
    let mut positions = Vec::new();
    for (address, partitions) in nodes {
        let ends = Cluster::connect(&address.to_string())?.ends(&load.topic, &partitions)?;
        let position = |(&partition, offset)| Position { partition, offset };
        positions.extend(partitions.iter().zip(ends).map(position));
    }
    Ok(positions)
}

/// Positions dealt out over so many threads.
pub(crate) fn deal(positions: &[Position], threads: u32) -> Vec<Vec<Position>> {
    let mut dealt = vec![Vec::new(); (threads as usize).min(positions.len())];
    let count = dealt.len();
    positions.iter().enumerate().for_each(|(number, position)| dealt[number % count].push(*position));
    dealt
}

/// A thread that reads these positions; `done` is told what it has read when it has ended.
pub(crate) fn member(
    series: &str,
    load: &Load,
    shared: &Arc<Shared>,
    routes: &Routes,
    (positions, way, look): (Vec<Position>, Way, Look),
    done: impl FnOnce(Look, u64) + Send + 'static,
) -> Member {
    let (topic, shared, routes) = (load.topic.clone(), shared.clone(), routes.clone());
    let work = move |recorder: Recorder| -> io::Result<Recorder> {
        let mut reader = Reader::new(&topic, &shared, &routes, Intake::new(positions, way, look, recorder))?;
        reader.run()?;
        let Intake { look, passes, recorder, .. } = reader.intake;
        done(look, passes);
        Ok(recorder)
    };
    Member { series: series.to_owned(), sends: false, work: Box::new(work) }
}
