//! Topics that change while they are LIVE.

use super::*;

impl Desk {
    fn alter(&mut self, token: u64, changes: Vec<(&str, Alteration)>, validate_only: bool) {
        let alteration = |(name, change): (&str, _)| TopicAlteration { name: name.to_owned(), change };
        let alterations = changes.into_iter().map(alteration).collect();
        self.ask(0, ToControl::AlterTopics { token: Token(token), alterations, validate_only });
    }

    fn object(&self, name: &str) -> topic_object::TopicObject {
        let key = topic_object::key(self.topic(name).expect("it is there").id);
        let object = block_on(self.objects.get(&key)).unwrap().expect("it is described");
        serde_json::from_slice(&object.bytes).expect("ours")
    }
}

fn each(changes: &[(&str, SettingChange)]) -> Alteration {
    let changes = changes.iter().map(|(name, change)| ((*name).to_owned(), change.clone()));
    Alteration::Settings(SettingsChange::Each(changes.collect()))
}

fn set(name: &str, value: &str) -> Alteration {
    each(&[(name, SettingChange::Set(value.to_owned()))])
}

#[test]
fn added_partitions_are_durable_and_led_before_the_answer() {
    let mut desk = Desk::new();
    desk.create(1, &["t"], false);
    desk.lanes_lead = false;
    desk.alter(2, vec![("t", Alteration::Partitions(6))], false);
    assert_eq!(desk.topics_answered(2), None, "the new partitions are not led yet");
    assert_eq!(desk.image().topics["t"].partitions.iter().filter(|p| p.leader.is_some()).count(), 4);
    let topic = desk.topic("t").unwrap().id;
    for index in [4, 5] {
        let partition = TopicPartition { topic, index };
        desk.report(LaneReport::Leading { partition, shard: ShardIndex(0), epoch: LeaderEpoch(1) });
    }
    assert_eq!(desk.topics_answered(2), Some(vec![ErrorCode::None]));
    assert_eq!((desk.topic("t").unwrap().partitions, desk.object("t").partitions), (6, 6));

    let mut next = Desk::on(desk.meta.clone(), desk.objects.clone());
    next.settle();
    next.report(LaneReport::Opened { wid: Wid(2) });
    assert_eq!(next.image().topics["t"].partitions.len(), 6);
}

#[test]
fn partitions_are_only_added_and_count_against_the_bound() {
    let mut desk = Desk::new();
    desk.create(1, &["t", "u"], false);
    let partitions = |count| ("t", Alteration::Partitions(count));
    desk.alter(2, vec![partitions(3), partitions(4), partitions(99), ("absent", Alteration::Partitions(9))], false);
    use ErrorCode::{InvalidPartitions as Invalid, None, PolicyViolation, UnknownTopicOrPartition as Unknown};
    assert_eq!(desk.topics_answered(2), Some(vec![Invalid, Invalid, PolicyViolation, Unknown]));
    desk.alter(3, vec![partitions(16)], true);
    assert_eq!((desk.topics_answered(3), desk.topic("t").unwrap().partitions), (Some(vec![None]), 4));
    desk.alter(4, vec![partitions(16)], false);
    assert_eq!(desk.topics_answered(4), Some(vec![None]));
    desk.create(5, &["v"], false);
    assert_eq!(desk.topics_answered(5), Some(vec![PolicyViolation]), "all twenty are taken");
    desk.delete(6, "t");
    desk.create(7, &["v"], false);
    assert_eq!(desk.topics_answered(7), Some(vec![None]));
}

#[test]
fn settings_change_one_by_one_or_all_at_once() {
    let mut desk = Desk::new();
    desk.create(1, &["t"], false);
    let append = |list: &str| SettingChange::Append(list.to_owned());
    desk.alter(
        2,
        vec![("t", set("retention.ms", "5")), ("t", each(&[("cleanup.policy", append("compact,delete"))]))],
        false,
    );
    assert_eq!(desk.topics_answered(2), Some(vec![ErrorCode::None; 2]));
    let settings = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let expected = settings(&[("cleanup.policy", "delete,compact"), ("retention.ms", "5")]);
    assert_eq!(desk.topic("t").unwrap().settings, expected);
    assert_eq!(desk.object("t").settings, expected);
    assert_eq!(desk.image().topics["t"].settings, expected);

    let subtract = SettingChange::Subtract("delete".to_owned());
    desk.alter(3, vec![("t", each(&[("cleanup.policy", subtract), ("retention.ms", SettingChange::Delete)]))], false);
    assert_eq!(desk.topic("t").unwrap().settings, settings(&[("cleanup.policy", "compact")]));
    let replacement = settings(&[("max.message.bytes", "12")]);
    desk.alter(4, vec![("t", Alteration::Settings(SettingsChange::Replace(replacement.clone())))], false);
    assert_eq!(desk.topic("t").unwrap().settings, replacement);
}

#[test]
fn a_bad_setting_changes_nothing() {
    let mut desk = Desk::new();
    desk.create(1, &["t"], false);
    let append = each(&[("retention.ms", SettingChange::Append("5".to_owned()))]);
    let bad = [set("retention.ms", "soon"), set("no.such.setting", "1"), append];
    desk.alter(2, bad.into_iter().map(|change| ("t", change)).collect(), false);
    assert_eq!(desk.topics_answered(2), Some(vec![ErrorCode::InvalidConfig; 3]));
    assert_eq!(desk.topic("t").unwrap().settings, BTreeMap::new());
}

#[test]
fn a_topic_is_altered_whatever_single_call_is_lost() {
    for lost in 0..6 {
        for fate in [Fate::AnswerLost, Fate::RequestLost] {
            let mut desk = Desk::new();
            desk.create(1, &["t"], false);
            let mut calls = 0;
            desk.fate = Box::new(move |_| {
                calls += 1;
                if calls == lost + 1 { fate } else { Fate::Works }
            });
            desk.alter(2, vec![("t", Alteration::Partitions(5)), ("t", set("retention.ms", "5"))], false);
            for _ in 0..4 {
                if desk.topics_answered(2).is_none() {
                    desk.wait();
                }
            }
            assert_eq!(desk.topics_answered(2), Some(vec![ErrorCode::None; 2]), "call {lost} {fate:?}");
            let record = desk.topic("t").unwrap();
            assert_eq!((record.partitions, record.settings["retention.ms"].as_str()), (5, "5"));
            assert_eq!(desk.object("t").settings, record.settings);
        }
    }
}

#[test]
fn a_deletion_overtakes_alterations_that_wait() {
    let mut desk = Desk::new();
    desk.create(1, &["t"], false);
    let mut calls = 0;
    desk.fate = Box::new(move |_| {
        calls += 1;
        if calls == 1 { Fate::RequestLost } else { Fate::Works }
    });
    desk.alter(2, vec![("t", set("retention.ms", "5"))], false);
    desk.alter(3, vec![("t", set("retention.ms", "6"))], false);
    desk.delete(4, "t");
    desk.wait();
    assert_eq!(desk.topics_answered(2), Some(vec![ErrorCode::None]));
    assert_eq!(desk.topics_answered(3), Some(vec![ErrorCode::UnknownTopicOrPartition]));
    assert_eq!(desk.topics_answered(4), Some(vec![ErrorCode::None]));
    assert_eq!(desk.topic("t"), None);
}
