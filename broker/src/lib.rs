//! The broker of Millrace.
//!
//! A produce request's way: `net::connection` reads its frame into the arena → `shard::core` dispatches it by API →
//! `handlers::produce` validates and patches it in place → the partition takes it into the next seal → the lane
//! (`millrace_storage::lane`) makes it durable → the reply leaves through `net::replies`.

pub mod admin;
pub mod cold;
pub mod command;
pub mod control;
pub mod groups;
pub mod handlers;
pub mod journal;
pub mod logging;
pub mod net;
pub mod offline;
pub mod process;
pub mod pump;
pub mod quotas;
pub mod runtime;
pub mod settings;
pub mod shard;
pub mod signal;
