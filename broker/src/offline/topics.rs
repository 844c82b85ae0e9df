//! The topics of a store by its objects `meta/topics/{topic id}`.

use crate::control::topic_object::{self, TopicObject};
use futures::StreamExt;
use millrace_storage::ids::TopicId;
use millrace_storage::object::{ListedObject, ObjectStore};
use millrace_storage::store_error::StoreError;
use std::collections::BTreeMap;

/// Objects read at once.
const AT_ONCE: usize = 32;

/// What the objects say.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Topics {
    /// Topics by id; those that are deleted too.
    pub(super) by_id: BTreeMap<TopicId, TopicObject>,
    /// When those that are deleted came to be so, Unix milliseconds by the store's clock.
    pub(super) deleted_ms: BTreeMap<TopicId, i64>,
    /// Objects that can't be read: key, and what is wrong.
    pub(super) damaged: Vec<(String, String)>,
}

impl Topics {
    /// Reads them all.
    pub(super) async fn read(objects: &dyn ObjectStore) -> Result<Topics, StoreError> {
        let listed = objects.list(topic_object::FOLDER).await?;
        let reads = listed.into_iter().map(async |one| (objects.get(&one.key).await, one));
        let mut reads = futures::stream::iter(reads).buffered(AT_ONCE);
        let mut topics = Topics::default();
        while let Some((read, ListedObject { key, modified_ms, .. })) = reads.next().await {
            let Some(found) = read? else { continue };
            match TopicObject::decode(&found.bytes) {
                Ok(topic) if topic_object::key(topic.id) == key => {
                    if topic.deleted {
                        topics.deleted_ms.insert(topic.id, modified_ms);
                    }
                    topics.by_id.insert(topic.id, topic);
                }
                Ok(topic) => topics.damaged.push((key, format!("it says that it is of topic id {}", topic.id))),
                Err(error) => topics.damaged.push((key, error.to_string())),
            }
        }
        Ok(topics)
    }

    /// Those that are not deleted.
    pub(super) fn alive(&self) -> impl Iterator<Item = &TopicObject> {
        self.by_id.values().filter(|topic| !topic.deleted)
    }
}
