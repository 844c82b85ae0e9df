//! The checker: what was seen goes in, findings come out. Pure.
//!
//! With the metadata store's records each partition is folded as ACQUIRE does, from the log that its record names; the
//! fold of the bucket alone must lead to the same end (I10). Without them the bucket alone is what there is. Either way
//! every reference of a state must meet an entry of a whole object.
//!
//! What manifests hold is compared with each state (see [`super::segments`]).
//!
//! What can't be told apart from a crash is no finding: objects above the first gap of a log that nobody has fenced yet
//! were in flight when its process was killed.

use super::findings::{Finding, Report};
use super::logs::{Beside, BrokenCheckpoint, SeenLog, Stands};
use super::object::SeenObject;
use super::segments::{SeenPartition, Segments};
use crate::env::WallMs;
use crate::format::checkpoint::{Checkpoint, checkpoint_key, chunk_key};
use crate::format::object::ObjectKind;
use crate::ids::{LeaderEpoch, Offset, Seq, TopicId, TopicPartition, Wid};
use crate::meta::records::{PartitionRecord, WalRecord, WalState};
use crate::partition::{CommittedPartition, ObjectPlace, Reference};
use crate::recovery::acquire::{self, Source};
use crate::recovery::{Best, LogFold};
use crate::wal::objects::object_key;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// What time it is, for the age of what nothing refers to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Clock {
    /// A process may be at work: the wall clock.
    Running(WallMs),
    /// No process is at work: time stands still since the last thing that was written.
    Stopped,
}

/// What is held against what was seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rules {
    /// What time it is.
    pub clock: Clock,
    /// How long something may stay that nothing refers to, milliseconds.
    pub grace_ms: i64,
    /// Topics that are not deleted, with their number of partitions; `None`: all that occur are alive.
    pub topics: Option<BTreeMap<TopicId, u32>>,
    /// When topics that are deleted came to be so, Unix milliseconds by the store's clock.
    pub deleted: BTreeMap<TopicId, i64>,
    /// Write-ahead objects share files, which go as a whole: then one that nothing refers to may stay.
    pub whole_files: bool,
}

/// The metadata store's records.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Metadata {
    /// `/wal` records.
    pub wals: BTreeMap<Wid, WalRecord>,
    /// `/partition` records.
    pub partitions: BTreeMap<TopicPartition, PartitionRecord>,
}

/// Takes what was seen, in any order, and judges it at the end.
pub struct Checker {
    rules: Rules,
    metadata: Option<Metadata>,
    logs: BTreeMap<Wid, SeenLog>,
    segments: Segments,
    findings: BTreeSet<Finding>,
    /// Keys of missing objects, told of once.
    missing: BTreeMap<String, String>,
}

impl Checker {
    /// Nothing seen yet. `metadata`: read before anything else was looked at.
    pub fn new(rules: Rules, metadata: Option<Metadata>) -> Checker {
        let (logs, segments) = (BTreeMap::new(), Segments::default());
        Checker { rules, metadata, logs, segments, findings: BTreeSet::new(), missing: BTreeMap::new() }
    }

    /// A whole write-ahead object.
    pub fn object(&mut self, object: Rc<SeenObject>) {
        let (wid, seq) = (object.header.wid, object.header.seq);
        self.logs.entry(wid).or_default().objects.insert(seq, object);
    }

    /// A write-ahead object of `bytes` bytes that can't be trusted.
    pub fn damaged_object(&mut self, wid: Wid, seq: Seq, bytes: u64, detail: String) {
        self.logs.entry(wid).or_default().damaged.insert(seq, bytes);
        self.damaged(object_key(wid, seq), detail);
    }

    /// An object in a log's folder of checkpoints, as listed.
    pub fn beside(&mut self, wid: Wid, key: String, bytes: u64, written_ms: i64) {
        self.logs.entry(wid).or_default().beside.push(Beside { key, bytes, written_ms });
    }

    /// A checkpoint with its references attached, or why it can't be had.
    pub fn checkpoint(&mut self, wid: Wid, number: u64, read: Result<Checkpoint, BrokenCheckpoint>) {
        let log = self.logs.entry(wid).or_default();
        match read {
            Ok(checkpoint) => drop(log.checkpoints.insert(number, checkpoint)),
            // One that only lacks references may be of a log that was being collected: who leads its partitions decides.
            Err(broken) => {
                let unreadable = broken.bare.is_none().then(|| broken.detail.clone());
                log.broken.insert(number, broken);
                unreadable.into_iter().for_each(|detail| self.damaged(checkpoint_key(wid, number), detail));
            }
        }
    }

    /// What is stored of one partition; its segments are checked by a [`super::SegmentLook`] each.
    pub fn partition(&mut self, seen: SeenPartition) {
        let topic = seen.partition.topic;
        let deleted_ms = (!self.is_alive(seen.partition)).then(|| self.rules.deleted.get(&topic).copied().unwrap_or(0));
        self.findings.extend(self.segments.add(seen, deleted_ms));
    }

    /// The manifest that stands was committed at `ms` or before; Unix milliseconds by the store's clock.
    pub fn committed(&mut self, partition: TopicPartition, ms: i64) {
        self.segments.committed(partition, ms);
    }

    /// Something that was seen to be wrong.
    pub fn found(&mut self, finding: Finding) {
        self.findings.insert(finding);
    }

    /// Anything else that can't be read.
    pub fn damaged(&mut self, key: String, detail: String) {
        self.findings.insert(Finding::Damaged { key, detail });
    }

    /// Judges.
    pub fn finish(mut self) -> Report {
        let mut report = self.counted();
        let best = self.fold_logs();
        let states = match self.metadata.take() {
            Some(metadata) => {
                let states = self.led(&metadata);
                self.compare(&states, &best);
                self.metadata = Some(metadata);
                states
            }
            None => {
                self.fences_of_superseded_logs(&best);
                self.flaws(&best);
                best.partitions.into_iter().filter(|(partition, _)| self.is_alive(*partition)).collect()
            }
        };
        let mut referenced = BTreeSet::new();
        for (partition, (_, state)) in &states {
            report.partitions += 1;
            report.records += u64::try_from(state.end.0 - state.log_start.0).expect("a log start is not above the end");
            for reference in state.references.iter() {
                report.record_bytes += u64::from(reference.length);
                referenced.insert((reference.wid, reference.seq));
                // A leader learns of what the one before it rolled last when it rolls itself.
                if reference.last >= self.segments.covered(*partition) {
                    self.check_reference(*partition, &reference);
                }
            }
        }
        self.findings.extend(self.segments.compare(&states));
        self.check_holes(&states, &referenced);
        self.unreferenced(&states, &referenced, &mut report);
        let missing = self.missing.into_iter().map(|(key, needed_by)| Finding::Missing { key, needed_by });
        report.findings = self.findings.into_iter().chain(missing).collect();
        report
    }

    fn counted(&self) -> Report {
        let Segments { count: segments, objects, bytes: object_bytes, .. } = self.segments;
        let logs = self.logs.len() as u64;
        let mut report = Report { logs, segments, objects, object_bytes, ..Report::default() };
        for log in self.logs.values() {
            let sizes = log.objects.values().map(|object| object.bytes).chain(log.damaged.values().copied());
            for bytes in sizes.chain(log.beside.iter().map(|beside| beside.bytes)) {
                report.objects += 1;
                report.object_bytes += bytes;
            }
        }
        report
    }

    pub(super) fn is_alive(&self, partition: TopicPartition) -> bool {
        let topics = self.rules.topics.as_ref();
        topics.is_none_or(|topics| topics.get(&partition.topic).is_some_and(|count| partition.index < *count))
    }

    fn missing(&mut self, key: String, needed_by: impl FnOnce() -> String) {
        self.missing.entry(key).or_insert_with(needed_by);
    }

    /// What the bucket alone amounts to.
    fn fold_logs(&self) -> Best {
        let mut best = Best::default();
        for (&wid, log) in &self.logs {
            let mut fold = match (log.checkpoints.get(&log.newest()), log.broken.get(&log.newest())) {
                (Some(checkpoint), _) => LogFold::new(checkpoint.clone()),
                (None, Some(BrokenCheckpoint { bare: Some(bare), detail })) => {
                    LogFold::without_references((**bare).clone(), detail)
                }
                (None, _) => LogFold::new(Checkpoint::empty(wid)),
            };
            while let Some(object) = log.objects.get(&fold.next()).filter(|one| one.header.kind == ObjectKind::Data) {
                fold.fold(place(object), &object.footer);
            }
            best.add(fold);
        }
        best
    }

    /// Each partition's state as ACQUIRE would find it.
    fn led(&mut self, metadata: &Metadata) -> States {
        let mut by_log: BTreeMap<Wid, BTreeMap<TopicPartition, Source>> = BTreeMap::new();
        for (&partition, record) in &metadata.partitions {
            if !self.is_alive(partition) {
                continue;
            }
            match metadata.wals.get(&record.wid) {
                Some(wal) => {
                    let source = Source { record: record.clone(), wal: wal.clone() };
                    by_log.entry(record.wid).or_default().insert(partition, source);
                }
                None => {
                    let detail = format!("its record names log {}, which has no record", record.wid);
                    self.findings.insert(Finding::Contradiction { about: format!("partition {partition}"), detail });
                }
            }
        }
        let mut states = States::new();
        for (wid, sources) in &by_log {
            for (partition, state) in self.led_by(*wid, sources) {
                match state {
                    Ok(state) => drop(states.insert(partition, (*wid, state))),
                    Err(detail) => drop(self.findings.insert(Finding::Gap { partition, detail })),
                }
            }
        }
        for (&wid, record) in &metadata.wals {
            self.check_wal_record(wid, record, by_log.contains_key(&wid));
        }
        states
    }

    fn led_by(&mut self, wid: Wid, sources: &BTreeMap<TopicPartition, Source>) -> acquire::States {
        let ck = sources.values().next().expect("a log with sources").wal.ck;
        let log = self.logs.entry(wid).or_default();
        let mut checkpoint = match log.checkpoints.get(&ck) {
            _ if ck == 0 => Checkpoint::empty(wid),
            Some(checkpoint) => checkpoint.clone(),
            None => {
                match log.broken.get(&ck).map(|broken| broken.detail.clone()) {
                    Some(detail) => self.damaged(checkpoint_key(wid, ck), detail),
                    None => self.missing(checkpoint_key(wid, ck), || format!("log {wid}, whose record names it")),
                }
                return acquire::States::new();
            }
        };
        let s = checkpoint.s;
        let listed_end = log.end(s).at;
        let mut states = acquire::States::new();
        let mut ends = BTreeMap::new();
        for (&partition, source) in sources {
            states.insert(partition, acquire::start(checkpoint.partitions.remove(&partition), source, s));
            ends.insert(partition, acquire::end_of(source, s, listed_end));
        }
        for (_, object) in log.objects.range(s..).filter(|(_, object)| object.header.kind == ObjectKind::Data) {
            acquire::fold_footer(&mut states, &ends, place(object), &object.footer);
        }
        for (partition, source) in sources {
            acquire::check_released(states.get_mut(partition).expect("every source has a state"), source);
        }
        states
    }

    /// I3 and I5: the fence of a sealed log, and, if a partition's record names it, all data from S to its end.
    fn check_wal_record(&mut self, wid: Wid, record: &WalRecord, named: bool) {
        let log = self.logs.entry(wid).or_default();
        let checkpoint = log.checkpoints.get(&record.ck);
        let mut found = Vec::new();
        if let Some(checkpoint) = checkpoint.filter(|held| held.lw > record.lw || record.lw > held.s) {
            let detail = format!("lw {} of checkpoint {} and {} of the record", checkpoint.lw, record.ck, record.lw);
            found.push(Finding::Contradiction { about: format!("log {wid}"), detail });
        }
        let s = checkpoint.map_or(Seq(0), |checkpoint| checkpoint.s);
        let mut gone = Vec::new();
        if let WalState::Sealed { end } = record.state {
            if log.stands(end) != Stands::Fence {
                found.push(Finding::NoFence { wid, end });
            }
            if named && (record.ck == 0 || checkpoint.is_some()) {
                gone.extend((s.0..end.0).map(Seq).filter(|seq| log.stands(*seq) == Stands::Nothing));
            }
        }
        self.findings.extend(found);
        for seq in gone {
            self.missing(object_key(wid, seq), || format!("log {wid}, whose record says that it ends above"));
        }
    }

    /// I10.
    fn compare(&mut self, states: &States, best: &Best) {
        for (&partition, (_, state)) in states {
            let rebuilt = best.partitions.get(&partition).map(|(_, state)| state.end);
            // A partition without records may be unknown: births leave nothing in the bucket.
            if rebuilt.unwrap_or(Offset(0)) != state.end {
                self.findings.insert(Finding::Rebuilt { partition, end: state.end, rebuilt });
            }
        }
    }

    fn flaws(&mut self, best: &Best) {
        for (partition, flaw) in best.flaws() {
            if self.is_alive(partition) {
                self.findings.insert(Finding::Gap { partition, detail: flaw.detail.clone() });
            }
        }
    }

    /// I3 without records: one process at a time writes a store whose metadata is embedded, and seals what came before
    /// it. So a log of another life that leads a partition which has gone on to a higher epoch has ended.
    fn fences_of_superseded_logs(&mut self, best: &Best) {
        let mut found = Vec::new();
        for (&wid, log) in self.logs.iter().filter(|(_, log)| log.boot().is_some()) {
            let end = log.end(log.bounds().0);
            let of_objects = log.objects.values().flat_map(|object| &object.footer.partitions);
            let mut held = of_objects.map(|entry| (entry.partition, entry.epoch));
            let superseded = held.any(|(partition, epoch)| {
                let went_on = best.partitions.get(&partition).filter(|(_, state)| state.epoch > epoch);
                let boot = went_on.and_then(|(by, _)| self.logs.get(by)?.boot());
                boot.is_some() && boot != log.boot()
            });
            if superseded && !end.fenced && !end.hole {
                found.push(Finding::NoFence { wid, end: end.at });
            }
        }
        self.findings.extend(found);
    }

    fn check_reference(&mut self, partition: TopicPartition, reference: &Reference) {
        let Reference { wid, seq, base, last, .. } = *reference;
        let key = object_key(wid, seq);
        let log = self.logs.get(&wid);
        let Some(object) = log.and_then(|log| log.objects.get(&seq)) else {
            if log.is_none_or(|log| log.stands(seq) == Stands::Nothing) {
                self.missing(key, || format!("offsets {base} to {last} of partition {partition}"));
            }
            return;
        };
        let same = object.footer.partitions.iter().any(|entry| {
            entry.partition == partition
                && (entry.base, entry.last) == (base, last)
                && (entry.position, entry.length) == (reference.position, reference.length)
        });
        if !same {
            let detail = format!("offsets {base} to {last} of partition {partition} are referred to and not in it");
            self.findings.insert(Finding::Contradiction { about: key, detail });
        }
    }

    /// Gaps in logs that are still needed, and entries that nothing leads to.
    fn check_holes(&mut self, states: &States, referenced: &BTreeSet<(Wid, Seq)>) {
        let mut holes = Vec::new();
        for (&wid, log) in &self.logs {
            if self.is_ended(wid) {
                continue;
            }
            let (s, lw) = log.bounds();
            let end = log.end(s);
            let led = states.values().any(|(by, _)| *by == wid);
            let mut beyond = log.objects.range(end.at.next()..).map(|(_, object)| object).peekable();
            // Of a log that nobody leads anything from, only entries that are nowhere else say that something is gone.
            let orphans = beyond.clone().any(|object| has_unknown_entry(self, states, object));
            if end.hole && (led || orphans) && beyond.peek().is_some() {
                holes.push((object_key(wid, end.at), wid));
            }
            let used = led || log.objects.keys().any(|seq| referenced.contains(&(wid, *seq)));
            let below = (lw.0..s.0).map(Seq).filter(|seq| used && log.stands(*seq) == Stands::Nothing);
            holes.extend(below.map(|seq| (object_key(wid, seq), wid)));
        }
        for (key, wid) in holes {
            self.missing(key, || format!("log {wid}, which goes on above"));
        }
    }

    /// Whether its record says where it ends, or that somebody is about to: what must exist below was looked at by that.
    fn is_ended(&self, wid: Wid) -> bool {
        let record = self.metadata.as_ref().and_then(|metadata| metadata.wals.get(&wid));
        record.is_some_and(|record| record.state != WalState::Open)
    }

    /// What nothing refers to.
    fn unreferenced(&mut self, states: &States, referenced: &BTreeSet<(Wid, Seq)>, report: &mut Report) {
        let mut litter: Vec<Beside> = Vec::new();
        let mut checkpoints: Vec<Beside> = Vec::new();
        for (&wid, log) in &self.logs {
            let record = self.metadata.as_ref().and_then(|metadata| metadata.wals.get(&wid));
            let (s, newest_lw) = log.bounds();
            let end = log.end(s);
            let ended = record.map_or(end.fenced, |record| record.state != WalState::Open);
            let used = referenced.range((wid, Seq(0))..=(wid, Seq(u64::MAX))).next().is_some();
            let needed = !ended || used || states.values().any(|(by, _)| *by == wid);
            let lw = record.map_or(newest_lw, |record| record.lw);
            for (&seq, object) in log.objects.iter().filter(|(_, one)| one.header.kind == ObjectKind::Data) {
                let stays = (needed && (seq >= lw || self.rules.whole_files)) || referenced.contains(&(wid, seq));
                if !stays {
                    let written_ms = object.header.sealed_at.0;
                    litter.push(Beside { key: object_key(wid, seq), bytes: object.bytes, written_ms });
                }
            }
            let kept = kept_beside(wid, log, record);
            checkpoints.extend(log.beside.iter().filter(|one| !needed || !kept.contains(&one.key)).cloned());
        }
        (report.unreferenced_wal, report.unreferenced_checkpoints) = (litter.len() as u64, checkpoints.len() as u64);
        litter.append(&mut checkpoints);
        let (now, since) = (self.now(), self.newest_checkpoint_ms());
        // Nobody knows since when: at the latest since the newest checkpoint, which does not refer to it.
        let of_logs = litter.iter().map(|one| (one.key.as_str(), one.bytes, one.written_ms.max(since)));
        for (key, bytes, since_ms) in of_logs.chain(self.segments.unreferenced()) {
            report.unreferenced += 1;
            report.unreferenced_bytes += bytes;
            if now.saturating_sub(since_ms) >= self.rules.grace_ms {
                self.findings.insert(Finding::Unreferenced { key: key.to_owned(), bytes });
            }
        }
        report.unreferenced_segments = report.unreferenced - litter.len() as u64;
    }

    fn newest_checkpoint_ms(&self) -> i64 {
        let written = self.logs.values().flat_map(|log| &log.beside).map(|beside| beside.written_ms);
        written.max().unwrap_or(i64::MIN)
    }

    fn now(&self) -> i64 {
        match self.rules.clock {
            Clock::Running(now) => now.0,
            Clock::Stopped => {
                let sealed = self.logs.values().flat_map(|log| log.objects.values()).map(|one| one.header.sealed_at.0);
                let beside = self.newest_checkpoint_ms().max(self.segments.newest_ms);
                sealed.max().unwrap_or(0).max(beside)
            }
        }
    }
}

/// By partition: the log that leads to it, and its state.
type States = BTreeMap<TopicPartition, (Wid, CommittedPartition)>;

fn place(object: &SeenObject) -> ObjectPlace {
    let header = &object.header;
    ObjectPlace { wid: header.wid, seq: header.seq, sealed_at: header.sealed_at }
}

/// Whether the object holds an entry that no known state has, nor has gone past.
fn has_unknown_entry(checker: &Checker, states: &States, object: &SeenObject) -> bool {
    object.footer.partitions.iter().filter(|entry| checker.is_alive(entry.partition)).any(|entry| {
        let known = states.get(&entry.partition);
        let (epoch, end) = known.map_or((LeaderEpoch(0), Offset(0)), |(_, state)| (state.epoch, state.end));
        entry.epoch > epoch || (entry.epoch == epoch && entry.last >= end)
    })
}

/// Keys of the checkpoints of a log that may be read again, and of their chunks.
fn kept_beside(wid: Wid, log: &SeenLog, record: Option<&WalRecord>) -> BTreeSet<String> {
    let numbers = [Some(log.newest()), record.map(|record| record.ck)];
    let mut kept = BTreeSet::new();
    for number in numbers.into_iter().flatten() {
        kept.insert(checkpoint_key(wid, number));
        let named = log.checkpoints.get(&number).into_iter().flat_map(|checkpoint| &checkpoint.chunks);
        kept.extend(named.map(|chunk| chunk_key(wid, chunk.number)));
    }
    kept
}
