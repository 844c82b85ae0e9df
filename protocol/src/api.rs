//! The APIs of Kafka 4.4: their keys, where each turned flexible, and which versions we advertise.
//!
//! 1. A version is *flexible* (KIP-482: compact lengths, tagged fields, headers with tags) from one number on, the same
//!    for request and response.
//! 2. We advertise a version only if every field of it is honoured: [`ADVERTISED`]. Minima are Kafka 4.4's (KIP-896).
//!
//! Does not say what a message holds: that is `messages`.

use std::ops::RangeInclusive;

/// No version of this API is flexible.
const NEVER: i16 = i16::MAX;

/// Declares the keys and their flexible floors from one list.
macro_rules! api_keys {
    ($($name:ident = $key:literal, flexible $flexible:expr;)*) => {
        /// What a request asks for. Names are Kafka's.
        #[repr(i16)]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[allow(missing_docs, reason = "Kafka documents them by these names")]
        pub enum ApiKey {
            $($name = $key,)*
        }

        impl ApiKey {
            /// Every key, ascending.
            pub const ALL: &'static [ApiKey] = &[$(ApiKey::$name,)*];

            /// The key of these wire bytes; `None` for one that Kafka 4.4 does not know.
            pub const fn from_code(code: i16) -> Option<ApiKey> {
                match code {
                    $($key => Some(ApiKey::$name),)*
                    _ => None,
                }
            }

            /// The first flexible version, `i16::MAX` if there is none.
            pub const fn first_flexible(self) -> i16 {
                match self {
                    $(ApiKey::$name => $flexible,)*
                }
            }
        }
    };
}

api_keys! {
    Produce = 0, flexible 9;
    Fetch = 1, flexible 12;
    ListOffsets = 2, flexible 6;
    Metadata = 3, flexible 9;
    LeaderAndIsr = 4, flexible 4;
    StopReplica = 5, flexible 2;
    UpdateMetadata = 6, flexible 6;
    ControlledShutdown = 7, flexible 3;
    OffsetCommit = 8, flexible 8;
    OffsetFetch = 9, flexible 6;
    FindCoordinator = 10, flexible 3;
    JoinGroup = 11, flexible 6;
    Heartbeat = 12, flexible 4;
    LeaveGroup = 13, flexible 4;
    SyncGroup = 14, flexible 4;
    DescribeGroups = 15, flexible 5;
    ListGroups = 16, flexible 3;
    SaslHandshake = 17, flexible NEVER;
    ApiVersions = 18, flexible 3;
    CreateTopics = 19, flexible 5;
    DeleteTopics = 20, flexible 4;
    DeleteRecords = 21, flexible 2;
    InitProducerId = 22, flexible 2;
    OffsetForLeaderEpoch = 23, flexible 4;
    AddPartitionsToTxn = 24, flexible 3;
    AddOffsetsToTxn = 25, flexible 3;
    EndTxn = 26, flexible 3;
    WriteTxnMarkers = 27, flexible 1;
    TxnOffsetCommit = 28, flexible 3;
    DescribeAcls = 29, flexible 2;
    CreateAcls = 30, flexible 2;
    DeleteAcls = 31, flexible 2;
    DescribeConfigs = 32, flexible 4;
    AlterConfigs = 33, flexible 2;
    AlterReplicaLogDirs = 34, flexible 2;
    DescribeLogDirs = 35, flexible 2;
    SaslAuthenticate = 36, flexible 2;
    CreatePartitions = 37, flexible 2;
    CreateDelegationToken = 38, flexible 2;
    RenewDelegationToken = 39, flexible 2;
    ExpireDelegationToken = 40, flexible 2;
    DescribeDelegationToken = 41, flexible 2;
    DeleteGroups = 42, flexible 2;
    ElectLeaders = 43, flexible 2;
    IncrementalAlterConfigs = 44, flexible 1;
    AlterPartitionReassignments = 45, flexible 0;
    ListPartitionReassignments = 46, flexible 0;
    OffsetDelete = 47, flexible NEVER;
    DescribeClientQuotas = 48, flexible 1;
    AlterClientQuotas = 49, flexible 1;
    DescribeUserScramCredentials = 50, flexible 0;
    AlterUserScramCredentials = 51, flexible 0;
    Vote = 52, flexible 0;
    BeginQuorumEpoch = 53, flexible 1;
    EndQuorumEpoch = 54, flexible 1;
    DescribeQuorum = 55, flexible 0;
    AlterPartition = 56, flexible 0;
    UpdateFeatures = 57, flexible 0;
    Envelope = 58, flexible 0;
    FetchSnapshot = 59, flexible 0;
    DescribeCluster = 60, flexible 0;
    DescribeProducers = 61, flexible 0;
    BrokerRegistration = 62, flexible 0;
    BrokerHeartbeat = 63, flexible 0;
    UnregisterBroker = 64, flexible 0;
    DescribeTransactions = 65, flexible 0;
    ListTransactions = 66, flexible 0;
    AllocateProducerIds = 67, flexible 0;
    ConsumerGroupHeartbeat = 68, flexible 0;
    ConsumerGroupDescribe = 69, flexible 0;
    ControllerRegistration = 70, flexible 0;
    GetTelemetrySubscriptions = 71, flexible 0;
    PushTelemetry = 72, flexible 0;
    AssignReplicasToDirs = 73, flexible 0;
    ListConfigResources = 74, flexible 0;
    DescribeTopicPartitions = 75, flexible 0;
    ShareGroupHeartbeat = 76, flexible 0;
    ShareGroupDescribe = 77, flexible 0;
    ShareFetch = 78, flexible 0;
    ShareAcknowledge = 79, flexible 0;
    AddRaftVoter = 80, flexible 0;
    RemoveRaftVoter = 81, flexible 0;
    UpdateRaftVoter = 82, flexible 0;
    InitializeShareGroupState = 83, flexible 0;
    ReadShareGroupState = 84, flexible 0;
    WriteShareGroupState = 85, flexible 0;
    DeleteShareGroupState = 86, flexible 0;
    ReadShareGroupStateSummary = 87, flexible 0;
    StreamsGroupHeartbeat = 88, flexible 0;
    StreamsGroupDescribe = 89, flexible 0;
    DescribeShareGroupOffsets = 90, flexible 0;
    AlterShareGroupOffsets = 91, flexible 0;
    DeleteShareGroupOffsets = 92, flexible 0;
    StreamsGroupTopologyDescriptionUpdate = 93, flexible 0;
    UnregisterController = 94, flexible 0;
}

impl ApiKey {
    /// As it goes over the wire.
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// Whether `version` has compact lengths and tagged fields.
    pub const fn is_flexible(self, version: i16) -> bool {
        version >= self.first_flexible()
    }

    /// Which request header (1 or 2) goes before a request of `version`.
    pub const fn request_header_version(self, version: i16) -> i16 {
        if self.is_flexible(version) { 2 } else { 1 }
    }

    /// Which response header (0 or 1) goes before a response of `version`. A response to ApiVersions always has header
    /// 0: its reader may not know yet what its peer speaks (KIP-511).
    pub const fn response_header_version(self, version: i16) -> i16 {
        match self {
            ApiKey::ApiVersions => 0,
            _ if self.is_flexible(version) => 1,
            _ => 0,
        }
    }

    /// The versions we advertise, `None` if the API is not served.
    pub fn advertised(self) -> Option<RangeInclusive<i16>> {
        ADVERTISED.iter().find(|api| api.key == self).map(|api| api.min..=api.max)
    }

    /// Whether a request with this key and version is served.
    pub fn serves(self, version: i16) -> bool {
        self.advertised().is_some_and(|versions| versions.contains(&version))
    }
}

/// One row of what ApiVersions answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AdvertisedApi {
    /// The API.
    pub key: ApiKey,
    /// The oldest version served.
    pub min: i16,
    /// The newest version served.
    pub max: i16,
}

/// A row of the table below.
const fn serve(key: ApiKey, min: i16, max: i16) -> AdvertisedApi {
    AdvertisedApi { key, min, max }
}

/// What we serve, ascending by key.
///
/// Produce starts at 0 as in Kafka, because librdkafka before 2.0 infers the message format from it (KAFKA-18659); its
/// handler refuses versions 0 to 2. InitProducerId ends at 5: version 6 is the unfinished two-phase commit (KIP-939).
pub const ADVERTISED: &[AdvertisedApi] = &[
    serve(ApiKey::Produce, 0, 13),
    serve(ApiKey::Fetch, 4, 18),
    serve(ApiKey::ListOffsets, 1, 11),
    serve(ApiKey::Metadata, 0, 13),
    serve(ApiKey::OffsetCommit, 2, 10),
    serve(ApiKey::OffsetFetch, 1, 10),
    serve(ApiKey::FindCoordinator, 0, 6),
    serve(ApiKey::JoinGroup, 0, 9),
    serve(ApiKey::Heartbeat, 0, 4),
    serve(ApiKey::LeaveGroup, 0, 5),
    serve(ApiKey::SyncGroup, 0, 5),
    serve(ApiKey::DescribeGroups, 0, 6),
    serve(ApiKey::ListGroups, 0, 5),
    serve(ApiKey::ApiVersions, 0, 5),
    serve(ApiKey::CreateTopics, 2, 7),
    serve(ApiKey::DeleteTopics, 1, 6),
    serve(ApiKey::DeleteRecords, 0, 2),
    serve(ApiKey::InitProducerId, 0, 5),
    serve(ApiKey::OffsetForLeaderEpoch, 2, 4),
    serve(ApiKey::DescribeConfigs, 1, 4),
    serve(ApiKey::AlterConfigs, 0, 2),
    serve(ApiKey::DescribeLogDirs, 1, 5),
    serve(ApiKey::CreatePartitions, 0, 3),
    serve(ApiKey::DeleteGroups, 0, 3),
    serve(ApiKey::ElectLeaders, 0, 2),
    serve(ApiKey::IncrementalAlterConfigs, 0, 1),
    serve(ApiKey::AlterPartitionReassignments, 0, 1),
    serve(ApiKey::ListPartitionReassignments, 0, 0),
    serve(ApiKey::OffsetDelete, 0, 0),
    serve(ApiKey::DescribeClientQuotas, 0, 1),
    serve(ApiKey::AlterClientQuotas, 0, 1),
    serve(ApiKey::DescribeQuorum, 0, 2),
    serve(ApiKey::UpdateFeatures, 0, 2),
    serve(ApiKey::DescribeCluster, 0, 2),
    serve(ApiKey::DescribeProducers, 0, 0),
    serve(ApiKey::ConsumerGroupHeartbeat, 0, 1),
    serve(ApiKey::ConsumerGroupDescribe, 0, 1),
    serve(ApiKey::ListConfigResources, 0, 1),
    serve(ApiKey::DescribeTopicPartitions, 0, 0),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read_back_and_others_are_unknown() {
        for &key in ApiKey::ALL {
            assert_eq!(ApiKey::from_code(key.code()), Some(key));
        }
        for code in [i16::MIN, -1, 95, i16::MAX] {
            assert_eq!(ApiKey::from_code(code), None);
        }
    }

    #[test]
    fn advertised_rows_ascend_and_are_not_empty() {
        assert!(ADVERTISED.windows(2).all(|pair| pair[0].key < pair[1].key));
        assert!(ADVERTISED.iter().all(|api| api.min <= api.max));
    }

    #[test]
    fn headers_turn_with_the_flexible_floor_except_the_response_to_api_versions() {
        assert_eq!(ApiKey::Fetch.request_header_version(11), 1);
        assert_eq!(ApiKey::Fetch.request_header_version(12), 2);
        assert_eq!(ApiKey::Fetch.response_header_version(11), 0);
        assert_eq!(ApiKey::Fetch.response_header_version(12), 1);
        assert_eq!(ApiKey::ApiVersions.request_header_version(3), 2);
        assert_eq!(ApiKey::ApiVersions.response_header_version(3), 0);
        assert_eq!(ApiKey::SaslHandshake.request_header_version(1), 1);
    }
}
