//! Generated requests of the APIs that describe and change a cluster. Changes are only checked.

use super::{Generate, Maker, TOPICS};
use millrace_protocol::messages::{
    AlterClientQuotasRequest, AlterConfigsRequest, AlterPartitionReassignmentsRequest, CreatePartitionsRequest,
    DeleteRecordsRequest, DescribeClientQuotasRequest, DescribeLogDirsRequest, DescribeProducersRequest,
    DescribeQuorumRequest, DescribeTopicPartitionsRequest, ElectLeadersRequest, IncrementalAlterConfigsRequest,
    ListConfigResourcesRequest, ListPartitionReassignmentsRequest, OffsetDeleteRequest, UpdateFeaturesRequest,
    alter_client_quotas, alter_configs, alter_partition_reassignments, create_partitions, delete_records,
    describe_client_quotas, describe_log_dirs, describe_producers, describe_quorum, describe_topic_partitions,
    elect_leaders, incremental_alter_configs, list_partition_reassignments, offset_delete, update_features,
};
use millrace_protocol::{Double, StrBytes};

impl Maker<'_> {
    /// A setting's name and value.
    fn setting(&mut self) -> (StrBytes, Option<StrBytes>) {
        let name = self.dice.pick(&["retention.ms", "flush.ms", "cleanup.policy", "no.such.setting"]);
        let value = self.dice.pick(&[Some("1000"), Some("-5"), Some("compact"), None]);
        (name.into(), value.map(StrBytes::from_static))
    }

    /// Something that may have settings, of this run.
    fn resource(&mut self) -> (i8, StrBytes) {
        let kind = self.dice.pick(&[2, 2, 2, 99]);
        (kind, self.topic())
    }
}

impl Generate for DescribeClientQuotasRequest {
    fn generate(maker: &mut Maker<'_>) -> Self {
        let components = maker.list(|maker| describe_client_quotas::ComponentData {
            entity_type: maker.dice.pick(&["user", "client-id", "ip", "group", ""]).into(),
            match_type: maker.dice.pick(&[0, 1, 2, 3]),
            match_name: maker.dice.flip().then(|| "nobody".into()),
        });
        DescribeClientQuotasRequest { components, strict: maker.dice.flip() }
    }
}

impl Generate for AlterClientQuotasRequest {
    fn generate(maker: &mut Maker<'_>) -> Self {
        // One entity: the order of several is that of a hash map.
        let entity = maker.list(|maker| alter_client_quotas::EntityData {
            entity_type: maker.dice.pick(&["user", "client-id", "group"]).into(),
            entity_name: maker.dice.flip().then(|| "nobody".into()),
        });
        let ops = maker.list(|maker| alter_client_quotas::OpData {
            key: maker.dice.pick(&["producer_byte_rate", "consumer_byte_rate", "no_such_rate"]).into(),
            value: Double(maker.dice.pick(&[1000.0, 1.5, 0.0, -1.0])),
            remove: maker.dice.flip(),
        });
        AlterClientQuotasRequest { entries: vec![alter_client_quotas::EntryData { entity, ops }], validate_only: true }
    }
}

impl Generate for CreatePartitionsRequest {
    fn generate(maker: &mut Maker<'_>) -> Self {
        let topic = |maker: &mut Maker<'_>| create_partitions::CreatePartitionsTopic {
            name: maker.topic(),
            count: maker.dice.pick(&[-1, 0, 1, 2, 3, 20_000]),
            assignments: None,
        };
        CreatePartitionsRequest { topics: maker.list(topic), timeout_ms: 10_000, validate_only: true }
    }
}

impl Generate for DeleteRecordsRequest {
    fn generate(maker: &mut Maker<'_>) -> Self {
        // Their logs are empty, so that only an end that has not moved is taken.
        let topics = maker.list(|maker| delete_records::DeleteRecordsTopic {
            name: maker.topic(),
            partitions: maker.list(|maker| delete_records::DeleteRecordsPartition {
                partition_index: maker.index(),
                offset: maker.offset(),
            }),
        });
        DeleteRecordsRequest { topics, timeout_ms: 5_000 }
    }
}

impl Generate for AlterConfigsRequest {
    fn generate(maker: &mut Maker<'_>) -> Self {
        // One resource: Kafka does not answer a request that names one twice.
        let (resource_type, resource_name) = maker.resource();
        let configs = maker.list(|maker| {
            let (name, value) = maker.setting();
            alter_configs::AlterableConfig { name, value }
        });
        let resource = alter_configs::AlterConfigsResource { resource_type, resource_name, configs };
        AlterConfigsRequest { resources: vec![resource], validate_only: true }
    }
}

impl Generate for IncrementalAlterConfigsRequest {
    fn generate(maker: &mut Maker<'_>) -> Self {
        let (resource_type, resource_name) = maker.resource();
        let configs = maker.list(|maker| {
            let (name, value) = maker.setting();
            let config_operation = maker.dice.pick(&[0, 0, 1, 2, 3]);
            incremental_alter_configs::IncrementalConfig { name, config_operation, value }
        });
        let resource = incremental_alter_configs::IncrementalResource { resource_type, resource_name, configs };
        IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: true }
    }
}

impl Generate for ListConfigResourcesRequest {
    fn generate(maker: &mut Maker<'_>) -> Self {
        let types = maker.list(|maker| maker.dice.pick(&[2, 4, 16, 0, 77]));
        ListConfigResourcesRequest { resource_types: if maker.version >= 1 { types } else { Vec::new() } }
    }
}

impl Generate for DescribeTopicPartitionsRequest {
    fn generate(maker: &mut Maker<'_>) -> Self {
        // Names that a topic can have: of others Kafka says nothing but that it failed.
        let name = |maker: &mut Maker<'_>| {
            let name = maker.dice.pick(&["first", "second", "nowhere"]);
            maker.side.name(name)
        };
        let first = describe_topic_partitions::TopicRequest { name: maker.side.name(TOPICS[0]) };
        let mut topics = maker.list(|maker| describe_topic_partitions::TopicRequest { name: name(maker) });
        topics.push(first);
        let cursor = maker.dice.flip().then(|| describe_topic_partitions::RequestCursor {
            topic_name: name(maker),
            // The greatest has a case.
            partition_index: maker.index().min(7),
        });
        DescribeTopicPartitionsRequest { topics, response_partition_limit: maker.small(), cursor }
    }
}

impl Generate for DescribeLogDirsRequest {
    fn generate(maker: &mut Maker<'_>) -> Self {
        let topics = maker.list(|maker| describe_log_dirs::DescribableLogDirTopic {
            topic: maker.topic(),
            partitions: maker.list(Maker::index),
        });
        DescribeLogDirsRequest { topics: Some(topics) }
    }
}

impl Generate for DescribeProducersRequest {
    fn generate(maker: &mut Maker<'_>) -> Self {
        let topics = maker.list(|maker| describe_producers::DescribeProducersTopic {
            name: maker.topic(),
            partition_indexes: maker.list(Maker::index),
        });
        DescribeProducersRequest { topics }
    }
}

impl Generate for DescribeQuorumRequest {
    fn generate(maker: &mut Maker<'_>) -> Self {
        let topics = maker.list(|maker| describe_quorum::DescribeQuorumTopic {
            topic_name: maker.topic(),
            partitions: maker.list(|maker| describe_quorum::DescribeQuorumPartition { partition_index: maker.index() }),
        });
        DescribeQuorumRequest { topics }
    }
}

impl Generate for ElectLeadersRequest {
    fn generate(maker: &mut Maker<'_>) -> Self {
        let topics = maker.list(|maker| elect_leaders::ElectLeadersTopic {
            topic: maker.topic(),
            partitions: maker.list(Maker::index),
        });
        let election_type = if maker.version >= 1 { maker.dice.pick(&[0, 1]) } else { 0 };
        ElectLeadersRequest { election_type, topic_partitions: Some(topics), timeout_ms: 5_000 }
    }
}

impl Generate for AlterPartitionReassignmentsRequest {
    fn generate(maker: &mut Maker<'_>) -> Self {
        let node = maker.side.node();
        let partition = |maker: &mut Maker<'_>| alter_partition_reassignments::ReassignablePartition {
            partition_index: maker.index(),
            replicas: maker.dice.pick(&[None, Some(vec![node]), Some(vec![99]), Some(Vec::new())]),
        };
        let topics = maker.list(|maker| alter_partition_reassignments::ReassignableTopic {
            name: maker.topic(),
            partitions: maker.list(partition),
        });
        AlterPartitionReassignmentsRequest { topics, ..Default::default() }
    }
}

impl Generate for ListPartitionReassignmentsRequest {
    fn generate(maker: &mut Maker<'_>) -> Self {
        let topics = maker.list(|maker| list_partition_reassignments::ListPartitionReassignmentsTopics {
            name: maker.topic(),
            partition_indexes: maker.list(Maker::index),
        });
        ListPartitionReassignmentsRequest { topics: maker.dice.flip().then_some(topics), ..Default::default() }
    }
}

impl Generate for UpdateFeaturesRequest {
    fn generate(maker: &mut Maker<'_>) -> Self {
        let updates = maker.dice.below(2);
        let feature_updates = (0..updates).map(|_| update_features::FeatureUpdateKey {
            feature: "nothing".into(),
            max_version_level: 1,
            ..Default::default()
        });
        UpdateFeaturesRequest { feature_updates: feature_updates.collect(), ..Default::default() }
    }
}

impl Generate for OffsetDeleteRequest {
    fn generate(maker: &mut Maker<'_>) -> Self {
        let topics = maker.list(|maker| offset_delete::OffsetDeleteRequestTopic {
            name: maker.topic(),
            partitions: maker
                .list(|maker| offset_delete::OffsetDeleteRequestPartition { partition_index: maker.index() }),
        });
        OffsetDeleteRequest { group_id: maker.group(), topics }
    }
}
