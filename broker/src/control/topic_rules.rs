//! What a new topic must be like: name, number of partitions, settings. Errors are Kafka's.

use super::messages::NewTopic;
use super::topic_settings;
use millrace_protocol::error_code::ErrorCode;

/// Characters of a topic name at most (Kafka's limit).
pub const MAX_NAME_CHARS: usize = 249;

/// Partitions of a topic at most.
pub const MAX_PARTITIONS: u32 = 10_000;

/// Why a topic can't be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// For clients.
    pub error: ErrorCode,
    /// For people.
    pub message: String,
}

impl Refusal {
    pub(super) fn new(error: ErrorCode, message: impl Into<String>) -> Refusal {
        Refusal { error, message: message.into() }
    }
}

/// Names that differ only in `.` and `_` are the same here: Kafka's metrics can't tell them apart, so it refuses the
/// second of them.
pub fn collision_form(name: &str) -> String {
    name.replace('.', "_")
}

/// Checks a name by itself.
pub fn check_name(name: &str) -> Result<(), Refusal> {
    let invalid =
        |why: &str| Err(Refusal::new(ErrorCode::InvalidTopicException, format!("Topic name is invalid: {why}")));
    if name.is_empty() {
        invalid("it is empty")
    } else if name == "." || name == ".." {
        invalid("it cannot be '.' or '..'")
    } else if name.len() > MAX_NAME_CHARS {
        invalid("it is longer than 249 characters")
    } else if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
        invalid("it has a character other than ASCII letters, digits, '.', '_' and '-'")
    } else {
        Ok(())
    }
}

/// Checks that a topic of `there` partitions can have `count` of them; answers how many are added.
pub fn check_growth(name: &str, there: u32, count: u32) -> Result<u32, Refusal> {
    let invalid = |message| Err(Refusal::new(ErrorCode::InvalidPartitions, message));
    if count == there {
        invalid(format!("Topic already has {there} partition(s)."))
    } else if count < there {
        invalid(format!("The topic {name} currently has {there} partition(s); {count} would not be an increase."))
    } else if count > MAX_PARTITIONS {
        let message = format!("A topic can have at most {MAX_PARTITIONS} partitions.");
        Err(Refusal::new(ErrorCode::PolicyViolation, message))
    } else {
        Ok(count - there)
    }
}

/// Checks everything but whether the name is free; answers the number of partitions.
pub fn check(topic: &NewTopic, default_partitions: u32) -> Result<u32, Refusal> {
    check_name(&topic.name)?;
    let partitions = topic.partitions.unwrap_or(default_partitions);
    if partitions == 0 {
        return Err(Refusal::new(ErrorCode::InvalidPartitions, "Number of partitions must be larger than 0."));
    }
    if partitions > MAX_PARTITIONS {
        let message = format!("A topic can have at most {MAX_PARTITIONS} partitions.");
        return Err(Refusal::new(ErrorCode::InvalidPartitions, message));
    }
    for (name, value) in &topic.settings {
        if let Some(message) = topic_settings::objection(name, value) {
            return Err(Refusal::new(ErrorCode::InvalidConfig, message));
        }
    }
    Ok(partitions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn topic(name: &str, partitions: Option<u32>) -> NewTopic {
        NewTopic { name: name.to_owned(), partitions, settings: BTreeMap::new() }
    }

    fn error(topic: &NewTopic) -> ErrorCode {
        check(topic, 4).expect_err("it is refused").error
    }

    #[test]
    fn names_follow_kafkas_rules() {
        for good in ["a", "A-b_c.9", "...", &"x".repeat(249)] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "..", "a b", "a/b", "ä", "a\n", &"x".repeat(250)] {
            assert_eq!(error(&topic(bad, None)), ErrorCode::InvalidTopicException, "{bad}");
        }
    }

    #[test]
    fn partitions_are_bounded_and_have_a_default() {
        assert_eq!(check(&topic("t", None), 4), Ok(4));
        assert_eq!(check(&topic("t", Some(MAX_PARTITIONS)), 4), Ok(MAX_PARTITIONS));
        for bad in [0, MAX_PARTITIONS + 1, u32::MAX] {
            assert_eq!(error(&topic("t", Some(bad))), ErrorCode::InvalidPartitions);
        }
    }

    #[test]
    fn a_bad_setting_is_an_invalid_config() {
        let mut bad = topic("t", Some(1));
        bad.settings.insert("retention.ms".to_owned(), "soon".to_owned());
        assert_eq!(error(&bad), ErrorCode::InvalidConfig);
    }
}
