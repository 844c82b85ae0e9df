//! Fetch sessions (KIP-227): what a client fetches is remembered, so that its requests name only what changed and its
//! answers hold only what is new.
//!
//! 1. At most [`MOST_SESSIONS`] sessions of at most [`MOST_PARTITIONS`] partitions together. A session that finds no
//!    place is not made, and its client goes on with full requests.
//! 2. Places are taken from others as in Kafka: from the session that was not used for [`EVICTION_AFTER`], or else from
//!    the smallest that is as old and smaller than the new one.
//! 3. The epoch of a session is that of the next request. Any other is refused, so that an answer that got lost is
//!    noticed.

use millrace_protocol::StrBytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_storage::env::Mono;
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

/// Sessions of one shard (Kafka's `max.incremental.fetch.session.cache.slots` of a broker).
pub const MOST_SESSIONS: usize = 1_000;

/// Partitions of all sessions together: some 250 bytes each.
pub const MOST_PARTITIONS: usize = 50_000;

/// How long a session is safe (Kafka's `min.incremental.fetch.session.eviction.ms`).
pub const EVICTION_AFTER: Duration = Duration::from_secs(120);

/// The epoch of a session's first incremental request.
const FIRST_EPOCH: i32 = 1;

/// A partition as a client names it: by topic name or by topic id.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Named {
    /// Name; empty where topics are named by id.
    pub topic: StrBytes,
    /// Id; nil where topics are named by name.
    pub topic_id: Uuid,
    /// Index.
    pub index: i32,
}

/// What a client wants of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// First offset.
    pub from: i64,
    /// Bytes at most.
    pub max_bytes: i32,
    /// The leader epoch that the client believes in; −1: not said.
    pub leader_epoch: i32,
}

/// What an answer says of a partition, records apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Told {
    /// Whether records come with it.
    pub has_records: bool,
    /// Whether it is an error.
    pub failed: bool,
    /// High watermark.
    pub high_watermark: i64,
    /// Log start.
    pub log_start: i64,
}

#[derive(Clone, Debug)]
struct Partition {
    named: Named,
    wanted: Wanted,
    /// As last told; −1 after an error, so that whatever follows is told.
    high_watermark: i64,
    log_start: i64,
}

#[derive(Debug)]
struct Session {
    epoch: i32,
    by_id: bool,
    created: Mono,
    used: Mono,
    /// In the order in which they are served: who got records goes to the end.
    order: BTreeMap<u64, Partition>,
    places: BTreeMap<Named, u64>,
    next_place: u64,
}

/// The sessions of one shard.
#[derive(Debug)]
pub struct FetchSessions {
    sessions: BTreeMap<i32, Session>,
    /// Partitions of all of them.
    partitions: usize,
    /// Makes ids that differ between process lives.
    seed: u64,
}

impl FetchSessions {
    /// No sessions. `seed` is random and new for every process life.
    pub fn new(seed: u64) -> FetchSessions {
        FetchSessions { sessions: BTreeMap::new(), partitions: 0, seed }
    }

    /// Forgets a session, if it is there.
    pub fn close(&mut self, id: i32) {
        if let Some(gone) = self.sessions.remove(&id) {
            self.partitions -= gone.order.len();
        }
    }

    /// Brings a session up to date with an incremental request and answers all that it fetches now, in order. A session
    /// of which nothing is left ends.
    ///
    /// # Errors
    /// When there is no such session, the epoch is another, or topics are named in the other way.
    pub fn update(
        &mut self,
        now: Mono,
        (id, epoch): (i32, i32),
        by_id: bool,
        wanted: Vec<(Named, Wanted)>,
        forgotten: &[Named],
    ) -> Result<Vec<(Named, Wanted)>, ErrorCode> {
        let session = self.sessions.get_mut(&id).ok_or(ErrorCode::FetchSessionIdNotFound)?;
        if session.epoch != epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if session.by_id != by_id {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        let before = session.order.len();
        wanted.into_iter().for_each(|(named, wanted)| session.want(named, wanted));
        forgotten.iter().for_each(|named| session.forget(named));
        session.used = now;
        session.epoch = next_epoch(epoch);
        let after = session.order.len();
        self.partitions = self.partitions - before + after;
        if after == 0 || self.partitions > MOST_PARTITIONS {
            self.close(id);
            // One that grew beyond the bound is made anew by its client, if there is room then.
            return if after == 0 { Ok(Vec::new()) } else { Err(ErrorCode::FetchSessionIdNotFound) };
        }
        let all = self.sessions[&id].order.values();
        Ok(all.map(|partition| (partition.named.clone(), partition.wanted)).collect())
    }

    /// Remembers a full request with its answer; the id of the new session, 0 if there is no place for it.
    pub fn create(&mut self, now: Mono, by_id: bool, partitions: Vec<(Named, Wanted, Told)>) -> i32 {
        if partitions.is_empty() || !self.make_room(now, partitions.len()) {
            return 0;
        }
        let mut session = Session {
            epoch: FIRST_EPOCH,
            by_id,
            created: now,
            used: now,
            order: BTreeMap::new(),
            places: BTreeMap::new(),
            next_place: 0,
        };
        for (named, wanted, told) in partitions {
            let named = Named { topic: named.topic.detached(), ..named };
            session.want(named.clone(), wanted);
            session.tell(&named, told);
        }
        self.partitions += session.order.len();
        let id = self.free_id();
        self.sessions.insert(id, session);
        id
    }

    /// Whether a partition belongs into an incremental answer; remembers what it is told.
    pub fn tell(&mut self, id: i32, named: &Named, told: Told) -> bool {
        // A session that ended meanwhile: the answer is whole.
        self.sessions.get_mut(&id).is_none_or(|session| session.tell(named, told))
    }

    /// Frees a place (invariant 2) if one is needed; whether there is one.
    fn make_room(&mut self, now: Mono, partitions: usize) -> bool {
        while self.sessions.len() >= MOST_SESSIONS || self.partitions + partitions > MOST_PARTITIONS {
            let old =
                |since: Mono| now.0.saturating_sub(since.0) > EVICTION_AFTER.as_nanos().try_into().unwrap_or(u64::MAX);
            let unused = self.sessions.iter().min_by_key(|(id, session)| (session.used, **id));
            let smallest = || {
                let evictable = self.sessions.iter().filter(|(_, session)| old(session.created));
                let smallest = evictable.min_by_key(|(id, session)| (session.order.len(), **id));
                smallest.filter(|(_, session)| session.order.len() < partitions)
            };
            let Some((&id, _)) = unused.filter(|(_, session)| old(session.used)).or_else(smallest) else {
                return false;
            };
            self.close(id);
        }
        true
    }

    /// A positive id that no session has.
    fn free_id(&mut self) -> i32 {
        loop {
            // splitmix64
            self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.seed;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let id = i32::try_from(mixed >> 33).expect("31 bits");
            if id != 0 && !self.sessions.contains_key(&id) {
                return id;
            }
        }
    }
}

impl Session {
    fn want(&mut self, named: Named, wanted: Wanted) {
        if let Some(place) = self.places.get(&named) {
            self.order.get_mut(place).expect("order and places agree").wanted = wanted;
            return;
        }
        let named = Named { topic: named.topic.detached(), ..named };
        self.places.insert(named.clone(), self.next_place);
        self.order.insert(self.next_place, Partition { named, wanted, high_watermark: -1, log_start: -1 });
        self.next_place += 1;
    }

    fn forget(&mut self, named: &Named) {
        if let Some(place) = self.places.remove(named) {
            self.order.remove(&place);
        }
    }

    fn tell(&mut self, named: &Named, told: Told) -> bool {
        let Some(place) = self.places.get_mut(named) else { return true };
        let partition = self.order.get_mut(place).expect("order and places agree");
        let changed = partition.high_watermark != told.high_watermark || partition.log_start != told.log_start;
        partition.high_watermark = if told.failed { -1 } else { told.high_watermark };
        partition.log_start = told.log_start;
        if told.has_records {
            let partition = self.order.remove(place).expect("just looked at");
            *place = self.next_place;
            self.order.insert(self.next_place, partition);
            self.next_place += 1;
        }
        told.has_records || told.failed || changed
    }
}

/// Epochs go round without 0, which asks for a new session.
fn next_epoch(epoch: i32) -> i32 {
    if epoch == i32::MAX { FIRST_EPOCH } else { epoch + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Wanted = Wanted { from: 0, max_bytes: 1, leader_epoch: -1 };

    fn named(index: i32) -> Named {
        Named { topic: "t".into(), topic_id: Uuid::nil(), index }
    }

    fn told(high_watermark: i64, has_records: bool) -> Told {
        Told { has_records, failed: false, high_watermark, log_start: 0 }
    }

    fn at(seconds: u64) -> Mono {
        Mono(0).plus(Duration::from_secs(seconds))
    }

    fn create(sessions: &mut FetchSessions, now: Mono, partitions: i32) -> i32 {
        sessions.create(now, false, (0..partitions).map(|index| (named(index), WANTED, told(0, false))).collect())
    }

    fn indexes(fetched: Vec<(Named, Wanted)>) -> Vec<i32> {
        fetched.into_iter().map(|(named, _)| named.index).collect()
    }

    #[test]
    fn a_request_names_only_what_changes() {
        let mut sessions = FetchSessions::new(1);
        let id = create(&mut sessions, at(0), 3);
        assert!(id > 0);
        let moved = Wanted { from: 9, ..WANTED };
        let all = sessions.update(at(1), (id, 1), false, vec![(named(1), moved), (named(7), WANTED)], &[named(0)]);
        assert_eq!(all.unwrap(), [(named(1), moved), (named(2), WANTED), (named(7), WANTED)]);
        let again = sessions.update(at(1), (id, 2), false, Vec::new(), &[]);
        assert_eq!(indexes(again.unwrap()), [1, 2, 7]);
    }

    #[test]
    fn wrong_ids_epochs_and_ways_of_naming_are_refused() {
        let mut sessions = FetchSessions::new(1);
        let id = create(&mut sessions, at(0), 1);
        let mut update = |id, epoch, by_id| sessions.update(at(1), (id, epoch), by_id, Vec::new(), &[]).map(indexes);
        assert_eq!(update(id ^ 1, 1, false), Err(ErrorCode::FetchSessionIdNotFound));
        assert_eq!(update(id, 2, false), Err(ErrorCode::InvalidFetchSessionEpoch));
        assert_eq!(update(id, 1, true), Err(ErrorCode::FetchSessionTopicIdError));
        assert_eq!(update(id, 1, false), Ok(vec![0]));
        assert_eq!(update(id, 1, false), Err(ErrorCode::InvalidFetchSessionEpoch), "its answer got lost");
    }

    #[test]
    fn an_answer_holds_only_what_is_new_and_who_got_records_comes_last_next_time() {
        let mut sessions = FetchSessions::new(1);
        let id = create(&mut sessions, at(0), 3);
        assert!(!sessions.tell(id, &named(0), told(0, false)), "nothing is new");
        assert!(sessions.tell(id, &named(0), told(5, true)));
        assert!(!sessions.tell(id, &named(0), told(5, false)), "said already");
        assert!(sessions.tell(id, &named(1), told(5, false)), "the watermark rose");
        let failed = Told { failed: true, ..told(-1, false) };
        assert!(sessions.tell(id, &named(2), failed) && sessions.tell(id, &named(2), failed), "errors are always said");
        assert!(sessions.tell(id, &named(2), told(0, false)), "and that it works again");
        let order = sessions.update(at(1), (id, 1), false, Vec::new(), &[]).unwrap();
        assert_eq!(indexes(order), [1, 2, 0]);
    }

    #[test]
    fn a_session_of_which_nothing_is_left_ends() {
        let mut sessions = FetchSessions::new(1);
        let id = create(&mut sessions, at(0), 1);
        assert_eq!(sessions.update(at(1), (id, 1), false, Vec::new(), &[named(0)]), Ok(Vec::new()));
        let gone = sessions.update(at(1), (id, 2), false, Vec::new(), &[]);
        assert_eq!(gone, Err(ErrorCode::FetchSessionIdNotFound));
        assert_eq!(create(&mut sessions, at(1), 0), 0, "nothing to remember");
    }

    #[test]
    fn places_are_bounded_and_taken_from_the_unused_or_else_the_smallest() {
        let mut sessions = FetchSessions::new(1);
        let first = create(&mut sessions, at(0), 1);
        let ids: Vec<i32> = (1..MOST_SESSIONS).map(|_| create(&mut sessions, at(1), 2)).collect();
        assert_eq!(create(&mut sessions, at(60), 9), 0, "everyone is safe for two minutes");
        let everyone = [first].into_iter().chain(ids.iter().copied());
        everyone.for_each(|id| assert!(sessions.update(at(100), (id, 1), false, Vec::new(), &[]).is_ok()));
        assert_eq!(create(&mut sessions, at(130), 1), 0, "nobody is smaller");
        assert!(create(&mut sessions, at(130), 2) > 0, "the first is");
        assert!(!sessions.sessions.contains_key(&first));
        assert!(create(&mut sessions, at(300), 1) > 0, "the others were not used for long");
        assert_eq!(sessions.sessions.len(), MOST_SESSIONS);
    }

    #[test]
    fn partitions_of_all_sessions_together_are_bounded() {
        let mut sessions = FetchSessions::new(1);
        let most = i32::try_from(MOST_PARTITIONS).unwrap();
        let id = create(&mut sessions, at(0), most);
        assert!(id > 0);
        assert_eq!(create(&mut sessions, at(1), 1), 0);
        let more = sessions.update(at(1), (id, 1), false, vec![(named(most), WANTED)], &[]);
        assert_eq!(more, Err(ErrorCode::FetchSessionIdNotFound));
        assert_eq!(sessions.partitions, 0);
    }
}
