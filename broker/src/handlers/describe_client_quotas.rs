//! DescribeClientQuotas: the quotas of users and client ids, by a filter (KIP-546).

use super::{RequestContext, message};
use crate::shard::core::ShardCore;
use crate::shard::events::Now;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::describe_client_quotas::{ComponentData, EntityData, EntryData, ValueData};
use millrace_protocol::messages::{DescribeClientQuotasRequest, DescribeClientQuotasResponse};
use millrace_protocol::{Double, StrBytes};
use millrace_storage::meta::records::{QuotaEntity, QuotaPart};
use std::collections::BTreeMap;

/// The types of a part of an entity.
pub(crate) const USER: &str = "user";
pub(crate) const CLIENT_ID: &str = "client-id";
pub(crate) const IP: &str = "ip";

/// How a part is matched.
const EXACT: i8 = 0;
const DEFAULT: i8 = 1;
const ANY: i8 = 2;

/// What one type of part must be.
enum Match {
    Exact(QuotaPart),
    Any,
}

/// Answers from the image.
pub(crate) fn handle(core: &mut ShardCore, _now: Now, context: RequestContext, request: DescribeClientQuotasRequest) {
    let mut response = DescribeClientQuotasResponse { error_message: None, ..Default::default() };
    match filter(request.components) {
        Ok(wanted) => {
            let quotas = core.image.quotas.clone();
            let matching = quotas.0.iter().filter(|(entity, _)| matches(entity, &wanted, request.strict));
            response.entries = Some(matching.map(|(entity, quotas)| entry(entity, quotas)).collect());
        }
        Err((error, text)) => {
            response = DescribeClientQuotasResponse {
                error_code: error,
                error_message: Some(message(text)),
                entries: None,
                ..Default::default()
            };
        }
    }
    context.reply(core, &response);
}

/// Reads the filter. Errors are Kafka's.
fn filter(components: Vec<ComponentData>) -> Result<BTreeMap<StrBytes, Match>, (ErrorCode, String)> {
    let invalid = |text: String| Err((ErrorCode::InvalidRequest, text));
    let mut wanted = BTreeMap::new();
    for ComponentData { entity_type, match_type, match_name } in components {
        if entity_type.is_empty() {
            return invalid("Invalid empty entity type.".to_owned());
        }
        if wanted.contains_key(&entity_type) {
            return invalid(format!("Entity type {entity_type} cannot appear more than once in the filter."));
        }
        if ![USER, CLIENT_ID, IP].contains(&&*entity_type) {
            return Err((ErrorCode::UnsupportedVersion, format!("Unsupported entity type {entity_type}")));
        }
        let found = match (match_type, match_name) {
            (EXACT, Some(name)) => Match::Exact(QuotaPart::Named(name.to_string())),
            (EXACT, None) => return invalid("An exact match needs a name.".to_owned()),
            (DEFAULT, None) => Match::Exact(QuotaPart::Default),
            (ANY, None) => Match::Any,
            (DEFAULT | ANY, Some(_)) => return invalid("Only an exact match has a name.".to_owned()),
            (other, _) => return invalid(format!("Unknown match type {other}")),
        };
        wanted.insert(entity_type, found);
    }
    if wanted.contains_key(IP) && wanted.len() > 1 {
        return invalid("An ip cannot be asked for together with a user or a client id.".to_owned());
    }
    Ok(wanted)
}

fn parts(entity: &QuotaEntity) -> [(&'static str, &QuotaPart); 2] {
    [(USER, &entity.user), (CLIENT_ID, &entity.client_id)]
}

fn matches(entity: &QuotaEntity, wanted: &BTreeMap<StrBytes, Match>, strict: bool) -> bool {
    let fits = |(kind, part): (&str, &QuotaPart)| match wanted.get(kind) {
        Some(Match::Exact(exact)) => part == exact,
        Some(Match::Any) => *part != QuotaPart::Absent,
        None => !strict || *part == QuotaPart::Absent,
    };
    // No quota has an ip.
    !wanted.contains_key(IP) && parts(entity).into_iter().all(fits)
}

fn entry(entity: &QuotaEntity, quotas: &BTreeMap<String, u64>) -> EntryData {
    let part = |(kind, part): (&'static str, &QuotaPart)| {
        let entity_name = match part {
            QuotaPart::Absent => return None,
            QuotaPart::Default => None,
            QuotaPart::Named(name) => Some(StrBytes::from(name.as_str())),
        };
        Some(EntityData { entity_type: StrBytes::from_static(kind), entity_name })
    };
    let value =
        |(key, rate): (&String, &u64)| ValueData { key: StrBytes::from(key.as_str()), value: Double(*rate as f64) };
    EntryData {
        entity: parts(entity).into_iter().filter_map(part).collect(),
        values: quotas.iter().map(value).collect(),
    }
}
