//! AlterConfigs: all settings of a topic at once; what is not named returns to its default.

use super::RequestContext;
use super::config_changes::{Form, Refusal, Wish, ask};
use crate::control::SettingsChange;
use crate::shard::core::ShardCore;
use crate::shard::events::Now;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::AlterConfigsRequest;
use millrace_protocol::messages::alter_configs::{AlterConfigsResource, AlterableConfig};
use std::collections::BTreeMap;

/// Has the topics' settings replaced.
pub(crate) fn handle(core: &mut ShardCore, now: Now, context: RequestContext, request: AlterConfigsRequest) {
    let wish = |resource: AlterConfigsResource| Wish {
        resource_type: resource.resource_type,
        resource_name: resource.resource_name,
        change: replacement(&resource.configs),
    };
    let wishes = request.resources.into_iter().map(wish).collect();
    ask(core, now, context, (Form::Whole, request.validate_only), wishes);
}

fn replacement(configs: &[AlterableConfig]) -> Result<SettingsChange, Refusal> {
    let mut settings = BTreeMap::new();
    for config in configs {
        let Some(value) = &config.value else {
            return Err((ErrorCode::InvalidRequest, format!("Null value not supported for : {}", config.name)));
        };
        if settings.insert(config.name.to_string(), value.to_string()).is_some() {
            return Err((ErrorCode::InvalidRequest, "Error due to duplicate config keys".to_owned()));
        }
    }
    Ok(SettingsChange::Replace(settings))
}
