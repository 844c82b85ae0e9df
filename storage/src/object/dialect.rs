//! Where object stores differ, in one place: how each is set up, what its answers mean, what names a version.
//!
//! | | S3 and its like | Google Cloud Storage | Azure Blob Storage |
//! |---|---|---|---|
//! | variables | `AWS_…` | `GOOGLE_…` | `AZURE_…` |
//! | create: another object is there | 412 | 412 | 409 `BlobAlreadyExists`, 412 |
//! | create: two puts met, outcome unknown | 409 | 409 | any other 409 |
//! | replace: condition | `If-Match`: ETag | generation | `If-Match`: ETag |
//! | a read of the last bytes | one request | one request | the size first |
//! | asked too much | 503 `SlowDown`, 429 | 429 | 503 `ServerBusy`, 429 |
//! | a missing bucket is a 404 with | `NoSuchBucket` | `NoSuchBucket` | `ContainerNotFound` |
//! | hash of the payload | CRC-64/NVME in a header (unsigned payload) | none | none |
//!
//! The hash of the payload has S3-like servers refuse a body that ends early: some otherwise keep what they got of it.
//!
//! Invariants:
//! 1. An error is `NotDone` only if the server refused the request, or never got it.
//! 2. "Another object is there" and "changed" are told only by the answers that the table names.

use super::{OpenError, Version};
use crate::store_error::{Certainty, FailureKind, StoreError};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::{HttpError, HttpErrorKind};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{ClientConfigKey, ObjectStore as Client, RetryConfig, UpdateVersion};
use std::error::Error as StdError;
use std::str::FromStr;
use std::sync::Arc;

/// Which protocol a bucket is spoken to in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cloud {
    /// S3, or anything that speaks its protocol.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage; its containers are what others call buckets.
    Azure,
}

/// Longest wait for a connection.
const CONNECT_LIMIT: &str = "3 seconds";
/// Longest request with its body and answer: 16 MiB at about 1 MiB a second.
const REQUEST_LIMIT: &str = "15 seconds";
/// The variable that chooses the hash of the payload, in lower case, and the value of it that none of the crate's is:
/// no hash, for servers that refuse the header.
const NO_CHECKSUM: (&str, &str) = ("aws_checksum_algorithm", "none");
/// Of every client: bounds, and plain HTTP where the endpoint says so.
const CLIENT: [(ClientConfigKey, &str); 3] = [
    (ClientConfigKey::ConnectTimeout, CONNECT_LIMIT),
    (ClientConfigKey::Timeout, REQUEST_LIMIT),
    (ClientConfigKey::AllowHttp, "true"),
];

impl Cloud {
    /// All of them.
    pub const ALL: [Cloud; 3] = [Cloud::S3, Cloud::Gcs, Cloud::Azure];

    /// What its addresses begin with, before `://`.
    pub fn scheme(self) -> &'static str {
        match self {
            Cloud::S3 => "s3",
            Cloud::Gcs => "gs",
            Cloud::Azure => "az",
        }
    }

    /// What the names of its variables begin with.
    pub fn variables(self) -> &'static str {
        match self {
            Cloud::S3 => "AWS_",
            Cloud::Gcs => "GOOGLE_",
            Cloud::Azure => "AZURE_",
        }
    }

    /// A client of `bucket` set up by those of `variables` that are its own, without retries of its own.
    pub(super) fn client(
        self,
        bucket: &str,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Arc<dyn Client>, OpenError> {
        let own = variables.into_iter().filter(|(name, _)| name.starts_with(self.variables()));
        let own = own.map(|(name, value)| (name.to_ascii_lowercase(), value));
        // One call sends one request. Within its time the client renews credentials.
        let retry = RetryConfig { max_retries: 0, retry_timeout: super::remote::CALL_LIMIT, ..RetryConfig::default() };
        let built: object_store::Result<Arc<dyn Client>> = match self {
            Cloud::S3 => {
                let (none, own): (Vec<_>, Vec<_>) = own.partition(|(name, value)| (&**name, &**value) == NO_CHECKSUM);
                let mut builder = AmazonS3Builder::new().with_unsigned_payload(true);
                if none.is_empty() {
                    builder = builder.with_checksum_algorithm(Checksum::CRC64NVME);
                }
                let own = own.into_iter();
                let builder = configured(own, AmazonS3ConfigKey::Client, builder, AmazonS3Builder::with_config);
                builder.with_bucket_name(bucket).with_retry(retry).build().map(|client| Arc::new(client) as _)
            }
            Cloud::Gcs => {
                let builder = GoogleCloudStorageBuilder::new();
                let set = GoogleCloudStorageBuilder::with_config;
                let builder = configured(own, GoogleConfigKey::Client, builder, set);
                builder.with_bucket_name(bucket).with_retry(retry).build().map(|client| Arc::new(client) as _)
            }
            Cloud::Azure => {
                let builder = MicrosoftAzureBuilder::new();
                let builder = configured(own, AzureConfigKey::Client, builder, MicrosoftAzureBuilder::with_config);
                builder.with_container_name(bucket).with_retry(retry).build().map(|client| Arc::new(client) as _)
            }
        };
        built.map_err(|error| {
            OpenError::new(
                format!("the client of {}://{bucket} can't be set up: {error}", self.scheme()),
                format!("check {}", self.needs()),
            )
        })
    }

    /// The variables that a first set-up needs.
    fn needs(self) -> &'static str {
        match self {
            Cloud::S3 => "AWS_ENDPOINT_URL, AWS_REGION and the other AWS_ variables",
            Cloud::Gcs => "GOOGLE_APPLICATION_CREDENTIALS and the other GOOGLE_ variables",
            Cloud::Azure => "AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY and the other AZURE_ variables",
        }
    }

    /// Whether the last bytes of an object can be asked for without knowing its size.
    pub(super) fn has_suffix_reads(self) -> bool {
        match self {
            Cloud::S3 | Cloud::Gcs => true,
            Cloud::Azure => false,
        }
    }

    /// What names the version of an object, of what an answer says about it.
    pub(super) fn version(self, e_tag: Option<String>, generation: Option<String>) -> Result<Version, StoreError> {
        let (named, name) = match self {
            Cloud::S3 | Cloud::Azure => (e_tag, "an ETag"),
            Cloud::Gcs => (generation, "a generation"),
        };
        let missing = || StoreError::unknown(FailureKind::Other, format!("the store answers without {name}"));
        named.map(Version).ok_or_else(missing)
    }

    /// The condition that an object has this version.
    pub(super) fn at(self, version: Version) -> UpdateVersion {
        match self {
            Cloud::S3 | Cloud::Azure => UpdateVersion { e_tag: Some(version.0), version: None },
            Cloud::Gcs => UpdateVersion { e_tag: None, version: Some(version.0) },
        }
    }

    /// Whether a create that failed like this found another object in its place.
    pub(super) fn is_taken(self, error: &object_store::Error) -> bool {
        match (self, status(error)) {
            (_, Some(412)) => true,
            (Cloud::Azure, Some(409)) => error.to_string().contains("BlobAlreadyExists"),
            // S3 gives a 409 when conditional writes of one key meet; whether this one took place is not known.
            (Cloud::S3 | Cloud::Gcs, Some(409)) => false,
            _ => matches!(error, object_store::Error::AlreadyExists { .. }),
        }
    }

    /// Whether a replace that failed like this found another version, or nothing.
    pub(super) fn is_changed(self, error: &object_store::Error) -> bool {
        // Azure's 412 of a lease that somebody holds is no word about the version.
        let lease = self == Cloud::Azure && error.to_string().contains("LeaseId");
        let gone = matches!(error, object_store::Error::NotFound { .. }) && !self.is_bucket_missing(error);
        !lease && (matches!(error, object_store::Error::Precondition { .. }) || gone)
    }

    /// Whether a 404 is about the bucket.
    pub(super) fn is_bucket_missing(self, error: &object_store::Error) -> bool {
        let code = match self {
            Cloud::S3 | Cloud::Gcs => "NoSuchBucket",
            Cloud::Azure => "ContainerNotFound",
        };
        error.to_string().contains(code)
    }

    /// What the error says about the request.
    pub(super) fn classify(self, error: &object_store::Error) -> StoreError {
        use Certainty::{NotDone, Unknown};
        let detail = error.to_string();
        let says = |code: &str| detail.contains(code);
        let (certainty, kind) = match status(error) {
            // A clock that is off makes every answer of that kind suspect: a retry by a proxy may have got through before.
            Some(403) if says("RequestTimeTooSkewed") => (Unknown, FailureKind::Denied),
            Some(403) if says("QuotaExceeded") => (Unknown, FailureKind::Full),
            Some(401 | 403) => (NotDone, FailureKind::Denied),
            Some(400) if says("RequestTimeout") => (Unknown, FailureKind::Timeout),
            // Bytes that were lost or changed on the way: they may arrive next time.
            Some(400) if says("BadDigest") || says("IncompleteBody") || says("XAmzContentChecksumMismatch") => {
                (Unknown, FailureKind::Unavailable)
            }
            Some(400) if says("ExpiredToken") || says("InvalidToken") => (NotDone, FailureKind::Denied),
            Some(408 | 504) => (Unknown, FailureKind::Timeout),
            Some(409) => (Unknown, FailureKind::Unavailable),
            Some(412) if says("LeaseId") => (NotDone, FailureKind::Denied),
            Some(429) => (Unknown, FailureKind::Throttled),
            Some(500) if says("OperationTimedOut") => (Unknown, FailureKind::Timeout),
            Some(503) if says("SlowDown") || says("ServerBusy") => (Unknown, FailureKind::Throttled),
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
}

/// `builder` with the bounds of every client, then with those variables that name a setting of it.
fn configured<B, K: FromStr>(
    variables: impl Iterator<Item = (String, String)>,
    of_client: fn(ClientConfigKey) -> K,
    mut builder: B,
    with: fn(B, K, String) -> B,
) -> B {
    for (key, value) in CLIENT {
        builder = with(builder, of_client(key), value.to_owned());
    }
    for (name, value) in variables {
        if let Ok(key) = name.parse() {
            builder = with(builder, key, value);
        }
    }
    builder
}

/// The HTTP status in an error of the crate, which keeps the type that holds it private: from its text, pinned by tests
/// against a server that answers with each status.
pub(super) fn status(error: &object_store::Error) -> Option<u16> {
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
