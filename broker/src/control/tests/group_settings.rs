//! Settings of groups.

use super::*;
use crate::control::group_settings::{INTERVAL, SESSION, Settings};

impl Desk {
    fn set(&mut self, token: u64, settings: &[(&str, &str, &str)], validate_only: bool) {
        let alteration = |(group, name, value): &(&str, &str, &str)| GroupAlteration {
            group: (*group).to_owned(),
            change: SettingsChange::Each(BTreeMap::from([(
                (*name).to_owned(),
                if value.is_empty() { SettingChange::Delete } else { SettingChange::Set((*value).to_owned()) },
            )])),
        };
        let alterations = settings.iter().map(alteration).collect();
        self.ask(0, ToControl::AlterGroups { token: Token(token), alterations, validate_only });
    }

    fn settings(&self, group: &str) -> Option<Settings> {
        self.image().group_settings.get(group).cloned()
    }
}

fn settings(pairs: &[(&str, &str)]) -> Settings {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn settings_are_durable_and_shown_when_answered_and_gone_when_the_last_is_deleted() {
    let mut desk = Desk::new();
    desk.set(1, &[("a/b", SESSION, "50000"), ("a/b", INTERVAL, "6000"), ("c", SESSION, "1")], false);
    use ErrorCode::{InvalidConfig, None as Good};
    assert_eq!(desk.topics_answered(1), Some(vec![Good, Good, InvalidConfig]));
    let both = settings(&[(SESSION, "50000"), (INTERVAL, "6000")]);
    assert_eq!((desk.settings("a/b"), desk.settings("c")), (Some(both.clone()), None));
    desk.set(2, &[("a/b", SESSION, "60000"), ("c", SESSION, "60000")], true);
    assert_eq!((desk.topics_answered(2), desk.settings("c")), (Some(vec![Good, Good]), None));

    let mut next = Desk::on(desk.meta.clone(), desk.objects.clone());
    next.settle();
    assert_eq!(next.settings("a/b"), Some(both));
    next.set(3, &[("a/b", SESSION, ""), ("a/b", INTERVAL, ""), ("a/b", INTERVAL, "")], false);
    assert_eq!((next.topics_answered(3), next.settings("a/b")), (Some(vec![Good; 3]), None));
    assert_eq!(read(&next.meta, &keys::group_settings("a/b")), None);
}

#[test]
fn a_change_whose_outcome_is_unknown_is_looked_up_however_long_the_store_is_silent() {
    for lost in [Fate::AnswerLost, Fate::RequestLost] {
        let mut desk = Desk::new();
        let mut losses = 1;
        desk.fate = Box::new(move |call| match call {
            StoreCall::Txn(_) if losses > 0 => {
                losses -= 1;
                lost
            }
            _ => Fate::Works,
        });
        desk.set(1, &[("g", SESSION, "50000")], false);
        assert_eq!(desk.topics_answered(1), None, "nobody knows yet");
        desk.wait();
        assert_eq!(desk.topics_answered(1), Some(vec![ErrorCode::None]));
        assert_eq!(desk.settings("g"), Some(settings(&[(SESSION, "50000")])));
    }
    let mut desk = Desk::new();
    desk.fate = Box::new(|_| Fate::RequestLost);
    desk.set(1, &[("g", SESSION, "50000"), ("h", SESSION, "50000")], false);
    for _ in 0..6 {
        desk.wait();
    }
    assert_eq!((desk.topics_answered(1), desk.settings("g")), (None, None));
    desk.fate = Box::new(|_| Fate::Works);
    desk.wait();
    assert_eq!(desk.topics_answered(1), Some(vec![ErrorCode::None; 2]));
}

#[test]
fn somebody_else_s_change_is_not_lost() {
    let mut desk = Desk::new();
    let record = br#"{"v":1,"settings":{"consumer.heartbeat.interval.ms":"9000"}}"#;
    put(&desk.meta, &keys::group_settings("g"), Bytes::from_static(record));
    desk.set(1, &[("g", SESSION, "50000")], false);
    assert_eq!(desk.topics_answered(1), Some(vec![ErrorCode::None]));
    assert_eq!(desk.settings("g"), Some(settings(&[(SESSION, "50000"), (INTERVAL, "9000")])));
}

#[test]
fn a_group_with_a_name_too_long_to_keep_has_no_settings() {
    let mut desk = Desk::new();
    let (longest, longer) = ("g".repeat(1_024), "g".repeat(1_025));
    desk.set(1, &[(&longest, SESSION, "50000"), (&longer, SESSION, "50000")], false);
    assert_eq!(desk.topics_answered(1), Some(vec![ErrorCode::None, ErrorCode::PolicyViolation]));
    assert_eq!((desk.settings(&longest).is_some(), desk.settings(&longer)), (true, None));
}
