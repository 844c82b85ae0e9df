//! The settings of a topic that the produce and fetch paths obey, read once from their text form.
//!
//! Settings that nothing here reads are kept and shown by DescribeConfigs; a value that can't be read counts as the
//! default (the control task refuses such values when they are set).

use millrace_protocol::records::{ProduceRules, TimestampType};
use std::collections::BTreeMap;

/// What the shard needs of a topic's settings. The defaults are Kafka 4's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TopicSettings {
    /// What is demanded of produced batches.
    pub produce: ProduceRules,
    /// Whether `cleanup.policy` has `delete`: old records may go.
    pub deletes: bool,
}

impl Default for TopicSettings {
    fn default() -> TopicSettings {
        TopicSettings { produce: ProduceRules::default(), deletes: true }
    }
}

impl TopicSettings {
    /// Reads the settings of a topic that differ from the defaults, by Kafka's names.
    pub fn read(settings: &BTreeMap<String, String>) -> TopicSettings {
        let mut read = TopicSettings::default();
        let produce = &mut read.produce;
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
                    (produce.keys_required, read.deletes) = (has("compact"), has("delete"));
                }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_by_name_and_unreadable_values_count_as_defaults() {
        let text =
            [("max.message.bytes", "12"), ("message.timestamp.type", "LogAppendTime"), ("cleanup.policy", "compact")];
        let mut settings: BTreeMap<String, String> = text.map(|(k, v)| (k.into(), v.into())).into();
        let TopicSettings { produce: read, deletes } = TopicSettings::read(&settings);
        assert_eq!((read.max_batch_bytes, read.timestamp_type), (12, TimestampType::LogAppendTime));
        assert!(read.keys_required && !deletes && TopicSettings::default().deletes);
        settings.insert("max.message.bytes".into(), "many".into());
        let default = ProduceRules::default().max_batch_bytes;
        assert_eq!(TopicSettings::read(&settings).produce.max_batch_bytes, default);
    }
}
