//! Finds the journal's objects.

use bytes::Bytes;
use millrace_storage::format::snapshot::{MetaSnapshot, SNAPSHOTS, parse_snapshot_key, snapshot_key};
use millrace_storage::meta::{MetaStore, keys};
use millrace_storage::object::ObjectStore;
use millrace_storage::store_error::{FailureKind, StoreError};

/// Times that a listing is made again because what it showed was collected meanwhile.
const LOOKS: u32 = 5;

/// What a listing shows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Found {
    /// Numbers of snapshots, in order.
    pub(crate) snapshots: Vec<u64>,
    /// Every object: number and key, in the order of numbers.
    pub(crate) objects: Vec<(u64, String)>,
}

impl Found {
    /// The greatest number; `None` if nothing was ever written.
    pub(crate) fn newest(&self) -> Option<u64> {
        self.objects.last().map(|(number, _)| *number)
    }
}

/// Lists the journal.
pub(crate) async fn find(objects: &dyn ObjectStore) -> Result<Found, StoreError> {
    let mut found = Found::default();
    for listed in objects.list(SNAPSHOTS).await? {
        let Some((number, is_mark)) = parse_snapshot_key(&listed.key) else { continue };
        if !is_mark {
            found.snapshots.push(number);
        }
        found.objects.push((number, listed.key));
    }
    found.snapshots.sort_unstable();
    found.objects.sort_unstable();
    Ok(found)
}

/// The newest snapshot that can be read, and what is wrong with those that are newer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Newest {
    /// The snapshot; `None` if there is none.
    pub(crate) snapshot: Option<MetaSnapshot>,
    /// Keys that can't be read, and why.
    pub(crate) damaged: Vec<(String, String)>,
}

/// Reads the newest snapshot.
pub(crate) async fn newest(objects: &dyn ObjectStore) -> Result<Newest, StoreError> {
    for _ in 0..LOOKS {
        let mut newest = Newest::default();
        let mut vanished = false;
        for &number in find(objects).await?.snapshots.iter().rev() {
            let key = snapshot_key(number);
            let Some(found) = objects.get(&key).await? else {
                vanished = true;
                break;
            };
            match MetaSnapshot::decode(&found.bytes) {
                Ok(snapshot) if snapshot.head.number == number => {
                    newest.snapshot = Some(snapshot);
                    return Ok(newest);
                }
                Ok(other) => newest.damaged.push((key, format!("it says that it is number {}", other.head.number))),
                Err(error) => newest.damaged.push((key, error.to_string())),
            }
        }
        if !vanished {
            return Ok(newest);
        }
    }
    Err(StoreError::unknown(
        FailureKind::Unavailable,
        "snapshots of the metadata are collected as fast as they are listed",
    ))
}

/// The last number given out: the value of `/journal`, and never less than `base`.
pub(crate) async fn last_given_out(meta: &dyn MetaStore, base: u64) -> Result<(u64, Option<Bytes>), StoreError> {
    let value = meta.get(vec![keys::JOURNAL.to_owned()]).await?.values.remove(0).map(|found| found.value);
    let Some(bytes) = value else { return Ok((base, None)) };
    let number: Option<u64> = std::str::from_utf8(&bytes).ok().and_then(|text| text.parse().ok());
    let corrupt = || StoreError::not_done(FailureKind::Corrupt, format!("the value of {} is no number", keys::JOURNAL));
    Ok((number.ok_or_else(corrupt)?.max(base), Some(bytes)))
}
