//! The settings of a topic that shards obey, read once from their text form.
//!
//! Settings that nothing here reads are kept and shown by DescribeConfigs; a value that can't be read counts as the
//! default (the control task refuses such values when they are set).

use crate::control::NodeSettings;
use crate::control::topic_settings::TOPIC_SETTINGS;
use millrace_protocol::records::{ProduceRules, TimestampType};
use millrace_storage::compaction::retention::Retention;
use std::collections::BTreeMap;

/// What the shard needs of a topic's settings. The defaults are Kafka 4's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TopicSettings {
    /// What is demanded of produced batches.
    pub produce: ProduceRules,
    /// When records go.
    pub retention: Retention,
}

impl TopicSettings {
    /// Those of a topic that sets nothing, at a node.
    pub fn of_node(settings: &NodeSettings, node: i32) -> TopicSettings {
        let set = |name| {
            let (own, of_all) = settings.set_values(node, name);
            own.or(of_all)
        };
        let rows = TOPIC_SETTINGS.iter();
        let values = rows.filter_map(|row| Some((row.name, set(row.dynamic_name()?)?.as_str())));
        TopicSettings::default().with(values)
    }

    /// The same but for the settings that a topic has of its own, by Kafka's names.
    pub fn of_topic(self, settings: &BTreeMap<String, String>) -> TopicSettings {
        self.with(settings.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }

    fn with<'a>(mut self, settings: impl Iterator<Item = (&'a str, &'a str)>) -> TopicSettings {
        let (produce, retention) = (&mut self.produce, &mut self.retention);
        for (name, value) in settings {
            match name {
                "max.message.bytes" => set(&mut produce.max_batch_bytes, value),
                "message.timestamp.before.max.ms" => set(&mut produce.timestamp_before_max_ms, value),
                "message.timestamp.after.max.ms" => set(&mut produce.timestamp_after_max_ms, value),
                "message.timestamp.type" => {
                    let by_append = value == "LogAppendTime";
                    produce.timestamp_type =
                        if by_append { TimestampType::LogAppendTime } else { TimestampType::CreateTime };
                }
                "cleanup.policy" => {
                    let has = |wanted| value.split(',').any(|policy| policy.trim() == wanted);
                    (produce.keys_required, retention.delete) = (has("compact"), has("delete"));
                }
                "retention.ms" => set_limit(&mut retention.ms, value),
                "retention.bytes" => set_limit(&mut retention.bytes, value),
                _ => {}
            }
        }
        self
    }
}

fn set<T: std::str::FromStr>(setting: &mut T, value: &str) {
    if let Ok(value) = value.trim().parse() {
        *setting = value;
    }
}

/// A negative limit is none.
fn set_limit(limit: &mut Option<u64>, value: &str) {
    if let Ok(value) = value.trim().parse::<i64>() {
        *limit = u64::try_from(value).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(settings: &BTreeMap<String, String>) -> TopicSettings {
        TopicSettings::default().of_topic(settings)
    }

    #[test]
    fn settings_are_read_by_name_and_unreadable_values_count_as_defaults() {
        let text =
            [("max.message.bytes", "12"), ("message.timestamp.type", "LogAppendTime"), ("cleanup.policy", "compact")];
        let mut settings: BTreeMap<String, String> = text.map(|(k, v)| (k.into(), v.into())).into();
        let TopicSettings { produce, retention } = read(&settings);
        assert_eq!((produce.max_batch_bytes, produce.timestamp_type), (12, TimestampType::LogAppendTime));
        assert!(produce.keys_required && !retention.delete);
        settings.insert("retention.ms".into(), "-1".into());
        settings.insert("retention.bytes".into(), " 9 ".into());
        settings.insert("cleanup.policy".into(), "delete".into());
        let kept = Retention { delete: true, ms: None, bytes: Some(9) };
        assert_eq!(read(&settings).retention, kept);
        settings.insert("max.message.bytes".into(), "many".into());
        let default = ProduceRules::default().max_batch_bytes;
        assert_eq!(read(&settings).produce.max_batch_bytes, default);
    }

    #[test]
    fn a_topic_has_its_own_setting_else_the_node_s_else_that_of_all_nodes() {
        let mut nodes = NodeSettings::default();
        let values = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        nodes.set(None, values(&[("message.max.bytes", "10"), ("log.retention.ms", "-1")]));
        nodes.set(Some(7), values(&[("message.max.bytes", "20"), ("log.message.timestamp.type", "LogAppendTime")]));
        let of = |node| TopicSettings::of_node(&nodes, node);
        assert_eq!((of(1).produce.max_batch_bytes, of(1).retention.ms), (10, None));
        assert_eq!((of(7).produce.max_batch_bytes, of(7).retention.ms), (20, None));
        let topic = of(7).of_topic(&values(&[("max.message.bytes", "30"), ("message.timestamp.type", "CreateTime")]));
        assert_eq!((topic.produce.max_batch_bytes, topic.produce.timestamp_type), (30, TimestampType::CreateTime));
    }
}
