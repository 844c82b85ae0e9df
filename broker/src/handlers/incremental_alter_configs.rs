//! IncrementalAlterConfigs: single settings of topics (KIP-339).

use super::RequestContext;
use super::config_changes::{Form, Refusal, Wish, ask};
use crate::control::{SettingChange, SettingsChange};
use crate::shard::core::ShardCore;
use crate::shard::events::Now;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::IncrementalAlterConfigsRequest;
use millrace_protocol::messages::incremental_alter_configs::{IncrementalConfig, IncrementalResource};
use std::collections::BTreeMap;

/// The numbers of the operations.
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// Has the topics' settings changed.
pub(crate) fn handle(core: &mut ShardCore, now: Now, context: RequestContext, request: IncrementalAlterConfigsRequest) {
    let wish = |resource: IncrementalResource| Wish {
        resource_type: resource.resource_type,
        resource_name: resource.resource_name,
        change: changes(&resource.configs),
    };
    let wishes = request.resources.into_iter().map(wish).collect();
    ask(core, now, context, (Form::Incremental, request.validate_only), wishes);
}

fn changes(configs: &[IncrementalConfig]) -> Result<SettingsChange, Refusal> {
    let mut changes = BTreeMap::new();
    for config in configs {
        if changes.insert(config.name.to_string(), change(config)?).is_some() {
            return Err((ErrorCode::InvalidRequest, "Error due to duplicate config keys".to_owned()));
        }
    }
    Ok(SettingsChange::Each(changes))
}

fn change(config: &IncrementalConfig) -> Result<SettingChange, Refusal> {
    let make = match config.config_operation {
        DELETE => return Ok(SettingChange::Delete),
        SET => SettingChange::Set,
        APPEND => SettingChange::Append,
        SUBTRACT => SettingChange::Subtract,
        other => return Err((ErrorCode::InvalidRequest, format!("Unknown operation {other} on {}.", config.name))),
    };
    match &config.value {
        Some(value) => Ok(make(value.to_string())),
        None => Err((ErrorCode::InvalidRequest, format!("Null value not supported for : {}", config.name))),
    }
}
