//! Offsets that are let go by themselves: those of topics that are gone at once, and those that nobody used for as long as
//! `offsets.retention.minutes` says.
//!
//! 1. An offset of a topic that a member subscribes to, or may, is kept however old it is.
//! 2. The time of an offset runs from its commit; in a classic group that lost its members, from then, if that is later.
//!    One whose commit said for how long (OffsetCommit before version 5) goes when that is over.
//! 3. A group that has neither members nor offsets left goes too.
//! 4. A topic that was seen to go is gone. Among other processes one that is not known is not, before [`KNOWN_WITHIN`] is
//!    over: offsets are loaded that another process took for a topic that was made a moment ago.
//!
//! When offsets expire is Apache Kafka's rule (KIP-211), but that in an empty group an offset committed later lives as
//! long as any other.

use super::coordinator::{Coordinator, Purpose};
use super::group::{Group, GroupState};
use super::offset_deletion::CONSUMERS;
use super::offsets::CommittedOffset;
use crate::control::ClusterImage;
use millrace_storage::env::{Mono, WallMs};
use millrace_storage::ids::{TopicId, TopicPartition};
use millrace_storage::meta::keys;
use millrace_storage::wrong::{Wrong, wrong};
use std::collections::BTreeSet;
use std::time::Duration;

/// The longest time between two looks, as Kafka's `offsets.retention.check.interval.ms`.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// Looks during one retention time, at least.
const LOOKS: u32 = 10;
/// A topic that another process has made is known here at most so long after its offsets were loaded: the view of topics is
/// late by the time of a few requests, and much longer only where offsets can't be deleted either.
const KNOWN_WITHIN: Duration = Duration::from_secs(3_600);
/// The same where it is asked for: after that, of a topic that is not known, nothing was committed.
pub(super) const USUALLY_KNOWN_WITHIN: Duration = Duration::from_secs(60);
/// How soon a look is gone on with that left something to do.
const GOES_ON_AFTER: Duration = Duration::from_secs(1);
/// Offsets of one group that one look lets go: more go with the next.
const OFFSETS_PER_LOOK: usize = 1_000;

/// The looks: how long offsets are kept, and when the next is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Looks {
    pub(super) retention: Duration,
    pub(super) next: Mono,
    /// A time by both clocks.
    clocks: (Mono, WallMs),
}

impl Looks {
    pub(super) fn new(retention: Duration) -> Looks {
        Looks { retention, next: Mono(0), clocks: (Mono(0), WallMs(0)) }
    }

    fn pause(&self) -> Duration {
        (self.retention / LOOKS).clamp(GOES_ON_AFTER, LONGEST_PAUSE)
    }
}

impl Group {
    /// When nobody has used an offset for `retention`, Unix ms, if no member subscribes to its topic; `None` while one may
    /// use it.
    fn expires_at(&self, offset: &CommittedOffset, retention: i64) -> Option<i64> {
        let is_consumers = self.protocol_type.as_deref() == Some(CONSUMERS);
        let unused_since = match self.state {
            // A consumer that assigns partitions itself never says that it is gone.
            _ if self.consumer.is_some() || self.protocol_type.is_none() => Some(offset.committed_at),
            GroupState::Empty => Some(self.empty_since.unwrap_or(i64::MIN).max(offset.committed_at)),
            GroupState::Stable if is_consumers => Some(offset.committed_at),
            GroupState::Stable | GroupState::PreparingRebalance | GroupState::CompletingRebalance => None,
        };
        unused_since.map(|since| offset.expires_at.unwrap_or(since.saturating_add(retention)))
    }

    /// `knows_all`: whether a topic that is not in the image is gone.
    fn expired(&self, image: &ClusterImage, knows_all: bool, retention: i64, wall: i64) -> Vec<TopicPartition> {
        // Offsets of one topic stand together: its subscribers are looked for once.
        let mut seen: Option<(TopicId, bool)> = None;
        let mut subscribes = |id: TopicId, topic: &str| match seen {
            Some((same, subscribes)) if same == id => subscribes,
            _ => seen.insert((id, self.subscribes(topic))).1,
        };
        let is_expired = |(partition, offset): &(&TopicPartition, &CommittedOffset)| {
            let Some(topic) = image.names.get(&partition.topic) else { return knows_all };
            self.expires_at(offset, retention).is_some_and(|at| at <= wall) && !subscribes(partition.topic, topic)
        };
        let all = self.offsets.iter().filter(is_expired);
        all.map(|(partition, _)| *partition).take(OFFSETS_PER_LOOK).collect()
    }

    /// Whether nothing is there but perhaps offsets, and nothing is on its way.
    fn is_idle(&self) -> bool {
        self.state == GroupState::Empty
            && self.pending.is_empty()
            && !self.has_consumers()
            && !self.is_being_stored()
            && !self.offsets.is_busy()
    }
}

impl Coordinator {
    /// Keeps an offset that nobody uses for so long.
    pub fn keep_offsets_for(&mut self, retention: Duration) {
        self.limits.offset_retention = retention;
        self.looks.retention = retention;
    }

    /// Tells the time by both clocks.
    pub fn on_clock(&mut self, now: Mono, wall: WallMs) {
        self.looks.clocks = (now, wall);
    }

    /// The wall clock's time, Unix ms, by what it was last.
    pub(super) fn wall_ms(&self, now: Mono) -> i64 {
        let (then, WallMs(wall)) = self.looks.clocks;
        wall.saturating_add(i64::try_from(now.since(then).as_millis()).unwrap_or(i64::MAX))
    }

    /// Lets go what is due.
    pub(super) fn look_for_expired_offsets(&mut self, now: Mono) {
        if now < self.looks.next {
            return;
        }
        self.looks.next = now.plus(self.looks.pause());
        // Topics are not known yet: none of them must be taken for gone.
        if self.image.cluster_id.is_empty() {
            self.looks.next = now.plus(GOES_ON_AFTER);
            return;
        }
        let retention = i64::try_from(self.looks.retention.as_millis()).unwrap_or(i64::MAX);
        let wall = self.wall_ms(now);
        for (slot, name) in self.names_of_groups() {
            if self.is_behind() {
                self.looks.next = now.plus(GOES_ON_AFTER);
                return;
            }
            let image = self.image.clone();
            let knows_all = !image.may_lack_topics
                || now.since(self.slots[&slot].since) >= KNOWN_WITHIN
                || wrong(Wrong::UnknownTopicTakenForGone);
            let group = self.group_mut(slot, &name).expect("listed above");
            let expired = group.expired(&image, knows_all, retention, wall);
            if expired.len() == OFFSETS_PER_LOOK {
                self.looks.next = now.plus(GOES_ON_AFTER);
            }
            self.let_go(slot, &name, expired);
        }
    }

    /// Topics are gone: nobody will ask for these offsets.
    pub(super) fn drop_offsets_of(&mut self, topics: &[TopicId]) {
        for (slot, name) in self.names_of_groups() {
            let group = self.group_mut(slot, &name).expect("listed above");
            let gone: Vec<TopicPartition> = topics.iter().flat_map(|topic| group.offsets.of_topic(*topic)).collect();
            // What is too much for now goes with a later look.
            if !gone.is_empty() && !self.is_behind() {
                self.drop_offsets(slot, &name, gone);
            }
        }
    }

    fn names_of_groups(&self) -> Vec<(u16, String)> {
        let of = |(slot, groups): (&u16, &super::coordinator::Slot)| {
            let slot = *slot;
            groups.groups.keys().map(move |name| (slot, name.clone())).collect::<Vec<_>>()
        };
        self.slots.iter().flat_map(of).collect()
    }

    fn let_go(&mut self, slot: u16, name: &str, expired: Vec<TopicPartition>) {
        let group = self.group_mut(slot, name).expect("looked at by the caller");
        if group.is_idle() && group.offsets.iter().count() == expired.len() {
            let mut writes = vec![(keys::group(slot, name), None)];
            writes.extend(expired.iter().map(|partition| (keys::offset(slot, name, *partition), None)));
            let purpose = Purpose::Deletion { ticket: None, group: name.to_owned(), offsets: expired };
            self.write(slot, writes, purpose);
        } else if !expired.is_empty() {
            self.drop_offsets(slot, name, expired);
        }
    }

    fn drop_offsets(&mut self, slot: u16, name: &str, partitions: Vec<TopicPartition>) {
        let group = self.group_mut(slot, name).expect("looked at by the caller");
        group.offsets.begin();
        let partitions: BTreeSet<TopicPartition> = partitions.into_iter().collect();
        let writes = partitions.iter().map(|partition| (keys::offset(slot, name, *partition), None)).collect();
        let partitions = partitions.into_iter().collect();
        self.write(slot, writes, Purpose::OffsetDeletion { ticket: None, group: name.to_owned(), partitions });
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Bench, outsider, partition};
    use super::super::{Caller, JoinAnswer, JoinRequest, Leaver, Limits, Protocol};
    use super::*;
    use crate::control::ClusterImage;
    use bytes::Bytes;
    use millrace_protocol::error_code::ErrorCode;
    use std::sync::Arc;

    const DAY: Duration = Duration::from_secs(86_400);
    const GROUP: &str = "g";

    fn image(topics: &[(&str, TopicId)]) -> Arc<ClusterImage> {
        let mut image = ClusterImage { cluster_id: "c".into(), ..ClusterImage::default() };
        image.names.extend(topics.iter().map(|(name, id)| (*id, (*name).to_owned())));
        Arc::new(image)
    }

    fn bench() -> Bench {
        let limits = Limits { initial_rebalance_delay: Duration::ZERO, ..Limits::default() };
        let mut bench = Bench::with(limits);
        bench.core.on_image(image(&[("t", partition().topic)]));
        bench
    }

    fn offset() -> CommittedOffset {
        CommittedOffset { offset: 1, leader_epoch: 0, metadata: String::new(), committed_at: 0, expires_at: None }
    }

    fn commit(bench: &mut Bench) {
        let value = CommittedOffset { committed_at: bench.core.wall_ms(bench.now), ..offset() };
        let ticket = bench.send_commit(&outsider(), partition(), value);
        assert_eq!(bench.code(ticket), ErrorCode::None);
    }

    fn has_offset(bench: &Bench) -> bool {
        bench.core.committed(GROUP, partition()).expect("ours").is_some()
    }

    #[test]
    fn an_offset_without_members_goes_a_week_after_its_commit_and_its_group_with_it() {
        let mut bench = bench();
        commit(&mut bench);
        bench.pass(6 * DAY);
        commit(&mut bench);
        bench.pass(6 * DAY);
        assert!(has_offset(&bench), "it was committed again");
        bench.pass(DAY + LONGEST_PAUSE);
        assert!(!has_offset(&bench));
        assert!(bench.core.list().is_empty());
        bench.restart();
        assert!(bench.core.list().is_empty());
    }

    /// A stable group of one member, which may be silent for half an hour and says this of itself.
    fn member_that_says(bench: &mut Bench, metadata: &'static [u8]) -> JoinAnswer {
        let protocols = vec![Protocol { name: "range".into(), metadata: Bytes::from_static(metadata) }];
        let session_timeout = bench.core.limits().max_session;
        let ticket = bench.send_join(JoinRequest { protocols, session_timeout, ..Bench::request("") });
        let member = bench.joined(ticket);
        let ticket = bench.send_sync(&member, &[(&member.member, b"all")]);
        assert_eq!(bench.synced(ticket).error, ErrorCode::None);
        member
    }

    fn commit_as(bench: &mut Bench, member: &str) {
        let value = CommittedOffset { committed_at: bench.core.wall_ms(bench.now), ..offset() };
        let caller = Caller { member: member.to_owned(), instance: None, generation: 1 };
        let ticket = bench.send_commit(&caller, partition(), value);
        assert_eq!(bench.code(ticket), ErrorCode::None);
    }

    fn pass_with(bench: &mut Bench, member: &JoinAnswer, time: Duration) {
        let end = bench.now.plus(time);
        while bench.now < end {
            bench.pass(Duration::from_secs(1_500));
            assert_eq!(bench.heartbeat(member), ErrorCode::None);
        }
    }

    /// Subscriptions of version 0 to one topic: `t`, and another.
    const TO_T: &[u8] = &[0, 0, 0, 0, 0, 1, 0, 1, b't', 0xff, 0xff, 0xff, 0xff];
    const TO_U: &[u8] = &[0, 0, 0, 0, 0, 1, 0, 1, b'u', 0xff, 0xff, 0xff, 0xff];

    #[test]
    fn an_offset_is_kept_while_a_classic_member_subscribes_to_its_topic_or_nobody_can_say_what_it_subscribes_to() {
        for (metadata, is_kept) in [(TO_T, true), (b"?".as_slice(), true), (TO_U, false)] {
            let mut bench = bench();
            let member = member_that_says(&mut bench, metadata);
            commit_as(&mut bench, &member.member);
            pass_with(&mut bench, &member, 6 * DAY);
            assert!(has_offset(&bench));
            pass_with(&mut bench, &member, 2 * DAY);
            assert_eq!(has_offset(&bench), is_kept, "{metadata:?}");
        }
    }

    #[test]
    fn an_offset_of_a_classic_group_is_kept_a_week_from_when_its_last_member_left_also_over_a_restart() {
        let mut bench = bench();
        let member = member_that_says(&mut bench, TO_T);
        commit_as(&mut bench, &member.member);
        pass_with(&mut bench, &member, 5 * DAY);
        bench.leave(GROUP, &member.member);
        bench.pass(6 * DAY);
        let at = (bench.now, WallMs(bench.core.wall_ms(bench.now)));
        bench.restart();
        bench.core.on_image(image(&[("t", partition().topic)]));
        bench.core.on_clock(at.0, at.1);
        assert!(has_offset(&bench));
        bench.pass(DAY / 2);
        assert!(has_offset(&bench));
        bench.pass(DAY);
        assert!(!has_offset(&bench));
    }

    #[test]
    fn an_offset_whose_commit_said_for_how_long_is_kept_for_that_long() {
        for time in [DAY, 20 * DAY] {
            let mut bench = bench();
            let at = bench.core.wall_ms(bench.now) + i64::try_from(time.as_millis()).expect("short");
            bench.send_commit(&outsider(), partition(), CommittedOffset { expires_at: Some(at), ..offset() });
            let almost = LONGEST_PAUSE / 2;
            bench.pass(time - almost);
            assert!(has_offset(&bench), "{time:?}");
            let wall = WallMs(bench.core.wall_ms(bench.now));
            bench.restart();
            bench.core.on_image(image(&[("t", partition().topic)]));
            bench.core.on_clock(bench.now, wall);
            bench.core.on_time(bench.now);
            bench.pump();
            assert!(has_offset(&bench), "{time:?}, also over a restart");
            bench.pass(almost + LONGEST_PAUSE);
            assert!(!has_offset(&bench), "{time:?}");
        }
    }

    #[test]
    fn offsets_of_a_topic_that_is_gone_go_at_once_those_of_others_stay() {
        let mut bench = bench();
        let other = TopicId(uuid::Uuid::from_u128(99));
        bench.core.on_image(image(&[("t", partition().topic), ("u", other)]));
        commit(&mut bench);
        let of_other = TopicPartition { topic: other, index: 0 };
        bench.send_commit(&outsider(), of_other, offset());
        bench.core.on_image(image(&[("t", partition().topic)]));
        bench.pump();
        assert!(has_offset(&bench));
        assert!(bench.core.committed(GROUP, of_other).expect("ours").is_none());
        bench.restart();
        assert!(has_offset(&bench));
        assert!(bench.core.committed(GROUP, of_other).expect("ours").is_none());
        // One that went while nobody was there to see it goes with the first look.
        bench.core.on_image(image(&[("x", other)]));
        bench.core.on_time(bench.now);
        bench.pass(LONGEST_PAUSE);
        assert!(!has_offset(&bench));
    }

    #[test]
    fn an_offset_of_a_topic_that_this_process_may_not_know_yet_is_kept_and_nobody_is_told_that_there_is_none() {
        let mut bench = bench();
        commit(&mut bench);
        bench.restart();
        let lacking = ClusterImage { cluster_id: "c".into(), may_lack_topics: true, ..ClusterImage::default() };
        bench.core.on_image(Arc::new(lacking.clone()));
        assert!(bench.core.may_lack_topics_of(bench.now, GROUP));
        assert!(!bench.core.may_lack_topics_of(bench.now.plus(USUALLY_KNOWN_WITHIN), GROUP));
        bench.core.on_time(bench.now);
        bench.pass(KNOWN_WITHIN - Duration::from_secs(1));
        assert!(has_offset(&bench));
        bench.restart();
        let names = image(&[("t", partition().topic)]).names.clone();
        bench.core.on_image(Arc::new(ClusterImage { names, ..lacking.clone() }));
        assert!(!bench.core.may_lack_topics_of(bench.now, GROUP), "it is known");
        bench.restart();
        bench.core.on_image(Arc::new(lacking));
        bench.pass(KNOWN_WITHIN + LONGEST_PAUSE);
        assert!(!has_offset(&bench), "it never came");
    }

    #[test]
    fn a_member_that_leaves_amid_a_group_s_end_keeps_nothing_alive() {
        let mut bench = bench();
        let member = bench.stable_member();
        let ticket = bench.ticket();
        let leaver = Leaver { member: member.member, instance: None };
        bench.core.leave(bench.now, ticket, GROUP, &[leaver]);
        bench.pump();
        bench.pass(LONGEST_PAUSE * 2);
        assert!(bench.core.list().is_empty(), "neither members nor offsets");
    }
}
