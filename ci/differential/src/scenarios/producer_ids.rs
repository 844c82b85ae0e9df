//! InitProducerId without transactions.

use crate::pair::{Pair, versions};
use millrace_protocol::messages::InitProducerIdRequest;
use std::io;

pub(crate) fn run(pair: &mut Pair) -> io::Result<()> {
    let plain = || InitProducerIdRequest { transactional_id: None, ..Default::default() };
    pair.every("a producer id", |_, _| plain())?;
    pair.every("an empty transactional id", |_, _| InitProducerIdRequest {
        transactional_id: Some("".into()),
        transaction_timeout_ms: 1_000,
        ..Default::default()
    })?;
    for transaction_timeout_ms in [-1, i32::MAX] {
        pair.every(&format!("timeout {transaction_timeout_ms}"), |_, _| InitProducerIdRequest {
            transaction_timeout_ms,
            ..plain()
        })?;
    }
    // A newer epoch of an id is for transactional producers (KIP-360); others get a new id.
    for (producer_id, producer_epoch) in [(5, 0), (5, -1), (-1, 3), (-2, -2), (5, i16::MAX)] {
        for version in versions::<InitProducerIdRequest>().filter(|version| *version >= 3) {
            let case = format!("producer {producer_id} epoch {producer_epoch}");
            pair.ask(&case, version, |_| InitProducerIdRequest { producer_id, producer_epoch, ..plain() })?;
        }
    }
    Ok(())
}
