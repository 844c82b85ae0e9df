//! Somebody who has the log of one partition shortened now and then: what was promised to be gone is never read again.

use super::client::{BACKOFF, PATIENCE, Route, World, passing};
use super::connection::{Connection, Lost};
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::DeleteRecordsRequest;
use millrace_protocol::messages::delete_records::{DeleteRecordsPartition, DeleteRecordsTopic};
use millrace_storage::ids::Offset;
use std::time::Duration;

const DELETE_RECORDS: i16 = 2;
/// `timeout_ms` of the requests.
const TIMEOUT_MS: i32 = 6_000;
/// Asks for everything that can be read.
const HIGH_WATERMARK: i64 = -1;
/// Longest pause between two requests.
const PAUSE_MS: u64 = 4_000;

/// Shortens until everything is healed.
pub(super) struct Shortener {
    world: World,
    topic: String,
    index: u32,
}

impl Shortener {
    /// Of one partition.
    pub(super) fn new(world: &World, topic: &str, index: u32) -> Shortener {
        Shortener { world: world.clone(), topic: topic.to_owned(), index }
    }

    /// Runs until everything is healed.
    pub(super) async fn run(self) {
        while !self.world.finishing.get() {
            let pause = self.world.sim.dice(|d| Duration::from_millis(d.below(0..PAUSE_MS)));
            self.world.sim.sleep(pause).await;
            let route = self.world.route(&self.topic, self.index).await;
            // Whether it happened is seen by what is stored.
            if self.shorten(&route).await.is_err() {
                self.world.sim.sleep(BACKOFF).await;
            }
        }
    }

    async fn shorten(&self, route: &Route) -> Result<(), Lost> {
        let (p, ledger) = (route.partition, &self.world.ledger);
        let mut connection = Connection::open(&self.world.sim, &self.world.network, route.address).await?;
        let end = ledger.end(p).0;
        let offset = self.world.sim.dice(|d| match d.index(4) {
            0 => HIGH_WATERMARK,
            _ => i64::try_from(d.below(0..end.unsigned_abs() + 1)).expect("runs are short"),
        });
        ledger.ask_log_start(p, Offset(if offset == HIGH_WATERMARK { i64::MAX } else { offset }));
        let partition_index = i32::try_from(self.index).expect("small");
        let partitions = vec![DeleteRecordsPartition { partition_index, offset }];
        let topics = vec![DeleteRecordsTopic { name: self.topic.as_str().into(), partitions }];
        let request = DeleteRecordsRequest { topics, timeout_ms: TIMEOUT_MS };
        let answer = connection.call(&request, DELETE_RECORDS, PATIENCE).await?;
        let result = &answer.topics[0].partitions[0];
        match result.error_code {
            ErrorCode::None => {
                let low = result.low_watermark;
                assert!(low >= offset, "FINDING {p} was to start at {offset} and was said to at {low}");
                ledger.told_start(p, Offset(low));
            }
            error => {
                let known = passing(error) || error == ErrorCode::RequestTimedOut;
                assert!(known, "FINDING the deletion of what lies below {offset} of {p} was answered {error:?}");
            }
        }
        Ok(())
    }
}
