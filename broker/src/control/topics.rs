//! Every topic: which partitions are led, what is being created or deleted, who waits for it.
//!
//! Invariants:
//! 1. A topic is in the image exactly while its record is LIVE or DELETING. Lanes are told to lead only partitions of
//!    LIVE topics whose deletion nobody asked for.
//! 2. The partition records of a topic are removed only when no birth or claim of it is undecided at a lane; among other
//!    processes, who may be at it too, births compare the topic's record and claims the partition's.
//! 3. No topic is made with which there would be more partitions than `--max-partitions`. Those that exist are kept,
//!    however many.
//! 4. A creation is answered when every partition is led (or known to be damaged), after the image that shows it.
//!
//! 5. Among other processes a lane is told to lead only what is at home here and nobody else may be leading, and to
//!    release what is not.
//!
//! Topics that change while they are LIVE: [`alterations`]; what others do: [`elsewhere`].

mod alterations;
mod elsewhere;

use super::effects::{Owner, Sink, StoreAnswer};
use super::messages::{
    Alteration, FromControl, NewTopic, PartitionImage, Token, TopicAnswer, TopicDeletion, TopicImage, UNKNOWN_TOPIC,
    UNKNOWN_TOPIC_ID,
};
use super::own_changes::OwnChanges;
use super::placement::{lane_of, shard_again};
use super::topic_change::{Progress, TopicChange};
use super::topic_rules::{self, Refusal};
use millrace_protocol::error_code::ErrorCode;
use millrace_storage::ids::{LeaderEpoch, ShardIndex, TopicId, TopicPartition};
use millrace_storage::lane::{LaneCommand, LaneReport};
use millrace_storage::meta::Revision;
use millrace_storage::meta::records::{PartitionRecord, RECORD_VERSION, TopicRecord, TopicState};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Failed store calls of one topic after which those who wait are told so. The change itself goes on.
const TRIES: u32 = 6;

/// How long a partition that its lane lost stays without a leader before the lane is asked again.
const LEAD_AGAIN_AFTER: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Leadership {
    /// Its lane was told, or will be when it opens.
    Undecided,
    Leads,
    /// Its lane says that it does not lead it.
    Lost,
    /// Its data contradicts itself: not served until a person has looked.
    Damaged,
    /// It is no business of a lane of this process, or not yet.
    Away,
    /// Its lane was told to release it.
    Leaving,
}

struct Partition {
    shard: ShardIndex,
    epoch: LeaderEpoch,
    leadership: Leadership,
    /// The node that leads it by its record, while no lane of this process does.
    elsewhere: Option<i32>,
}

/// Where an answer belongs: a topic of a question.
#[derive(Clone, Copy)]
struct Waiter {
    question: u64,
    place: usize,
}

struct Topic {
    name: String,
    record: TopicRecord,
    partitions: Vec<Partition>,
    change: Option<TopicChange>,
    /// Partitions of it that count against `--max-partitions`: those that an alteration adds too.
    counted: u32,
    creators: Vec<Waiter>,
    /// Who waits for the alteration under way.
    alterers: Vec<Waiter>,
    /// What they want.
    altering: Option<Alteration>,
    /// How often in a row somebody else was faster to change it.
    conflicts: u32,
    deleters: Vec<Waiter>,
    /// Alterations that wait until nothing is under way; every one is a topic of a question.
    wishes: VecDeque<(Waiter, Alteration)>,
    /// A deletion waits for a change under way, and where nobody else leads until no partition is undecided.
    delete_wanted: bool,
    /// The revision at which the record last changed, as far as a change of one's own knows.
    known_at: Revision,
}

struct Question {
    shard: ShardIndex,
    token: Token,
    answers: Vec<Option<TopicAnswer>>,
}

/// How many shards and lanes there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Counts {
    pub(super) shards: u16,
    pub(super) lanes: u16,
}

/// How many partitions a topic has that says nothing, and how many there may be in all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PartitionNumbers {
    pub(super) default: u32,
    pub(super) most: u32,
}

/// The part of the core that knows the topics.
pub(super) struct Topics {
    counts: Counts,
    numbers: PartitionNumbers,
    /// Partitions of all topics, those being made and deleted included.
    partitions: u32,
    new_id: Box<dyn FnMut() -> TopicId>,
    topics: BTreeMap<TopicId, Topic>,
    names: BTreeMap<String, TopicId>,
    /// One name for each form of [`topic_rules::collision_form`].
    forms: BTreeMap<String, String>,
    questions: BTreeMap<u64, Question>,
    next_question: u64,
    /// Lanes that have an open write-ahead log.
    open: Vec<bool>,
    undecided: BTreeSet<TopicPartition>,
    lost: BTreeSet<TopicPartition>,
    /// Topics whose image is out of date.
    changed: BTreeSet<TopicId>,
    removed: Vec<(TopicId, String)>,
    /// Whether other processes have topics and partitions too.
    shared: bool,
    /// Removals, by the topic's name.
    gone: OwnChanges,
    /// What is to be learned or placed again, since something of one's own is over.
    unsettled: Unsettled,
}

/// Topics and partitions that the view may say something new of.
#[derive(Default)]
pub(super) struct Unsettled {
    pub(super) names: BTreeSet<String>,
    pub(super) partitions: BTreeSet<TopicPartition>,
}

impl Topics {
    /// Knows nothing yet; `shared`: other processes have topics and partitions too.
    pub(super) fn new(
        counts: Counts,
        numbers: PartitionNumbers,
        shared: bool,
        new_id: Box<dyn FnMut() -> TopicId>,
    ) -> Topics {
        Topics {
            counts,
            shared,
            gone: OwnChanges::default(),
            unsettled: Unsettled::default(),
            numbers,
            partitions: 0,
            new_id,
            topics: BTreeMap::new(),
            names: BTreeMap::new(),
            forms: BTreeMap::new(),
            questions: BTreeMap::new(),
            next_question: 0,
            open: vec![false; usize::from(counts.lanes)],
            undecided: BTreeSet::new(),
            lost: BTreeSet::new(),
            changed: BTreeSet::new(),
            removed: Vec::new(),
        }
    }

    /// A topic found at start-up, half-done ones too.
    pub(super) fn load(
        &mut self,
        name: String,
        record: TopicRecord,
        records: &BTreeMap<TopicPartition, PartitionRecord>,
        sink: &mut Sink,
    ) {
        let change = TopicChange::resume(name.clone(), record.clone());
        let id = record.id;
        self.insert(name, record, records, change);
        if let Some(change) = self.topics.get_mut(&id).and_then(|topic| topic.change.as_mut()) {
            change.go_on(sink);
        }
    }

    fn insert(
        &mut self,
        name: String,
        record: TopicRecord,
        records: &BTreeMap<TopicPartition, PartitionRecord>,
        change: Option<TopicChange>,
    ) {
        let id = record.id;
        let partitions = (0..record.partitions).map(|index| {
            let partition = TopicPartition { topic: id, index };
            let found = records.get(&partition);
            Partition {
                shard: shard_again(partition, found.map(|record| record.shard), self.counts.shards),
                epoch: found.map_or(LeaderEpoch(0), |record| record.epoch),
                leadership: if self.shared { Leadership::Away } else { Leadership::Undecided },
                elsewhere: None,
            }
        });
        let partitions = partitions.collect();
        self.names.insert(name.clone(), id);
        self.forms.insert(topic_rules::collision_form(&name), name.clone());
        if record.state == TopicState::Live && !self.shared {
            self.undecided.extend((0..record.partitions).map(|index| TopicPartition { topic: id, index }));
        }
        if record.state != TopicState::Creating {
            self.changed.insert(id);
        }
        self.partitions = self.partitions.saturating_add(record.partitions);
        let topic = Topic {
            name,
            counted: record.partitions,
            record,
            partitions,
            change,
            creators: Vec::new(),
            alterers: Vec::new(),
            altering: None,
            conflicts: 0,
            deleters: Vec::new(),
            wishes: VecDeque::new(),
            delete_wanted: false,
            known_at: Revision(0),
        };
        self.topics.insert(id, topic);
    }

    /// Whether no partition waits for its lane.
    pub(super) fn all_decided(&self) -> bool {
        self.undecided.is_empty()
    }

    /// Changes under way.
    pub(super) fn under_way(&self) -> usize {
        self.questions.values().map(|question| question.answers.len()).sum()
    }

    // ---- questions ----

    fn question(&mut self, shard: ShardIndex, token: Token, topics: usize) -> u64 {
        let number = self.next_question;
        self.next_question += 1;
        self.questions.insert(number, Question { shard, token, answers: vec![None; topics] });
        number
    }

    fn answer(&mut self, waiter: Waiter, answer: TopicAnswer, sink: &mut Sink) {
        let Some(question) = self.questions.get_mut(&waiter.question) else { return };
        question.answers[waiter.place] = Some(answer);
        self.finish(waiter.question, sink);
    }

    /// Sends the answer once every topic has one.
    fn finish(&mut self, number: u64, sink: &mut Sink) {
        if self.questions.get(&number).is_some_and(|question| question.answers.iter().all(Option::is_some)) {
            let done = self.questions.remove(&number).expect("just seen");
            let topics = done.answers.into_iter().flatten().collect();
            sink.answer(done.shard, FromControl::Topics { token: done.token, topics });
        }
    }

    /// Creates topics, or only checks them.
    pub(super) fn create(
        &mut self,
        (shard, token): (ShardIndex, Token),
        topics: Vec<NewTopic>,
        validate_only: bool,
        auto: bool,
        sink: &mut Sink,
    ) {
        let question = self.question(shard, token, topics.len());
        for (place, topic) in topics.into_iter().enumerate() {
            self.create_one(Waiter { question, place }, topic, validate_only, auto, sink);
        }
        self.finish(question, sink);
    }

    fn create_one(&mut self, waiter: Waiter, new: NewTopic, validate_only: bool, auto: bool, sink: &mut Sink) {
        if auto && let Some(topic) = self.names.get(&new.name).and_then(|id| self.topics.get_mut(id)) {
            if topic.is_usable() {
                let answer = topic.answer(ErrorCode::None, None);
                return self.answer(waiter, answer, sink);
            }
            if !topic.delete_wanted && topic.record.state != TopicState::Deleting {
                topic.creators.push(waiter);
                return;
            }
        }
        let checked = topic_rules::check(&new, self.numbers.default)
            .and_then(|partitions| self.check_free(&new.name).map(|()| partitions))
            .and_then(|partitions| self.check_number(partitions));
        let partitions = match checked {
            Ok(partitions) => partitions,
            Err(refusal) => return self.answer(waiter, refused(new.name, refusal), sink),
        };
        let id = (self.new_id)();
        let state = TopicState::Creating;
        let record = TopicRecord { v: RECORD_VERSION, id, state, partitions, settings: new.settings };
        if validate_only {
            let answer = TopicAnswer { name: new.name, id: None, partitions, error: ErrorCode::None, message: None };
            return self.answer(waiter, answer, sink);
        }
        let change = TopicChange::create(new.name.clone(), record.clone()).among_others(self.shared);
        self.insert(new.name, record, &BTreeMap::new(), Some(change));
        let topic = self.topics.get_mut(&id).expect("just inserted");
        topic.creators.push(waiter);
        topic.change.as_mut().expect("just begun").go_on(sink);
    }

    fn check_free(&self, name: &str) -> Result<(), Refusal> {
        if self.names.contains_key(name) {
            return Err(Refusal::new(ErrorCode::TopicAlreadyExists, format!("Topic '{name}' already exists.")));
        }
        if let Some(other) = self.forms.get(&topic_rules::collision_form(name)) {
            let message = format!("Topic '{name}' collides with existing topic: {other}");
            return Err(Refusal::new(ErrorCode::InvalidTopicException, message));
        }
        Ok(())
    }

    fn check_number(&self, partitions: u32) -> Result<u32, Refusal> {
        let PartitionNumbers { most, .. } = self.numbers;
        if partitions > most.saturating_sub(self.partitions) {
            let there = self.partitions;
            let message =
                format!("There are {there} partitions; with {partitions} more --max-partitions {most} is passed.");
            return Err(Refusal::new(ErrorCode::PolicyViolation, message));
        }
        Ok(partitions)
    }

    /// Deletes topics.
    pub(super) fn delete(&mut self, (shard, token): (ShardIndex, Token), wanted: Vec<TopicDeletion>, sink: &mut Sink) {
        let question = self.question(shard, token, wanted.len());
        for (place, TopicDeletion { name, id: wanted }) in wanted.into_iter().enumerate() {
            let waiter = Waiter { question, place };
            // One that is being created is not there yet, and one made since the shard looked the name up is not meant.
            let is_meant = |id: &TopicId| {
                self.topics[id].record.state != TopicState::Creating && wanted.is_none_or(|wanted| wanted == *id)
            };
            let Some(id) = self.names.get(&name).copied().filter(is_meant) else {
                let refusal = match wanted {
                    None => Refusal::new(ErrorCode::UnknownTopicOrPartition, UNKNOWN_TOPIC),
                    Some(_) => Refusal::new(ErrorCode::UnknownTopicId, UNKNOWN_TOPIC_ID),
                };
                self.answer(waiter, refused(name, refusal), sink);
                continue;
            };
            let topic = self.topics.get_mut(&id).expect("names and topics agree");
            topic.deleters.push(waiter);
            if topic.record.state != TopicState::Deleting {
                topic.delete_wanted = true;
            }
            self.delete_if_settled(id, sink);
        }
        self.finish(question, sink);
    }

    /// Begins a deletion that was asked for, once nothing of the topic is undecided (invariant 2).
    fn delete_if_settled(&mut self, id: TopicId, sink: &mut Sink) {
        if !self.topics.get(&id).is_some_and(|topic| topic.delete_wanted && topic.change.is_none()) {
            return;
        }
        if self.shared {
            // It may be led elsewhere for as long as that broker likes.
            self.let_go_undecided(id, sink);
        }
        let topic = self.topics.get_mut(&id).expect("just seen");
        let settled = topic.partitions.iter().all(|p| p.leadership != Leadership::Undecided);
        if settled {
            topic.delete_wanted = false;
            let change = TopicChange::delete(topic.name.clone(), topic.record.clone());
            let mut change = change.among_others(self.shared);
            change.go_on(sink);
            topic.change = Some(change);
        }
    }

    // ---- changes ----

    /// The store call of a topic's change ended.
    pub(super) fn on_store(&mut self, id: TopicId, answer: StoreAnswer, sink: &mut Sink) {
        let topic = self.topics.get_mut(&id).expect("a topic with a call under way is known");
        let change = topic.change.as_mut().expect("a call belongs to a change");
        let progress = change.on_store(answer, sink);
        topic.record = change.record().clone();
        topic.known_at = change.known_at();
        match progress {
            Progress::Under => {}
            Progress::Failed => self.tell_waiting(id, sink),
            Progress::Live => self.went_live(id, sink),
            Progress::Altered => self.was_altered(id, sink),
            Progress::Marked => {
                self.changed.insert(id);
                self.topics.get_mut(&id).and_then(|topic| topic.change.as_mut()).expect("it goes on").go_on(sink);
            }
            Progress::Removed => {
                for lane in 0..self.counts.lanes {
                    sink.lane(lane, LaneCommand::Forget { topic: id });
                }
                self.topics.get_mut(&id).and_then(|topic| topic.change.as_mut()).expect("it goes on").go_on(sink);
            }
            Progress::Gone => self.remove(id, ErrorCode::None, sink),
            Progress::Foreign if self.shared => self.was_faster(id, sink),
            Progress::Foreign => {
                tracing::error!(topic = %id, "the topic's record was changed by somebody else");
                self.remove(id, ErrorCode::UnknownServerError, sink);
            }
        }
    }

    /// A topic's pause is over.
    pub(super) fn on_timer(&mut self, id: TopicId, sink: &mut Sink) {
        if let Some(change) = self.topics.get_mut(&id).and_then(|topic| topic.change.as_mut()) {
            change.go_on(sink);
        }
    }

    /// Tells those who wait for a change that fails again and again; it goes on without them.
    fn tell_waiting(&mut self, id: TopicId, sink: &mut Sink) {
        let topic = self.topics.get_mut(&id).expect("the caller has it");
        if topic.change.as_ref().is_some_and(|change| change.failures() < TRIES) {
            return;
        }
        let message = "The metadata or object store does not answer; the request goes on.".to_owned();
        let answer = topic.answer(ErrorCode::RequestTimedOut, Some(message));
        let wishes = topic.wishes.drain(..).map(|(waiter, _)| waiter);
        let waiting: Vec<Waiter> = topic
            .creators
            .drain(..)
            .chain(topic.alterers.drain(..))
            .chain(topic.deleters.drain(..))
            .chain(wishes)
            .collect();
        waiting.into_iter().for_each(|waiter| self.answer(waiter, answer.clone(), sink));
    }

    fn went_live(&mut self, id: TopicId, sink: &mut Sink) {
        self.changed.insert(id);
        let topic = self.topics.get_mut(&id).expect("the caller has it");
        topic.change = None;
        if self.shared {
            return self.settle(id);
        }
        for index in 0..topic.record.partitions {
            self.undecided.insert(TopicPartition { topic: id, index });
        }
        self.lead_if(|partition, _| partition.topic == id, sink);
    }

    /// Forgets a topic; `error` is for those who wait.
    fn remove(&mut self, id: TopicId, error: ErrorCode, sink: &mut Sink) {
        let topic = self.topics.remove(&id).expect("the caller has it");
        self.partitions -= topic.counted;
        self.names.remove(&topic.name);
        self.forms.remove(&topic_rules::collision_form(&topic.name));
        self.undecided.retain(|partition| partition.topic != id);
        self.lost.retain(|partition| partition.topic != id);
        self.changed.remove(&id);
        let answer = topic.answer(error, None);
        if self.shared {
            self.gone.made(&topic.name, topic.known_at);
            self.unsettled.names.insert(topic.name.clone());
        }
        self.removed.push((id, topic.name));
        let wishes = topic.wishes.into_iter().map(|(waiter, _)| waiter);
        for waiter in topic.creators.into_iter().chain(topic.alterers).chain(wishes) {
            let error = if error == ErrorCode::None { ErrorCode::UnknownTopicOrPartition } else { error };
            self.answer(waiter, TopicAnswer { error, ..answer.clone() }, sink);
        }
        topic.deleters.into_iter().for_each(|waiter| self.answer(waiter, answer.clone(), sink));
    }

    // ---- leadership ----

    /// Tells open lanes to lead the undecided partitions that `wanted` chooses by partition and lane.
    fn lead_if(&self, wanted: impl Fn(TopicPartition, u16) -> bool, sink: &mut Sink) {
        for &partition in &self.undecided {
            let shard = self.partition(partition).shard;
            let lane = lane_of(shard, self.counts.lanes);
            let is_open = self.open[usize::from(lane)];
            let topic = &self.topics[&partition.topic];
            if is_open && wanted(partition, lane) && topic.is_settled() {
                sink.lead(lane, (partition, shard), (&topic.name, &topic.record));
            }
        }
    }

    fn partition(&self, partition: TopicPartition) -> &Partition {
        &self.topics[&partition.topic].partitions[usize::try_from(partition.index).expect("32 bits fit")]
    }

    /// A lane reports. `Stopped` is not for this part.
    pub(super) fn on_lane(&mut self, lane: u16, report: LaneReport, sink: &mut Sink) {
        match report {
            LaneReport::Opened { .. } => {
                self.open[usize::from(lane)] = true;
                self.lead_if(|_, of| of == lane, sink);
            }
            LaneReport::Leading { partition, shard, epoch } => {
                self.decide(partition, Leadership::Leads, sink, |p| (p.shard, p.epoch) = (shard, epoch));
                if self.shared {
                    // It may have been taken back.
                    self.unsettled.partitions.insert(partition);
                }
            }
            LaneReport::NotLeading { partition } if self.is_leaving(partition) => {
                self.decide(partition, Leadership::Away, sink, |_| {});
                self.unsettled.partitions.insert(partition);
            }
            LaneReport::NotLeading { partition } => {
                self.decide(partition, Leadership::Lost, sink, |_| {});
                if self.is_wanted(partition) {
                    if self.lost.is_empty() {
                        sink.wake_after(Owner::LeadAgain, LEAD_AGAIN_AFTER);
                    }
                    self.lost.insert(partition);
                }
            }
            LaneReport::Alarm { partition, detail } => {
                tracing::error!(lane, ?partition, detail, "data of the log is missing or contradicts itself");
                if let Some(partition) = partition {
                    self.decide(partition, Leadership::Damaged, sink, |_| {});
                }
            }
            LaneReport::Fenced => {
                self.open[usize::from(lane)] = false;
                self.lose_all_of(lane);
            }
            LaneReport::Stopped { .. } => self.open[usize::from(lane)] = false,
        }
    }

    /// Whether the partition shall have a leader.
    fn is_wanted(&self, partition: TopicPartition) -> bool {
        let topic = self.topics.get(&partition.topic);
        topic.is_some_and(|topic| topic.record.state == TopicState::Live && !topic.delete_wanted && topic.is_settled())
    }

    fn decide(
        &mut self,
        partition: TopicPartition,
        leadership: Leadership,
        sink: &mut Sink,
        set: impl FnOnce(&mut Partition),
    ) {
        let id = partition.topic;
        // A lane may still speak of a topic that is gone.
        let Some(topic) = self.topics.get_mut(&id) else { return };
        let Some(state) = usize::try_from(partition.index).ok().and_then(|index| topic.partitions.get_mut(index))
        else {
            return;
        };
        state.leadership = leadership;
        set(state);
        self.undecided.remove(&partition);
        self.lost.remove(&partition);
        self.changed.insert(id);
        if topic.is_usable() && !topic.creators.is_empty() {
            let answer = topic.answer(ErrorCode::None, None);
            let waiting = std::mem::take(&mut topic.creators);
            waiting.into_iter().for_each(|waiter| self.answer(waiter, answer.clone(), sink));
        }
        self.delete_if_settled(id, sink);
    }

    fn lose_all_of(&mut self, lane: u16) {
        for (&id, topic) in &mut self.topics {
            if topic.record.state != TopicState::Live {
                continue;
            }
            for (index, partition) in (0..).zip(&mut topic.partitions) {
                if lane_of(partition.shard, self.counts.lanes) != lane {
                    continue;
                }
                if partition.leadership == Leadership::Leaving {
                    partition.leadership = Leadership::Away;
                    self.unsettled.partitions.insert(TopicPartition { topic: id, index });
                    self.changed.insert(id);
                }
                if !matches!(partition.leadership, Leadership::Damaged | Leadership::Away) {
                    partition.leadership = Leadership::Undecided;
                    let partition = TopicPartition { topic: id, index };
                    self.undecided.insert(partition);
                    self.lost.remove(&partition);
                    self.changed.insert(id);
                }
            }
        }
    }

    /// Asks for what was lost a while ago.
    pub(super) fn lead_again(&mut self, sink: &mut Sink) {
        let lost = std::mem::take(&mut self.lost);
        for &partition in &lost {
            if self.is_wanted(partition) {
                let topic = self.topics.get_mut(&partition.topic).expect("a wanted partition has a topic");
                let index = usize::try_from(partition.index).expect("32 bits fit");
                topic.partitions[index].leadership = Leadership::Undecided;
                self.undecided.insert(partition);
            }
        }
        self.lead_if(|partition, _| lost.contains(&partition), sink);
    }

    // ---- image ----

    /// Images of the topics that changed, and the topics that are gone, since the last time this was asked.
    pub(super) fn take_changed(&mut self, nodes: &[i32]) -> (Vec<TopicImage>, Vec<(TopicId, String)>) {
        let changed = std::mem::take(&mut self.changed);
        let images = changed.iter().filter_map(|id| self.topics.get(id)).map(|topic| topic.image(nodes)).collect();
        (images, std::mem::take(&mut self.removed))
    }
}

impl Topic {
    /// Whether it is neither being created nor being deleted.
    fn is_settled(&self) -> bool {
        self.change.as_ref().is_none_or(TopicChange::is_alteration)
    }

    /// Whether every partition is as good as it gets.
    fn is_usable(&self) -> bool {
        let decided = |p: &Partition| match p.leadership {
            Leadership::Leads | Leadership::Damaged => true,
            Leadership::Away => p.elsewhere.is_some(),
            Leadership::Undecided | Leadership::Lost | Leadership::Leaving => false,
        };
        self.record.state == TopicState::Live && self.is_settled() && self.partitions.iter().all(decided)
    }

    fn answer(&self, error: ErrorCode, message: Option<String>) -> TopicAnswer {
        let (id, partitions) = (Some(self.record.id), self.record.partitions);
        TopicAnswer { name: self.name.clone(), id, partitions, error, message }
    }

    fn image(&self, nodes: &[i32]) -> TopicImage {
        let partitions = self.partitions.iter().map(|partition| PartitionImage {
            leader: match partition.leadership {
                Leadership::Leads => Some(nodes[usize::from(partition.shard.0)]),
                _ => partition.elsewhere,
            },
            epoch: partition.epoch,
            shard: partition.shard,
        });
        TopicImage {
            id: self.record.id,
            name: self.name.clone(),
            partitions: partitions.collect(),
            settings: self.record.settings.clone(),
            deleting: self.record.state == TopicState::Deleting,
        }
    }
}

fn refused(name: String, refusal: Refusal) -> TopicAnswer {
    TopicAnswer { name, id: None, partitions: 0, error: refusal.error, message: Some(refusal.message) }
}
