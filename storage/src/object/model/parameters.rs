//! The file that describes a store: see `perf/models` for examples, which name where their numbers are from.

use super::Latency;
use serde::Deserialize;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

/// A file that can't be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the store model {}: {problem}", path.display())]
pub struct ModelError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: String,
}

/// A store's manners.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// Decides every draw.
    pub seed: u64,
    /// How long requests take besides moving bytes.
    pub latency_ms: Latencies,
    /// How fast bytes move.
    pub bandwidth: Bandwidth,
    /// How many requests are let through.
    pub limits: Limits,
    /// What it costs: for reports only.
    pub prices: Prices,
}

/// Tables of quantiles by kind of request, milliseconds.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latencies {
    /// A put, to its answer.
    pub put: Latency,
    /// A read, to its first byte.
    pub get: Latency,
    /// A page of a listing.
    pub list: Latency,
    /// A deletion.
    pub delete: Latency,
}

/// MiB per second, each way.
#[derive(Clone, Copy, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bandwidth {
    /// Of one request.
    pub connection_mib_per_second: NonZeroU32,
    /// Of all.
    pub total_mib_per_second: NonZeroU32,
}

/// Requests per second for each prefix (a key up to its last slash).
#[derive(Clone, Copy, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Puts and deletions.
    pub writes_per_second: NonZeroU32,
    /// Reads and listings.
    pub reads_per_second: NonZeroU32,
}

/// Dollars.
#[derive(Clone, Copy, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    /// A million puts.
    pub million_puts: f64,
    /// A GiB that is uploaded, besides its request.
    pub uploaded_gib: f64,
}

impl Prices {
    /// Dollars for `puts` that carry `bytes`.
    pub fn of(&self, puts: u64, bytes: u64) -> f64 {
        puts as f64 * self.million_puts / 1e6 + bytes as f64 / (1_u64 << 30) as f64 * self.uploaded_gib
    }
}

impl Parameters {
    /// Reads the file at `path`.
    pub fn load(path: &Path) -> Result<Parameters, ModelError> {
        let error = |problem: String| ModelError { path: path.to_owned(), problem };
        let text = std::fs::read_to_string(path).map_err(|failure| error(failure.to_string()))?;
        Parameters::parse(&text).map_err(error)
    }

    /// Reads the text of such a file.
    pub fn parse(text: &str) -> Result<Parameters, String> {
        toml::from_str(text).map_err(|failure| failure.message().to_owned())
    }
}
