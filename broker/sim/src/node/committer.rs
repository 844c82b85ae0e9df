//! A consumer without a group protocol that commits offsets, always higher ones: what was acknowledged once is what every
//! later answer says, or more, whoever coordinates the group by then.

use super::client::{BACKOFF, PATIENCE, World};
use super::connection::{Connection, Lost};
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use millrace_protocol::messages::offset_fetch::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use millrace_protocol::messages::{FindCoordinatorRequest, OffsetCommitRequest, OffsetFetchRequest};
use std::net::SocketAddr;
use std::time::Duration;

/// The first version with several keys.
const FIND_COORDINATOR: i16 = 4;
/// The last versions that name topics.
const OFFSET_COMMIT: i16 = 9;
/// See `OFFSET_COMMIT`.
const OFFSET_FETCH: i16 = 9;
/// Between two rounds at most, milliseconds.
const PAUSE_MS: u64 = 1_500;

/// The committer of one group.
pub(super) struct Committer {
    world: World,
    group: String,
    topic: String,
    /// Which broker it asks for the coordinator.
    asks: usize,
    /// The highest offset that was sent, and the highest that was acknowledged.
    sent: i64,
    acknowledged: i64,
}

impl Committer {
    /// Commits for partition 0 of a topic.
    pub(super) fn new(world: &World, group: &str, topic: &str) -> Committer {
        let (group, topic) = (group.to_owned(), topic.to_owned());
        Committer { world: world.clone(), group, topic, asks: world.any_broker(), sent: 0, acknowledged: 0 }
    }

    /// Runs until everything is healed and what was acknowledged last was read back then.
    pub(super) async fn run(mut self) {
        loop {
            let finishing = self.world.finishing.get();
            if let Ok(true) = self.round().await
                && finishing
            {
                self.world.is_done(format_args!("the committer of {}", self.group));
                return;
            }
            let pause = self.world.sim.dice(|d| Duration::from_millis(d.below(0..PAUSE_MS)));
            self.world.sim.sleep(BACKOFF + pause).await;
        }
    }

    /// Commits, then reads; whether it was read.
    async fn round(&mut self) -> Result<bool, Lost> {
        if self.world.sim.dice(|d| d.index(4)) > 0
            && let Some(coordinator) = self.find().await?
        {
            self.commit(coordinator).await?;
        }
        // Perhaps of another broker, which knows another coordinator.
        match self.find().await? {
            Some(coordinator) => self.fetch(coordinator).await,
            None => Ok(false),
        }
    }

    /// Asks any broker for the coordinator; after one that has not answered, the next.
    async fn find(&mut self) -> Result<Option<SocketAddr>, Lost> {
        let found = self.ask(self.asks).await;
        self.asks = if found.is_ok() { self.world.any_broker() } else { self.asks + 1 };
        found
    }

    async fn ask(&self, broker: usize) -> Result<Option<SocketAddr>, Lost> {
        let mut connection = self.world.connection(broker).await?;
        let coordinator_keys = vec![self.group.as_str().into()];
        let request = FindCoordinatorRequest { coordinator_keys, ..FindCoordinatorRequest::default() };
        let answer = connection.call(&request, FIND_COORDINATOR, PATIENCE).await?;
        let found = &answer.coordinators[0];
        if found.error_code != ErrorCode::None {
            let known = found.error_code == ErrorCode::CoordinatorNotAvailable;
            assert!(known, "FINDING the coordinator of {} is {:?}", self.group, found.error_code);
            return Ok(None);
        }
        let address = format!("{}:{}", found.host.as_str(), found.port).parse();
        Ok(Some(address.unwrap_or_else(|_| panic!("FINDING a coordinator at {}", found.host.as_str()))))
    }

    async fn commit(&mut self, coordinator: SocketAddr) -> Result<(), Lost> {
        let mut connection = Connection::open(&self.world.sim, &self.world.network, coordinator).await?;
        self.sent += 1;
        let partition =
            OffsetCommitRequestPartition { committed_offset: self.sent, ..OffsetCommitRequestPartition::default() };
        let name = self.topic.as_str().into();
        let topic =
            OffsetCommitRequestTopic { name, partitions: vec![partition], ..OffsetCommitRequestTopic::default() };
        let request = OffsetCommitRequest {
            group_id: self.group.as_str().into(),
            generation_id_or_member_epoch: -1,
            topics: vec![topic],
            ..OffsetCommitRequest::default()
        };
        let sent = self.sent;
        let answer = connection.call(&request, OFFSET_COMMIT, PATIENCE).await?;
        let error = answer.topics[0].partitions[0].error_code;
        assert!(error == ErrorCode::None || passing(error), "FINDING a commit was answered {error:?}");
        if error == ErrorCode::None {
            self.acknowledged = sent;
        }
        Ok(())
    }

    async fn fetch(&self, coordinator: SocketAddr) -> Result<bool, Lost> {
        let mut connection = Connection::open(&self.world.sim, &self.world.network, coordinator).await?;
        let name = self.topic.as_str().into();
        let topic =
            OffsetFetchRequestTopics { name, partition_indexes: vec![0], ..OffsetFetchRequestTopics::default() };
        let group = OffsetFetchRequestGroup {
            group_id: self.group.as_str().into(),
            member_epoch: -1,
            topics: Some(vec![topic]),
            ..OffsetFetchRequestGroup::default()
        };
        let request = OffsetFetchRequest { groups: vec![group], ..OffsetFetchRequest::default() };
        let answer = connection.call(&request, OFFSET_FETCH, PATIENCE).await?;
        let group = &answer.groups[0];
        if group.error_code != ErrorCode::None {
            let error = group.error_code;
            assert!(passing(error), "FINDING what {} committed is answered {error:?}", self.group);
            return Ok(false);
        }
        let partition = &group.topics[0].partitions[0];
        if partition.error_code != ErrorCode::None {
            return Ok(false);
        }
        let (known, committed) = (self.acknowledged, partition.committed_offset);
        assert!(
            (known..=self.sent).contains(&committed) || (known == 0 && committed == -1),
            "FINDING {} has committed {committed}; {known} was acknowledged, {} sent last",
            self.group,
            self.sent
        );
        Ok(true)
    }
}

/// What a coordinator that is about to change, or has changed, answers.
fn passing(error: ErrorCode) -> bool {
    matches!(
        error,
        ErrorCode::NotCoordinator
            | ErrorCode::CoordinatorNotAvailable
            | ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::UnknownTopicOrPartition
            | ErrorCode::RequestTimedOut
    )
}
