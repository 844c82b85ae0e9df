//! Generated requests of the consumer protocol. No group comes of them: whoever would join lacks something.

use super::{Generate, Maker};
use crate::names::unknown_id;
use millrace_protocol::StrBytes;
use millrace_protocol::messages::consumer_group_heartbeat::OwnedTopicPartitions;
use millrace_protocol::messages::{ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest};

impl Generate for ConsumerGroupHeartbeatRequest {
    fn generate(maker: &mut Maker<'_>) -> Self {
        let member_epoch = maker.dice.pick(&[0, 1, 7, -1, -2, -3]);
        let text = |maker: &mut Maker<'_>, texts: &[&'static str]| {
            maker.dice.flip().then(|| StrBytes::from(maker.dice.pick(texts)))
        };
        let owned = |maker: &mut Maker<'_>| OwnedTopicPartitions {
            topic_id: maker.dice.pick(&[maker.side.id("first"), unknown_id()]),
            partitions: maker.list(Maker::index),
        };
        let rebalance_timeout_ms = maker.dice.pick(&[-1, 1_000]);
        ConsumerGroupHeartbeatRequest {
            group_id: maker.group(),
            member_id: maker.member(),
            member_epoch,
            instance_id: text(maker, &["", "instance"]),
            rack_id: text(maker, &["", "rack"]),
            // A member that joins must say how long it may take.
            rebalance_timeout_ms: if member_epoch == 0 { -1 } else { rebalance_timeout_ms },
            subscribed_topic_names: maker.dice.flip().then(|| maker.list(Maker::topic)),
            subscribed_topic_regex: text(maker, &["", "first.*", "("]).filter(|_| maker.version >= 1),
            server_assignor: text(maker, &["", "uniform", "nonsense"]),
            topic_partitions: maker.dice.flip().then(|| maker.list(owned)),
        }
    }
}

impl Generate for ConsumerGroupDescribeRequest {
    fn generate(maker: &mut Maker<'_>) -> Self {
        ConsumerGroupDescribeRequest {
            group_ids: maker.list(Maker::group),
            include_authorized_operations: maker.dice.flip(),
        }
    }
}
