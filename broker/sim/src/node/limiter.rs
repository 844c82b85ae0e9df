//! Somebody who changes how long the records of a topic are kept, so that retention shortens its logs.

use super::client::{BACKOFF, PATIENCE, Route, World};
use super::connection::{Connection, Lost};
use millrace_protocol::messages::IncrementalAlterConfigsRequest;
use millrace_protocol::messages::incremental_alter_configs::{IncrementalConfig, IncrementalResource};
use std::time::Duration;

const INCREMENTAL_ALTER_CONFIGS: i16 = 1;
/// Kafka's number for a topic among what has settings.
const TOPIC: i8 = 2;
/// Longest pause between two changes.
const PAUSE_MS: u64 = 8_000;
/// Longest limit.
const LIMIT_MS: u64 = 20_000;

/// Changes the setting until everything is healed.
pub(super) struct Limiter {
    world: World,
    topic: String,
}

impl Limiter {
    /// Of one topic.
    pub(super) fn new(world: &World, topic: &str) -> Limiter {
        Limiter { world: world.clone(), topic: topic.to_owned() }
    }

    /// Runs until everything is healed.
    pub(super) async fn run(self) {
        while !self.world.finishing.get() {
            let pause = self.world.sim.dice(|d| Duration::from_millis(d.below(0..PAUSE_MS)));
            self.world.sim.sleep(pause).await;
            let route = self.world.route(&self.topic, 0).await;
            if self.limit(&route).await.is_err() {
                self.world.sim.sleep(BACKOFF).await;
            }
        }
    }

    /// Whether it happened does not matter: the shortest limit that was ever asked for counts.
    async fn limit(&self, route: &Route) -> Result<(), Lost> {
        let mut connection = Connection::open(&self.world.sim, &self.world.network, route.address).await?;
        let limit = self.world.sim.dice(|d| (d.index(4) > 0).then(|| d.below(0..LIMIT_MS)));
        if let Some(limit) = limit {
            self.world.ledger.limit(route.partition.topic, i64::try_from(limit).expect("small"));
        }
        let value = limit.map_or_else(|| "-1".to_owned(), |limit| limit.to_string());
        let config = IncrementalConfig { name: "retention.ms".into(), config_operation: 0, value: Some(value.into()) };
        let name = self.topic.as_str().into();
        let resource = IncrementalResource { resource_type: TOPIC, resource_name: name, configs: vec![config] };
        let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
        connection.call(&request, INCREMENTAL_ALTER_CONFIGS, PATIENCE).await?;
        Ok(())
    }
}
