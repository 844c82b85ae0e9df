//! The settings that a topic can have: Kafka's names, types and defaults, and what of them is checked at creation.
//!
//! A setting of the table that we don't act on is accepted and kept, so that tools which set it (Connect, Streams,
//! schema registries) work; `docs/compatibility.md` says which those are. A name that Kafka doesn't know is refused as
//! Kafka refuses it.

use super::messages::{SettingChange, SettingsChange};
use super::topic_rules::Refusal;
use millrace_protocol::error_code::ErrorCode;
use std::collections::BTreeMap;

/// What values a setting takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SettingType {
    /// `true` or `false`.
    Boolean,
    /// A whole number in `[min, max]`.
    Whole {
        /// Smallest.
        min: i64,
        /// Largest.
        max: i64,
    },
    /// A decimal number in `[0, 1]`.
    Ratio,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Any of these words, separated by commas; at least one.
    AnyOf(&'static [&'static str]),
    /// Any words, separated by commas.
    List,
    /// Any text.
    Text,
}

impl SettingType {
    /// Whether elements can be appended and subtracted.
    pub fn is_list(self) -> bool {
        matches!(self, SettingType::AnyOf(_) | SettingType::List)
    }
}

/// One setting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TopicSetting {
    /// Kafka's name.
    pub name: &'static str,
    /// Its values.
    pub of: SettingType,
    /// Kafka's default.
    pub default: &'static str,
}

use SettingType::{AnyOf, Boolean, List, OneOf, Ratio, Text, Whole};

const ANY: SettingType = Whole { min: i64::MIN, max: i64::MAX };
const FROM_MINUS_ONE: SettingType = Whole { min: -1, max: i64::MAX };
const FROM_MINUS_TWO: SettingType = Whole { min: -2, max: i64::MAX };
const NOT_NEGATIVE: SettingType = Whole { min: 0, max: i64::MAX };
const POSITIVE: SettingType = Whole { min: 1, max: i64::MAX };
const INT_NOT_NEGATIVE: SettingType = Whole { min: 0, max: i32::MAX as i64 };

/// Largest `max.message.bytes`: a batch must fit a write-ahead object (16 MiB) alone.
pub const MAX_MESSAGE_BYTES_LIMIT: i64 = 15 << 20;

/// `max.message.bytes`.
pub const MAX_MESSAGE_BYTES: &str = "max.message.bytes";
/// `message.timestamp.type`.
pub const MESSAGE_TIMESTAMP_TYPE: &str = "message.timestamp.type";

const fn setting(name: &'static str, of: SettingType, default: &'static str) -> TopicSetting {
    TopicSetting { name, of, default }
}

/// Every setting, by name (Kafka's topic-level configuration).
pub const TOPIC_SETTINGS: &[TopicSetting] = &[
    setting("cleanup.policy", AnyOf(&["compact", "delete"]), "delete"),
    setting("compression.gzip.level", Whole { min: -1, max: 9 }, "-1"),
    setting("compression.lz4.level", Whole { min: 1, max: 17 }, "9"),
    setting("compression.type", OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]), "producer"),
    setting("compression.zstd.level", Whole { min: -131_072, max: 22 }, "3"),
    setting("delete.retention.ms", NOT_NEGATIVE, "86400000"),
    setting("file.delete.delay.ms", NOT_NEGATIVE, "60000"),
    setting("flush.messages", POSITIVE, "9223372036854775807"),
    setting("flush.ms", NOT_NEGATIVE, "9223372036854775807"),
    setting("follower.replication.throttled.replicas", List, ""),
    setting("index.interval.bytes", INT_NOT_NEGATIVE, "4096"),
    setting("leader.replication.throttled.replicas", List, ""),
    setting("local.retention.bytes", FROM_MINUS_TWO, "-2"),
    setting("local.retention.ms", FROM_MINUS_TWO, "-2"),
    setting("max.compaction.lag.ms", POSITIVE, "9223372036854775807"),
    setting(MAX_MESSAGE_BYTES, Whole { min: 0, max: MAX_MESSAGE_BYTES_LIMIT }, "1048588"),
    setting("message.downconversion.enable", Boolean, "true"),
    setting("message.format.version", Text, "3.0-IV1"),
    setting("message.timestamp.after.max.ms", NOT_NEGATIVE, "3600000"),
    setting("message.timestamp.before.max.ms", NOT_NEGATIVE, "9223372036854775807"),
    setting(MESSAGE_TIMESTAMP_TYPE, OneOf(&["CreateTime", "LogAppendTime"]), "CreateTime"),
    setting("min.cleanable.dirty.ratio", Ratio, "0.5"),
    setting("min.compaction.lag.ms", NOT_NEGATIVE, "0"),
    setting("min.insync.replicas", Whole { min: 1, max: i32::MAX as i64 }, "1"),
    setting("preallocate", Boolean, "false"),
    setting("remote.log.copy.disable", Boolean, "false"),
    setting("remote.log.delete.on.disable", Boolean, "false"),
    setting("remote.storage.enable", Boolean, "false"),
    setting("retention.bytes", ANY, "-1"),
    setting("retention.ms", FROM_MINUS_ONE, "604800000"),
    setting("segment.bytes", Whole { min: 1 << 20, max: i32::MAX as i64 }, "1073741824"),
    setting("segment.index.bytes", Whole { min: 4, max: i32::MAX as i64 }, "10485760"),
    setting("segment.jitter.ms", NOT_NEGATIVE, "0"),
    setting("segment.ms", POSITIVE, "604800000"),
    setting("unclean.leader.election.enable", Boolean, "false"),
];

/// The setting of that name.
pub fn find(name: &str) -> Option<&'static TopicSetting> {
    TOPIC_SETTINGS.binary_search_by(|setting| setting.name.cmp(name)).ok().map(|at| &TOPIC_SETTINGS[at])
}

/// Why `value` can't be the value of `name`, for people; `None` if it can.
pub fn objection(name: &str, value: &str) -> Option<String> {
    let Some(setting) = find(name) else { return Some(format!("Unknown topic config name: {name}")) };
    let invalid = |why: String| Some(format!("Invalid value {value} for configuration {name}: {why}"));
    match setting.of {
        Boolean if matches!(value.to_ascii_lowercase().as_str(), "true" | "false") => None,
        Boolean => invalid("expected true or false".to_owned()),
        Whole { min, max } => match value.trim().parse::<i64>() {
            Ok(number) if (min..=max).contains(&number) => None,
            Ok(_) => invalid(format!("expected a number from {min} to {max}")),
            Err(_) => invalid("not a whole number".to_owned()),
        },
        Ratio => match value.trim().parse::<f64>() {
            Ok(number) if (0.0..=1.0).contains(&number) => None,
            _ => invalid("expected a number from 0 to 1".to_owned()),
        },
        OneOf(words) if words.contains(&value) => None,
        AnyOf(words) if value.split(',').all(|word| words.contains(&word.trim())) => None,
        OneOf(words) | AnyOf(words) => invalid(format!("expected one of {}", words.join(", "))),
        List | Text => None,
    }
}

/// Settings after a change, checked; those with which nothing is wrong before are checked again, which costs little.
pub fn changed(
    settings: &BTreeMap<String, String>,
    change: &SettingsChange,
) -> Result<BTreeMap<String, String>, Refusal> {
    let invalid = |message| Refusal::new(ErrorCode::InvalidConfig, message);
    let after = match change {
        SettingsChange::Replace(all) => all.clone(),
        SettingsChange::Each(changes) => {
            let mut after = settings.clone();
            for (name, change) in changes {
                match change {
                    SettingChange::Set(value) => _ = after.insert(name.clone(), value.clone()),
                    SettingChange::Delete => _ = after.remove(name),
                    SettingChange::Append(value) | SettingChange::Subtract(value) => {
                        let of = find(name).ok_or_else(|| invalid(format!("Unknown topic config name: {name}")))?;
                        if !of.of.is_list() {
                            let verb = if matches!(change, SettingChange::Append(_)) { "append" } else { "subtract" };
                            return Err(invalid(format!("Can't {verb} to key {name} because its type is not LIST.")));
                        }
                        let before = after.get(name).map_or(of.default, String::as_str);
                        let list = match change {
                            SettingChange::Append(_) => with_elements(before, value),
                            _ => without_elements(before, value),
                        };
                        after.insert(name.clone(), list);
                    }
                }
            }
            after
        }
    };
    match after.iter().find_map(|(name, value)| objection(name, value)) {
        Some(message) => Err(invalid(message)),
        None => Ok(after),
    }
}

/// The elements of a list: what stands between commas.
fn elements(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|element| !element.is_empty())
}

fn with_elements(list: &str, more: &str) -> String {
    let mut all: Vec<&str> = elements(list).collect();
    for element in elements(more) {
        if !all.contains(&element) {
            all.push(element);
        }
    }
    all.join(",")
}

fn without_elements(list: &str, fewer: &str) -> String {
    let gone: Vec<&str> = elements(fewer).collect();
    elements(list).filter(|element| !gone.contains(element)).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_every_default_is_valid() {
        assert!(TOPIC_SETTINGS.is_sorted_by(|a, b| a.name < b.name));
        for setting in TOPIC_SETTINGS {
            assert_eq!(objection(setting.name, setting.default), None);
        }
    }

    #[test]
    fn values_are_checked_by_type() {
        for (name, value) in [
            ("retention.ms", "-1"),
            ("cleanup.policy", "compact,delete"),
            ("cleanup.policy", "compact"),
            ("max.message.bytes", "15728640"),
            ("preallocate", "TRUE"),
            ("min.cleanable.dirty.ratio", "0.01"),
        ] {
            assert_eq!(objection(name, value), None, "{name}={value}");
        }
        for (name, value) in [
            ("retention.ms", "-2"),
            ("retention.ms", "a day"),
            ("cleanup.policy", ""),
            ("cleanup.policy", "compact,keep"),
            ("max.message.bytes", "15728641"),
            ("compression.type", "brotli"),
            ("preallocate", "yes"),
            ("min.cleanable.dirty.ratio", "NaN"),
            ("no.such.setting", "1"),
        ] {
            assert!(objection(name, value).is_some(), "{name}={value}");
        }
    }
}
