//! CHECKPOINT: the committed state of one instant, its references in chunks, and what may be deleted afterwards.
//!
//! Invariants:
//! 1. A number is never used twice; `ck` and `lw` of the `/wal` record only grow.
//! 2. A checkpoint holds committed state only: every partition led, released or being acquired (at epoch + 1), no birth
//!    that is not known to have succeeded.
//! 3. No checkpoint is started while a birth or a claim is undecided.
//! 4. Nothing below the low-water mark, and no older checkpoint, is deleted before the transaction is known.

use super::config::{CHUNK_REFERENCES, backoff};
use super::core::LaneCore;
use super::events::{Effect, Token};
use super::leadership::Role;
use super::transactions::Purpose;
use crate::env::{Mono, WallMs};
use crate::format::checkpoint::{Checkpoint, ChunkName, ReferenceChunk, checkpoint_key, chunk_key};
use crate::ids::{Offset, Seq, TopicPartition};
use crate::meta::records::{WalRecord, WalState};
use crate::store_error::StoreError;
use crate::wrong::{Wrong, wrong};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// A chunk of this log and which offsets of which partitions it holds.
#[derive(Clone, Debug)]
struct Chunk {
    name: ChunkName,
    ranges: BTreeMap<TopicPartition, (Offset, Offset)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Syncing,
    PuttingChunk,
    PuttingCheckpoint,
    /// Put; its transaction waits for the gate (a graceful stop: for its fence).
    Put,
    /// Its transaction is undecided.
    Deciding,
}

/// A checkpoint under way.
#[derive(Debug)]
struct Draft {
    number: u64,
    s: Seq,
    lw: Seq,
    stage: Stage,
    token: Token,
    retry_at: Option<Mono>,
    attempts: u32,
    chunk: Option<Bytes>,
    chunks: Vec<Chunk>,
    bytes: Bytes,
    acquiring: Vec<TopicPartition>,
    /// The last of a graceful stop: its transaction seals the log.
    last: bool,
}

/// Everything about checkpoints of one log.
pub(super) struct Checkpointing {
    /// Take one as soon as the gap allows.
    pub wanted: bool,
    /// Take one as soon as the gap allows that counts while partitions wait for it.
    pub wanted_to_acquire: bool,
    /// S of the newest that stands.
    pub newest_s: Seq,
    next_number: u64,
    started: Option<Mono>,
    progress_since: Option<Mono>,
    draft: Option<Draft>,
    chunks: Vec<Chunk>,
    deletions: VecDeque<(Mono, Seq)>,
}

impl Checkpointing {
    pub(super) fn new() -> Checkpointing {
        Checkpointing {
            wanted: false,
            wanted_to_acquire: false,
            newest_s: Seq(0),
            next_number: 1,
            started: None,
            progress_since: None,
            draft: None,
            chunks: Vec::new(),
            deletions: VecDeque::new(),
        }
    }

    /// Whether its transaction waits or runs: nothing else that compares the `/wal` record may start.
    pub(super) fn holds_gate(&self) -> bool {
        self.draft.as_ref().is_some_and(|draft| matches!(draft.stage, Stage::Put | Stage::Deciding))
    }

    /// Whether one is under way.
    pub(super) fn under_way(&self) -> bool {
        self.draft.is_some()
    }

    /// Something was committed.
    pub(super) fn progressed(&mut self, now: Mono) {
        self.progress_since.get_or_insert(now);
    }
}

impl LaneCore {
    /// Starts a checkpoint if one is due, goes on with the one under way, deletes what may go.
    pub(super) fn advance_checkpoint(&mut self) {
        if self.checkpoint_due().is_some_and(|at| at <= self.now.mono) {
            self.start_checkpoint(false);
        }
        let retry = |draft: &Draft| draft.retry_at.is_some_and(|at| at <= self.now.mono);
        if self.checkpointing.draft.as_ref().is_some_and(retry) {
            self.send_draft();
        }
        self.advance_draft_txn();
        while let Some(&(at, below)) = self.checkpointing.deletions.front()
            && at <= self.now.mono
        {
            self.checkpointing.deletions.pop_front();
            self.effects.push_back(Effect::DeleteWalBelow { wid: self.wid, below });
        }
    }

    fn checkpoint_due(&self) -> Option<Mono> {
        let state = &self.checkpointing;
        let between_claims = wrong(Wrong::CheckpointBetweenClaims);
        let undecided = self.transactions.ownership_undecided() || !self.claimable.is_empty();
        if state.draft.is_some() || (undecided && !between_claims) || self.stop.is_some() {
            return None;
        }
        let objects = self.flights.commit_point().0 - state.newest_s.0;
        let due = if state.wanted || state.wanted_to_acquire || objects >= self.config.checkpoint_objects {
            self.now.mono
        } else {
            let progress = state.progress_since.map(|since| since.plus(self.config.checkpoint_every));
            progress.into_iter().chain(self.flights.wants_evidence(&self.config)).min()?
        };
        let gap = self.config.checkpoint_gap;
        let gap = if state.wanted_to_acquire { gap.min(self.config.acquire_gap) } else { gap };
        Some(state.started.map_or(due, |at| due.max(at.plus(gap))))
    }

    /// Takes the committed state of this instant. `last`: of a graceful stop.
    pub(super) fn start_checkpoint(&mut self, last: bool) {
        let number = self.checkpointing.next_number;
        self.checkpointing.next_number += 1;
        self.checkpointing.wanted = false;
        self.checkpointing.wanted_to_acquire = false;
        self.checkpointing.started = Some(self.now.mono);
        self.checkpointing.progress_since = None;
        let appended = wrong(Wrong::CheckpointOfAppended);
        let s = if appended { self.flights.next_seq() } else { self.flights.commit_point() };
        let lw = self.low_water(s);
        let (chunk, chunks) = self.draft_chunks(number);
        let mut partitions = BTreeMap::new();
        let mut acquiring = Vec::new();
        for (&partition, led) in &self.partitions {
            if matches!(led.role, Role::Released { .. }) && wrong(Wrong::CheckpointDropsReleased) {
                continue;
            }
            let undecided = matches!(led.role, Role::Claimable | Role::Claiming);
            if undecided && wrong(Wrong::CheckpointBetweenClaims) {
                continue;
            }
            if led.role == Role::Read {
                acquiring.push(partition);
            }
            partitions.insert(partition, led.committed.clone());
        }
        let checkpoint = Checkpoint {
            wid: self.wid,
            number,
            s,
            lw,
            producer_id_high_water: self.producer_ids,
            chunks: chunks.iter().map(|chunk| chunk.name).collect(),
            partitions,
        };
        let draft = Draft {
            number,
            s,
            lw,
            stage: Stage::Syncing,
            token: Token(0),
            retry_at: None,
            attempts: 0,
            chunk,
            chunks,
            bytes: checkpoint.encode(),
            acquiring,
            last,
        };
        self.checkpointing.draft = Some(draft);
        self.send_draft();
        if wrong(Wrong::ClaimsBeforeCheckpointTxn) {
            self.make_claimable();
        }
    }

    /// lw: everything below is below log start, covered, or of a deleted topic; never above S, never lower than before.
    fn low_water(&self, s: Seq) -> Seq {
        if wrong(Wrong::ObjectDeletedBeforeManifest) {
            return s;
        }
        let led = self.partitions.values().filter_map(|led| led.first_own);
        let departed = self.departed.values().copied();
        led.chain(departed).chain([s]).min().expect("S itself").max(self.record.lw)
    }

    /// The chunk with what is new since the last checkpoint, merged with the newest chunks that are no larger than it.
    fn draft_chunks(&self, number: u64) -> (Option<Bytes>, Vec<Chunk>) {
        let mut chunks = self.checkpointing.chunks.clone();
        let needed = |(partition, &(_, to)): (&TopicPartition, &(Offset, Offset))| {
            self.partitions.get(partition).is_some_and(|led| to > led.committed.referenced_from())
        };
        chunks.retain(|chunk| chunk.ranges.iter().any(needed));
        let mut ranges: BTreeMap<TopicPartition, (Offset, Offset)> = BTreeMap::new();
        let mut fresh = 0_u32;
        for (&partition, led) in &self.partitions {
            let new = led.committed.references.since(led.in_chunks).count();
            if new > 0 {
                fresh = fresh.saturating_add(u32::try_from(new).unwrap_or(u32::MAX));
                ranges.insert(partition, (led.in_chunks, led.committed.end));
            }
        }
        if ranges.is_empty() {
            return (None, chunks);
        }
        let mut total = fresh;
        while let Some(older) = chunks.last()
            && older.name.references <= total
            && older.name.references.saturating_add(total) <= CHUNK_REFERENCES
        {
            total += older.name.references;
            for (&partition, &(from, to)) in &older.ranges {
                let range = ranges.entry(partition).or_insert((from, to));
                range.0 = range.0.min(from);
                range.1 = range.1.max(to);
            }
            chunks.pop();
        }
        let mut content = ReferenceChunk::default();
        // What left meanwhile is not copied; if it comes back, all its references are new.
        ranges.retain(|partition, _| self.partitions.contains_key(partition));
        for (partition, &(from, to)) in &ranges {
            let led = &self.partitions[partition];
            let of_it: Vec<_> = led.committed.references.since(from).take_while(|one| one.base < to).collect();
            if !of_it.is_empty() {
                content.partitions.insert(*partition, of_it);
            }
        }
        let (name, bytes) = content.encode(number);
        chunks.push(Chunk { name, ranges });
        (Some(bytes), chunks)
    }

    fn send_draft(&mut self) {
        let token = self.token();
        let wid = self.wid;
        let Some(draft) = &mut self.checkpointing.draft else { return };
        draft.token = token;
        draft.retry_at = None;
        draft.attempts += 1;
        let effect = match draft.stage {
            Stage::Syncing => Effect::SyncBelow { token, wid, below: draft.s },
            Stage::PuttingChunk => Effect::PutObject {
                token,
                key: chunk_key(wid, draft.number),
                bytes: draft.chunk.clone().expect("this stage is entered only with a chunk"),
            },
            Stage::PuttingCheckpoint => {
                Effect::PutObject { token, key: checkpoint_key(wid, draft.number), bytes: draft.bytes.clone() }
            }
            Stage::Put | Stage::Deciding => return,
        };
        self.effects.push_back(effect);
    }

    /// A part of the draft is stored, or not.
    pub(super) fn on_stored(&mut self, token: Token, result: &Result<(), StoreError>) {
        let random = self.random();
        let now = self.now.mono;
        let Some(draft) = self.checkpointing.draft.as_mut().filter(|draft| draft.token == token) else { return };
        if result.is_err() {
            draft.retry_at = Some(now.plus(backoff(draft.attempts, random)));
            return;
        }
        // A sync is none: on an object store it asks nothing of anybody.
        if draft.stage != Stage::Syncing {
            self.flights.answered(now);
        }
        draft.attempts = 0;
        draft.stage = match draft.stage {
            Stage::Syncing if draft.chunk.is_some() => Stage::PuttingChunk,
            Stage::Syncing | Stage::PuttingChunk => Stage::PuttingCheckpoint,
            Stage::PuttingCheckpoint | Stage::Put => Stage::Put,
            Stage::Deciding => Stage::Deciding,
        };
        self.send_draft();
    }

    /// Sends the transaction of a stored checkpoint once it may run alone.
    fn advance_draft_txn(&mut self) {
        let fenced = self.stop.as_ref().is_some_and(|stop| stop.fence_seen()) || wrong(Wrong::GracefulSealBeforeFence);
        if !self.transactions.is_empty() && !wrong(Wrong::CheckpointBetweenClaims) {
            return;
        }
        let Some(draft) = self.checkpointing.draft.as_mut().filter(|draft| draft.stage == Stage::Put) else { return };
        if draft.last && !fenced {
            return;
        }
        let state = if draft.last { WalState::Sealed { end: draft.s } } else { WalState::Open };
        let record = WalRecord { ck: draft.number, lw: draft.lw, state, ..self.record.clone() };
        draft.stage = Stage::Deciding;
        self.start_txn(Purpose::Wal(record));
    }

    /// The transaction of the draft is known to have happened.
    pub(super) fn wal_changed(&mut self, record: WalRecord) {
        let draft = self.checkpointing.draft.take().expect("only a draft changes the record");
        let old_ck = std::mem::replace(&mut self.record, record).ck;
        self.checkpointing.newest_s = draft.s;
        self.log_bytes.drop_below(draft.lw);
        self.checkpoint_at = self.now.wall.seconds();
        let old_chunks = std::mem::replace(&mut self.checkpointing.chunks, draft.chunks);
        let fresh = self.checkpointing.chunks.last().filter(|chunk| chunk.name.number == draft.number);
        for (partition, &(_, to)) in fresh.iter().flat_map(|chunk| &chunk.ranges) {
            if let Some(led) = self.partitions.get_mut(partition) {
                led.in_chunks = led.in_chunks.max(to);
            }
        }
        let mut litter = Vec::new();
        if old_ck > 0 {
            litter.push(checkpoint_key(self.wid, old_ck));
        }
        let kept: Vec<u64> = self.checkpointing.chunks.iter().map(|chunk| chunk.name.number).collect();
        let gone = old_chunks.iter().map(|chunk| chunk.name.number).filter(|number| !kept.contains(number));
        litter.extend(gone.map(|number| chunk_key(self.wid, number)));
        if !litter.is_empty() {
            self.effects.push_back(Effect::DeleteObjects(litter));
        }
        let newest = self.checkpointing.deletions.back().map(|&(_, below)| below);
        if draft.lw > newest.unwrap_or(Seq(0)) && draft.lw > self.deleted_below {
            self.deleted_below = draft.lw;
            self.checkpointing.deletions.push_back((self.now.mono.plus(self.config.readers_grace), draft.lw));
        }
        if !draft.acquiring.is_empty() && wrong(Wrong::CheckpointBetweenClaims) {
            (self.checkpointing.wanted, self.checkpointing.started) = (true, None);
        }
        for partition in draft.acquiring {
            if let Some(led) = self.partitions.get_mut(&partition)
                && led.role == Role::Read
            {
                led.role = Role::Claimable;
                self.claimable.insert(partition);
            }
        }
        if draft.last {
            self.stopped(true);
        }
    }

    /// Since when the first of the objects below the low-water mark wait for their readers' grace.
    /// Unix seconds; 0: none does.
    pub(super) fn unneeded_since(&self) -> u64 {
        let Some((at, _)) = self.checkpointing.deletions.front() else { return 0 };
        let left = i64::try_from(at.since(self.now.mono).as_millis()).unwrap_or(i64::MAX);
        let grace = i64::try_from(self.config.readers_grace.as_millis()).unwrap_or(i64::MAX);
        WallMs(self.now.wall.0.saturating_add(left).saturating_sub(grace)).seconds()
    }

    fn make_claimable(&mut self) {
        for (&partition, led) in &mut self.partitions {
            if led.role == Role::Read {
                led.role = Role::Claimable;
                self.claimable.insert(partition);
            }
        }
    }

    /// When something here wants a look without an event.
    pub(super) fn checkpoint_deadline(&self) -> Option<Mono> {
        let state = &self.checkpointing;
        let retry = state.draft.as_ref().and_then(|draft| draft.retry_at);
        let delete = state.deletions.front().map(|&(at, _)| at);
        self.checkpoint_due().into_iter().chain(retry).chain(delete).min()
    }
}
