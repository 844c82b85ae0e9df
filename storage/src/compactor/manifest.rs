//! Changes of a manifest: read, changed, written back by if-match.
//!
//! 1. Neither bound ever decreases: a change that would is a broken invariant of ours.
//! 2. A commit that names a new segment compares the version that was read before that segment was put: [`commit`], never
//!    [`change`] (rule R1 of [`crate::compaction::gc`]). If the manifest was changed meanwhile, the segment is written anew.
//! 3. An outcome that nobody knows is decided by reading again, or by the same commit again.

use crate::env::Env;
use crate::format::manifest::{Manifest, manifest_key};
use crate::ids::TopicPartition;
use crate::object::{MatchOutcome, ObjectStore, Version};
use crate::store_error::{FailureKind, StoreError};
use crate::wal::PutOutcome;
use std::time::Duration;

/// Times that a change, or a commit, is tried. Only a leader that does not know yet that it was replaced competes.
const ATTEMPTS: u32 = 8;
/// Longest pause between two of them.
const PAUSE_MS: u64 = 500;

/// A manifest as it was read.
#[derive(Clone, PartialEq, Debug)]
pub struct Standing {
    /// What it says; empty if there is none.
    pub manifest: Manifest,
    /// What a commit in its place compares; `None`: that there is none.
    pub version: Option<Version>,
}

/// Reads the manifest of `partition`.
///
/// # Errors
/// The store's, or the manifest is damaged.
pub async fn read(objects: &dyn ObjectStore, partition: TopicPartition) -> Result<Standing, StoreError> {
    let Some(object) = objects.get(&manifest_key(partition)).await? else {
        return Ok(Standing { manifest: Manifest::empty(partition), version: None });
    };
    let corrupt = |detail: String| StoreError::not_done(FailureKind::Corrupt, detail);
    let manifest = Manifest::decode(&object.bytes).map_err(|error| corrupt(error.to_string()))?;
    if manifest.partition != partition {
        return Err(corrupt(format!("the manifest of {partition} is that of {}", manifest.partition)));
    }
    Ok(Standing { manifest, version: Some(object.version) })
}

/// Puts `next` in place of what was read. `false`: something else stands there now, and what is in it decides whether
/// `next` stood before.
///
/// # Errors
/// The store's; it may have happened all the same.
pub async fn commit(
    env: &Env,
    objects: &dyn ObjectStore,
    standing: &Standing,
    next: &Manifest,
) -> Result<bool, StoreError> {
    let before = &standing.manifest;
    assert!(next.covered >= before.covered && next.log_start >= before.log_start, "invariant 1: {}", next.partition);
    let (key, bytes) = (manifest_key(next.partition), next.encode());
    let mut attempt = 1;
    loop {
        let put = match &standing.version {
            Some(version) => {
                objects.put_if_match(&key, bytes.clone(), version.clone()).await.map(|outcome| match outcome {
                    MatchOutcome::Stored(_) => true,
                    MatchOutcome::Changed => false,
                })
            }
            None => objects.put_if_absent(&key, vec![bytes.clone()]).await.map(|outcome| outcome == PutOutcome::Stored),
        };
        match put {
            Ok(true) => return Ok(true),
            // Possibly by an attempt whose answer was lost.
            Ok(false) => return Ok(attempt > 1 && read(objects, next.partition).await?.manifest == *next),
            Err(error) if attempt == ATTEMPTS => return Err(error),
            Err(_) => attempt += 1,
        }
        env.sleep(Duration::from_millis(env.random() % PAUSE_MS)).await;
    }
}

/// Changes the manifest of `partition`, again and again until it is in: `change` gives what is to stand instead of what
/// stands, without a segment that was not named before, or `None` if all is as it should be. Gives what stood and what
/// stands.
///
/// # Errors
/// The store's. The change may have happened all the same.
pub async fn change(
    env: &Env,
    objects: &dyn ObjectStore,
    partition: TopicPartition,
    change: impl Fn(&Manifest) -> Option<Manifest>,
) -> Result<(Standing, Standing), StoreError> {
    for _ in 0..ATTEMPTS {
        let standing = read(objects, partition).await?;
        let Some(next) = change(&standing.manifest) else { return Ok((standing.clone(), standing)) };
        if commit(env, objects, &standing, &next).await? {
            return Ok((standing, read(objects, partition).await?));
        }
    }
    let detail = format!("the manifest of {partition} was changed by others {ATTEMPTS} times");
    Err(StoreError::not_done(FailureKind::Other, detail))
}
