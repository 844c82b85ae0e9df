//! Objects in a bucket of S3 (or of anything that speaks its protocol), Google Cloud Storage or Azure, through the
//! `object_store` crate.
//!
//! Invariants:
//! 1. One call sends one request, but where a store can't read a suffix ([`super::dialect`]): the client's own retries are
//!    off, so that the answer of a conditional put is about this attempt alone. Whoever may send again does so itself
//!    ([`super::retry`], the lane).
//! 2. Every error says whether the operation may have happened ([`super::dialect`] knows what each store's answers mean).
//! 3. Every call ends: [`CALL_LIMIT`], for listings [`LIST_LIMIT`].
//!
//! Bytes are sent as the slices that they are. Payloads are not signed (hashing them would cost more CPU than
//! everything else on the way); stored formats carry their own CRC-32C.

use super::dialect::{Cloud, status};
use super::{ListedObject, MatchOutcome, Object, ObjectStore, OpenError, Version, cut};
use crate::side::{SideRuntime, within};
use crate::store_error::{FailureKind, StoreError};
use crate::wal::{PutOutcome, StoreFuture, Suffix};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, ObjectMeta, ObjectStore as Client, ObjectStoreExt, PutMode, PutOptions, PutPayload,
};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Longest call: a request, and before it perhaps a renewal of credentials.
pub(super) const CALL_LIMIT: Duration = Duration::from_secs(20);
/// Longest listing: many requests, 1,000 keys each.
const LIST_LIMIT: Duration = Duration::from_secs(120);

/// A bucket's prefix. Clones share the connections; it is its own handle on every thread.
#[derive(Clone)]
pub struct RemoteStore {
    client: Arc<dyn Client>,
    cloud: Cloud,
    prefix: String,
    side: SideRuntime,
}

impl RemoteStore {
    /// A client set up by the process's variables of that family: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
    /// `AWS_REGION`, `AWS_ENDPOINT_URL` (plain HTTP allowed); `GOOGLE_APPLICATION_CREDENTIALS`;
    /// `AZURE_STORAGE_ACCOUNT_NAME`, `AZURE_STORAGE_ACCOUNT_KEY`; and what else the `object_store` crate knows.
    pub fn from_env(cloud: Cloud, bucket: &str, prefix: &str, side: &SideRuntime) -> Result<RemoteStore, OpenError> {
        let variables = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        let readable = variables.filter_map(|(name, value)| Some((name, value.into_string().ok()?)));
        RemoteStore::from_variables(cloud, bucket, prefix, readable, side)
    }

    /// A client set up by these variables; what is of another family or not known is ignored.
    pub fn from_variables(
        cloud: Cloud,
        bucket: &str,
        prefix: &str,
        variables: impl IntoIterator<Item = (String, String)>,
        side: &SideRuntime,
    ) -> Result<RemoteStore, OpenError> {
        let client = cloud.client(bucket, variables)?;
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Ok(RemoteStore { client, cloud, prefix, side: side.clone() })
    }

    fn path(&self, key: &str) -> Path {
        Path::parse(format!("{}{key}", self.prefix)).expect("keys are made by this program, the prefix was checked")
    }

    fn named(&self, key: &str) -> Named {
        Named { client: self.client.clone(), cloud: self.cloud, path: self.path(key) }
    }

    /// Starts `call` on the side runtime, bounded by `limit`.
    fn start<T: Send + 'static>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> StoreFuture<T> {
        Box::pin(self.side.run(async move {
            within(limit, call)
                .await
                .unwrap_or_else(|| Err(StoreError::unknown(FailureKind::Timeout, format!("no answer in {limit:?}"))))
        }))
    }

    /// Reads a part of an object; `None` if there is no object, an empty part if the range holds no byte of it.
    fn get_part(&self, key: &str, range: GetRange) -> StoreFuture<Option<Suffix>> {
        let (of, cloud) = (self.named(key), self.cloud);
        self.start(CALL_LIMIT, async move {
            let range = match range {
                GetRange::Suffix(length) if !cloud.has_suffix_reads() => {
                    let Some(Suffix { size, .. }) = of.size().await? else { return Ok(None) };
                    if size == 0 {
                        return Ok(Some(Suffix { size, bytes: Bytes::new() }));
                    }
                    GetRange::Bounded(size.saturating_sub(length)..size)
                }
                range => range,
            };
            of.part(range).await
        })
    }

    fn get_size(&self, key: &str) -> StoreFuture<Option<Suffix>> {
        let of = self.named(key);
        self.start(CALL_LIMIT, async move { of.size().await })
    }
}

const RANGE_NOT_SATISFIABLE: u16 = 416;
/// The crate's words for a 206 of a range that begins where the object ends, or later.
const BEHIND_THE_END: &str = "Wanted range starting at";
/// Its words for a 200 where a 206 was due.
const NOT_PARTIAL: &str = "Received non-partial response";

/// One object, to be read.
struct Named {
    client: Arc<dyn Client>,
    cloud: Cloud,
    path: Path,
}

impl Named {
    async fn part(&self, range: GetRange) -> Result<Option<Suffix>, StoreError> {
        let options = GetOptions { range: Some(range.clone()), ..GetOptions::default() };
        match self.client.get_opts(&self.path, options).await {
            Ok(result) => {
                let size = result.meta.size;
                let bytes = result.bytes().await.map_err(|error| self.cloud.classify(&error))?;
                Ok(Some(Suffix { size, bytes }))
            }
            Err(error) if status(&error) == Some(RANGE_NOT_SATISFIABLE) => self.size().await,
            // And some answer a range behind the end with a part, which the crate refuses.
            Err(error) if error.to_string().contains(BEHIND_THE_END) => self.size().await,
            // Some servers answer 200 with everything where the object is empty or the range covers it.
            Err(error) if error.to_string().contains(NOT_PARTIAL) => self.cut_from_whole(range).await,
            Err(error) => absent_or_failed(self.cloud, &error),
        }
    }

    /// Reads the whole object and cuts the range out of it.
    async fn cut_from_whole(&self, range: GetRange) -> Result<Option<Suffix>, StoreError> {
        let whole = match self.client.get_opts(&self.path, GetOptions::default()).await {
            Ok(result) => result.bytes().await.map_err(|error| self.cloud.classify(&error))?,
            Err(error) => return absent_or_failed(self.cloud, &error),
        };
        let size = whole.len() as u64;
        let range = match range {
            GetRange::Bounded(range) => cut(range, size),
            GetRange::Offset(start) => cut(start..size, size),
            GetRange::Suffix(length) => size.saturating_sub(length)..size,
        };
        Ok(Some(Suffix { size, bytes: whole.slice(range.start as usize..range.end as usize) }))
    }

    /// The object's size and none of its bytes.
    async fn size(&self) -> Result<Option<Suffix>, StoreError> {
        match self.client.head(&self.path).await {
            Ok(meta) => Ok(Some(Suffix { size: meta.size, bytes: Bytes::new() })),
            Err(error) => absent_or_failed(self.cloud, &error),
        }
    }
}

impl ObjectStore for RemoteStore {
    fn put_if_absent(&self, key: &str, slices: Vec<Bytes>) -> StoreFuture<PutOutcome> {
        let Named { client, cloud, path } = self.named(key);
        self.start(CALL_LIMIT, async move {
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            match client.put_opts(&path, PutPayload::from_iter(slices), options).await {
                Ok(_) => Ok(PutOutcome::Stored),
                Err(error) if cloud.is_taken(&error) => Ok(PutOutcome::AlreadyExists),
                Err(error) => Err(cloud.classify(&error)),
            }
        })
    }

    fn put_if_match(&self, key: &str, bytes: Bytes, version: Version) -> StoreFuture<MatchOutcome> {
        let Named { client, cloud, path } = self.named(key);
        self.start(CALL_LIMIT, async move {
            let options = PutOptions { mode: PutMode::Update(cloud.at(version)), ..PutOptions::default() };
            match client.put_opts(&path, PutPayload::from_bytes(bytes), options).await {
                Ok(result) => Ok(MatchOutcome::Stored(cloud.version(result.e_tag, result.version)?)),
                Err(error) if cloud.is_changed(&error) => Ok(MatchOutcome::Changed),
                Err(error) => Err(cloud.classify(&error)),
            }
        })
    }

    fn get(&self, key: &str) -> StoreFuture<Option<Object>> {
        let Named { client, cloud, path } = self.named(key);
        self.start(CALL_LIMIT, async move {
            match client.get_opts(&path, GetOptions::default()).await {
                Ok(result) => {
                    let version = cloud.version(result.meta.e_tag.clone(), result.meta.version.clone())?;
                    let bytes = result.bytes().await.map_err(|error| cloud.classify(&error))?;
                    Ok(Some(Object { bytes, version }))
                }
                Err(error) => absent_or_failed(cloud, &error),
            }
        })
    }

    fn get_range(&self, key: &str, range: Range<u64>) -> StoreFuture<Option<Bytes>> {
        let part = if range.is_empty() { self.get_size(key) } else { self.get_part(key, GetRange::Bounded(range)) };
        Box::pin(async move { Ok(part.await?.map(|part| part.bytes)) })
    }

    fn get_suffix(&self, key: &str, length: u64) -> StoreFuture<Option<Suffix>> {
        if length == 0 { self.get_size(key) } else { self.get_part(key, GetRange::Suffix(length)) }
    }

    fn list(&self, prefix: &str) -> StoreFuture<Vec<ListedObject>> {
        let (Named { client, cloud, path: folder }, ours) = (self.named(prefix), self.prefix.len());
        self.start(LIST_LIMIT, async move {
            let stream = client.list(Some(&folder)).map_ok(|meta| listed(&meta, ours));
            let mut objects: Vec<ListedObject> = stream.try_collect().await.map_err(|error| cloud.classify(&error))?;
            // The crate promises no order.
            objects.sort_by(|a, b| a.key.cmp(&b.key));
            Ok(objects)
        })
    }

    fn list_directories(&self, prefix: &str) -> StoreFuture<Vec<String>> {
        let Named { client, cloud, path: folder } = self.named(prefix);
        self.start(LIST_LIMIT, async move {
            let level = client.list_with_delimiter(Some(&folder)).await.map_err(|error| cloud.classify(&error))?;
            let mut names: Vec<String> =
                level.common_prefixes.iter().filter_map(|path| Some(path.filename()?.to_owned())).collect();
            names.sort();
            Ok(names)
        })
    }

    fn delete(&self, keys: Vec<String>) -> StoreFuture<()> {
        let (client, cloud) = (self.client.clone(), self.cloud);
        let paths: Vec<_> = keys.iter().map(|key| Ok(self.path(key))).collect();
        self.start(LIST_LIMIT, async move {
            let mut results = client.delete_stream(futures::stream::iter(paths).boxed());
            while let Some(result) = results.next().await {
                match result {
                    Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                    Err(error) => return Err(cloud.classify(&error)),
                }
            }
            Ok(())
        })
    }
}

fn listed(meta: &ObjectMeta, prefix_length: usize) -> ListedObject {
    ListedObject {
        key: meta.location.as_ref()[prefix_length..].to_owned(),
        size: meta.size,
        modified_ms: meta.last_modified.timestamp_millis(),
    }
}

fn absent_or_failed<T>(cloud: Cloud, error: &object_store::Error) -> Result<Option<T>, StoreError> {
    match error {
        // A missing bucket is a 404 too, but no missing object.
        object_store::Error::NotFound { .. } if !cloud.is_bucket_missing(error) => Ok(None),
        error => Err(cloud.classify(error)),
    }
}

#[cfg(test)]
#[path = "remote_tests.rs"]
mod tests;
