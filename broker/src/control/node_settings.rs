//! Settings of nodes that can be changed while they run, by Kafka's names: those that topics without their own take
//! theirs from. All others are flags of the process, and read-only to clients.

use super::messages::{SettingChange, SettingsChange};
use super::topic_rules::Refusal;
use super::topic_settings::{self, TOPIC_SETTINGS, TopicSetting};
use millrace_protocol::error_code::ErrorCode;
use std::collections::BTreeMap;

/// The topic setting whose default this setting of nodes is, if it can be changed while nodes run.
pub fn find(name: &str) -> Option<&'static TopicSetting> {
    TOPIC_SETTINGS.iter().find(|row| row.dynamic_name() == Some(name))
}

/// Settings after a change, checked.
pub fn changed(
    settings: &BTreeMap<String, String>,
    change: &SettingsChange,
) -> Result<BTreeMap<String, String>, Refusal> {
    let named: Vec<&String> = match change {
        SettingsChange::Replace(all) => all.keys().collect(),
        // What is not set can be taken away, and is no list.
        SettingsChange::Each(changes) => {
            changes.iter().filter(|(_, change)| matches!(change, SettingChange::Set(_))).map(|(name, _)| name).collect()
        }
    };
    if let Some(name) = named.into_iter().find(|name| find(name).is_none()) {
        let message = format!("Cannot update these configs dynamically: Set({name}). They are flags of the process.");
        return Err(Refusal::new(ErrorCode::InvalidRequest, message));
    }
    let after = topic_settings::apply(settings, change, find)?;
    match after.iter().find_map(|(name, value)| objection(name, value)) {
        Some(refusal) => Err(refusal),
        None => Ok(after),
    }
}

/// What is wrong with a value; a name that is no longer known was checked when it was set.
fn objection(name: &str, value: &str) -> Option<Refusal> {
    let message = topic_settings::objection(find(name)?.name, value)?;
    Some(Refusal::new(ErrorCode::InvalidRequest, format!("Invalid config value for {name}: {message}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, value: &str) -> Result<BTreeMap<String, String>, ErrorCode> {
        let change = SettingsChange::Each([(name.to_owned(), SettingChange::Set(value.to_owned()))].into());
        changed(&BTreeMap::new(), &change).map_err(|refusal| refusal.error)
    }

    #[test]
    fn only_what_topics_take_from_nodes_can_be_changed() {
        for (name, value) in
            [("log.retention.ms", "1000"), ("message.max.bytes", "2000"), ("log.cleanup.policy", "compact")]
        {
            assert_eq!(set(name, value), Ok(BTreeMap::from([(name.to_owned(), value.to_owned())])));
        }
        for (name, value) in [
            ("log.retention.hours", "1"),
            ("retention.ms", "1000"),
            ("num.partitions", "3"),
            ("no.such.setting", "1"),
            ("log.retention.ms", "soon"),
            ("message.max.bytes", "-1"),
        ] {
            assert_eq!(set(name, value), Err(ErrorCode::InvalidRequest), "{name}={value}");
        }
    }

    #[test]
    fn what_is_not_set_can_be_taken_away_and_is_no_list() {
        let change = |name: &str, change| {
            let change = SettingsChange::Each([(name.to_owned(), change)].into());
            changed(&BTreeMap::new(), &change).map_err(|refusal| refusal.error)
        };
        for name in ["log.retention.ms", "num.partitions", "no.such.setting"] {
            assert_eq!(change(name, SettingChange::Delete), Ok(BTreeMap::new()), "{name}");
            for of_list in [SettingChange::Append("1".to_owned()), SettingChange::Subtract("1".to_owned())] {
                assert_eq!(change(name, of_list), Err(ErrorCode::InvalidConfig), "{name}");
            }
        }
    }
}
