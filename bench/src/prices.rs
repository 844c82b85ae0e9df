//! What a store's requests cost at stated prices. Pure.

use crate::metrics::StoreUse;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The table that is used when none is given.
const DEFAULT: &str = include_str!("../prices.toml");
/// Seconds of the month that money is stated for: 30 days.
const MONTH_SECONDS: f64 = 30.0 * 24.0 * 3600.0;
const GIB: f64 = (1_u64 << 30) as f64;

/// Prices of an object store.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct Prices {
    /// Where they are from.
    pub name: String,
    /// What they are in.
    pub currency: String,
    /// Requests that write or list, per 1,000.
    pub put_per_thousand: f64,
    /// Requests that read, per 1,000.
    pub get_per_thousand: f64,
    /// Bytes written, per GiB, besides their requests.
    pub sent_gib: f64,
    /// Bytes read, per GiB, besides their requests.
    pub received_gib: f64,
    /// Bytes kept, per GiB and month.
    pub storage_gib_month: f64,
    /// Bytes between zones, per GiB.
    pub cross_zone_gib: f64,
}

/// Why there are no prices.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PricesError {
    /// No such file, or none that can be read.
    #[error("prices {0}: {1}")]
    Unreadable(String, std::io::Error),
    /// It is no table of prices.
    #[error("prices {0}: {1}")]
    Malformed(String, toml::de::Error),
    /// A price below nothing, or none at all.
    #[error("prices {0}: a price is a number from 0 up")]
    Negative(String),
}

/// What a load costs.
#[derive(Clone, Copy, PartialEq, Serialize, Debug)]
pub(crate) struct Money {
    /// Requests and what they carry, per GiB produced.
    pub requests_per_gib: f64,
    /// The same, per month of the same load.
    pub requests_per_month: f64,
    /// Keeping what a month of the same load sends to the store, per month.
    pub storage_per_month: f64,
    /// What a broker that keeps three copies in three zones pays to send each byte to the two others, per GiB.
    pub three_zones_per_gib: f64,
}

impl Prices {
    /// The table in `file`, or the one of this program.
    ///
    /// # Errors
    /// When the file is no such table.
    pub(crate) fn load(file: Option<&Path>) -> Result<Prices, PricesError> {
        let Some(file) = file else { return Ok(toml::from_str(DEFAULT).expect("a test reads it")) };
        let name = file.display().to_string();
        let text = std::fs::read_to_string(file).map_err(|error| PricesError::Unreadable(name.clone(), error))?;
        let prices: Prices = toml::from_str(&text).map_err(|error| PricesError::Malformed(name.clone(), error))?;
        let requests = [prices.put_per_thousand, prices.get_per_thousand, prices.sent_gib, prices.received_gib];
        let all = requests.iter().chain([&prices.storage_gib_month, &prices.cross_zone_gib]);
        // Written so that NaN fails too.
        if all.into_iter().all(|&price| price >= 0.0 && price.is_finite()) {
            Ok(prices)
        } else {
            Err(PricesError::Negative(name))
        }
    }

    /// What `used` costs. `None` when nothing was produced: there is no share of a GiB to name.
    pub(crate) fn money(&self, used: &StoreUse) -> Option<Money> {
        if used.produced_bytes == 0 || used.seconds <= 0.0 {
            return None;
        }
        let requests = (used.puts + used.lists) as f64 / 1e3 * self.put_per_thousand
            + used.gets as f64 / 1e3 * self.get_per_thousand
            + used.sent_bytes as f64 / GIB * self.sent_gib
            + used.received_bytes as f64 / GIB * self.received_gib;
        let months = used.seconds / MONTH_SECONDS;
        Some(Money {
            requests_per_gib: requests / (used.produced_bytes as f64 / GIB),
            requests_per_month: requests / months,
            storage_per_month: used.sent_bytes as f64 / GIB / months * self.storage_gib_month,
            three_zones_per_gib: 2.0 * self.cross_zone_gib,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn written(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn the_prices_of_this_program_can_be_read() {
        let prices = Prices::load(None).unwrap();
        assert_eq!(prices.put_per_thousand, 0.005);
        let express = Path::new(env!("CARGO_MANIFEST_DIR")).join("prices-express.toml");
        assert_eq!(Prices::load(Some(&express)).unwrap().put_per_thousand, 0.001_13);
    }

    #[test]
    fn money_is_for_what_was_produced_in_the_same_stretch() {
        let prices = Prices::load(None).unwrap();
        let used = StoreUse {
            seconds: 30.0 * 24.0 * 3600.0, // a month
            produced_bytes: 2 << 30,
            puts: 900,
            lists: 100,
            gets: 1_000,
            sent_bytes: 4 << 30,
            received_bytes: 0,
        };
        let money = prices.money(&used).unwrap();
        assert!((money.requests_per_month - 0.0054).abs() < 1e-12, "{money:?}");
        assert!((money.requests_per_gib - 0.0027).abs() < 1e-12, "{money:?}");
        assert!((money.storage_per_month - 0.092).abs() < 1e-12, "{money:?}");
        let carried = Prices { sent_gib: 0.5, received_gib: 0.25, ..prices.clone() };
        let used = StoreUse { received_bytes: 2 << 30, ..used };
        assert!((carried.money(&used).unwrap().requests_per_gib - 1.2527).abs() < 1e-12);
        assert_eq!(prices.money(&StoreUse { produced_bytes: 0, ..used }), None);
    }

    #[test]
    fn a_table_with_a_price_missing_unknown_or_negative_is_refused() {
        let short = written("name = 'x'\ncurrency = 'EUR'\n");
        assert!(matches!(Prices::load(Some(short.path())), Err(PricesError::Malformed(..))));
        let more = written(&format!("{DEFAULT}\nput_per_million = 1.0\n"));
        assert!(matches!(Prices::load(Some(more.path())), Err(PricesError::Malformed(..))));
        for price in ["-0.5", "nan", "inf"] {
            let wrong = written(&DEFAULT.replace("0.023", price));
            assert!(matches!(Prices::load(Some(wrong.path())), Err(PricesError::Negative(_))), "{price}");
        }
        assert!(matches!(Prices::load(Some(Path::new("/nonexistent"))), Err(PricesError::Unreadable(..))));
    }
}
