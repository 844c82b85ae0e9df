//! InitProducerId (key 22): a producer id and epoch for an idempotent producer (KIP-98).

use crate::codec::message;
use crate::error_code::ErrorCode;
use crate::string::StrBytes;

message! {
    InitProducerIdRequest of InitProducerId 0..=6, flexible 2.., answered by InitProducerIdResponse;

    /// Asks for a producer id, or for a newer epoch of the one given (KIP-360).
    pub struct InitProducerIdRequest {
        transactional_id: Option<StrBytes> = Some(StrBytes::new()) => 0..;
        transaction_timeout_ms: i32 => 0..;
        producer_id: i64 = -1 => 3..;
        producer_epoch: i16 = -1 => 3..;
        enable2_pc: bool => 6..;
        keep_prepared_txn: bool => 6..;
    }
}

message! {
    InitProducerIdResponse of InitProducerId 0..=6, flexible 2..;

    /// The id and epoch to put into batches.
    pub struct InitProducerIdResponse {
        throttle_time_ms: i32 => 0.., else ignored;
        error_code: ErrorCode => 0..;
        producer_id: i64 = -1 => 0..;
        producer_epoch: i16 => 0..;
        ongoing_txn_producer_id: i64 = -1 => 6..;
        ongoing_txn_producer_epoch: i16 = -1 => 6..;
    }
}
