//! DescribeClientQuotas (key 48): which clients may send and receive how much.

use crate::codec::message;
use crate::double::Double;
use crate::error_code::ErrorCode;
use crate::string::StrBytes;

message! {
    DescribeClientQuotasRequest of DescribeClientQuotas 0..=1, flexible 1.., answered by DescribeClientQuotasResponse;

    /// Asks for the quotas of those entities that match every component.
    pub struct DescribeClientQuotasRequest {
        components: Vec<ComponentData> => 0..;
        /// Whether entities with parts that no component names are left out.
        strict: bool => 0..;
    }

    /// What one part of an entity must be like.
    pub struct ComponentData {
        /// `user`, `client-id` or `ip`.
        entity_type: StrBytes => 0..;
        /// 0: the name in `match_name`; 1: the default; 2: any.
        match_type: i8 => 0..;
        /// Kafka calls it `match`; null unless a name is meant.
        match_name: Option<StrBytes> = Some(StrBytes::new()) => 0..;
    }
}

message! {
    DescribeClientQuotasResponse of DescribeClientQuotas 0..=1, flexible 1..;

    /// The quotas.
    pub struct DescribeClientQuotasResponse {
        throttle_time_ms: i32 => 0..;
        error_code: ErrorCode => 0..;
        error_message: Option<StrBytes> = Some(StrBytes::new()) => 0..;
        /// Null beside an error.
        entries: Option<Vec<EntryData>> = Some(Vec::new()) => 0..;
    }

    /// The quotas of one entity.
    pub struct EntryData {
        entity: Vec<EntityData> => 0..;
        values: Vec<ValueData> => 0..;
    }

    /// A part of an entity.
    pub struct EntityData {
        entity_type: StrBytes => 0..;
        /// Null: the default.
        entity_name: Option<StrBytes> = Some(StrBytes::new()) => 0..;
    }

    /// A quota.
    pub struct ValueData {
        key: StrBytes => 0..;
        value: Double => 0..;
    }
}
