//! The senders of a run: producers dealt out over nodes and threads.

use crate::arguments::{Acks, Load};
use crate::cluster::Cluster;
use crate::load::clock::Waiter;
use crate::load::producer::{Leaders, Producer, Settings};
use crate::load::readers;
use crate::load::routes::Routes;
use crate::load::sender::Sender;
use crate::load::team::{Member, Shared};
use crate::load::template::{Content, Templates};
use crate::pace::Schedule;
use crate::validate::{Identity, Sent};
use crate::workload::RunError;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{SystemTime, UNIX_EPOCH};

/// What is decided before any thread starts.
pub(crate) struct Crew {
    /// Where partitions are led.
    pub routes: Routes,
    templates: Arc<Templates>,
    /// By thread.
    producers: Vec<Vec<Producer<mio::net::TcpStream>>>,
    connections: usize,
}

impl Crew {
    /// Makes the topic, encodes the batches, gets producer ids.
    ///
    /// # Errors
    /// When the cluster can't be used.
    pub(crate) fn gather(load: &Load, content: Content, run: u64) -> Result<Crew, RunError> {
        if load.idempotent && load.acks != Acks::All {
            return Err(RunError::Settings("an idempotent producer needs --acks all"));
        }
        let mut cluster = Cluster::connect(&load.bootstrap)?;
        let leaders = Leaders { addresses: cluster.topic(&load.topic, load.partitions)?, generation: 0 };
        let routes = Routes::new(&load.bootstrap, &load.topic, leaders.clone());
        // Metadata names leaders of a new topic before they lead. A batch refused until then and the one behind it, which
        // is not, would change places, or be out of sequence.
        readers::ends(load, &routes)?;
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let now_ms = i64::try_from(now_ms).unwrap_or(i64::MAX);
        let templates =
            Templates::encode(load, content, now_ms).map_err(|error| RunError::Io("batches".into(), error))?;
        let written: BTreeSet<u32> = templates.order.iter().copied().collect();
        let dealt = deal(&leaders.addresses, &written, load.connections as usize)?;
        let mut writers = vec![0_u32; load.partitions as usize];
        dealt.iter().flatten().for_each(|partition| writers[*partition as usize] += 1);
        let threads = (load.threads as usize).min(dealt.len());
        let mut producers: Vec<Vec<_>> = (0..threads).map(|_| Vec::new()).collect();
        for (number, partitions) in dealt.iter().enumerate() {
            let settings = Settings {
                limit: load.in_flight as usize,
                id: if load.idempotent { Some(cluster.producer_id()?) } else { None },
                alone: partitions.iter().all(|partition| writers[*partition as usize] == 1),
                answered: load.acks != Acks::None,
                identity: Identity { run, producer: number as u32, ..Identity::default() },
            };
            producers[number % threads].push(Producer::new(settings, partitions, &templates.order, number));
        }
        Ok(Crew { routes, templates: Arc::new(templates), producers, connections: dealt.len() })
    }

    /// The threads that send. `sent` is told what each producer sent, when it has ended.
    pub(crate) fn members(
        self,
        load: &Load,
        shared: &Arc<Shared>,
        sent: Option<&SyncSender<Vec<Sent>>>,
    ) -> Vec<Member> {
        let Crew { routes, templates, producers, connections } = self;
        let threads = producers.len();
        let unanswering = load.acks == Acks::None && load.rate.is_none();
        let member = |(thread, producers): (usize, Vec<_>)| {
            let schedule = load.rate.map(|rate| Schedule::new(rate, connections, thread, threads));
            let (routes, templates) = (routes.clone(), templates.clone());
            let (shared, sent) = (shared.clone(), sent.cloned());
            let work = move |recorder| -> io::Result<_> {
                let (leaders, clock) = (routes.latest(), shared.clock);
                let waiter = Waiter::new()?;
                let mut sender = Sender {
                    waiter,
                    clock,
                    routes,
                    templates,
                    producers,
                    schedule,
                    unanswering,
                    recorder,
                    leaders,
                    halted: false,
                };
                sender.run(shared.window.end, shared.drain)?;
                for producer in &sender.producers {
                    producer.acknowledged().for_each(|(partition, end)| shared.acknowledge(partition, end));
                }
                if let Some(sent) = sent {
                    let all = sender.producers.iter().flat_map(Producer::sent).collect();
                    sent.send(all).map_err(|_| io::Error::other("nobody awaits what was sent"))?;
                }
                Ok(sender.recorder)
            };
            Member { series: "produce".to_owned(), sends: true, work: Box::new(work) }
        };
        producers.into_iter().enumerate().map(member).collect()
    }
}

/// Producers, dealt out in turn over the nodes: each with the partitions that its node leads.
fn deal(leaders: &[SocketAddr], written: &BTreeSet<u32>, producers: usize) -> Result<Vec<Vec<u32>>, RunError> {
    let mut nodes: BTreeMap<SocketAddr, Vec<u32>> = BTreeMap::new();
    for &partition in written {
        nodes.entry(leaders[partition as usize]).or_default().push(partition);
    }
    if producers < nodes.len() {
        return Err(RunError::TooFewConnections(nodes.len()));
    }
    Ok(nodes.values().cloned().cycle().take(producers).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn producers_go_round_the_nodes_with_the_partitions_that_each_leads() {
        let node = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let leaders = [node(2), node(1), node(2), node(1), node(3)];
        let written = BTreeSet::from([0, 1, 2, 3]);
        assert_eq!(deal(&leaders, &written, 3).unwrap(), [vec![1, 3], vec![0, 2], vec![1, 3]]);
        assert!(matches!(deal(&leaders, &written, 1), Err(RunError::TooFewConnections(2))));
    }
}
