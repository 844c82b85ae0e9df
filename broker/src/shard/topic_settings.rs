//! The settings of a topic that the produce and fetch paths obey, read once from their text form.
//!
//! Settings that nothing here reads are kept and shown by DescribeConfigs; a value that can't be read counts as the
//! default (the control task refuses such values when they are set).

use std::collections::BTreeMap;

/// Which timestamp a record gets (`message.timestamp.type`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimestampType {
    /// The producer's.
    Create,
    /// The broker's, when it appends.
    LogAppend,
}

/// What the hot path needs of a topic's settings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TopicSettings {
    /// Largest batch in bytes (`max.message.bytes`).
    pub max_message_bytes: usize,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// How far a producer's timestamp may lie before the broker's clock, in ms.
    pub timestamp_before_max_ms: i64,
    /// How far after it.
    pub timestamp_after_max_ms: i64,
}

impl Default for TopicSettings {
    /// Kafka 4's defaults.
    fn default() -> Self {
        TopicSettings {
            max_message_bytes: 1_048_588,
            timestamp_type: TimestampType::Create,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
        }
    }
}

impl TopicSettings {
    /// Reads the settings of a topic that differ from the defaults, by Kafka's names.
    pub fn read(settings: &BTreeMap<String, String>) -> TopicSettings {
        let mut read = TopicSettings::default();
        for (name, value) in settings {
            let value = value.as_str();
            match name.as_str() {
                "max.message.bytes" => set(&mut read.max_message_bytes, value),
                "message.timestamp.before.max.ms" => set(&mut read.timestamp_before_max_ms, value),
                "message.timestamp.after.max.ms" => set(&mut read.timestamp_after_max_ms, value),
                "message.timestamp.type" if value == "LogAppendTime" => read.timestamp_type = TimestampType::LogAppend,
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
        let text = [("max.message.bytes", "12"), ("message.timestamp.type", "LogAppendTime"), ("retention.ms", "x")];
        let mut settings: BTreeMap<String, String> = text.map(|(k, v)| (k.into(), v.into())).into();
        assert_eq!(TopicSettings::read(&settings).max_message_bytes, 12);
        assert_eq!(TopicSettings::read(&settings).timestamp_type, TimestampType::LogAppend);
        settings.insert("max.message.bytes".into(), "many".into());
        assert_eq!(TopicSettings::read(&settings).max_message_bytes, TopicSettings::default().max_message_bytes);
    }
}
