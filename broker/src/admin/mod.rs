//! The admin endpoint: `/metrics`, `/healthz`, `/readyz` over HTTP/1.1.
//!
//! Invariants:
//! 1. Shards pay nothing for a scrape: each copies its counters into its [`Cells`] twice a second, what is asked of the
//!    store and how long acknowledgements take is counted where all can read it, and the endpoint reads only those.
//! 2. Connections, requests and their sizes are bounded; a broken client ends its own connection only.
//!
//! `/healthz` is 200 while every shard has published its [`Cells`], and every lane has turned, within [`PULSE_LIMIT`], and is
//! answered by the control task's thread; `/readyz` is 200 while that holds and every partition known at start-up has been
//! recovered.

mod cells;
mod http;
pub mod jobs;
mod pools;
mod store;
mod threads;

pub use cells::{Cells, Exposition, PUBLISH_INTERVAL, PULSE_LIMIT};
pub use http::{adopt, serve};
pub use pools::{POOLS, PoolLevel, PoolLevels, levels};
