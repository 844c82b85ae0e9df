//! Where objects live, as the operator writes it: `file:///root`, `s3://bucket/prefix`, `gs://bucket/prefix`,
//! `az://container/prefix` or `memory:`.

use super::OpenError;
use super::dialect::Cloud;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A parsed store address. [`fmt::Display`] gives back what was parsed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreUrl {
    /// Files under an absolute directory.
    File(PathBuf),
    /// A bucket; credentials, region and endpoint come from the variables of its cloud.
    Bucket {
        /// Whose.
        cloud: Cloud,
        /// The bucket.
        bucket: String,
        /// Key prefix without slashes at either end; may be empty.
        prefix: String,
    },
    /// This process's memory.
    Memory,
}

const FIX: &str =
    "give file:///absolute/directory, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or memory:";

impl FromStr for StoreUrl {
    type Err = OpenError;

    fn from_str(text: &str) -> Result<StoreUrl, OpenError> {
        let refuse = |what: &str| Err(OpenError::new(format!("object store \"{text}\": {what}"), FIX));
        if text == "memory:" {
            return Ok(StoreUrl::Memory);
        }
        if let Some(path) = text.strip_prefix("file://") {
            if !path.starts_with('/') {
                return refuse("the path is not absolute (file: takes three slashes)");
            }
            return Ok(StoreUrl::File(PathBuf::from(path)));
        }
        let of = |cloud: Cloud| Some((cloud, text.strip_prefix(cloud.scheme())?.strip_prefix("://")?));
        let Some((cloud, rest)) = Cloud::ALL.into_iter().find_map(of) else { return refuse("unknown kind of store") };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_end_matches('/');
        if bucket.is_empty() {
            return refuse("no bucket");
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if !bucket.chars().all(plain) {
            return refuse("a bucket's name has letters, digits, '.', '-' and '_' only");
        }
        let odd_part = |part: &str| part.is_empty() || part == "." || part == ".." || !part.chars().all(plain);
        if !prefix.is_empty() && prefix.split('/').any(odd_part) {
            return refuse("parts of the prefix have letters, digits, '.', '-' and '_' only");
        }
        Ok(StoreUrl::Bucket { cloud, bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreUrl::File(path) => write!(f, "file://{}", path.display()),
            StoreUrl::Bucket { cloud, bucket, prefix } if prefix.is_empty() => {
                write!(f, "{}://{bucket}", cloud.scheme())
            }
            StoreUrl::Bucket { cloud, bucket, prefix } => write!(f, "{}://{bucket}/{prefix}", cloud.scheme()),
            StoreUrl::Memory => f.write_str("memory:"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_comes_back_as_it_was_written() {
        for text in
            ["memory:", "file:///var/lib/log", "s3://bucket", "s3://my-bucket.eu/clusters/a_1", "gs://b/p", "az://c"]
        {
            assert_eq!(text.parse::<StoreUrl>().unwrap().to_string(), text);
        }
        assert_eq!("s3://b/p/".parse::<StoreUrl>().unwrap(), "s3://b/p".parse().unwrap());
    }

    #[test]
    fn what_is_no_store_is_refused_with_the_forms_that_are() {
        for text in [
            "",
            "/var/lib",
            "file://relative",
            "file:/x",
            "s3://",
            "s3:///p",
            "s3://b//p",
            "s3://b/../p",
            "abfs://b",
            "gs:/b",
            "az://",
            "s3://b/a b",
        ] {
            let error = text.parse::<StoreUrl>().unwrap_err();
            assert!(error.to_string().contains("s3://bucket/prefix"), "{text}: {error}");
        }
    }
}
