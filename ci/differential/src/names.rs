//! What differs between any two clusters by nature, and the words that stand for it in a comparison: ids, addresses,
//! leader epochs, times, texts for people.

use crate::tree::Tree;
use std::collections::BTreeMap;
use uuid::Uuid;

/// How every client of this program calls itself; member ids begin with it.
pub(crate) const CLIENT_ID: &str = "differ";

/// Length of a UUID as text: a member id is longer.
const UUID_CHARS: usize = 36;
/// Length of one in base64 without padding.
const BASE64_UUID_CHARS: usize = 22;

/// What one side calls things.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    /// Goes before every topic and group of this run, so that runs on the same brokers don't meet.
    pub(crate) tag: String,
    /// Id of the only node.
    pub(crate) node: i32,
    /// Its address.
    pub(crate) host: String,
    /// Its port.
    pub(crate) port: i32,
    /// Topic ids by name without the tag.
    pub(crate) ids: BTreeMap<String, Uuid>,
}

impl Names {
    /// Puts words in the place of values that are this side's own.
    pub(crate) fn normalise(&self, field: &str, tree: Tree) -> Tree {
        match tree {
            Tree::Leaf(value) => Tree::Leaf(self.leaf(field, value)),
            Tree::Record(fields) => {
                let field = |(name, value): (String, Tree)| {
                    let value = self.normalise(&name, value);
                    (name, value)
                };
                Tree::Record(fields.into_iter().map(field).collect())
            }
            Tree::List(elements) => {
                let elements = elements.into_iter().map(|element| self.normalise(field, element));
                Tree::List(elements.filter(|element| !is_of_another_run(element)).collect())
            }
        }
    }

    fn leaf(&self, field: &str, value: String) -> String {
        let number = value.parse::<i64>().ok();
        let not_negative = number.is_some_and(|number| number >= 0);
        let word = match field {
            "throttle_time_ms" | "last_timestamp" | "last_fetch_timestamp" | "last_caught_up_timestamp" => "<time>",
            "partition_size" | "total_bytes" | "usable_bytes" => "<bytes>",
            "log_dir" => "<place>",
            "error_message" | "documentation" | "batch_index_error_message" => "<text>",
            "node_id" | "leader_id" | "replica_id" | "controller_id" | "broker_id" | "replica_nodes" | "isr_nodes"
            | "offline_replicas"
                if number == Some(self.node.into()) =>
            {
                "<node>"
            }
            "port" if number == Some(self.port.into()) => "<port>",
            "host" if value.trim_matches('"') == self.host => "<host>",
            "cluster_id" if value != "None" => "<cluster>",
            "topic_id" => return self.topic_id(&value),
            "producer_id" if not_negative => "<producer>",
            "leader_epoch" if not_negative => "<epoch>",
            "session_id" if number.is_some_and(|number| number > 0) => "<session>",
            "log_append_time_ms" if not_negative => "<time>",
            "member_id" | "leader" if is_made_up(&value) => "<member>",
            _ if is_member_id(&value) => "<member>",
            _ => return value.replace(&self.tag, ""),
        };
        word.to_owned()
    }

    fn topic_id(&self, value: &str) -> String {
        let Ok(id) = value.parse::<Uuid>() else { return value.to_owned() };
        if id.is_nil() {
            return "<nil>".to_owned();
        }
        if id == unknown_id() {
            return "<unknown id>".to_owned();
        }
        let named = self.ids.iter().find(|(_, known)| **known == id);
        named.map_or_else(|| "<id>".to_owned(), |(name, _)| format!("<id of {name}>"))
    }
}

/// An id that no topic has.
pub(crate) fn unknown_id() -> Uuid {
    Uuid::from_u128(0x0123_4567_89ab_4def_8123_4567_89ab_cdef)
}

/// Tags are `d`, digits, `-`, at the beginning of a part of a key.
fn is_of_another_run(element: &Tree) -> bool {
    let is_tagged = |part: &str| {
        let Some((tag, _)) = part.split_once('-') else { return false };
        let digits = tag.strip_prefix('d').unwrap_or_default();
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    element.key().is_some_and(|key| key.split('/').any(is_tagged))
}

fn is_member_id(value: &str) -> bool {
    let text = value.trim_matches('"');
    text.starts_with(CLIENT_ID) && text.len() > UUID_CHARS
}

/// Whether a coordinator made this id up: a UUID, as text or as Kafka writes it in base64, perhaps behind an instance's name.
fn is_made_up(value: &str) -> bool {
    let text = value.trim_matches('"');
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let start = text.len().saturating_sub(UUID_CHARS);
    let ends_with_uuid = text.get(start..).is_some_and(|end| end.parse::<Uuid>().is_ok());
    ends_with_uuid || text.len() == BASE64_UUID_CHARS && text.bytes().all(is_base64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_protocol::messages::list_config_resources::ConfigResource;
    use millrace_protocol::messages::metadata::MetadataResponseTopic;
    use millrace_protocol::messages::{ListConfigResourcesResponse, MetadataResponse};

    fn names() -> Names {
        Names { tag: "d5-".to_owned(), node: 3, host: "h".to_owned(), port: 9, ids: BTreeMap::new() }
    }

    #[test]
    fn own_ids_and_tags_become_words() {
        let names = names();
        assert_eq!(names.leaf("leader_id", "3".to_owned()), "<node>");
        assert_eq!(names.leaf("leader_id", "-1".to_owned()), "-1");
        assert_eq!(names.leaf("leader_epoch", "7".to_owned()), "<epoch>");
        assert_eq!(names.leaf("name", "\"d5-orders\"".to_owned()), "\"orders\"");
        assert_eq!(names.leaf("topic_id", Uuid::nil().to_string()), "<nil>");
        let member = "\"differ-5a4f2b1c-0000-4000-8000-000000000000\"";
        assert_eq!(names.leaf("leader", member.to_owned()), "<member>");
        for id in
            ["5ZiLs3PTS7W65M5pHcAYMA", "0e511408-cb3b-4c92-0000-000000000186", "i-0e511408-cb3b-4c92-0000-000000000186"]
        {
            assert_eq!(names.leaf("member_id", format!("{id:?}")), "<member>");
        }
        assert_eq!(names.leaf("member_id", "\"someone\"".to_owned()), "\"someone\"");
    }

    #[test]
    fn topics_of_other_runs_are_left_out() {
        let topic = |name: &'static str| MetadataResponseTopic { name: Some(name.into()), ..Default::default() };
        let response =
            MetadataResponse { topics: vec![topic("d5-a"), topic("d4-b"), topic("dx-c")], ..Default::default() };
        let leaves = names().normalise("", Tree::of(&response)).flatten();
        let listed = |name| leaves.keys().any(|path| path.starts_with(&format!("topics[{name}]")));
        assert!(listed("a") && !listed("d4-b") && listed("dx-c"));
        let resource = |name: &'static str| ConfigResource { resource_name: name.into(), resource_type: 2 };
        let config_resources = vec![resource("d5-a"), resource("d4-b")];
        let response = ListConfigResourcesResponse { config_resources, ..Default::default() };
        let leaves = names().normalise("", Tree::of(&response)).flatten();
        assert!(leaves.contains_key("config_resources[2/a]") && !leaves.contains_key("config_resources[2/d4-b]"));
    }
}
