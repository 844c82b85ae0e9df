//! Objects on S3, or on anything that speaks its protocol, through the `object_store` crate.
//!
//! Invariants:
//! 1. One call sends one request: the client's own retries are off, so that the answer of a conditional put is about
//!    this attempt alone. Whoever may send again does so itself ([`super::retry`], the lane).
//! 2. Every error says whether the operation may have happened. A 412 is the only answer that means "another object is
//!    there"; the crate reports a 409 alike, which here has an unknown outcome.
//! 3. Every call ends: [`CALL_LIMIT`], for listings [`LIST_LIMIT`].
//!
//! Bytes are sent as the slices that they are. Payloads are not signed (hashing them would cost more CPU than
//! everything else on the way); stored formats carry their own CRC-32C.

use super::{ListedObject, MatchOutcome, Object, ObjectStore, OpenError, Version, cut};
use crate::side::{SideRuntime, within};
use crate::store_error::{Certainty, FailureKind, StoreError};
use crate::wal::{PutOutcome, StoreFuture, Suffix};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::client::{HttpError, HttpErrorKind};
use object_store::path::Path;
use object_store::{
    ClientConfigKey, GetOptions, GetRange, ObjectMeta, ObjectStore as Client, ObjectStoreExt, PutMode, PutOptions,
    PutPayload, RetryConfig, UpdateVersion,
};
use std::error::Error as StdError;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Longest wait for a connection.
const CONNECT_LIMIT: &str = "3 seconds";
/// Longest request with its body and answer: 16 MiB at about 1 MiB a second.
const REQUEST_LIMIT: &str = "15 seconds";
/// Longest call: a request, and before it perhaps a renewal of credentials.
const CALL_LIMIT: Duration = Duration::from_secs(20);
/// Longest listing: many requests of [`REQUEST_LIMIT`], 1,000 keys each.
const LIST_LIMIT: Duration = Duration::from_secs(120);

/// A bucket's prefix. Clones share the connections; it is its own handle on every thread.
#[derive(Clone)]
pub struct RemoteStore {
    client: Arc<AmazonS3>,
    prefix: String,
    side: SideRuntime,
}

impl RemoteStore {
    /// A client set up by the process's `AWS_…` variables: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`,
    /// `AWS_ENDPOINT_URL` (plain HTTP allowed) and the rest of that family.
    pub fn from_env(bucket: &str, prefix: &str, side: &SideRuntime) -> Result<RemoteStore, OpenError> {
        let variables = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        let readable = variables.filter_map(|(name, value)| Some((name, value.into_string().ok()?)));
        RemoteStore::from_variables(bucket, prefix, readable, side)
    }

    /// A client set up by these variables; what does not start with `AWS_` or is not known is ignored.
    pub fn from_variables(
        bucket: &str,
        prefix: &str,
        variables: impl IntoIterator<Item = (String, String)>,
        side: &SideRuntime,
    ) -> Result<RemoteStore, OpenError> {
        let mut builder = AmazonS3Builder::new()
            .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::ConnectTimeout), CONNECT_LIMIT)
            .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), REQUEST_LIMIT)
            .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp), "true")
            .with_unsigned_payload(true);
        for (name, value) in variables {
            if name.starts_with("AWS_")
                && let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>()
            {
                builder = builder.with_config(key, value);
            }
        }
        let no_retries = RetryConfig { max_retries: 0, retry_timeout: CALL_LIMIT, ..RetryConfig::default() };
        let client = builder.with_bucket_name(bucket).with_retry(no_retries).build().map_err(|error| {
            OpenError::new(
                format!("the client of s3://{bucket} can't be set up: {error}"),
                "check AWS_ENDPOINT_URL, AWS_REGION and the other AWS_ variables",
            )
        })?;
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Ok(RemoteStore { client: Arc::new(client), prefix, side: side.clone() })
    }

    fn path(&self, key: &str) -> Path {
        Path::parse(format!("{}{key}", self.prefix)).expect("keys are made by this program, the prefix was checked")
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
        let (client, path) = (self.client.clone(), self.path(key));
        self.start(CALL_LIMIT, async move {
            let options = GetOptions { range: Some(range.clone()), ..GetOptions::default() };
            match client.get_opts(&path, options).await {
                Ok(result) => {
                    let size = result.meta.size;
                    let bytes = result.bytes().await.map_err(|error| classify(&error))?;
                    Ok(Some(Suffix { size, bytes }))
                }
                Err(error) if status(&error) == Some(RANGE_NOT_SATISFIABLE) => size(&client, &path).await,
                // Some servers answer 200 with everything where the object is empty or the range covers it.
                Err(error) if error.to_string().contains(NOT_PARTIAL) => cut_from_whole(&client, &path, range).await,
                Err(error) => absent_or_failed(&error),
            }
        })
    }

    fn get_size(&self, key: &str) -> StoreFuture<Option<Suffix>> {
        let (client, path) = (self.client.clone(), self.path(key));
        self.start(CALL_LIMIT, async move { size(&client, &path).await })
    }
}

const RANGE_NOT_SATISFIABLE: u16 = 416;
/// The crate's words for a 200 where a 206 was due.
const NOT_PARTIAL: &str = "Received non-partial response";

/// Reads the whole object and cuts the range out of it.
async fn cut_from_whole(client: &AmazonS3, path: &Path, range: GetRange) -> Result<Option<Suffix>, StoreError> {
    let whole = match client.get_opts(path, GetOptions::default()).await {
        Ok(result) => result.bytes().await.map_err(|error| classify(&error))?,
        Err(error) => return absent_or_failed(&error),
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
async fn size(client: &AmazonS3, path: &Path) -> Result<Option<Suffix>, StoreError> {
    match client.head(path).await {
        Ok(meta) => Ok(Some(Suffix { size: meta.size, bytes: Bytes::new() })),
        Err(error) => absent_or_failed(&error),
    }
}

impl ObjectStore for RemoteStore {
    fn put_if_absent(&self, key: &str, slices: Vec<Bytes>) -> StoreFuture<PutOutcome> {
        let (client, path) = (self.client.clone(), self.path(key));
        self.start(CALL_LIMIT, async move {
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            match client.put_opts(&path, PutPayload::from_iter(slices), options).await {
                Ok(_) => Ok(PutOutcome::Stored),
                Err(error) if is_conflict(&error) => Err(classify(&error)),
                Err(object_store::Error::AlreadyExists { .. }) => Ok(PutOutcome::AlreadyExists),
                Err(error) => Err(classify(&error)),
            }
        })
    }

    fn put_if_match(&self, key: &str, bytes: Bytes, version: Version) -> StoreFuture<MatchOutcome> {
        let (client, path) = (self.client.clone(), self.path(key));
        self.start(CALL_LIMIT, async move {
            let version = UpdateVersion { e_tag: Some(version.0), version: None };
            let options = PutOptions { mode: PutMode::Update(version), ..PutOptions::default() };
            match client.put_opts(&path, PutPayload::from_bytes(bytes), options).await {
                Ok(result) => Ok(MatchOutcome::Stored(version_of(result.e_tag)?)),
                Err(object_store::Error::Precondition { .. }) => Ok(MatchOutcome::Changed),
                Err(error) => Err(classify(&error)),
            }
        })
    }

    fn get(&self, key: &str) -> StoreFuture<Option<Object>> {
        let (client, path) = (self.client.clone(), self.path(key));
        self.start(CALL_LIMIT, async move {
            match client.get_opts(&path, GetOptions::default()).await {
                Ok(result) => {
                    let version = version_of(result.meta.e_tag.clone())?;
                    let bytes = result.bytes().await.map_err(|error| classify(&error))?;
                    Ok(Some(Object { bytes, version }))
                }
                Err(error) => absent_or_failed(&error),
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
        let (client, folder, ours) = (self.client.clone(), self.path(prefix), self.prefix.len());
        self.start(LIST_LIMIT, async move {
            let stream = client.list(Some(&folder)).map_ok(|meta| listed(&meta, ours));
            let mut objects: Vec<ListedObject> = stream.try_collect().await.map_err(|error| classify(&error))?;
            // The crate promises no order.
            objects.sort_by(|a, b| a.key.cmp(&b.key));
            Ok(objects)
        })
    }

    fn list_directories(&self, prefix: &str) -> StoreFuture<Vec<String>> {
        let (client, folder) = (self.client.clone(), self.path(prefix));
        self.start(LIST_LIMIT, async move {
            let level = client.list_with_delimiter(Some(&folder)).await.map_err(|error| classify(&error))?;
            let mut names: Vec<String> =
                level.common_prefixes.iter().filter_map(|path| Some(path.filename()?.to_owned())).collect();
            names.sort();
            Ok(names)
        })
    }

    fn delete(&self, keys: Vec<String>) -> StoreFuture<()> {
        let client = self.client.clone();
        let paths: Vec<_> = keys.iter().map(|key| Ok(self.path(key))).collect();
        self.start(LIST_LIMIT, async move {
            let mut results = client.delete_stream(futures::stream::iter(paths).boxed());
            while let Some(result) = results.next().await {
                match result {
                    Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                    Err(error) => return Err(classify(&error)),
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

fn version_of(e_tag: Option<String>) -> Result<Version, StoreError> {
    let missing = || StoreError::unknown(FailureKind::Other, "the store answers without an ETag");
    e_tag.map(Version).ok_or_else(missing)
}

fn absent_or_failed<T>(error: &object_store::Error) -> Result<Option<T>, StoreError> {
    match error {
        // A missing bucket is a 404 too, but no missing object.
        object_store::Error::NotFound { .. } if !error.to_string().contains("NoSuchBucket") => Ok(None),
        error => Err(classify(error)),
    }
}

/// A 409: S3 gives it when conditional writes of one key meet; whether this one took place is not known.
fn is_conflict(error: &object_store::Error) -> bool {
    status(error) == Some(409)
}

/// The HTTP status in an error of the crate, which keeps the type that holds it private: from its text, pinned by tests
/// against a server that answers with each status.
fn status(error: &object_store::Error) -> Option<u16> {
    let text = error.to_string();
    let (_, after) = text.split_once("Server returned non-2xx status code: ")?;
    after.get(..3)?.parse().ok()
}

fn transport(error: &object_store::Error) -> Option<HttpErrorKind> {
    let mut next: Option<&(dyn StdError + 'static)> = error.source();
    while let Some(cause) = next {
        if let Some(http) = cause.downcast_ref::<HttpError>() {
            return Some(http.kind());
        }
        next = cause.source();
    }
    None
}

/// What the error says about the request (guarantee: never `NotDone` unless the server refused it, or never got it).
fn classify(error: &object_store::Error) -> StoreError {
    use Certainty::{NotDone, Unknown};
    let detail = error.to_string();
    let says = |code: &str| detail.contains(code);
    let (certainty, kind) = match status(error) {
        // A clock that is off makes every answer of that kind suspect: a retry by a proxy may have got through before.
        Some(403) if says("RequestTimeTooSkewed") => (Unknown, FailureKind::Denied),
        Some(403) if says("QuotaExceeded") => (Unknown, FailureKind::Full),
        Some(401 | 403) => (NotDone, FailureKind::Denied),
        Some(400) if says("RequestTimeout") => (Unknown, FailureKind::Timeout),
        Some(400) if says("ExpiredToken") || says("InvalidToken") => (NotDone, FailureKind::Denied),
        Some(408 | 504) => (Unknown, FailureKind::Timeout),
        Some(409) => (Unknown, FailureKind::Unavailable),
        Some(429) => (Unknown, FailureKind::Throttled),
        Some(503) if says("SlowDown") => (Unknown, FailureKind::Throttled),
        Some(507) => (Unknown, FailureKind::Full),
        Some(500..) => (Unknown, FailureKind::Unavailable),
        Some(_) => (NotDone, FailureKind::Other),
        None => match transport(error) {
            Some(HttpErrorKind::Connect) => (NotDone, FailureKind::Unavailable),
            Some(HttpErrorKind::Timeout) => (Unknown, FailureKind::Timeout),
            Some(_) => (Unknown, FailureKind::Unavailable),
            None => (Unknown, FailureKind::Other),
        },
    };
    StoreError { certainty, kind, detail }
}

#[cfg(test)]
#[path = "remote_tests.rs"]
mod tests;
