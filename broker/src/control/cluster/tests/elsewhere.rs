//! Settings and topics that other processes change.

use super::*;

/// What a topic that is made here is called.
const OWN_ID: TopicId = TopicId(Uuid::from_u128(1));

/// Topics of one process among others, of one lane.
fn topics(shards: u16) -> Topics {
    let numbers = PartitionNumbers { default: 1, most: 10 };
    Topics::new(Counts { shards, lanes: 1 }, numbers, true, Box::new(|| OWN_ID))
}

#[test]
fn what_others_change_of_quotas_is_shown_and_never_goes_back_behind_a_change_of_ones_own() {
    use crate::control::cluster_records::{ClusterRecords, Wish};
    use crate::control::messages::QuotaAlteration;
    use millrace_storage::meta::records::{QuotaEntity, QuotaPart, QuotaRecord};
    let mut sink = Sink::default();
    let mut records = ClusterRecords::new(BTreeMap::new(), BTreeMap::new()).among_others();
    records.take_changed();
    let entity = QuotaEntity { user: QuotaPart::Default, client_id: QuotaPart::Absent };
    let quota = |rate| {
        let quotas = BTreeMap::from([("producer_byte_rate".to_owned(), rate)]);
        QuotaRecord { v: RECORD_VERSION, quotas }.encode()
    };
    let key = keys::quota(&entity);
    let rate = |records: &mut ClusterRecords| {
        let (quotas, _) = records.take_changed()?;
        quotas.0.get(&entity).and_then(|quotas| quotas.get("producer_byte_rate").copied())
    };
    records.learn(&key, Some(&quota(5)), Revision(5));
    assert_eq!(rate(&mut records), Some(5));
    records.learn(&key, Some(&quota(5)), Revision(6));
    assert_eq!(records.take_changed(), None, "it is known");
    let changes = vec![("producer_byte_rate".to_owned(), Some(9))];
    let wish = Wish::Quota(QuotaAlteration { entity: entity.clone(), changes });
    records.alter((ShardIndex(0), Token(1)), std::iter::once(wish), false, &mut sink);
    records.on_store(StoreAnswer::Txn(Ok(TxnOutcome::Committed(Revision(20)))), &mut sink);
    assert_eq!(rate(&mut records), Some(9));
    records.learn(&key, Some(&quota(7)), Revision(19));
    assert_eq!(records.take_changed(), None, "the view has not come so far");
    records.learn(&key, Some(&quota(8)), Revision(21));
    assert_eq!(rate(&mut records), Some(8));
    records.learn(&key, Some(&Bytes::from_static(b"nonsense")), Revision(22));
    assert_eq!(records.take_changed(), None);
}

#[test]
fn a_topic_that_another_process_was_faster_to_create_is_learned_however_far_the_store_is_by_then() {
    let mut sink = Sink::default();
    let mut topics = topics(1);
    let new = NewTopic { name: "t".to_owned(), partitions: None, settings: BTreeMap::new() };
    topics.create((ShardIndex(0), Token(1)), vec![new], false, false, &mut sink);
    let theirs = TopicRecord {
        v: RECORD_VERSION,
        id: TopicId(Uuid::from_u128(2)),
        state: TopicState::Live,
        partitions: 1,
        settings: BTreeMap::new(),
    };
    topics.on_store(OWN_ID, StoreAnswer::Txn(Ok(TxnOutcome::Conflict(Revision(900)))), &mut sink);
    let found = Versioned { value: theirs.encode(), modified: Revision(7) };
    let snapshot = Snapshot { revision: Revision(900), values: vec![Some(found)] };
    topics.on_store(OWN_ID, StoreAnswer::Get(Ok(snapshot)), &mut sink);
    let answered = sink.drain(Vec::new()).into_iter().find_map(|effect| match effect {
        Effect::Shard(_, FromControl::Topics { topics, .. }) => Some(topics[0].error),
        _ => None,
    });
    assert_eq!(answered, Some(ErrorCode::TopicAlreadyExists));
    assert!(topics.take_unsettled().names.contains("t"), "the view is to be looked at");
    topics.learn("t", None, Revision(6), &mut sink);
    topics.learn("t", Some(&theirs), Revision(7), &mut sink);
    let (images, _) = topics.take_changed(&[10]);
    assert_eq!(images.iter().map(|image| image.id).collect::<Vec<_>>(), [theirs.id]);
}

/// A live topic whose first partition is led here; the lane has not said anything of the second.
fn half_led(sink: &mut Sink) -> Topics {
    let mut topics = topics(1);
    topics.learn("t", Some(&two_partitions(TopicState::Live)), Revision(5), sink);
    topics.on_lane(0, LaneReport::Opened { wid: Wid(1) }, sink);
    (0..2).for_each(|index| topics.place(partition(index), HERE, sink));
    let leading = LaneReport::Leading { partition: partition(0), shard: ShardIndex(0), epoch: LeaderEpoch(5) };
    topics.on_lane(0, leading, sink);
    sink.drain(Vec::new());
    topics
}

fn deletion(id: Option<TopicId>) -> Vec<TopicDeletion> {
    vec![TopicDeletion { name: "t".to_owned(), id }]
}

/// The home of a partition that is here.
const HERE: Home = Home { own: Some(ShardIndex(0)), is_free: true, leader: None, epoch: LeaderEpoch(4) };

fn two_partitions(state: TopicState) -> TopicRecord {
    TopicRecord { v: RECORD_VERSION, id: partition(0).topic, state, partitions: 2, settings: BTreeMap::new() }
}

#[test]
fn lanes_forget_a_topic_that_another_process_deletes_when_it_is_gone_and_until_then_take_nothing_of_it() {
    let mut sink = Sink::default();
    let mut topics = half_led(&mut sink);
    topics.learn("t", Some(&two_partitions(TopicState::Deleting)), Revision(6), &mut sink);
    let release = LaneCommand::Release { partitions: vec![partition(1)] };
    assert_eq!(sink.drain(Vec::new()), [Effect::Lane(0, release)], "the other is led");
    topics.delete((ShardIndex(0), Token(1)), deletion(None), &mut sink);
    (0..2).for_each(|index| topics.place(partition(index), HERE, &mut sink));
    topics.on_lane(0, LaneReport::Fenced, &mut sink);
    topics.on_lane(0, LaneReport::Opened { wid: Wid(2) }, &mut sink);
    assert_eq!(sink.drain(Vec::new()), [], "it is being deleted");
    topics.on_lane(0, LaneReport::NotLeading { partition: partition(1) }, &mut sink);
    assert_eq!(sink.drain(Vec::new()), [], "by somebody else");
    topics.learn("t", None, Revision(7), &mut sink);
    let done = sink.drain(Vec::new());
    assert_eq!(done[0], Effect::Lane(0, LaneCommand::Forget { topic: partition(0).topic }));
    assert!(
        matches!(&done[1..], [Effect::Shard(_, FromControl::Topics { topics, .. })] if topics[0].error == ErrorCode::None)
    );
}

/// It may be led elsewhere for as long as that broker likes, and nothing of a topic that shall go is taken or given up.
#[test]
fn a_deletion_lets_go_of_a_partition_that_its_lane_waits_for() {
    let mut sink = Sink::default();
    let mut topics = half_led(&mut sink);
    topics.delete((ShardIndex(0), Token(1)), deletion(None), &mut sink);
    let begun = sink.drain(Vec::new());
    let released = Effect::Lane(0, LaneCommand::Release { partitions: vec![partition(1)] });
    let deleting = two_partitions(TopicState::Deleting).encode();
    let is_mark = |effect: &Effect| match effect {
        Effect::Call(_, StoreCall::Txn(txn)) => txn.ops == [Op::Put(keys::topic("t"), deleting.clone())],
        _ => false,
    };
    assert!(begun.len() == 2 && begun.contains(&released) && begun.iter().any(is_mark), "{begun:?}");
}

/// A shard that is stuck hears late of what became of a topic, and may ask for what has been made anew since.
#[test]
fn a_deletion_by_id_is_never_that_of_another_topic_of_the_same_name() {
    let mut sink = Sink::default();
    let mut topics = half_led(&mut sink);
    topics.delete((ShardIndex(0), Token(1)), deletion(Some(TopicId(Uuid::from_u128(99)))), &mut sink);
    let answered = sink.drain(Vec::new());
    assert!(
        matches!(&answered[..], [Effect::Shard(_, FromControl::Topics { topics, .. })] if topics[0].error == ErrorCode::UnknownTopicId),
        "{answered:?}"
    );
    topics.delete((ShardIndex(0), Token(2)), deletion(Some(partition(0).topic)), &mut sink);
    let begun = sink.drain(Vec::new());
    assert!(begun.iter().any(|effect| matches!(effect, Effect::Call(_, StoreCall::Txn(_)))), "{begun:?}");
}

#[test]
fn a_topic_that_another_process_is_creating_is_not_there_to_be_deleted() {
    let mut sink = Sink::default();
    let mut topics = topics(1);
    topics.learn("t", Some(&two_partitions(TopicState::Creating)), Revision(5), &mut sink);
    topics.delete((ShardIndex(0), Token(1)), deletion(None), &mut sink);
    let answered = sink.drain(Vec::new());
    assert!(
        matches!(&answered[..], [Effect::Shard(_, FromControl::Topics { topics, .. })] if topics[0].error == ErrorCode::UnknownTopicOrPartition),
        "{answered:?}"
    );
}

/// Lanes are told nothing of a topic that is being deleted; here they have lost all of it meanwhile.
#[test]
fn a_deletion_that_another_process_prevents_leaves_a_topic_whose_partitions_are_taken_again() {
    let mut sink = Sink::default();
    let mut topics = half_led(&mut sink);
    let id = partition(0).topic;
    topics.delete((ShardIndex(0), Token(1)), deletion(None), &mut sink);
    let gone = || StoreError::unknown(FailureKind::Unavailable, "no answer");
    let told = |sink: &mut Sink| {
        sink.drain(Vec::new()).into_iter().any(|effect| matches!(effect, Effect::Shard(_, FromControl::Topics { .. })))
    };
    while !told(&mut sink) {
        topics.on_store(id, StoreAnswer::Txn(Err(gone())), &mut sink);
        topics.on_store(id, StoreAnswer::Get(Err(gone())), &mut sink);
        topics.on_timer(id, &mut sink);
    }
    topics.on_lane(0, LaneReport::Fenced, &mut sink);
    topics.on_lane(0, LaneReport::Opened { wid: Wid(2) }, &mut sink);
    let settings = BTreeMap::from([("retention.ms".to_owned(), "5".to_owned())]);
    let altered = TopicRecord { settings, ..two_partitions(TopicState::Live) };
    let snapshot = Snapshot {
        revision: Revision(9),
        values: vec![Some(Versioned { value: altered.encode(), modified: Revision(8) })],
    };
    topics.on_store(id, StoreAnswer::Txn(Ok(TxnOutcome::Conflict(Revision(9)))), &mut sink);
    topics.on_store(id, StoreAnswer::Get(Ok(snapshot)), &mut sink);
    (0..2).for_each(|index| topics.on_lane(0, LaneReport::NotLeading { partition: partition(index) }, &mut sink));
    sink.drain(Vec::new());
    let unsettled = topics.take_unsettled().partitions;
    assert!((0..2).all(|index| unsettled.contains(&partition(index))), "{unsettled:?}");
    (0..2).for_each(|index| topics.place(partition(index), HERE, &mut sink));
    let told = sink.drain(Vec::new());
    let [Effect::Lane(0, LaneCommand::Lead { partitions })] = &told[..] else { panic!("one command: {told:?}") };
    assert_eq!(partitions.iter().map(|lead| lead.partition).collect::<Vec<_>>(), [partition(0), partition(1)]);
}

#[test]
fn a_partition_is_led_once_nobody_else_may_and_released_when_its_home_is_elsewhere() {
    let mut sink = Sink::default();
    let mut topics = topics(2);
    let live = TopicRecord {
        v: RECORD_VERSION,
        id: partition(0).topic,
        state: TopicState::Live,
        partitions: 1,
        settings: BTreeMap::new(),
    };
    topics.learn("t", Some(&live), Revision(5), &mut sink);
    topics.on_lane(0, LaneReport::Opened { wid: Wid(1) }, &mut sink);
    let home =
        |own: Option<u16>, is_free, leader| Home { own: own.map(ShardIndex), is_free, leader, epoch: LeaderEpoch(4) };
    let leader = |topics: &mut Topics| topics.take_changed(&[10, 11]).0.pop().map(|image| image.partitions[0].leader);
    let commands = |sink: &mut Sink| sink.drain(Vec::new());
    topics.place(partition(0), home(Some(1), false, Some(20)), &mut sink);
    assert_eq!((commands(&mut sink), leader(&mut topics)), (vec![], Some(Some(20))), "somebody else leads it");
    topics.place(partition(0), home(Some(1), true, None), &mut sink);
    let topic = Arc::new(TopicSeen { name: "t".to_owned(), record: live.encode() });
    let lead = LaneCommand::Lead { partitions: vec![ToLead { partition: partition(0), shard: ShardIndex(1), topic }] };
    assert_eq!((commands(&mut sink), leader(&mut topics)), (vec![Effect::Lane(0, lead)], Some(None)));
    let leading = LaneReport::Leading { partition: partition(0), shard: ShardIndex(1), epoch: LeaderEpoch(5) };
    topics.on_lane(0, leading, &mut sink);
    assert_eq!((commands(&mut sink), leader(&mut topics)), (vec![], Some(Some(11))));
    let moving = Home { epoch: LeaderEpoch(6), ..home(None, false, Some(20)) };
    topics.place(partition(0), moving, &mut sink);
    let release = LaneCommand::Release { partitions: vec![partition(0)] };
    assert_eq!(commands(&mut sink), [Effect::Lane(0, release)]);
    let shown = topics.take_changed(&[10, 11]).0.pop().expect("it changed").partitions[0];
    assert_eq!((shown.leader, shown.epoch), (Some(20), LeaderEpoch(6)), "clients are told where to go at once");
    topics.on_lane(0, LaneReport::NotLeading { partition: partition(0) }, &mut sink);
    topics.place(partition(0), home(None, true, Some(20)), &mut sink);
    assert_eq!((commands(&mut sink), leader(&mut topics)), (vec![], Some(Some(20))), "its home has it in a moment");
    let left = |is_named: bool| topics.left_here(partition(0), move |_| is_named).collect::<Vec<_>>();
    assert_eq!(left(true), [partition(0)], "its record names a log of this process");
    assert_eq!(left(false), []);
}

#[test]
fn what_is_left_here_is_found_from_any_place_on_each_once_and_the_damaged_and_deleted_are_not() {
    let mut sink = Sink::default();
    let numbers = PartitionNumbers { default: 1, most: 100 };
    let mut topics =
        Topics::new(Counts { shards: 1, lanes: 1 }, numbers, true, Box::new(|| unreachable!("none is made")));
    topics.on_lane(0, LaneReport::Opened { wid: Wid(1) }, &mut sink);
    let id = |number: u128| TopicId(Uuid::from_u128(number));
    let at = |topic: u128, index| TopicPartition { topic: id(topic), index };
    for (topic, state) in
        [(1, TopicState::Live), (2, TopicState::Deleting), (3, TopicState::Live), (4, TopicState::Live)]
    {
        let record = TopicRecord { v: RECORD_VERSION, id: id(topic), state, partitions: 3, settings: BTreeMap::new() };
        topics.learn(&format!("t{topic}"), Some(&record), Revision(5), &mut sink);
    }
    let home = Home { own: Some(ShardIndex(0)), is_free: true, leader: None, epoch: LeaderEpoch(4) };
    for partition in [at(1, 0), at(1, 2), at(3, 1), at(4, 0)] {
        topics.place(partition, home, &mut sink);
    }
    topics.on_lane(0, LaneReport::Alarm { partition: Some(at(4, 0)), detail: "gone".to_owned() }, &mut sink);
    let all = [at(1, 0), at(1, 2), at(3, 1), at(4, 2)];
    for first in (0..6).flat_map(|topic| (0..4).map(move |index| at(topic, index))) {
        let found: Vec<_> =
            topics.left_here(first, |partition| partition == at(4, 2) || partition == at(2, 0)).collect();
        let begun = all.iter().position(|partition| *partition >= first).unwrap_or(0);
        let round = [&all[begun..], &all[..begun]].concat();
        assert_eq!(found, round, "from {first}");
    }
}
