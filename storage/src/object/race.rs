//! The start-up check of a store: put-if-absent and put-if-match under a race, through the real client.
//!
//! The safety of the log rests on put-if-absent having one winner and on reads seeing writes; stores that claim to
//! speak S3 and ignore the conditions exist. So a fresh key is raced for before anything else is written, and a store
//! with two winners, or one that does not show the winner, is refused.
//!
//! Errors of single racers are no verdict: a round that they leave undecided is run again on another key.

use super::{MatchOutcome, Object, ObjectStore, OpenError};
use crate::env::Env;
use crate::store_error::{Certainty, FailureKind, StoreError};
use crate::wal::PutOutcome;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::join_all;
use std::time::Duration;

/// Writers in a race.
const RACERS: u8 = 16;
/// Decided rounds that must be won by one.
const ROUNDS: u32 = 3;
/// Undecided rounds before the store is called unusable;
const UNDECIDED_ROUNDS: u32 = 3;
/// so many where it answers that it is busy, with a pause after each: a bad minute is no reason to refuse a start.
const BUSY_ROUNDS: u32 = 60;
/// Longest of those pauses; the first one is a sixteenth of it.
const BUSY_PAUSE: Duration = Duration::from_secs(2);

const FIX: &str = "use a store that honours If-None-Match and If-Match on puts (S3, MinIO, versitygw, R2, Azure do, Google \
                   Cloud Storage in its own way), or file:// on one machine";

/// Refuses `store` (called `name` in messages) unless its conditional puts hold under a race.
pub async fn check(store: &dyn ObjectStore, env: &Env, name: &str) -> Result<(), OpenError> {
    let mut decided = 0;
    let mut undecided = 0;
    while decided < ROUNDS {
        let key = format!("meta/check/{:032x}", env.random_u128());
        let result = race(store, &key, name).await;
        // What stays when this fails are a few bytes under a key that is never used again.
        let delete = store.delete(vec![key]);
        match result {
            Ok(()) => {
                let _ = delete.await;
                decided += 1;
            }
            Err(Verdict::Refused(error)) => {
                let _ = delete.await;
                return Err(error);
            }
            Err(Verdict::Undecided(error)) => {
                // Not waited for: a store that takes no puts may take long over this as well.
                env.spawn("delete what was raced for", delete.map(drop));
                undecided += 1;
                let busy = is_busy(&error);
                if error.kind == FailureKind::Denied || undecided >= if busy { BUSY_ROUNDS } else { UNDECIDED_ROUNDS } {
                    return Err(unusable(name, error));
                }
                if busy {
                    env.sleep((BUSY_PAUSE / 16 * (1 << undecided.min(4))).min(BUSY_PAUSE)).await;
                }
            }
        }
    }
    Ok(())
}

/// Whether the store itself said that it can't take this now.
fn is_busy(error: &StoreError) -> bool {
    match error.kind {
        FailureKind::Throttled => true,
        FailureKind::Unavailable => error.certainty == Certainty::Unknown,
        FailureKind::Timeout
        | FailureKind::Denied
        | FailureKind::Full
        | FailureKind::Corrupt
        | FailureKind::LeaseEnded
        | FailureKind::NotTheSame
        | FailureKind::Other => false,
    }
}

enum Verdict {
    Refused(OpenError),
    Undecided(StoreError),
}

impl From<StoreError> for Verdict {
    fn from(error: StoreError) -> Verdict {
        Verdict::Undecided(error)
    }
}

async fn race(store: &dyn ObjectStore, key: &str, name: &str) -> Result<(), Verdict> {
    let refuse = |what: &str| Verdict::Refused(OpenError::new(format!("{name} can't keep a log safe: {what}"), FIX));

    let puts = (0..RACERS).map(|racer| store.put_if_absent(key, vec![mark("absent", racer)]));
    let answers: Vec<Result<Option<()>, StoreError>> =
        join_all(puts).await.into_iter().map(|answer| Ok((answer? == PutOutcome::Stored).then_some(()))).collect();
    let (winner, ()) = the_winner(answers, |what| refuse(&format!("{what} a put-if-absent")))?;
    let stored = read(store, key).await?.ok_or_else(|| refuse("a read after a successful put finds nothing"))?;
    if stored.bytes != mark("absent", winner) {
        return Err(refuse("a read does not show the bytes of the put that won"));
    }
    match store.put_if_absent(key, vec![mark("late", 0)]).await? {
        PutOutcome::AlreadyExists => {}
        PutOutcome::Stored => return Err(refuse("a put-if-absent overwrote an object")),
    }

    let puts = (0..RACERS).map(|racer| store.put_if_match(key, mark("match", racer), stored.version.clone()));
    let answers = join_all(puts)
        .await
        .into_iter()
        .map(|answer| match answer? {
            MatchOutcome::Stored(version) => Ok(Some(version)),
            MatchOutcome::Changed => Ok(None),
        })
        .collect();
    let (winner, version) = the_winner(answers, |what| refuse(&format!("{what} a put-if-match")))?;
    let replaced = read(store, key).await?.ok_or_else(|| refuse("a replaced object is gone"))?;
    if replaced != (Object { bytes: mark("match", winner), version }) {
        return Err(refuse("a read does not show the bytes and version of the put-if-match that won"));
    }
    match store.put_if_match(key, mark("late", 0), stored.version).await? {
        MatchOutcome::Changed => Ok(()),
        MatchOutcome::Stored(_) => Err(refuse("a put-if-match with an old version replaced an object")),
    }
}

/// The one racer that won. A race without a winner is refused if every racer has a clear answer, else undecided.
fn the_winner<T>(
    answers: Vec<Result<Option<T>, StoreError>>,
    refuse: impl Fn(&str) -> Verdict,
) -> Result<(u8, T), Verdict> {
    let mut winner = None;
    let mut failed = None;
    for (racer, answer) in (0..).zip(answers) {
        match answer {
            Ok(None) => {}
            Ok(Some(_)) if winner.is_some() => return Err(refuse("two writers won")),
            Ok(Some(won)) => winner = Some((racer, won)),
            Err(error) => failed = Some(error),
        }
    }
    match (winner, failed) {
        (Some(winner), _) => Ok(winner),
        (None, Some(error)) => Err(Verdict::Undecided(error)),
        (None, None) => Err(refuse("nobody won")),
    }
}

async fn read(store: &dyn ObjectStore, key: &str) -> Result<Option<Object>, Verdict> {
    Ok(store.get(key).await?)
}

/// What a racer writes: every racer something else.
fn mark(step: &str, racer: u8) -> Bytes {
    Bytes::from(format!("{step} {racer}\n"))
}

fn unusable(name: &str, error: StoreError) -> OpenError {
    let fix = match error.kind {
        FailureKind::Denied => {
            "check the credentials (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or those in GOOGLE_ or AZURE_ variables), \
             the bucket's policy and this machine's clock"
        }
        FailureKind::Timeout | FailureKind::Unavailable | FailureKind::Throttled => {
            "check that the store is up and that AWS_ENDPOINT_URL and AWS_REGION (or the account of the other clouds) name it"
        }
        FailureKind::Full => "make room in the store",
        FailureKind::Corrupt | FailureKind::LeaseEnded | FailureKind::NotTheSame | FailureKind::Other => {
            "check that the bucket exists and, on S3, that AWS_REGION is its region"
        }
    };
    let problem = format!("{name} does not take a first write: {}", error.detail);
    OpenError { problem, fix: fix.to_owned(), source_error: Some(error) }
}

#[cfg(test)]
#[path = "race_tests.rs"]
mod tests;
