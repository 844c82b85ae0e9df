//! Somebody who deletes a topic now and then: what was deleted never comes back, and the next one of its name is another.

use super::client::{BACKOFF, PATIENCE, Route, World, passing};
use super::connection::{Connection, Lost};
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::DeleteTopicsRequest;
use millrace_protocol::messages::delete_topics::DeleteTopicState;
use std::time::Duration;

const DELETE_TOPICS: i16 = 6;
/// `timeout_ms` of the requests.
const TIMEOUT_MS: i32 = 6_000;
/// Longest pause between two deletions.
const PAUSE_MS: u64 = 12_000;

/// Deletes until everything is healed.
pub(super) struct Deleter {
    world: World,
    topic: String,
}

impl Deleter {
    /// Of the topics of one name.
    pub(super) fn new(world: &World, topic: &str) -> Deleter {
        Deleter { world: world.clone(), topic: topic.to_owned() }
    }

    /// Runs until everything is healed.
    pub(super) async fn run(self) {
        while !self.world.healed.get() {
            let pause = self.world.sim.dice(|d| Duration::from_millis(d.below(0..PAUSE_MS)));
            self.world.sim.sleep(pause).await;
            let route = self.world.route(&self.topic, 0).await;
            if !self.world.healed.get() && self.delete(&route).await.is_err() {
                self.world.sim.sleep(BACKOFF).await;
            }
        }
    }

    async fn delete(&self, route: &Route) -> Result<(), Lost> {
        let (topic, ledger) = (route.partition.topic, &self.world.ledger);
        let mut connection = Connection::open(&self.world.sim, &self.world.network, route.address).await?;
        ledger.ask_deletion(topic);
        let topics = vec![DeleteTopicState { name: None, topic_id: topic.0 }];
        let request = DeleteTopicsRequest { topics, timeout_ms: TIMEOUT_MS, ..DeleteTopicsRequest::default() };
        let answer = connection.call(&request, DELETE_TOPICS, PATIENCE).await?;
        match answer.responses[0].error_code {
            ErrorCode::None => ledger.deleted(topic, self.world.sim.now()),
            error => {
                let known = passing(error) || error == ErrorCode::RequestTimedOut;
                assert!(known, "FINDING the deletion of {topic} was answered {error:?}");
            }
        }
        Ok(())
    }
}
