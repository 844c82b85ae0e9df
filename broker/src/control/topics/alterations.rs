//! Changes of topics that stay LIVE: more partitions, other settings.
//!
//! 1. A topic is changed by one alteration at a time; the others wait in the order asked for, and each is checked
//!    against what the one before it made.
//! 2. An alteration is answered when it is durable; one that added partitions when they are led too.
//! 3. Where another process was faster to change the topic, an alteration is checked against what that made and tried again, at
//!    most [`CONFLICTS`] times in a row.

use super::{Leadership, Partition, Topics, Waiter, refused};
use crate::control::effects::Sink;
use crate::control::messages::{Alteration, Token, TopicAlteration, TopicAnswer, UNKNOWN_TOPIC};
use crate::control::placement::shard_again;
use crate::control::topic_change::TopicChange;
use crate::control::topic_rules::{self, Refusal};
use crate::control::topic_settings;
use millrace_protocol::error_code::ErrorCode;
use millrace_storage::ids::{LeaderEpoch, ShardIndex, TopicId, TopicPartition};
use millrace_storage::meta::records::{TopicRecord, TopicState};

impl Topics {
    /// Changes topics, or only checks the changes.
    pub(in crate::control) fn alter(
        &mut self,
        (shard, token): (ShardIndex, Token),
        alterations: Vec<TopicAlteration>,
        validate_only: bool,
        sink: &mut Sink,
    ) {
        let question = self.question(shard, token, alterations.len());
        for (place, TopicAlteration { name, change }) in alterations.into_iter().enumerate() {
            let waiter = Waiter { question, place };
            let found = self.names.get(&name).copied();
            let is_live = |id: &TopicId| {
                let topic = &self.topics[id];
                topic.record.state == TopicState::Live && !topic.delete_wanted
            };
            let Some(id) = found.filter(is_live) else {
                let refusal = Refusal::new(ErrorCode::UnknownTopicOrPartition, UNKNOWN_TOPIC);
                self.answer(waiter, refused(name, refusal), sink);
                continue;
            };
            if validate_only {
                let answer = match self.altered(id, &change) {
                    Ok(record) => {
                        TopicAnswer { partitions: record.partitions, ..self.topics[&id].answer(ErrorCode::None, None) }
                    }
                    Err(refusal) => refused(name, refusal),
                };
                self.answer(waiter, answer, sink);
                continue;
            }
            self.topics.get_mut(&id).expect("looked at above").wishes.push_back((waiter, change));
            self.alter_next(id, sink);
        }
        self.finish(question, sink);
    }

    /// Begins what waits for the topic, if nothing is under way.
    pub(super) fn alter_next(&mut self, id: TopicId, sink: &mut Sink) {
        loop {
            let Some(topic) = self.topics.get_mut(&id).filter(|topic| topic.change.is_none()) else { return };
            let Some((waiter, wish)) = topic.wishes.pop_front() else { return };
            let record = match self.altered(id, &wish) {
                Ok(record) => record,
                Err(refusal) => {
                    let name = self.topics[&id].name.clone();
                    self.answer(waiter, refused(name, refusal), sink);
                    continue;
                }
            };
            let topic = self.topics.get_mut(&id).expect("looked at above");
            if record == topic.record {
                let answer = topic.answer(ErrorCode::None, None);
                self.answer(waiter, answer, sink);
                continue;
            }
            self.partitions += record.partitions - topic.counted;
            topic.counted = record.partitions;
            topic.alterers.push(waiter);
            topic.altering = Some(wish);
            let change = TopicChange::alter(topic.name.clone(), topic.record.clone(), record);
            let mut change = change.among_others(self.shared);
            change.go_on(sink);
            topic.change = Some(change);
        }
    }

    /// What an alteration makes of the topic's record.
    fn altered(&self, id: TopicId, wish: &Alteration) -> Result<TopicRecord, Refusal> {
        let topic = &self.topics[&id];
        let mut record = topic.record.clone();
        match wish {
            Alteration::Partitions(count) => {
                let more = topic_rules::check_growth(&topic.name, record.partitions, *count)?;
                self.check_number(more)?;
                record.partitions = *count;
            }
            Alteration::Settings(change) => record.settings = topic_settings::changed(&record.settings, change)?,
        }
        Ok(record)
    }

    /// An alteration is durable: new partitions are to be led, and who waits is told.
    pub(super) fn was_altered(&mut self, id: TopicId, sink: &mut Sink) {
        self.changed.insert(id);
        let topic = self.topics.get_mut(&id).expect("the caller has it");
        (topic.change, topic.altering, topic.conflicts) = (None, None, 0);
        let before = u32::try_from(topic.partitions.len()).expect("partitions are counted in 32 bits");
        for index in before..topic.record.partitions {
            let partition = TopicPartition { topic: id, index };
            let shard = shard_again(partition, None, self.counts.shards);
            let leadership = if self.shared { Leadership::Away } else { Leadership::Undecided };
            topic.partitions.push(Partition { shard, epoch: LeaderEpoch(0), leadership, elsewhere: None });
            if !self.shared {
                self.undecided.insert(partition);
            }
        }
        let alterers = std::mem::take(&mut topic.alterers);
        if topic.record.partitions > before {
            topic.creators.extend(alterers);
            if self.shared {
                self.settle(id);
            }
            self.lead_if(|partition, _| partition.topic == id && partition.index >= before, sink);
        } else {
            let answer = topic.answer(ErrorCode::None, None);
            alterers.into_iter().for_each(|waiter| self.answer(waiter, answer.clone(), sink));
        }
        self.delete_if_settled(id, sink);
        self.alter_next(id, sink);
    }
}

/// How often in a row others may be faster before those who wait are told.
pub(super) const CONFLICTS: u32 = 8;
