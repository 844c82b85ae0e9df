//! Arbitrary bytes as a request frame: `cargo +nightly fuzz run request` in `protocol/`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millrace_protocol::fuzz::fuzz_request;

fuzz_target!(|bytes: &[u8]| fuzz_request(bytes));
