//! PROTOCOL.md section 8, evaluated against the true state of bucket and metadata store at every change of either.
//!
//! A breach panics with `FINDING`: the run's seed is then the bug report.

use crate::ledger::{Ledger, RecordId};
use crate::rebuild;
use crate::segments::{self, Contents};
use bytes::Bytes;
use millrace_storage::format::checkpoint::{Checkpoint, checkpoint_key};
use millrace_storage::format::manifest::SegmentName;
use millrace_storage::format::object::{ObjectHeader, ObjectKind, decode_footer, decode_header, decode_trailer};
use millrace_storage::format::{Footer, HEADER_BYTES, PartitionEntry, TRAILER_BYTES};
use millrace_storage::ids::{LeaderEpoch, Offset, Seq, TopicPartition, Wid};
use millrace_storage::meta::keys;
use millrace_storage::meta::records::{PartitionRecord, Record, TopicRecord, TopicState, WalRecord, WalState};
use millrace_storage::sim::{BucketChange, MetaChange, SimBucket, SimMeta};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// How a run reads record ids out of the bytes of an entry.
pub type ReadIds = fn(&[u8]) -> Vec<RecordId>;

struct Inner {
    bucket: SimBucket,
    meta: SimMeta,
    ledger: Ledger,
    read_ids: ReadIds,
    segments: Contents,
    // I6: the one log of an epoch's entries.
    homes: RefCell<BTreeMap<(TopicPartition, LeaderEpoch), Wid>>,
    // I1: what was first stored under a key.
    first: RefCell<BTreeMap<String, Bytes>>,
    // I2: sequences below were seen to be durable.
    durable: RefCell<BTreeMap<Wid, Seq>>,
    // Segments that a manifest named and names no more.
    replaced: RefCell<BTreeSet<(TopicPartition, SegmentName)>>,
}

/// The checker. A clone is another handle.
#[derive(Clone)]
pub struct Truth(Rc<Inner>);

/// A stored write-ahead object, taken apart.
pub struct StoredObject {
    /// Its header.
    pub header: ObjectHeader,
    /// Its footer; empty for a fence.
    pub footer: Footer,
}

/// Takes a write-ahead object apart; one that cannot be read is a finding.
pub fn read_object(key: &str, bytes: &Bytes) -> StoredObject {
    let fail = |what: &dyn std::fmt::Display| -> ! { panic!("FINDING {key} can't be read: {what}") };
    let head = bytes.get(..HEADER_BYTES).unwrap_or_else(|| fail(&"too short"));
    let header = decode_header(head).unwrap_or_else(|e| fail(&e));
    if header.kind == ObjectKind::Fence {
        return StoredObject { header, footer: Footer::default() };
    }
    let tail = bytes.get(bytes.len() - TRAILER_BYTES..).unwrap_or_else(|| fail(&"too short"));
    let trailer = decode_trailer(tail).unwrap_or_else(|e| fail(&e));
    let start = trailer.footer_position as usize;
    let footer = bytes.get(start..start + trailer.footer_length as usize).unwrap_or_else(|| fail(&"footer"));
    let (again, footer) = decode_footer(footer, &trailer).unwrap_or_else(|e| fail(&e));
    assert!(again == header, "FINDING {key}: the footer's copy of the header is {again:?}, the header {header:?}");
    StoredObject { header, footer }
}

/// The bytes of an entry's batches.
pub fn body_of(object: &Bytes, position: u32, length: u32) -> Bytes {
    object.slice(position as usize..(position + length) as usize)
}

impl Truth {
    /// Watches both stores from now on.
    pub fn watching(bucket: &SimBucket, meta: &SimMeta, ledger: &Ledger, read_ids: ReadIds) -> Truth {
        let truth = Truth(Rc::new(Inner {
            bucket: bucket.clone(),
            meta: meta.clone(),
            ledger: ledger.clone(),
            read_ids,
            segments: Contents::new(bucket, read_ids),
            homes: RefCell::default(),
            first: RefCell::default(),
            durable: RefCell::default(),
            replaced: RefCell::default(),
        }));
        let (on_bucket, on_meta) = (truth.clone(), truth.clone());
        bucket.observe(move |change| on_bucket.0.on_bucket(change));
        meta.observe(move |changes| changes.iter().for_each(|change| on_meta.0.on_meta(*change)));
        truth
    }

    /// I2: what is told to be committed is durable, with everything before it. A process that was suspended may tell it of
    /// a log that was sealed, and collected, meanwhile: then it must lie below the end, and what lies below was looked at
    /// when the log was sealed.
    pub fn check_committed(&self, wid: Wid, seq: Seq) {
        let lw = match self.0.wal(wid) {
            Some(WalRecord { state: WalState::Sealed { end }, .. }) => {
                assert!(seq < end, "FINDING I2: {wid}/{seq} was committed, but the log ends at {end}");
                return;
            }
            Some(record) => record.lw,
            None => Seq(0),
        };
        let mut durable = self.0.durable.borrow_mut();
        let checked = durable.entry(wid).or_default();
        for below in lw.max(*checked).0..=seq.0 {
            let kind = self.0.object(wid, Seq(below)).map(|object| object.header.kind);
            assert!(kind == Some(ObjectKind::Data), "FINDING I2: {wid}/{seq} was committed, but {below} is {kind:?}");
        }
        *checked = (*checked).max(seq.next());
    }

    /// Whether the partition's record stands at this epoch: a process that was suspended may learn of its leadership
    /// when it is over.
    pub fn is_current(&self, p: TopicPartition, epoch: LeaderEpoch) -> bool {
        let record =
            self.0.meta.peek(&keys::partition(p)).map(|v| PartitionRecord::decode(&v).expect("our own record"));
        record.is_some_and(|record| record.epoch == epoch)
    }

    /// Whether the lane of this log had a reason to give it up: somebody fences it, or has.
    pub fn is_fenced(&self, wid: Wid) -> bool {
        let open = self.0.wal(wid).is_some_and(|record| record.state == WalState::Open);
        let fence = |key: &String| self.0.bucket.peek(key).is_some_and(|bytes| bytes.len() == HEADER_BYTES);
        !open || self.0.bucket.keys(&format!("wal/{wid}/")).iter().any(fence)
    }

    /// The ids that a committed entry holds. A process that was suspended may hear of the commit when its log was sealed
    /// and collected: then the sequence must lie where deletion was allowed and the entry below the log start, and what
    /// counts is what was stored once.
    pub fn ids_committed(&self, wid: Wid, seq: Seq, entry: &PartitionEntry) -> Option<Vec<RecordId>> {
        let key = SimBucket::wal_key(wid, seq);
        let object = self.0.bucket.peek(&key).or_else(|| {
            let record = self.0.wal(wid)?;
            let gone_by_right = match record.state {
                WalState::Sealed { end } => seq < end,
                WalState::Open | WalState::Fencing => seq < record.lw,
            };
            let p = entry.partition;
            let in_segments = || self.ids_in_segments(p, entry.base, entry.last).is_some();
            let known = gone_by_right && (entry.last < self.0.ledger.start(p) || in_segments());
            known.then(|| self.0.first.borrow().get(&key).cloned())?
        })?;
        Some((self.0.read_ids)(&body_of(&object, entry.position, entry.length)))
    }

    /// The ids that segments hold at these offsets.
    pub fn ids_in_segments(&self, p: TopicPartition, base: Offset, last: Offset) -> Option<Vec<RecordId>> {
        let offsets = (base.0..=last.0).map(Offset);
        offsets.map(|offset| self.0.segments.at(p, offset)).collect()
    }

    /// The ids that the bytes of a place hold.
    pub fn ids_at(&self, wid: Wid, seq: Seq, position: u32, length: u32) -> Option<Vec<RecordId>> {
        let object = self.0.bucket.peek(&SimBucket::wal_key(wid, seq))?;
        Some((self.0.read_ids)(&body_of(&object, position, length)))
    }
}

impl Inner {
    fn wal(&self, wid: Wid) -> Option<WalRecord> {
        let value = self.meta.peek(&keys::wal(wid))?;
        Some(WalRecord::decode(&value).expect("a record that our code wrote"))
    }

    fn object(&self, wid: Wid, seq: Seq) -> Option<StoredObject> {
        let key = SimBucket::wal_key(wid, seq);
        self.bucket.peek(&key).map(|bytes| read_object(&key, &bytes))
    }

    fn checkpoint(&self, wid: Wid, number: u64) -> Option<Checkpoint> {
        let bytes = self.bucket.peek(&checkpoint_key(wid, number))?;
        Some(Checkpoint::decode(&bytes).unwrap_or_else(|e| panic!("FINDING checkpoint {wid}/{number}: {e}")))
    }

    fn on_bucket(&self, change: BucketChange<'_>) {
        match change {
            BucketChange::Created(key, bytes) => self.on_created(key, bytes),
            BucketChange::Replaced(key, before, after) => {
                let immutable = ["wal/", "ckpt/", "seg/"].iter().any(|kind| key.starts_with(kind));
                assert!(!immutable, "FINDING I1: {key} was overwritten");
                if key.starts_with("man/") {
                    self.on_manifest(key, Some(before), after);
                }
            }
            BucketChange::Deleted(key, bytes) => self.on_deleted(key, bytes),
        }
    }

    fn on_created(&self, key: &str, bytes: &Bytes) {
        if key.starts_with("man/") {
            self.on_manifest(key, None, bytes);
        }
        let Some((wid, seq)) = SimBucket::parse_wal_key(key) else { return };
        let object = read_object(key, bytes);
        assert!(object.header.wid == wid && object.header.seq == seq, "FINDING I1: {key} says {:?}", object.header);
        if object.header.kind == ObjectKind::Fence {
            return;
        }
        let first = self.first.borrow_mut().entry(key.to_owned()).or_insert_with(|| bytes.clone()).clone();
        assert!(first == *bytes, "FINDING I1: the bytes of {key} changed on a retry");
        let owner = self.wal(wid);
        assert!(
            owner.as_ref().is_none_or(|r| r.boot == object.header.writer.boot && r.lane == object.header.writer.lane),
            "FINDING I1: {key} was written by {:?}",
            object.header.writer
        );
        for entry in &object.footer.partitions {
            let home = *self.homes.borrow_mut().entry((entry.partition, entry.epoch)).or_insert(wid);
            assert!(home == wid, "FINDING I6: {} at epoch {} in {home} and {wid}", entry.partition, entry.epoch);
        }
        for start in &object.footer.log_starts {
            self.ledger.check_asked(start.partition, start.offset, object.header.sealed_at);
        }
    }

    fn on_manifest(&self, key: &str, before: Option<&Bytes>, after: &Bytes) {
        let gone = segments::check_manifest(&self.bucket, key, before, after, &self.replaced.borrow());
        self.replaced.borrow_mut().extend(gone);
        segments::check_content(&self.segments, key, before, after, &self.ledger);
    }

    fn on_deleted(&self, key: &str, bytes: &Bytes) {
        if key.starts_with("seg/") {
            segments::check_may_go(&self.bucket, key);
        }
        let Some((wid, seq)) = SimBucket::parse_wal_key(key) else { return };
        let object = read_object(key, bytes);
        let record = self.wal(wid);
        if let Some(WalState::Sealed { end }) = record.as_ref().map(|r| r.state) {
            assert!(seq != end, "FINDING I3: the fence at {key} was deleted");
            if seq > end {
                return;
            }
        }
        for entry in &object.footer.partitions {
            self.check_entry_may_go(key, bytes, entry);
        }
    }

    /// I8: what was readable stays in some object, or in a segment, unless the log starts above it.
    fn check_entry_may_go(&self, key: &str, object: &Bytes, entry: &PartitionEntry) {
        let p = entry.partition;
        if self.ledger.may_be_deleted(p.topic) {
            return;
        }
        let ids = (self.read_ids)(&body_of(object, entry.position, entry.length));
        let known: Vec<(i64, RecordId)> = (entry.base.0..).zip(ids).collect();
        let lost = |&(offset, id): &(i64, RecordId)| {
            let offset = Offset(offset);
            self.ledger.record_at(p, offset) == Some(id) && self.segments.at(p, offset) != Some(id)
        };
        if known.iter().any(lost) {
            // Clients may not have heard of it yet.
            self.ledger.log_start(p, rebuild::log_start(&self.bucket, p));
        }
        let lost = known.into_iter().find(lost);
        assert!(lost.is_none(), "FINDING I8: {key} deleted, which holds {lost:?} of {p}");
    }

    fn on_meta(&self, change: MetaChange<'_>) {
        if let Some(wid) = keys::parse_wal(change.key) {
            let record = |value: Option<&Bytes>| value.map(|v| WalRecord::decode(v).expect("our own record"));
            self.on_wal(wid, record(change.before), record(change.after));
        }
        if let Some(p) = keys::parse_partition(change.key) {
            let record = |value: Option<&Bytes>| value.map(|v| PartitionRecord::decode(v).expect("our own record"));
            self.on_partition(p, record(change.before), record(change.after));
        }
    }

    fn on_wal(&self, wid: Wid, before: Option<WalRecord>, after: Option<WalRecord>) {
        match (before, after) {
            (None, Some(new)) => {
                let fresh = new.state == WalState::Open && new.ck == 0 && new.lw == Seq(0);
                assert!(fresh, "FINDING {wid} starts as {new:?}");
                let used = self.bucket.keys(&format!("wal/{wid}/"));
                assert!(used.is_empty(), "FINDING {wid} is opened, but has {used:?}");
            }
            (Some(old), Some(new)) => self.on_wal_changed(wid, &old, &new),
            (Some(old), None) => {
                assert!(matches!(old.state, WalState::Sealed { .. }), "FINDING {wid} forgotten while {old:?}");
                self.check_unnamed(wid, "forgotten");
            }
            (None, None) => {}
        }
    }

    fn on_wal_changed(&self, wid: Wid, old: &WalRecord, new: &WalRecord) {
        assert!(new.ck >= old.ck && new.lw >= old.lw, "FINDING {wid}: ck or lw goes back from {old:?} to {new:?}");
        let frozen = new.ck == old.ck && new.lw == old.lw;
        let allowed = match (old.state, new.state) {
            (WalState::Open, WalState::Open) => true,
            (WalState::Open, WalState::Fencing) | (WalState::Fencing, WalState::Sealed { .. }) => frozen,
            // Only its owner's graceful stop, which always brings a checkpoint of its own.
            (WalState::Open, WalState::Sealed { .. }) => new.ck > old.ck,
            (WalState::Fencing, WalState::Fencing) | (WalState::Sealed { .. }, WalState::Sealed { .. }) => {
                frozen && new.state == old.state
            }
            (WalState::Fencing | WalState::Sealed { .. }, _) => false,
        };
        assert!(allowed, "FINDING I4: {wid} went from {old:?} to {new:?}");
        if new.emptied != old.emptied {
            return self.on_wal_emptied(wid, old, new);
        }
        let s = self.check_checkpoint(wid, new);
        let WalState::Sealed { end } = new.state else { return };
        let kind = |seq: u64| self.object(wid, Seq(seq)).map(|object| object.header.kind);
        assert!(kind(end.0) == Some(ObjectKind::Fence), "FINDING I3: {wid} sealed at {end}: {:?}", kind(end.0));
        for seq in s.0..end.0 {
            assert!(kind(seq) == Some(ObjectKind::Data), "FINDING I5: {wid} sealed at {end}, {seq}: {:?}", kind(seq));
        }
    }

    /// The collector says that nothing of a sealed log is left but the fence at its end. Whether it might go is checked where
    /// its objects were deleted.
    fn on_wal_emptied(&self, wid: Wid, old: &WalRecord, new: &WalRecord) {
        let WalState::Sealed { end } = old.state else { panic!("FINDING {wid} was emptied while {old:?}") };
        assert!(old.emptied.is_none() && new.emptied.is_some(), "FINDING {wid} went from {old:?} to {new:?}");
        let fence = self.object(wid, end).map(|object| object.header.kind);
        assert!(fence == Some(ObjectKind::Fence), "FINDING I3: {wid} emptied without its fence: {fence:?}");
        self.check_unnamed(wid, "emptied");
    }

    fn check_unnamed(&self, wid: Wid, what: &str) {
        for (key, value) in self.meta.contents(keys::PARTITIONS) {
            let record = PartitionRecord::decode(&value).expect("our own record");
            assert!(record.wid != wid, "FINDING {wid} {what} while {key} names it");
        }
    }

    /// The checkpoint that a record names exists; gives its S.
    fn check_checkpoint(&self, wid: Wid, record: &WalRecord) -> Seq {
        if record.ck == 0 {
            return Seq(0);
        }
        let checkpoint = self.checkpoint(wid, record.ck);
        let checkpoint = checkpoint.unwrap_or_else(|| panic!("FINDING {wid}: checkpoint {} is missing", record.ck));
        assert!(checkpoint.lw <= record.lw && record.lw <= checkpoint.s, "FINDING {wid}: {record:?} {}", checkpoint.s);
        for chunk in &checkpoint.chunks {
            let key = millrace_storage::format::checkpoint::chunk_key(wid, chunk.number);
            assert!(self.bucket.peek(&key).is_some(), "FINDING {wid}: chunk {key} is missing");
        }
        checkpoint.s
    }

    fn on_partition(&self, p: TopicPartition, before: Option<PartitionRecord>, after: Option<PartitionRecord>) {
        match (before, after) {
            (None, Some(new)) => {
                assert!(new.epoch == LeaderEpoch(1) && new.released.is_none(), "FINDING {p} is born as {new:?}");
                self.check_topic_is_live(p);
                self.check_named(p, &new);
            }
            (Some(old), Some(new)) if new.epoch == old.epoch => {
                let released = PartitionRecord { released: new.released, ..old.clone() };
                assert!(old.released.is_none() && new == released, "FINDING {p} went from {old:?} to {new:?}");
                let end = self.true_end(p, &new);
                let stated = new.released.map(|r| r.end);
                assert!(stated == Some(end), "FINDING {p} was released at {stated:?}, but ends at {end}");
            }
            (Some(old), Some(new)) => {
                assert!(new.epoch.0 == old.epoch.0 + 1, "FINDING I7: {p} went from {old:?} to {new:?}");
                assert!(new.released.is_none(), "FINDING {p} is acquired as {new:?}");
                self.check_named(p, &new);
                self.check_claim(p, &old, &new);
            }
            (_, None) => {
                let asked = self.ledger.may_be_deleted(p.topic);
                assert!(asked, "FINDING the record of {p} is deleted, whose topic nobody wants deleted");
            }
        }
    }

    /// Only what a topic that is in use has is born: what is being deleted has its records removed once.
    fn check_topic_is_live(&self, p: TopicPartition) {
        let topics = self.meta.contents(keys::TOPICS).into_iter();
        let mut states = topics.map(|(_, value)| TopicRecord::decode(&value).expect("our own record"));
        let state = states.find(|record| record.id == p.topic).map(|record| record.state);
        assert!(state == Some(TopicState::Live), "FINDING {p} is born while its topic is {state:?}");
    }

    /// I4: a record newly names only an open log.
    fn check_named(&self, p: TopicPartition, record: &PartitionRecord) {
        let state = self.wal(record.wid).map(|w| w.state);
        assert!(state == Some(WalState::Open), "FINDING I4: {p} is given to {}, which is {state:?}", record.wid);
    }

    /// I5 and I7: the new owner's checkpoint holds the partition at its epoch, up to where the old epoch ended.
    fn check_claim(&self, p: TopicPartition, old: &PartitionRecord, new: &PartitionRecord) {
        let wal = self.wal(old.wid).unwrap_or_else(|| panic!("FINDING {p} was in {}, which is forgotten", old.wid));
        let ended = old.released.is_some() || matches!(wal.state, WalState::Sealed { .. });
        assert!(ended, "FINDING {p} is claimed from {old:?} whose log is {wal:?}");
        let ck = self.wal(new.wid).expect("checked to be open").ck;
        let held = self.checkpoint(new.wid, ck).and_then(|c| c.partitions.get(&p).cloned());
        let held = held.unwrap_or_else(|| panic!("FINDING I5: checkpoint {}/{ck} holds no {p}", new.wid));
        assert!(held.epoch == new.epoch, "FINDING I5: checkpoint {}/{ck} holds {p} at {}", new.wid, held.epoch);
        let end = self.true_end(p, old);
        assert!(
            held.end == end,
            "FINDING I7: {p} is acquired up to {}, but epoch {} ended at {end}",
            held.end,
            old.epoch
        );
        self.ledger.check_end(p, end, "at a claim");
    }

    /// Where the partition's log ends by its record's write-ahead log, folded from what the stores hold.
    fn true_end(&self, p: TopicPartition, record: &PartitionRecord) -> Offset {
        let wid = record.wid;
        let wal = self.wal(wid).unwrap_or_else(|| panic!("FINDING {p} names {wid}, which is forgotten"));
        let checkpoint = (wal.ck > 0).then(|| self.checkpoint(wid, wal.ck)).flatten();
        let s = checkpoint.as_ref().map_or(Seq(0), |c| c.s);
        let held = checkpoint.and_then(|c| c.partitions.get(&p).cloned());
        let mut end = match held {
            Some(state) => state.end,
            None if record.epoch == LeaderEpoch(1) => Offset(0),
            None => panic!("FINDING I5: {p} at {record:?} is in no checkpoint of {wid}"),
        };
        let limit = match (record.released, wal.state) {
            (Some(released), _) => released.seq,
            (None, WalState::Sealed { end }) => end,
            (None, _) => Seq(u64::MAX),
        };
        let mut seq = s;
        while seq < limit {
            let Some(object) = self.object(wid, seq).filter(|o| o.header.kind == ObjectKind::Data) else { break };
            for entry in object.footer.partitions.iter().filter(|e| e.partition == p) {
                // Why a fold that ignores the epoch does no harm: see `crate::table::HIDDEN`.
                let (epoch, folded) = (entry.epoch, record.epoch);
                assert!(epoch == folded, "FINDING {wid}/{seq}: {p} at epoch {epoch} where {folded} is folded");
                assert!(entry.base == end, "FINDING {wid}/{seq}: {p} goes on at {} after {end}", entry.base);
                end = entry.last.plus(1);
            }
            seq = seq.next();
        }
        end
    }
}
