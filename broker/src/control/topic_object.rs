//! The object `meta/topics/{topic id}`: what a rebuild from the bucket alone knows of a topic (PROTOCOL.md section 7).
//! JSON with a version; written when the topic is created, replaced by a tombstone when it is deleted, never removed.

use bytes::Bytes;
use millrace_storage::ids::TopicId;
use millrace_storage::meta::records::{RecordError, TopicRecord};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the object.
pub const TOPIC_OBJECT_VERSION: u16 = 1;

/// The object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TopicObject {
    /// Version of the object.
    pub v: u16,
    /// Name.
    pub name: String,
    /// Id.
    pub id: TopicId,
    /// Partitions.
    pub partitions: u32,
    /// Settings that differ from the defaults.
    pub settings: BTreeMap<String, String>,
    /// Whether the topic is deleted.
    pub deleted: bool,
}

/// Where these objects lie.
pub const FOLDER: &str = "meta/topics/";

/// The object's key.
pub fn key(id: TopicId) -> String {
    format!("{FOLDER}{id}")
}

impl TopicObject {
    /// The bytes for a topic.
    pub fn encode(name: &str, record: &TopicRecord, deleted: bool) -> Bytes {
        let object = TopicObject {
            v: TOPIC_OBJECT_VERSION,
            name: name.to_owned(),
            id: record.id,
            partitions: record.partitions,
            settings: record.settings.clone(),
            deleted,
        };
        Bytes::from(serde_json::to_vec(&object).expect("the keys are strings"))
    }

    /// Reads the object.
    ///
    /// # Errors
    /// A newer version wrote it, or it is damaged.
    pub fn decode(bytes: &[u8]) -> Result<TopicObject, RecordError> {
        serde_json::from_slice(bytes).map_err(|e| RecordError { kind: "topic object", detail: e.to_string() })
    }

    /// Whether these bytes say that the topic is deleted.
    pub fn is_tombstone(bytes: &[u8]) -> bool {
        TopicObject::decode(bytes).is_ok_and(|object| object.deleted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_storage::meta::records::{RECORD_VERSION, TopicState};

    #[test]
    fn the_bytes_of_version_one_stay() {
        let record = TopicRecord {
            v: RECORD_VERSION,
            id: TopicId(uuid::Uuid::from_u128(7)),
            state: TopicState::Creating,
            partitions: 3,
            settings: BTreeMap::from([("retention.ms".to_owned(), "5".to_owned())]),
        };
        let golden = r#"{"v":1,"name":"t","id":"00000000000000000000000000000007","partitions":3,"settings":{"retention.ms":"5"},"deleted":false}"#;
        assert_eq!(TopicObject::encode("t", &record, false), golden);
        assert!(!TopicObject::is_tombstone(golden.as_bytes()));
        assert!(TopicObject::is_tombstone(&TopicObject::encode("t", &record, true)));
        assert!(!TopicObject::is_tombstone(b"garbage"));
    }
}
