//! Producers of the lane scenario: they keep their records until they are acknowledged, send them again in order after
//! every failure, and do not believe every answer.

use super::Cluster;
use super::shard::{Produce, Refused};
use crate::ledger::{PLAIN_PRODUCERS, RecordId};
use millrace_storage::ids::{Offset, TopicPartition};
use millrace_storage::partition::ProducerStamp;
use millrace_storage::sim::Chance;
use std::collections::VecDeque;
use std::time::Duration;

/// Batches that an idempotent producer has under way at once, as Kafka's clients.
const IN_FLIGHT: usize = 5;
/// Most records of a batch.
const MAX_RECORDS: u64 = 4;
/// How long a producer waits for an answer before it sends again.
const PATIENCE: Duration = Duration::from_secs(15);

struct Batch {
    ids: Vec<RecordId>,
    first_sequence: i32,
}

/// One producer of one partition.
pub(super) struct Producer {
    cluster: Cluster,
    id: u64,
    partition: TopicPartition,
    next_number: u64,
    unacknowledged: VecDeque<Batch>,
}

impl Producer {
    pub(super) fn new(cluster: &Cluster, id: u64, partition: TopicPartition) -> Producer {
        Producer { cluster: cluster.clone(), id, partition, next_number: 0, unacknowledged: VecDeque::new() }
    }

    /// Produces until `batches` are acknowledged.
    pub(super) async fn run(mut self, batches: u64) {
        let mut done = 0;
        while done < batches {
            while self.unacknowledged.len() < IN_FLIGHT.min(usize::try_from(batches - done).unwrap_or(IN_FLIGHT)) {
                let batch = self.next_batch();
                self.unacknowledged.push_back(batch);
            }
            done += self.send_all().await;
            let pause = self.cluster.sim.dice(|d| d.latency(&(Duration::ZERO..Duration::from_millis(60))));
            self.cluster.sim.sleep(pause).await;
        }
    }

    fn next_batch(&mut self) -> Batch {
        let count = self.cluster.sim.dice(|d| d.below(1..MAX_RECORDS + 1));
        let first_sequence = i32::try_from(self.next_number).expect("runs are short");
        let ids = (0..count).map(|i| RecordId { producer: self.id, number: self.next_number + i }).collect();
        self.next_number += count;
        Batch { ids, first_sequence }
    }

    /// Sends what is not acknowledged, in order; gives the number of batches acknowledged.
    async fn send_all(&mut self) -> u64 {
        let Some(shard) = self.cluster.leader(self.partition) else { return 0 };
        let idempotent = self.id < PLAIN_PRODUCERS;
        let answers: Vec<_> = self
            .unacknowledged
            .iter()
            .map(|batch| {
                let stamp = ProducerStamp { id: self.id as i64, epoch: 0, first_sequence: batch.first_sequence };
                let stamp = idempotent.then_some(stamp);
                shard.produce(Produce { partition: self.partition, stamp, ids: batch.ids.clone() })
            })
            .collect();
        let mut acknowledged = 0;
        for answer in answers {
            let Some(base) = self.answered(answer).await else { break };
            let batch = self.unacknowledged.pop_front().expect("one per answer");
            self.cluster.ledger.acknowledged(self.partition, base, &batch.ids);
            acknowledged += 1;
        }
        if !idempotent {
            // Whether the rest is in the log nobody knows: it is given up, not sent again.
            self.unacknowledged.clear();
        }
        acknowledged
    }

    async fn answered(&self, answer: futures::channel::oneshot::Receiver<Result<Offset, Refused>>) -> Option<Offset> {
        let patience = std::pin::pin!(self.cluster.sim.sleep(PATIENCE));
        let answer = match futures::future::select(answer, patience).await {
            futures::future::Either::Left((answer, _)) => answer,
            futures::future::Either::Right(_) => return None,
        };
        let lost = self.cluster.sim.dice(|d| d.happens(Chance(200)));
        match answer {
            Ok(Ok(base)) if !lost => Some(base),
            _ => None,
        }
    }
}
