//! The real program, started as its users start it: a process per test, spoken to through its command line, its Kafka
//! ports and its admin endpoint, ended by SIGTERM or by `kill -9`.
//!
//! 1. A test owns its directory and its ports (port 0), so that tests run side by side.
//! 2. Every wait is for a condition and ends after [`program::PATIENCE`]; nothing sleeps in place of one.
//! 3. Every process that a test starts is ended with it, also when it panics.

mod abuse;
mod admin;
mod alter;
mod audit;
mod cluster;
mod deletions;
mod disk;
mod etcd;
#[path = "../../../storage/tests/etcd/server.rs"]
#[allow(dead_code, reason = "the tests of the store itself need more of it")]
mod etcd_server;
mod gc;
mod groups;
mod history;
mod kafka;
mod memory;
mod output;
mod produce;
mod program;
mod quotas;
mod recover;
mod recover_etcd;
mod restart;
mod restore;
#[path = "../../../storage/tests/s3/server.rs"]
#[allow(dead_code, reason = "the tests of the stores need more of it")]
mod s3_server;
mod segment_copy;
mod segments;
mod settings;
mod shared_port;
mod standing;
mod start;
mod steady;
mod stores;
mod topics;
