//! AlterClientQuotas (key 49): sets and removes quotas.

use crate::codec::message;
use crate::double::Double;
use crate::error_code::ErrorCode;
use crate::string::StrBytes;

message! {
    AlterClientQuotasRequest of AlterClientQuotas 0..=1, flexible 1.., answered by AlterClientQuotasResponse;

    /// The changes.
    pub struct AlterClientQuotasRequest {
        entries: Vec<EntryData> => 0..;
        validate_only: bool => 0..;
    }

    /// The changes of one entity.
    pub struct EntryData {
        entity: Vec<EntityData> => 0..;
        ops: Vec<OpData> => 0..;
    }

    /// A part of an entity.
    pub struct EntityData {
        /// `user`, `client-id` or `ip`.
        entity_type: StrBytes => 0..;
        /// Null: the default.
        entity_name: Option<StrBytes> = Some(StrBytes::new()) => 0..;
    }

    /// A change of one quota.
    pub struct OpData {
        key: StrBytes => 0..;
        value: Double => 0..;
        /// Whether the quota is taken away.
        remove: bool => 0..;
    }
}

message! {
    AlterClientQuotasResponse of AlterClientQuotas 0..=1, flexible 1..;

    /// What became of the changes.
    pub struct AlterClientQuotasResponse {
        throttle_time_ms: i32 => 0..;
        entries: Vec<EntryResponse> => 0..;
    }

    /// What became of the changes of one entity.
    pub struct EntryResponse {
        error_code: ErrorCode => 0..;
        error_message: Option<StrBytes> = Some(StrBytes::new()) => 0..;
        entity: Vec<EntityResponse> => 0..;
    }

    /// A part of an entity, as it was named.
    pub struct EntityResponse {
        entity_type: StrBytes => 0..;
        entity_name: Option<StrBytes> = Some(StrBytes::new()) => 0..;
    }
}
