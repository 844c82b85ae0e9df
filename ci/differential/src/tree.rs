//! A response as a tree, read from its `Debug` form, so that one comparison serves every API.
//!
//! 1. A flattened tree names an element of a list by its own key (a topic's name, a partition's index), not by its
//!    place: clients look answers up by key, and Kafka's order of them is that of a hash map.
//!
//! Does not know what a value means: see `names`.

use std::collections::BTreeMap;

/// Fields that tell the elements of a list apart, in the order in which they make up the key.
const KEYS: &[&str] = &[
    "name",
    "topic",
    "topic_id",
    "partition_index",
    "partition",
    "index",
    "group_id",
    "key",
    "resource_type",
    "resource_name",
    "node_id",
    "broker_id",
    "member_id",
    "api_key",
];

/// Those of them that are names of something.
const NAMES: &[&str] = &["name", "topic", "group_id"];

/// The value of an element of a list as a whole: what it holds follows under longer paths.
pub(crate) const PRESENT: &str = "(present)";

/// Values that name nothing.
const BLANK: &[&str] = &["", "None", "<nil>"];

/// A value of a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Tree {
    /// A number, text in quotes, an error's name.
    Leaf(String),
    /// A list.
    List(Vec<Tree>),
    /// A struct: names and values of its fields.
    Record(Vec<(String, Tree)>),
}

impl Tree {
    /// Reads what `{:?}` wrote.
    pub(crate) fn of(value: &impl std::fmt::Debug) -> Tree {
        let text = format!("{value:?}");
        let mut parser = Parser { text: &text, at: 0 };
        parser.value()
    }

    /// Every leaf by its path.
    pub(crate) fn flatten(&self) -> BTreeMap<String, String> {
        let mut leaves = BTreeMap::new();
        self.flatten_into(String::new(), &mut leaves);
        leaves
    }

    fn flatten_into(&self, path: String, leaves: &mut BTreeMap<String, String>) {
        match self {
            Tree::Leaf(value) => {
                leaves.insert(path, value.clone());
            }
            Tree::Record(fields) => {
                for (name, value) in fields {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    value.flatten_into(path, leaves);
                }
            }
            Tree::List(elements) if elements.is_empty() => {
                leaves.insert(path, "[]".to_owned());
            }
            Tree::List(elements) => {
                let mut seen: BTreeMap<String, usize> = BTreeMap::new();
                for (place, element) in elements.iter().enumerate() {
                    let mut key = element.key().unwrap_or_else(|| place.to_string());
                    let times = seen.entry(key.clone()).or_default();
                    *times += 1;
                    if *times > 1 {
                        key = format!("{key}#{times}");
                    }
                    let path = format!("{path}[{key}]");
                    if matches!(element, Tree::Record(_)) {
                        leaves.insert(path.clone(), PRESENT.to_owned());
                    }
                    element.flatten_into(path, leaves);
                }
            }
        }
    }

    /// What tells this element of a list from the others; `None` if it has no such field.
    pub(crate) fn key(&self) -> Option<String> {
        let Tree::Record(fields) = self else { return None };
        let part = |key: &&str| {
            let (_, value) = fields.iter().find(|(name, _)| name == key)?;
            let Tree::Leaf(value) = value else { return None };
            let value = value.trim_matches('"');
            (!BLANK.contains(&value)).then(|| value.to_owned())
        };
        let named = KEYS[..2].iter().any(|key| part(key).is_some());
        // An id beside a name may be told or not: that is a difference of a field, not of the element.
        let parts: Vec<String> = KEYS.iter().filter(|key| !named || **key != "topic_id").filter_map(part).collect();
        // An empty name is one too where nothing else tells elements apart.
        let is_empty = |value: &Tree| *value == Tree::Leaf("\"\"".to_owned());
        let nameless = || fields.iter().any(|(name, value)| NAMES.contains(&name.as_str()) && is_empty(value));
        (!parts.is_empty() || nameless()).then(|| parts.join("/"))
    }
}

/// Reads the grammar of derived `Debug`. The text comes from our own types, so that what it can't be is a mistake here.
struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn skip(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn value(&mut self) -> Tree {
        if self.skip("[") {
            return Tree::List(self.list("]"));
        }
        if self.rest().starts_with('"') || self.rest().starts_with("b\"") {
            return Tree::Leaf(self.quoted());
        }
        let word = self.word();
        if self.skip(" { ") {
            return Tree::Record(self.fields());
        }
        if self.skip("(") {
            let mut inner = self.list(")");
            return if inner.len() == 1 { inner.remove(0) } else { Tree::List(inner) };
        }
        Tree::Leaf(word)
    }

    fn list(&mut self, end: &str) -> Vec<Tree> {
        let mut elements = Vec::new();
        while !self.skip(end) {
            elements.push(self.value());
            self.skip(", ");
        }
        elements
    }

    fn fields(&mut self) -> Vec<(String, Tree)> {
        let mut fields = Vec::new();
        while !self.skip(" }") {
            let name = self.word();
            assert!(self.skip(": "), "a field has a value at {}", self.rest());
            fields.push((name, self.value()));
            self.skip(", ");
        }
        fields
    }

    /// Text with its quotes and escapes.
    fn quoted(&mut self) -> String {
        let open = self.rest().find('"').expect("looked at by the caller") + 1;
        let mut escaped = false;
        let length = self.rest()[open..].find(|c: char| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let end = self.at + open + length.expect("a quote is closed") + 1;
        let quoted = self.text[self.at..end].to_owned();
        self.at = end;
        quoted
    }

    fn word(&mut self) -> String {
        let ends = |c: char| matches!(c, ' ' | ',' | ':' | '(' | ')' | '[' | ']' | '{' | '}');
        let length = self.rest().find(ends).unwrap_or(self.rest().len());
        let word = self.rest()[..length].to_owned();
        assert!(!word.is_empty(), "a word at {}", self.rest());
        self.at += length;
        word
    }
}

#[cfg(test)]
mod tests {
    use super::Tree;
    use millrace_protocol::error_code::ErrorCode;
    use millrace_protocol::messages::MetadataResponse;
    use millrace_protocol::messages::metadata::{MetadataResponsePartition, MetadataResponseTopic};

    #[test]
    fn a_response_becomes_paths_that_name_elements_by_their_keys() {
        let topic = |name: &'static str, error_code| MetadataResponseTopic {
            name: Some(name.into()),
            error_code,
            partitions: vec![MetadataResponsePartition { replica_nodes: vec![7], ..Default::default() }],
            ..Default::default()
        };
        let response = MetadataResponse {
            topics: vec![topic("b \"{x}\", [", ErrorCode::None), topic("a", ErrorCode::UnknownTopicId)],
            ..Default::default()
        };
        let leaves = Tree::of(&response).flatten();
        assert_eq!(leaves["topics[a].error_code"], "UnknownTopicId");
        assert_eq!(leaves["topics[a].partitions[0].replica_nodes[0]"], "7");
        assert!(leaves.contains_key("topics[b \\\"{x}\\\", [].error_code"));
        assert_eq!(leaves["brokers"], "[]");
        assert_eq!(leaves["cluster_id"], "None");
    }

    #[test]
    fn equal_keys_are_counted() {
        let twice = MetadataResponse { topics: vec![MetadataResponseTopic::default(); 2], ..Default::default() };
        let leaves = Tree::of(&twice).flatten();
        assert_eq!(leaves.keys().filter(|path| path.contains("#2].error_code")).count(), 1);
    }
}
