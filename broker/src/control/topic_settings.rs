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
    /// A whole number of 32 bits in `[min, max]`.
    Int {
        /// Smallest.
        min: i32,
        /// Largest.
        max: i32,
    },
    /// A whole number of 64 bits in `[min, max]`.
    Long {
        /// Smallest.
        min: i64,
        /// Largest.
        max: i64,
    },
    /// A decimal number in `[0, 1]`.
    Ratio,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Any of these words, separated by commas; or none.
    AnyOf(&'static [&'static str]),
    /// Pairs of partition and node with a colon between, separated by commas; or a star.
    Replicas,
    /// Any text.
    Text,
}

impl SettingType {
    /// Whether elements can be appended and subtracted.
    pub fn is_list(self) -> bool {
        matches!(self, SettingType::AnyOf(_) | SettingType::Replicas)
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
    /// Kafka's name of the setting of brokers that topics without their own take it from; empty if there is none.
    pub of_broker: &'static str,
    /// What it does here, for people.
    pub about: &'static str,
}

/// Settings of Kafka before 4.0: taken, shown only where they are set.
const FORMER: [&str; 2] = ["message.downconversion.enable", "message.format.version"];

impl TopicSetting {
    /// Whether a topic that does not set it shows it.
    pub fn is_current(&self) -> bool {
        !FORMER.contains(&self.name)
    }

    /// Kafka's name of the setting of nodes, in the same unit, that can be changed while they run.
    pub fn dynamic_name(&self) -> Option<&'static str> {
        match (self.of_broker, self.name) {
            ("", "flush.ms") => Some("log.flush.interval.ms"),
            ("", "retention.ms") => Some("log.retention.ms"),
            ("", "segment.jitter.ms") => Some("log.roll.jitter.ms"),
            ("", "segment.ms") => Some("log.roll.ms"),
            ("", _) => None,
            (name, _) => Some(name),
        }
    }
}

/// What is said of a codec that a topic shall have.
const OTHER_CODEC: &str = "batches stay as their producers compress them, so that only 'producer' can be had; set \
                           compression.type of the producers instead";

/// Documentation of a setting that nothing here acts on.
const NO_EFFECT: &str = "Kept and shown so that tools which set it work; without effect here.";

use SettingType::{AnyOf, Boolean, Int, Long, OneOf, Ratio, Replicas, Text};

const ANY: SettingType = Long { min: i64::MIN, max: i64::MAX };
const FROM_MINUS_ONE: SettingType = Long { min: -1, max: i64::MAX };
const FROM_MINUS_TWO: SettingType = Long { min: -2, max: i64::MAX };
const NOT_NEGATIVE: SettingType = Long { min: 0, max: i64::MAX };
const POSITIVE: SettingType = Long { min: 1, max: i64::MAX };

/// Largest `max.message.bytes`: a batch must fit a write-ahead object (16 MiB) alone.
pub const MAX_MESSAGE_BYTES_LIMIT: i32 = 15 << 20;

/// `compression.gzip.level`: 0 is none of its levels.
const GZIP_LEVEL: &str = "compression.gzip.level";
/// `max.message.bytes`.
pub const MAX_MESSAGE_BYTES: &str = "max.message.bytes";
/// `message.timestamp.type`.
pub const MESSAGE_TIMESTAMP_TYPE: &str = "message.timestamp.type";

/// What `compression.type` can be in Kafka, and the one of these that can be had here.
const CODECS: &[&str] = &["uncompressed", "zstd", "lz4", "snappy", "gzip", AS_PRODUCED];
const AS_PRODUCED: &str = "producer";

/// A row of the table below; `of_broker` is empty where Kafka's brokers have no setting of the same meaning and unit.
const fn setting(
    name: &'static str,
    of: SettingType,
    default: &'static str,
    of_broker: &'static str,
    about: &'static str,
) -> TopicSetting {
    TopicSetting { name, of, default, of_broker, about }
}

/// Every setting, by name (Kafka's topic-level configuration).
#[rustfmt::skip] // a row a line
pub const TOPIC_SETTINGS: &[TopicSetting] = &[
    setting("cleanup.policy", AnyOf(&["compact", "delete"]), "delete", "log.cleanup.policy", "delete: old records go as retention.* says. compact: records must have keys; they are all kept, log compaction is not done."),
    setting(GZIP_LEVEL, Int { min: -1, max: 9 }, "-1", "compression.gzip.level", NO_EFFECT),
    setting("compression.lz4.level", Int { min: 1, max: 17 }, "9", "compression.lz4.level", NO_EFFECT),
    setting("compression.type", OneOf(CODECS), "producer", "compression.type", "Batches stay as their producers compressed them: producer is all that can be set (docs/decisions/073-compression-type.md)."),
    setting("compression.zstd.level", Int { min: -131_072, max: 22 }, "3", "compression.zstd.level", NO_EFFECT),
    setting("delete.retention.ms", NOT_NEGATIVE, "86400000", "log.cleaner.delete.retention.ms", NO_EFFECT),
    setting("errors.deadletterqueue.group.enable", Boolean, "false", "", NO_EFFECT),
    setting("file.delete.delay.ms", NOT_NEGATIVE, "60000", "log.segment.delete.delay.ms", NO_EFFECT),
    setting("flush.messages", POSITIVE, "9223372036854775807", "log.flush.interval.messages", NO_EFFECT),
    setting("flush.ms", NOT_NEGATIVE, "9223372036854775807", "", NO_EFFECT),
    setting("follower.replication.throttled.replicas", Replicas, "", "", NO_EFFECT),
    setting("index.interval.bytes", Int { min: 0, max: i32::MAX }, "4096", "log.index.interval.bytes", NO_EFFECT),
    setting("leader.replication.throttled.replicas", Replicas, "", "", NO_EFFECT),
    setting("local.retention.bytes", FROM_MINUS_TWO, "-2", "log.local.retention.bytes", NO_EFFECT),
    setting("local.retention.ms", FROM_MINUS_TWO, "-2", "log.local.retention.ms", NO_EFFECT),
    setting("max.compaction.lag.ms", POSITIVE, "9223372036854775807", "log.cleaner.max.compaction.lag.ms", NO_EFFECT),
    setting("max.decompressed.message.bytes", Int { min: 0, max: i32::MAX }, "2147483639", "max.decompressed.message.bytes", NO_EFFECT),
    setting(MAX_MESSAGE_BYTES, Int { min: 0, max: MAX_MESSAGE_BYTES_LIMIT }, "1048588", "message.max.bytes", "The largest batch in bytes, as it is sent: at most 15 MiB."),
    setting("message.downconversion.enable", Boolean, "true", "", NO_EFFECT),
    setting("message.format.version", Text, "3.0-IV1", "", NO_EFFECT),
    setting("message.timestamp.after.max.ms", NOT_NEGATIVE, "3600000", "log.message.timestamp.after.max.ms", "How far a record's timestamp may lie ahead of the broker's clock, in milliseconds; not asked with LogAppendTime."),
    setting("message.timestamp.before.max.ms", NOT_NEGATIVE, "9223372036854775807", "log.message.timestamp.before.max.ms", "How far a record's timestamp may lie behind the broker's clock, in milliseconds; not asked with LogAppendTime."),
    setting(MESSAGE_TIMESTAMP_TYPE, OneOf(&["CreateTime", "LogAppendTime"]), "CreateTime", "log.message.timestamp.type", "CreateTime: timestamps are the producer's. LogAppendTime: the broker's clock at the append."),
    setting("min.cleanable.dirty.ratio", Ratio, "0.5", "log.cleaner.min.cleanable.ratio", NO_EFFECT),
    setting("min.compaction.lag.ms", NOT_NEGATIVE, "0", "log.cleaner.min.compaction.lag.ms", NO_EFFECT),
    setting("min.insync.replicas", Int { min: 1, max: i32::MAX }, "1", "min.insync.replicas", "Kept and shown. A partition has one replica, its leader; acknowledged means stored, whatever it says."),
    setting("preallocate", Boolean, "false", "log.preallocate", NO_EFFECT),
    setting("remote.copy.lag.bytes", FROM_MINUS_TWO, "-1", "log.remote.copy.lag.bytes", NO_EFFECT),
    setting("remote.copy.lag.ms", FROM_MINUS_TWO, "0", "log.remote.copy.lag.ms", NO_EFFECT),
    setting("remote.log.copy.disable", Boolean, "false", "", NO_EFFECT),
    setting("remote.log.delete.on.disable", Boolean, "false", "", NO_EFFECT),
    setting("remote.storage.enable", Boolean, "false", "", NO_EFFECT),
    setting("retention.bytes", ANY, "-1", "log.retention.bytes", "Bytes of a partition above which its oldest records go, with cleanup.policy=delete; -1: no limit."),
    setting("retention.ms", FROM_MINUS_ONE, "604800000", "", "Milliseconds after which records go, with cleanup.policy=delete; -1: never."),
    setting("segment.bytes", Int { min: 1 << 20, max: i32::MAX }, "1073741824", "log.segment.bytes", NO_EFFECT),
    setting("segment.index.bytes", Int { min: 4, max: i32::MAX }, "10485760", "log.index.size.max.bytes", NO_EFFECT),
    setting("segment.jitter.ms", NOT_NEGATIVE, "0", "", NO_EFFECT),
    setting("segment.ms", POSITIVE, "604800000", "", NO_EFFECT),
    setting("unclean.leader.election.enable", Boolean, "false", "unclean.leader.election.enable", NO_EFFECT),
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
        Int { .. } if name == GZIP_LEVEL && value.trim() == "0" => invalid("expected -1 or 1 to 9".to_owned()),
        Int { min, max } => outside(value, min.into(), max.into()).and_then(invalid),
        Long { min, max } => outside(value, min, max).and_then(invalid),
        Ratio => match value.trim().parse::<f64>() {
            Ok(number) if (0.0..=1.0).contains(&number) => None,
            _ => invalid("expected a number from 0 to 1".to_owned()),
        },
        OneOf(CODECS) if CODECS.contains(&value) && value != AS_PRODUCED => invalid(OTHER_CODEC.to_owned()),
        OneOf(words) if words.contains(&value) => None,
        AnyOf(words) if value.is_empty() || value.split(',').all(|word| words.contains(&word.trim())) => None,
        OneOf(words) | AnyOf(words) => invalid(format!("expected one of {}", words.join(", "))),
        Replicas if value == "*" || value.split(',').all(is_pair_or_empty) => None,
        Replicas => invalid("expected PARTITION:NODE,... or *".to_owned()),
        Text => None,
    }
}

fn is_pair_or_empty(text: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let text = text.trim();
    text.is_empty() || text.split_once(':').is_some_and(|(partition, node)| is_number(partition) && is_number(node))
}

/// What is wrong with a whole number.
fn outside(value: &str, min: i64, max: i64) -> Option<String> {
    match value.trim().parse::<i64>() {
        Ok(number) if (min..=max).contains(&number) => None,
        Ok(_) => Some(format!("expected a number from {min} to {max}")),
        Err(_) => Some("not a whole number".to_owned()),
    }
}

/// Settings after a change, of which what changes is checked: a value from before a rule may stay.
pub fn changed(
    settings: &BTreeMap<String, String>,
    change: &SettingsChange,
) -> Result<BTreeMap<String, String>, Refusal> {
    let invalid = |message| Refusal::new(ErrorCode::InvalidConfig, message);
    let after = apply(settings, change, find)?;
    let mut new = after.iter().filter(|(name, value)| settings.get(*name) != Some(*value));
    match new.find_map(|(name, value)| objection(name, value)) {
        Some(message) => Err(invalid(message)),
        None => Ok(after),
    }
}

/// Settings after a change, unchecked but for what a list is; `find` gives the rows that they are of.
pub(super) fn apply(
    settings: &BTreeMap<String, String>,
    change: &SettingsChange,
    find: impl Fn(&str) -> Option<&'static TopicSetting>,
) -> Result<BTreeMap<String, String>, Refusal> {
    let invalid = |message| Refusal::new(ErrorCode::InvalidConfig, message);
    Ok(match change {
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
    })
}

/// The elements of a list: what stands between commas.
fn elements(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|element| !element.is_empty())
}

/// An empty element is kept, so that it is refused as Kafka refuses it.
fn with_elements(list: &str, more: &str) -> String {
    let mut all: Vec<&str> = elements(list).collect();
    for element in more.split(',').map(str::trim) {
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
    fn a_value_from_before_a_rule_may_stay_and_can_be_taken_away() {
        let text = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let old: BTreeMap<String, String> = text(&[("compression.type", "zstd")]);
        let set = |name: &str, value: &str| {
            SettingsChange::Each([(name.to_owned(), SettingChange::Set(value.to_owned()))].into())
        };
        let with_more = text(&[("compression.type", "zstd"), ("flush.ms", "5")]);
        assert_eq!(changed(&old, &set("flush.ms", "5")), Ok(with_more.clone()));
        assert_eq!(changed(&old, &SettingsChange::Replace(with_more.clone())), Ok(with_more));
        assert_eq!(changed(&old, &set("compression.type", "lz4")).unwrap_err().error, ErrorCode::InvalidConfig);
        assert_eq!(changed(&old, &SettingsChange::Replace(BTreeMap::new())), Ok(BTreeMap::new()));
        assert_eq!(
            changed(&BTreeMap::new(), &set("compression.type", "zstd")).unwrap_err().error,
            ErrorCode::InvalidConfig
        );
    }

    #[test]
    fn values_are_checked_by_type() {
        for (name, value) in [
            ("retention.ms", "-1"),
            ("cleanup.policy", "compact,delete"),
            ("cleanup.policy", "compact"),
            ("cleanup.policy", ""),
            ("compression.type", "producer"),
            ("max.message.bytes", "15728640"),
            ("preallocate", "TRUE"),
            ("compression.gzip.level", "-1"),
            ("leader.replication.throttled.replicas", "*"),
            ("leader.replication.throttled.replicas", "1:2,3:4"),
            ("min.cleanable.dirty.ratio", "0.01"),
        ] {
            assert_eq!(objection(name, value), None, "{name}={value}");
        }
        for (name, value) in [
            ("retention.ms", "-2"),
            ("retention.ms", "a day"),
            ("cleanup.policy", "delete,"),
            ("cleanup.policy", "compact,keep"),
            ("max.message.bytes", "15728641"),
            ("compression.type", "brotli"),
            ("compression.type", "zstd"),
            ("compression.type", "uncompressed"),
            ("compression.gzip.level", "0"),
            ("leader.replication.throttled.replicas", "nonsense"),
            ("leader.replication.throttled.replicas", "1:2,3"),
            ("preallocate", "yes"),
            ("min.cleanable.dirty.ratio", "NaN"),
            ("no.such.setting", "1"),
        ] {
            assert!(objection(name, value).is_some(), "{name}={value}");
        }
    }
}
