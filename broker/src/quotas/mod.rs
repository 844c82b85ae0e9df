//! Client quotas (KIP-13, KIP-55, KIP-219): how many bytes a second a user or a client id may send to a broker, and
//! receive from it. Every shard is a broker to clients, so each counts for itself, as Kafka's brokers do.
//!
//! [`table`] says which quota is whose, [`meter`] measures, [`ledger`] keeps the measurements of one shard. All of it is
//! pure; who holds a client back is the connection.

pub mod ledger;
pub mod meter;
pub mod table;

pub use table::{Quota, QuotaTable};

/// Every client's user, as Kafka names who did not say: nobody has to say who he is here.
pub const ANONYMOUS: &str = "ANONYMOUS";
