//! The settings of a topic that shards obey, read once from their text form.
//!
//! Settings that nothing here reads are kept and shown by DescribeConfigs; a value that can't be read counts as the
//! default (the control task refuses such values when they are set).

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
    /// Reads the settings of a topic that differ from the defaults, by Kafka's names.
    pub fn read(settings: &BTreeMap<String, String>) -> TopicSettings {
        let mut read = TopicSettings::default();
        let (produce, retention) = (&mut read.produce, &mut read.retention);
        for (name, value) in settings {
            let value = value.as_str();
            match name.as_str() {
                "max.message.bytes" => set(&mut produce.max_batch_bytes, value),
                "message.timestamp.before.max.ms" => set(&mut produce.timestamp_before_max_ms, value),
                "message.timestamp.after.max.ms" => set(&mut produce.timestamp_after_max_ms, value),
                "message.timestamp.type" if value == "LogAppendTime" => {
                    produce.timestamp_type = TimestampType::LogAppendTime;
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
        read
    }
}

fn set<T: std::str::FromStr>(setting: &mut T, value: &str) {
    if let Ok(value) = value.parse() {
        *setting = value;
    }
}

/// A negative limit is none.
fn set_limit(limit: &mut Option<u64>, value: &str) {
    if let Ok(value) = value.parse::<i64>() {
        *limit = u64::try_from(value).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_by_name_and_unreadable_values_count_as_defaults() {
        let text =
            [("max.message.bytes", "12"), ("message.timestamp.type", "LogAppendTime"), ("cleanup.policy", "compact")];
        let mut settings: BTreeMap<String, String> = text.map(|(k, v)| (k.into(), v.into())).into();
        let TopicSettings { produce: read, retention } = TopicSettings::read(&settings);
        assert_eq!((read.max_batch_bytes, read.timestamp_type), (12, TimestampType::LogAppendTime));
        assert!(read.keys_required && !retention.delete);
        settings.insert("retention.ms".into(), "-1".into());
        settings.insert("retention.bytes".into(), "9".into());
        settings.insert("cleanup.policy".into(), "delete".into());
        let kept = Retention { delete: true, ms: None, bytes: Some(9) };
        assert_eq!(TopicSettings::read(&settings).retention, kept);
        settings.insert("max.message.bytes".into(), "many".into());
        let default = ProduceRules::default().max_batch_bytes;
        assert_eq!(TopicSettings::read(&settings).produce.max_batch_bytes, default);
    }
}
