//! Topics and partitions among other processes: what the view says of them, and what follows for the lanes of this one.
//!
//! Invariants:
//! 1. What the view says counts only from the revision on at which a change of one's own left the topic.
//! 2. While a change of one's own is under way, it alone moves what is known of the topic; it compares, so that it ends when
//!    somebody else was faster: then it is tried again on what that one made, a few times.
//! 3. A partition that is led for another shard than its home's is released first, unless one lane serves both.

use super::alterations::CONFLICTS;
use super::{Leadership, Partition, Topic, Topics, Unsettled};
use crate::control::cluster::Home;
use crate::control::effects::Sink;
use crate::control::placement::{lane_of, shard_of};
use crate::control::topic_change::TopicChange;
use millrace_protocol::error_code::ErrorCode;
use millrace_storage::ids::{LeaderEpoch, ShardIndex, TopicId, TopicPartition};
use millrace_storage::lane::LaneCommand;
use millrace_storage::meta::Revision;
use millrace_storage::meta::records::{TopicRecord, TopicState};
use std::collections::BTreeMap;

impl Topics {
    /// What is to be learned or placed again.
    pub(in crate::control) fn take_unsettled(&mut self) -> Unsettled {
        std::mem::take(&mut self.unsettled)
    }

    /// Partitions of LIVE topics.
    pub(in crate::control) fn all_partitions(&self) -> Vec<TopicPartition> {
        let live = self.topics.iter().filter(|(_, topic)| topic.record.state == TopicState::Live);
        live.flat_map(|(&topic, of)| (0..of.record.partitions).map(move |index| TopicPartition { topic, index }))
            .collect()
    }

    // ---- topics ----

    /// Something of one's own is over: the view may say more.
    pub(super) fn settle(&mut self, id: TopicId) {
        let topic = &self.topics[&id];
        self.unsettled.names.insert(topic.name.clone());
        let partitions = (0..topic.record.partitions).map(|index| TopicPartition { topic: id, index });
        self.unsettled.partitions.extend(partitions);
    }

    /// A change of one's own met the record of somebody else.
    pub(super) fn was_faster(&mut self, id: TopicId, sink: &mut Sink) {
        let topic = self.topics.get_mut(&id).expect("the caller has it");
        let change = topic.change.take().expect("a change came to its end");
        if change.is_reservation() {
            // Who creates on first use asks again and finds it; others are told.
            return self.remove(id, ErrorCode::TopicAlreadyExists, sink);
        }
        topic.conflicts += 1;
        if topic.conflicts <= CONFLICTS
            && let Some(record) = change.foreign()
        {
            self.try_on(id, record, sink);
            return self.let_go_without(&change, id, sink);
        }
        (topic.conflicts, topic.delete_wanted) = (0, false);
        let message = "The topic was changed by another broker meanwhile; ask again.".to_owned();
        let answer = topic.answer(ErrorCode::RequestTimedOut, Some(message));
        let creators = std::mem::take(&mut topic.creators);
        let (alterers, deleters) = (std::mem::take(&mut topic.alterers), std::mem::take(&mut topic.deleters));
        self.partitions -= topic.counted - topic.record.partitions.min(topic.counted);
        topic.counted = topic.record.partitions.min(topic.counted);
        self.settle(id);
        for waiter in creators.into_iter().chain(alterers).chain(deleters) {
            self.answer(waiter, answer.clone(), sink);
        }
        self.let_go_without(&change, id, sink);
        self.alter_next(id, sink);
    }

    /// Where a deletion came to nothing, its topic's partitions, which the caller has settled, are placed anew: lanes were
    /// told nothing meanwhile.
    fn let_go_without(&mut self, change: &TopicChange, id: TopicId, sink: &mut Sink) {
        let stays = |topic: &Topic| topic.record.state == TopicState::Live && topic.change.is_none();
        if change.is_deletion() && self.topics.get(&id).is_some_and(stays) {
            self.let_go_undecided(id, sink);
        }
    }

    /// Goes on from what somebody else made of the topic: what was under way is tried again.
    fn try_on(&mut self, id: TopicId, record: &TopicRecord, sink: &mut Sink) {
        let topic = self.topics.get_mut(&id).expect("the caller has it");
        let alterers = std::mem::take(&mut topic.alterers);
        if let Some(wish) = topic.altering.take() {
            alterers.into_iter().rev().for_each(|waiter| topic.wishes.push_front((waiter, wish.clone())));
        }
        topic.delete_wanted |= record.state == TopicState::Live && !topic.deleters.is_empty();
        self.adopt(id, record, sink);
        self.answer_creators(id, sink);
        self.delete_if_settled(id, sink);
        if record.state == TopicState::Live {
            self.alter_next(id, sink);
        }
    }

    /// What the view says of a topic's name, known through `through`.
    pub(in crate::control) fn learn(
        &mut self,
        name: &str,
        record: Option<&TopicRecord>,
        through: Revision,
        sink: &mut Sink,
    ) {
        if !self.gone.are_shown(name, through) {
            return;
        }
        let known = self.names.get(name).copied();
        if let Some(id) = known {
            let topic = &self.topics[&id];
            if topic.change.is_some() || through < topic.known_at || record == Some(&topic.record) {
                return;
            }
        }
        match (known, record) {
            (None, None) => {}
            (Some(id), None) => self.is_gone(id, sink),
            (Some(id), Some(record)) if record.id == id => self.adopt(id, record, sink),
            (known, Some(record)) => {
                if let Some(id) = known {
                    self.is_gone(id, sink);
                    self.gone.forget(name);
                }
                self.insert(name.to_owned(), record.clone(), &BTreeMap::new(), None);
                self.settle(record.id);
            }
        }
    }

    fn is_gone(&mut self, id: TopicId, sink: &mut Sink) {
        self.forget(id, sink);
        self.remove(id, ErrorCode::None, sink);
    }

    fn forget(&self, id: TopicId, sink: &mut Sink) {
        (0..self.counts.lanes).for_each(|lane| sink.lane(lane, LaneCommand::Forget { topic: id }));
    }

    /// Another process has moved the topic's record.
    fn adopt(&mut self, id: TopicId, record: &TopicRecord, sink: &mut Sink) {
        let topic = self.topics.get_mut(&id).expect("the caller has it");
        let before = u32::try_from(topic.partitions.len()).expect("partitions are counted in 32 bits");
        for index in before..record.partitions {
            let shard = shard_of(TopicPartition { topic: id, index }, self.counts.shards);
            let leadership = Leadership::Away;
            topic.partitions.push(Partition { shard, epoch: LeaderEpoch(0), leadership, elsewhere: None });
        }
        self.partitions = (self.partitions - topic.counted).saturating_add(record.partitions);
        (topic.counted, topic.record) = (record.partitions, record.clone());
        self.changed.insert(id);
        if record.state == TopicState::Deleting {
            // Who asked here for the same is answered when it is gone.
            self.topics.get_mut(&id).expect("just adopted").delete_wanted = false;
            self.let_go_undecided(id, sink);
        }
        self.settle(id);
    }

    /// No lane shall claim or bear what it does not lead yet: the topic's records are about to go, or, after a deletion that
    /// came to nothing, are placed anew. What lanes lead they forget when the topic is gone, not before: it is buried first,
    /// and until then its data is what a rebuild finds.
    pub(super) fn let_go_undecided(&mut self, id: TopicId, sink: &mut Sink) {
        self.undecided.retain(|partition| partition.topic != id);
        self.lost.retain(|partition| partition.topic != id);
        let topic = self.topics.get_mut(&id).expect("the caller has it");
        for (index, state) in (0..).zip(&mut topic.partitions) {
            match state.leadership {
                Leadership::Undecided => {
                    state.leadership = Leadership::Leaving;
                    sink.release(lane_of(state.shard, self.counts.lanes), TopicPartition { topic: id, index });
                }
                Leadership::Lost => state.leadership = Leadership::Away,
                Leadership::Leads | Leadership::Damaged | Leadership::Away | Leadership::Leaving => {}
            }
        }
    }

    /// Finishes what another process has left half-done.
    pub(in crate::control) fn finish_change(&mut self, name: &str, record: &TopicRecord, sink: &mut Sink) {
        let Some(topic) = self.names.get(name).and_then(|id| self.topics.get_mut(id)) else { return };
        if topic.change.is_some() || topic.record != *record {
            return;
        }
        if let Some(change) = TopicChange::resume(name.to_owned(), record.clone()) {
            tracing::info!(topic = name, "finishing what another process has left half-done");
            let mut change = change.among_others(true);
            change.go_on(sink);
            topic.change = Some(change);
        }
    }

    // ---- partitions ----

    /// Whether its lane was told to release it.
    pub(super) fn is_leaving(&self, partition: TopicPartition) -> bool {
        self.topics.get(&partition.topic).is_some_and(|topic| {
            let state = topic.partitions.get(usize::try_from(partition.index).expect("32 bits fit"));
            state.is_some_and(|state| matches!(state.leadership, Leadership::Leaving | Leadership::Away))
        })
    }

    /// A partition is, or shall be, where `home` says.
    pub(in crate::control) fn place(&mut self, partition: TopicPartition, home: Home, sink: &mut Sink) {
        let id = partition.topic;
        let Some(topic) = self.topics.get_mut(&id) else { return };
        let wanted = topic.record.state == TopicState::Live && !topic.delete_wanted && topic.is_settled();
        let index = usize::try_from(partition.index).expect("32 bits fit");
        let Some(state) = topic.partitions.get_mut(index) else { return };
        if state.elsewhere != home.leader {
            state.elsewhere = home.leader;
            self.changed.insert(id);
        }
        if !wanted {
            return self.note_epoch(partition, home.epoch);
        }
        let lane = |shard: ShardIndex| lane_of(shard, self.counts.lanes);
        match (home.own, state.leadership) {
            (_, Leadership::Damaged) | (None, Leadership::Away | Leadership::Leaving) => {}
            (Some(shard), Leadership::Leads | Leadership::Undecided | Leadership::Lost) if state.shard == shard => {}
            (Some(shard), Leadership::Leads | Leadership::Undecided | Leadership::Lost)
                if lane(shard) == lane(state.shard) =>
            {
                self.take(partition, shard, sink);
            }
            (Some(shard), Leadership::Leaving) if lane(shard) == lane(state.shard) => self.take(partition, shard, sink),
            (Some(_), Leadership::Leaving) => {}
            (Some(shard), Leadership::Away) if home.is_free => self.take(partition, shard, sink),
            (Some(_), Leadership::Away) => {}
            (_, Leadership::Lost) => {
                state.leadership = Leadership::Away;
                self.lost.remove(&partition);
                self.unsettled.partitions.insert(partition);
            }
            (_, Leadership::Leads | Leadership::Undecided) => {
                let from = lane(state.shard);
                state.leadership = Leadership::Leaving;
                self.undecided.remove(&partition);
                self.changed.insert(id);
                sink.release(from, partition);
            }
        }
        self.note_epoch(partition, home.epoch);
        self.answer_creators(id, sink);
    }

    /// The epoch that a leader elsewhere has, or will have.
    fn note_epoch(&mut self, partition: TopicPartition, epoch: LeaderEpoch) {
        let topic = self.topics.get_mut(&partition.topic).expect("the caller has it");
        let state = &mut topic.partitions[usize::try_from(partition.index).expect("32 bits fit")];
        if state.leadership != Leadership::Leads && epoch > state.epoch {
            state.epoch = epoch;
            self.changed.insert(partition.topic);
        }
    }

    /// Of what a process that leaves has, what still waits for another one: what its lanes have, and what is by its record
    /// in its logs (`is_named`), except what is damaged or deleted. From `first` on, round to what comes before it: whoever
    /// looks again begins with what was found last, and so looks at everything a few times in all, not each time.
    pub(in crate::control) fn left_here(
        &self,
        first: TopicPartition,
        is_named: impl Fn(TopicPartition) -> bool,
    ) -> impl Iterator<Item = TopicPartition> {
        let here = self.topics.range(first.topic..).map(move |(&id, topic)| {
            let begun = if id == first.topic { first.index } else { 0 };
            (id, topic, begun..u32::MAX)
        });
        let round = self.topics.range(..=first.topic).map(move |(&id, topic)| {
            let end = if id == first.topic { first.index } else { u32::MAX };
            (id, topic, 0..end)
        });
        let live = here.chain(round).filter(|(_, topic, _)| topic.record.state == TopicState::Live);
        let all = live.flat_map(|(topic, of, indexes)| {
            let states = of.partitions.get(usize::try_from(indexes.start).expect("32 bits fit")..).unwrap_or_default();
            indexes.zip(states).map(move |(index, state)| (TopicPartition { topic, index }, state.leadership))
        });
        all.filter(move |(partition, leadership)| match leadership {
            Leadership::Damaged => false,
            Leadership::Away => is_named(*partition),
            Leadership::Undecided | Leadership::Leads | Leadership::Lost | Leadership::Leaving => true,
        })
        .map(|(partition, _)| partition)
    }

    /// Tells its lane to lead a partition for a shard.
    fn take(&mut self, partition: TopicPartition, shard: ShardIndex, sink: &mut Sink) {
        let topic = self.topics.get_mut(&partition.topic).expect("the caller has it");
        let state = &mut topic.partitions[usize::try_from(partition.index).expect("32 bits fit")];
        (state.shard, state.leadership) = (shard, Leadership::Undecided);
        self.undecided.insert(partition);
        self.lost.remove(&partition);
        self.changed.insert(partition.topic);
        let lane = lane_of(shard, self.counts.lanes);
        // A lane that is not open yet is told when it is.
        if self.open[usize::from(lane)] {
            sink.lead(lane, (partition, shard), (&topic.name, &topic.record));
        }
    }

    fn answer_creators(&mut self, id: TopicId, sink: &mut Sink) {
        let Some(topic) = self.topics.get_mut(&id).filter(|topic| Topic::is_usable(topic)) else { return };
        let answer = topic.answer(ErrorCode::None, None);
        let waiting = std::mem::take(&mut topic.creators);
        waiting.into_iter().for_each(|waiter| self.answer(waiter, answer.clone(), sink));
    }
}
