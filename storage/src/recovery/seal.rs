//! SEAL: ends a write-ahead log whose owner is gone, or is believed to be (PROTOCOL.md section 4).
//!
//! Anybody may do it at any time: two walkers end at the same fence, a live owner runs into it.

use super::Stores;
use super::acquire::bare_checkpoint;
use super::seal_walk::{Look, SealWalk, Seen, VOLLEY};
use crate::env::{Env, WallMs};
use crate::format::HEADER_BYTES;
use crate::format::object::{ObjectHeader, ObjectKind, decode_header, encode_header};
use crate::ids::{BootId, Seq, Wid, WriterId};
use crate::meta::records::{Record, WalRecord, WalState};
use crate::meta::{Compare, Op, Txn, TxnOutcome, keys};
use crate::store_error::{FailureKind, StoreError};
use crate::wrong::{Wrong, wrong};
use futures::StreamExt;
use futures::future::join_all;
use std::time::Duration;

/// Attempts of one step before the error is given to the caller, who may call again: about two minutes, since a start in
/// a bad minute of the store is slow, not refused.
const ATTEMPTS: u32 = 40;
/// Before the second attempt; each further one waits twice as long, up to
const PAUSE: Duration = Duration::from_millis(100);
/// this.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// Logs sealed at once at start-up.
const PARALLEL: usize = 16;
/// `/wal` records read at once.
const PAGE: usize = 100;

/// Seals every log that is not sealed: at start-up on one node, whose lock proves that their owners are dead. Must be
/// done before a lane of this process opens its own. Gives how many there were.
///
/// # Errors
/// A store did not answer for long; call again.
pub async fn seal_all_dead(env: &Env, stores: &Stores, boot: BootId) -> Result<usize, StoreError> {
    let mut open = Vec::new();
    let mut after = None;
    loop {
        let page = stores.meta.list(keys::WALS, after.clone(), PAGE).await?;
        for (key, value) in &page.entries {
            let wid = keys::parse_wal(key).ok_or_else(|| corrupt(format!("key {key}")))?;
            if !matches!(decode(&value.value)?.state, WalState::Sealed { .. }) {
                open.push(wid);
            }
        }
        after = page.entries.last().map(|(key, _)| key.clone());
        if !page.more {
            break;
        }
    }
    let count = open.len();
    let mut seals = futures::stream::iter(open).map(|wid| seal(env, stores, boot, wid)).buffer_unordered(PARALLEL);
    while let Some(sealed) = seals.next().await {
        sealed?;
    }
    Ok(count)
}

/// Seals one log; gives its end.
///
/// # Errors
/// A store did not answer for long, or bytes are not what was written.
pub async fn seal(env: &Env, stores: &Stores, boot: BootId, wid: Wid) -> Result<Seq, StoreError> {
    let fencing = match freeze(env, stores, wid).await? {
        Frozen::Ended(end) => return Ok(end),
        Frozen::Fencing(record) => record,
    };
    let start = start(stores, wid, &fencing).await;
    let end = walk(env, stores, boot, wid, start).await?;
    let sealed = WalRecord { state: WalState::Sealed { end }, ..fencing.clone() };
    for attempt in 0..ATTEMPTS {
        pause(env, attempt).await;
        let key = keys::wal(wid);
        let compare = Compare::Value(key.clone(), fencing.encode());
        let txn = Txn { compares: vec![compare], ops: vec![Op::Put(key, sealed.encode())] };
        if let Ok(TxnOutcome::Committed(_)) = stores.meta.txn(txn).await {
            return Ok(end);
        }
        if let Ok(WalRecord { state: WalState::Sealed { end }, .. }) = read(stores, wid).await {
            return Ok(end);
        }
    }
    Err(gave_up("the transaction of SEALED"))
}

enum Frozen {
    Ended(Seq),
    Fencing(WalRecord),
}

/// Step 1: FENCING freezes `lw` and `ck`.
async fn freeze(env: &Env, stores: &Stores, wid: Wid) -> Result<Frozen, StoreError> {
    for attempt in 0..ATTEMPTS {
        pause(env, attempt).await;
        let record = match read(stores, wid).await {
            Ok(record) => record,
            Err(error) if error.kind == FailureKind::Corrupt => return Err(error),
            Err(_) => continue,
        };
        match record.state {
            WalState::Sealed { end } => return Ok(Frozen::Ended(end)),
            WalState::Fencing => return Ok(Frozen::Fencing(record)),
            WalState::Open if wrong(Wrong::LwNotFrozen) => return Ok(Frozen::Fencing(record)),
            WalState::Open => {}
        }
        let fencing = WalRecord { state: WalState::Fencing, ..record.clone() };
        let key = keys::wal(wid);
        let compare = Compare::Value(key.clone(), record.encode());
        let txn = Txn { compares: vec![compare], ops: vec![Op::Put(key, fencing.encode())] };
        if let Ok(TxnOutcome::Committed(_)) = stores.meta.txn(txn).await {
            return Ok(Frozen::Fencing(fencing));
        }
    }
    Err(gave_up("the transaction of FENCING"))
}

/// Where step 2 starts: what lies below S of a checkpoint was durable when it was taken, so that the length of the walk
/// does not depend on how much of the log is still needed. The low-water mark does where the checkpoint can't be read.
async fn start(stores: &Stores, wid: Wid, frozen: &WalRecord) -> Seq {
    match bare_checkpoint(&*stores.objects, wid, frozen.ck).await {
        Ok(checkpoint) if wrong(Wrong::ScanFromAboveS) => checkpoint.s.next(),
        Ok(checkpoint) => checkpoint.s.max(frozen.lw),
        Err(_) => frozen.lw,
    }
}

/// Step 2.
async fn walk(env: &Env, stores: &Stores, boot: BootId, wid: Wid, start: Seq) -> Result<Seq, StoreError> {
    let mut walk = SealWalk::new(start);
    let mut next = Look::At(walk.position());
    if let Ok(listed) = stores.wal.list(wid, walk.position()).await {
        next = walk.on_listing(&listed, HEADER_BYTES as u64);
    }
    let mut failures = 0;
    while failures < ATTEMPTS {
        next = match next {
            Look::End(end) => return Ok(end),
            Look::At(seq) => walk.on_look(look(stores, wid, seq).await?),
            Look::FenceFrom(seq) => {
                pause(env, failures).await;
                failures += 1;
                if !wrong(Wrong::NoFence) {
                    volley(stores, boot, wid, seq, env.wall()).await;
                }
                Look::At(seq)
            }
        };
    }
    Err(gave_up("fencing"))
}

async fn volley(stores: &Stores, boot: BootId, wid: Wid, from: Seq, sealed_at: WallMs) {
    let writer = WriterId { boot, lane: WriterId::FENCER };
    join_all((from.0..from.0 + VOLLEY).map(|seq| {
        let header = ObjectHeader { kind: ObjectKind::Fence, wid, writer, seq: Seq(seq), sealed_at };
        stores.wal.put_if_absent(wid, Seq(seq), vec![encode_header(&header)])
    }))
    .await; // outcomes decide nothing: the next look does
}

async fn look(stores: &Stores, wid: Wid, seq: Seq) -> Result<Seen, StoreError> {
    let Ok(Some(bytes)) = stores.wal.header(wid, seq).await else { return Ok(Seen::AbsentOrUnknown) };
    let header = decode_header(&bytes).map_err(|error| corrupt(format!("{wid}/{seq}: {error}")))?;
    if header.wid != wid || header.seq != seq {
        return Err(corrupt(format!("{wid}/{seq} holds {header:?}")));
    }
    Ok(match header.kind {
        ObjectKind::Data => Seen::Data,
        ObjectKind::Fence => Seen::Fence,
    })
}

async fn read(stores: &Stores, wid: Wid) -> Result<WalRecord, StoreError> {
    let snapshot = stores.meta.get(vec![keys::wal(wid)]).await?;
    let value = snapshot.values.into_iter().next().flatten();
    decode(&value.ok_or_else(|| corrupt(format!("no record of log {wid}")))?.value)
}

fn decode(bytes: &[u8]) -> Result<WalRecord, StoreError> {
    WalRecord::decode(bytes).map_err(|error| corrupt(error.to_string()))
}

fn corrupt(detail: String) -> StoreError {
    StoreError::not_done(FailureKind::Corrupt, detail)
}

fn gave_up(what: &str) -> StoreError {
    StoreError::unknown(FailureKind::Timeout, format!("{what} did not succeed in {ATTEMPTS} attempts"))
}

async fn pause(env: &Env, attempt: u32) {
    if attempt > 0 {
        env.sleep((PAUSE * (1 << (attempt - 1).min(5))).min(LONGEST_PAUSE)).await;
    }
}
