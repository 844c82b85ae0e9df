//! Changes of a manifest: read, changed, written back by if-match, until it is in or needs no change any more.
//!
//! 1. Neither bound ever decreases: a change that would is a broken invariant of ours.
//! 2. An outcome that nobody knows is decided by reading again, as is a write by somebody else.

use crate::env::Env;
use crate::format::manifest::{Manifest, manifest_key};
use crate::ids::TopicPartition;
use crate::object::{MatchOutcome, ObjectStore};
use crate::store_error::{FailureKind, StoreError};
use crate::wal::PutOutcome;
use std::time::Duration;

/// Times that a change is tried. Only a leader that does not know yet that it was replaced competes.
const ATTEMPTS: u32 = 8;
/// Longest pause between two of them.
const PAUSE_MS: u64 = 500;

/// Changes the manifest of `partition`: `change` gives what is to stand instead of what stands, or `None` if that is
/// as it should be. Gives what stands in the end.
///
/// # Errors
/// The store's, or that of `change`. The change may have happened all the same.
pub async fn change<E: From<StoreError>>(
    env: &Env,
    objects: &dyn ObjectStore,
    partition: TopicPartition,
    change: impl Fn(&Manifest) -> Result<Option<Manifest>, E>,
) -> Result<Manifest, E> {
    let key = manifest_key(partition);
    let mut attempt = 1;
    loop {
        let stands = objects.get(&key).await?;
        let manifest = match &stands {
            Some(object) => read(partition, &object.bytes)?,
            None => Manifest::empty(partition),
        };
        let Some(next) = change(&manifest)? else { return Ok(manifest) };
        assert!(next.covered >= manifest.covered && next.log_start >= manifest.log_start, "invariant 1: {partition}");
        let bytes = next.encode();
        let put = match stands {
            Some(object) => objects.put_if_match(&key, bytes, object.version).await.map(|outcome| match outcome {
                MatchOutcome::Stored(_) => true,
                MatchOutcome::Changed => false,
            }),
            None => objects.put_if_absent(&key, vec![bytes]).await.map(|outcome| outcome == PutOutcome::Stored),
        };
        match put {
            Ok(true) => return Ok(next),
            Err(error) if attempt == ATTEMPTS => return Err(error.into()),
            Ok(false) if attempt == ATTEMPTS => {
                let detail = format!("{key} was changed by others {ATTEMPTS} times");
                return Err(StoreError::not_done(FailureKind::Other, detail).into());
            }
            Ok(false) | Err(_) => {}
        }
        attempt += 1;
        env.sleep(Duration::from_millis(env.random() % PAUSE_MS)).await;
    }
}

fn read(partition: TopicPartition, bytes: &[u8]) -> Result<Manifest, StoreError> {
    let corrupt = |detail: String| StoreError::not_done(FailureKind::Corrupt, detail);
    let manifest = Manifest::decode(bytes).map_err(|error| corrupt(error.to_string()))?;
    if manifest.partition != partition {
        return Err(corrupt(format!("the manifest of {partition} is that of {}", manifest.partition)));
    }
    Ok(manifest)
}
