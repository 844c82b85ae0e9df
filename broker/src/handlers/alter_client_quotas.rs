//! AlterClientQuotas: quotas are set and taken away by the control task; what is malformed, or a quota that is not
//! offered here, is refused at once (KIP-546).

use super::config_changes::Refusal;
use super::create_topics::LONGEST_PATIENCE;
use super::describe_client_quotas::{CLIENT_ID, IP, USER};
use super::questions::Question;
use super::{RequestContext, message};
use crate::control::topic_rules;
use crate::control::{QuotaAlteration, ToControl};
use crate::quotas::Quota;
use crate::shard::core::ShardCore;
use crate::shard::events::Now;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::alter_client_quotas::{EntityData, EntityResponse, EntryData, EntryResponse, OpData};
use millrace_protocol::messages::{AlterClientQuotasRequest, AlterClientQuotasResponse};
use millrace_storage::meta::records::{QuotaEntity, QuotaPart};
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of the name of a user or client id that has a quota of its own.
const LONGEST_NAME: usize = 1_024;

/// Quotas that Kafka has and this broker does not.
const NOT_OFFERED: [&str; 3] = ["request_percentage", "controller_mutation_rate", "connection_creation_rate"];

#[derive(Debug)]
struct Outcome {
    entity: Vec<EntityResponse>,
    /// `None`: the control task decides.
    decided: Option<Refusal>,
}

/// The outcomes so far; those that are not decided are under way, in this order.
#[derive(Debug)]
pub(crate) struct Asked(Vec<Outcome>);

/// Checks the entries and asks the control task for those that are well formed.
pub(crate) fn handle(core: &mut ShardCore, now: Now, context: RequestContext, request: AlterClientQuotasRequest) {
    let mut times: BTreeMap<Vec<(String, Option<String>)>, usize> = BTreeMap::new();
    for entry in &request.entries {
        *times.entry(identity(entry)).or_default() += 1;
    }
    let (mut alterations, mut outcomes) = (Vec::new(), Vec::new());
    for entry in &request.entries {
        let Some(times) = times.remove(&identity(entry)) else { continue };
        let checked = if times > 1 {
            // What is named more than once is refused, and answered once.
            Err(invalid("Each entity must appear at most once.".to_owned()))
        } else {
            alteration(entry)
        };
        let decided = match checked {
            Ok(alteration) => {
                alterations.push(alteration);
                None
            }
            Err(refusal) => Some(refusal),
        };
        let named = |part: &EntityData| EntityResponse {
            entity_type: part.entity_type.detached(),
            entity_name: part.entity_name.as_ref().map(|name| name.detached()),
        };
        outcomes.push(Outcome { entity: entry.entity.iter().map(named).collect(), decided });
    }
    let (asked, validate_only) = (Asked(outcomes), request.validate_only);
    if alterations.is_empty() {
        return answered(core, context, asked, Some(Vec::new()));
    }
    core.ask(now, Question::AlterQuotas(context, asked), LONGEST_PATIENCE, |token| ToControl::AlterQuotas {
        token,
        alterations,
        validate_only,
    });
}

/// What an entry is about, however its parts are ordered.
fn identity(entry: &EntryData) -> Vec<(String, Option<String>)> {
    let part = |part: &EntityData| (part.entity_type.to_string(), part.entity_name.as_ref().map(ToString::to_string));
    let mut parts: Vec<_> = entry.entity.iter().map(part).collect();
    parts.sort();
    parts
}

fn invalid(text: String) -> Refusal {
    (ErrorCode::InvalidRequest, text)
}

fn alteration(entry: &EntryData) -> Result<QuotaAlteration, Refusal> {
    let entity = entity(&entry.entity)?;
    let mut seen = BTreeSet::new();
    let mut changes = Vec::with_capacity(entry.ops.len());
    for op in &entry.ops {
        if !seen.insert(&*op.key) {
            return Err(invalid(format!("Duplicate quota key {}.", op.key)));
        }
        changes.push((op.key.to_string(), rate(op)?));
    }
    Ok(QuotaAlteration { entity, changes })
}

/// Whom the parts name. Errors are Kafka's, but for ips, of which it has quotas.
fn entity(parts: &[EntityData]) -> Result<QuotaEntity, Refusal> {
    if parts.is_empty() {
        return Err(invalid("Invalid empty client quota entity.".to_owned()));
    }
    let mut entity = QuotaEntity::default();
    for EntityData { entity_type, entity_name } in parts {
        let place = match &**entity_type {
            USER => &mut entity.user,
            CLIENT_ID => &mut entity.client_id,
            IP => return Err(invalid("The rate of connections of an ip is not limited here.".to_owned())),
            other => return Err(invalid(format!("Unhandled client quota entity type: {other}"))),
        };
        if *place != QuotaPart::Absent {
            return Err(invalid(format!("Invalid client quota entity, {entity_type} appears twice.")));
        }
        *place = match entity_name.as_deref() {
            None => QuotaPart::Default,
            Some("") => return Err(invalid(format!("Empty {entity_type} not supported."))),
            Some(name) if name.len() > LONGEST_NAME => {
                return Err(invalid(format!("A {entity_type} with a quota has up to {LONGEST_NAME} bytes.")));
            }
            Some(name) => QuotaPart::Named(name.to_owned()),
        };
    }
    Ok(entity)
}

/// The bytes a second that are set; `None`: what is taken away, even if there is no such quota.
fn rate(op: &OpData) -> Result<Option<u64>, Refusal> {
    let (key, value) = (&op.key, op.value.0);
    if op.remove {
        return Ok(None);
    }
    if NOT_OFFERED.contains(&&**key) {
        return Err(invalid(format!(
            "{key} is not offered here: set producer_byte_rate and consumer_byte_rate, in bytes a second at each broker."
        )));
    }
    if Quota::of(key).is_none() {
        return Err(invalid(format!("Invalid configuration key {key}.")));
    }
    if value.is_nan() || value <= 0.0 {
        return Err(invalid(format!("Quota {key} must be greater than 0.")));
    }
    if value > i64::MAX as f64 {
        return Err(invalid(format!("Proposed value for {key} is too large for a LONG.")));
    }
    // Kafka's tolerance.
    if (value - value.round()).abs() > 1e-6 || value.round() == 0.0 {
        return Err(invalid(format!("{key} cannot be a fractional value.")));
    }
    Ok(Some(value.round() as u64))
}

/// The control task's results are here, or it did not answer in time.
pub(crate) fn answered(
    core: &mut ShardCore,
    context: RequestContext,
    asked: Asked,
    results: Option<Vec<Result<(), topic_rules::Refusal>>>,
) {
    let mut results = results.map(Vec::into_iter);
    let entry = |Outcome { entity, decided }| {
        let refused = decided.or_else(|| match results.as_mut().and_then(Iterator::next) {
            Some(result) => result.err().map(|refusal| (refusal.error, refusal.message)),
            None => Some((ErrorCode::RequestTimedOut, "The request was not decided in time.".to_owned())),
        });
        let (error_code, text) = refused.map_or((ErrorCode::None, None), |(error, text)| (error, Some(text)));
        EntryResponse { error_code, error_message: text.map(message), entity }
    };
    let entries = asked.0.into_iter().map(entry).collect();
    context.reply(core, &AlterClientQuotasResponse { throttle_time_ms: 0, entries });
}
