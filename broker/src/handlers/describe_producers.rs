//! DescribeProducers: the idempotent producers that a partition's leader remembers (KIP-664). There are no transactions.

use super::errors::{PartitionError, partition_error};
use super::metadata::is_legal;
use super::{RequestContext, topics};
use crate::shard::core::ShardCore;
use crate::shard::events::Now;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::describe_producers::{
    DescribeProducersPartition, DescribeProducersTopic, DescribeProducersTopicResponse, ProducerState,
};
use millrace_protocol::messages::{DescribeProducersRequest, DescribeProducersResponse};

/// No transaction coordinator has written here.
const NO_COORDINATOR: i32 = -1;

/// Answers for every partition asked for.
pub(crate) fn handle(core: &mut ShardCore, _now: Now, context: RequestContext, request: DescribeProducersRequest) {
    let topics = request.topics.iter().map(|topic| describe(core, topic)).collect();
    context.reply(core, &DescribeProducersResponse { throttle_time_ms: 0, topics });
}

fn describe(core: &ShardCore, topic: &DescribeProducersTopic) -> DescribeProducersTopicResponse {
    let partitions = topic.partition_indexes.iter().map(|&index| {
        let (error_code, active_producers) = match producers(core, &topic.name, index) {
            Ok(producers) => (ErrorCode::None, producers),
            Err(_) if !is_legal(&topic.name) => (ErrorCode::InvalidTopicException, Vec::new()),
            Err(error) => (partition_error(error), Vec::new()),
        };
        DescribeProducersPartition { partition_index: index, error_code, error_message: None, active_producers }
    });
    DescribeProducersTopicResponse { name: topic.name.clone(), partitions: partitions.collect() }
}

fn producers(core: &ShardCore, name: &str, index: i32) -> Result<Vec<ProducerState>, PartitionError> {
    let partition = topics::by_name(&core.image, name, index)?;
    let log = core.leading(partition, -1)?;
    let described = log.appended.producers().iter().map(|(producer_id, state)| ProducerState {
        producer_id,
        producer_epoch: state.epoch.into(),
        last_sequence: state.batches().last().map_or(-1, |batch| batch.last_sequence),
        last_timestamp: state.updated.0,
        coordinator_epoch: NO_COORDINATOR,
        ..ProducerState::default()
    });
    Ok(described.collect())
}
