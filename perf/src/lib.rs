//! What the hot path costs, in numbers that do not depend on the machine's mood.
//!
//! There is no library code here. `tests/counters` runs the broker's real connection, shard, lane and control code on
//! one thread in virtual time and counts, per request and per MiB: bytes copied, allocations, reads and writes of
//! sockets, messages between threads, uploads. It prints the table and fails when a number grows beyond its bound:
//!
//! ```text
//! cargo test -p millrace-perf --test counters -- --nocapture
//! ```
//!
//! Times are measured with `millrace-bench` and by `benches/hot_path.rs`, and reported in `RESULTS.md`, never asserted.
//! `README.md` names the commands.
