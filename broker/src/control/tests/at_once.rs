//! Two processes that change one topic at once.

use super::party::Party;
use super::*;

fn settings(party: &mut Party, member: usize, token: u64, name: &str, value: &str) {
    let change = SettingsChange::Each(BTreeMap::from([(name.to_owned(), SettingChange::Set(value.to_owned()))]));
    alter(party, member, token, Alteration::Settings(change));
}

fn alter(party: &mut Party, member: usize, token: u64, change: Alteration) {
    let alterations = vec![TopicAlteration { name: "t".to_owned(), change }];
    party.tell(member, ToControl::AlterTopics { token: Token(token), alterations, validate_only: false });
}

fn record(party: &Party) -> TopicRecord {
    TopicRecord::decode(&read(&party.meta, &keys::topic("t")).expect("it is there")).expect("a record of ours")
}

#[test]
fn alterations_of_one_topic_at_several_brokers_are_all_made() {
    let mut party = Party::of(&["a", "b", "c"]);
    party.create("t", 3);
    settings(&mut party, 0, 11, "retention.ms", "1000");
    settings(&mut party, 1, 12, "max.message.bytes", "2000");
    alter(&mut party, 2, 13, Alteration::Partitions(9));
    settings(&mut party, 2, 14, "retention.bytes", "3000");
    party.pass(Duration::from_secs(2));
    for (member, token) in [(0, 11), (1, 12), (2, 13), (2, 14)] {
        assert_eq!(party.members[member].topics_answered(token), Some(vec![ErrorCode::None]), "{token}");
    }
    let record = record(&party);
    let set: Vec<&str> = record.settings.values().map(String::as_str).collect();
    assert_eq!((record.partitions, set), (9, vec!["2000", "3000", "1000"]));
    for member in &party.members {
        let image = member.image.as_ref().expect("an image was published");
        assert_eq!((image.topics["t"].partitions.len(), image.topics["t"].settings.len()), (9, 3), "{}", member.name);
    }
    let object =
        block_on(party.objects.get(&topic_object::key(record.id))).expect("memory answers").expect("it is there");
    assert_eq!(object.bytes, topic_object::TopicObject::encode("t", &record, false), "the object says the same");
}

#[test]
fn who_wants_fewer_partitions_than_another_has_just_made_is_refused_and_who_wants_as_many_is_not() {
    let mut party = Party::of(&["a", "b"]);
    party.create("t", 3);
    alter(&mut party, 0, 11, Alteration::Partitions(6));
    alter(&mut party, 1, 12, Alteration::Partitions(5));
    party.pass(Duration::from_secs(2));
    assert_eq!(party.members[0].topics_answered(11), Some(vec![ErrorCode::None]));
    assert_eq!(party.members[1].topics_answered(12), Some(vec![ErrorCode::InvalidPartitions]));
    // The record is what both wanted: nobody can say who made it.
    alter(&mut party, 0, 13, Alteration::Partitions(8));
    alter(&mut party, 1, 14, Alteration::Partitions(8));
    party.pass(Duration::from_secs(2));
    assert_eq!(party.members[0].topics_answered(13), Some(vec![ErrorCode::None]));
    assert_eq!(party.members[1].topics_answered(14), Some(vec![ErrorCode::None]));
    assert_eq!(record(&party).partitions, 8);
}

#[test]
fn a_deletion_that_meets_an_alteration_is_made_after_it() {
    let mut party = Party::of(&["a", "b"]);
    party.create("t", 3);
    settings(&mut party, 0, 11, "retention.ms", "1000");
    let topics = vec![TopicDeletion { name: "t".to_owned(), id: None }];
    party.tell(1, ToControl::DeleteTopics { token: Token(12), topics });
    party.pass(Duration::from_secs(2));
    assert_eq!(party.members[1].topics_answered(12), Some(vec![ErrorCode::None]));
    assert_eq!(read(&party.meta, &keys::topic("t")), None);
    let altered = party.members[0].topics_answered(11).expect("it is answered");
    assert!(matches!(altered[0], ErrorCode::None | ErrorCode::UnknownTopicOrPartition), "{altered:?}");
}
