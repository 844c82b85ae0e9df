//! What AlterConfigs and IncrementalAlterConfigs have in common: resources are checked for form here, the control task
//! changes the settings of topics and then those of groups, and the answers come in the order of the request.
//!
//! Settings of nodes are flags of the process: no request changes them.

use super::create_topics::LONGEST_PATIENCE;
use super::describe_configs::{BROKER, GROUP, TOPIC, is_node};
use super::questions::Question;
use super::{RequestContext, message};
use crate::control::topic_rules;
use crate::control::{Alteration, GroupAlteration, SettingsChange, ToControl, TopicAlteration, TopicAnswer};
use crate::shard::core::ShardCore;
use crate::shard::events::Now;
use millrace_protocol::StrBytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::alter_configs::AlterConfigsResourceResponse;
use millrace_protocol::messages::incremental_alter_configs::IncrementalResourceResponse;
use millrace_protocol::messages::{AlterConfigsResponse, IncrementalAlterConfigsResponse};
use std::collections::BTreeSet;

/// A code and a text for people.
pub(crate) type Refusal = (ErrorCode, String);

/// What is to be changed of one resource.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) resource_type: i8,
    pub(crate) resource_name: StrBytes,
    /// The change, or what is wrong with how it is said.
    pub(crate) change: Result<SettingsChange, Refusal>,
}

/// Which API's response is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    Whole,
    Incremental,
}

#[derive(Debug)]
struct Outcome {
    resource_type: i8,
    resource_name: StrBytes,
    /// `None`: the control task decides.
    decided: Option<Refusal>,
}

/// The outcomes so far; those that are not decided are under way, in this order: topics, or groups once no topic is.
#[derive(Debug)]
pub(crate) struct Asked {
    form: Form,
    validate_only: bool,
    outcomes: Vec<Outcome>,
    /// Changes of groups, which the control task is asked for after those of topics.
    groups: Vec<GroupAlteration>,
}

/// Checks the resources and asks the control task to change those that are well formed.
pub(crate) fn ask(
    core: &mut ShardCore,
    now: Now,
    context: RequestContext,
    (form, validate_only): (Form, bool),
    wishes: Vec<Wish>,
) {
    let mut seen = BTreeSet::new();
    let mut twice = BTreeSet::new();
    for wish in &wishes {
        let resource = (wish.resource_type, wish.resource_name.clone());
        if !seen.insert(resource.clone()) {
            twice.insert(resource);
        }
    }
    let (mut alterations, mut groups) = (Vec::new(), Vec::new());
    let mut outcomes = Vec::with_capacity(wishes.len());
    for Wish { resource_type, resource_name, change } in wishes {
        // What is named more than once is refused, and answered once.
        let resource = (resource_type, resource_name.clone());
        let refused = if twice.contains(&resource) {
            if !seen.remove(&resource) {
                continue;
            }
            Err((ErrorCode::InvalidRequest, "Each resource must appear at most once.".to_owned()))
        } else {
            change.and_then(|change| place(core, resource_type, &resource_name).map(|()| change))
        };
        let decided = match refused {
            Ok(change) if resource_type == GROUP => {
                groups.push(GroupAlteration { group: resource_name.to_string(), change });
                None
            }
            Ok(change) => {
                let change = Alteration::Settings(change);
                alterations.push(TopicAlteration { name: resource_name.to_string(), change });
                None
            }
            Err(refusal) => Some(refusal),
        };
        outcomes.push(Outcome { resource_type, resource_name: resource_name.detached(), decided });
    }
    let asked = Asked { form, validate_only, outcomes, groups };
    if alterations.is_empty() {
        return answered(core, now, context, asked, Some(Vec::new()));
    }
    core.ask(now, Question::AlterConfigs(context, asked), LONGEST_PATIENCE, |token| ToControl::AlterTopics {
        token,
        alterations,
        validate_only,
    });
}

/// Only topics and groups have settings that a request can change.
fn place(core: &ShardCore, resource_type: i8, name: &str) -> Result<(), Refusal> {
    match resource_type {
        TOPIC if name.is_empty() => {
            Err((ErrorCode::InvalidRequest, "Default topic resources are not allowed.".to_owned()))
        }
        TOPIC => topic_rules::check_name(name).map_err(|refusal| (refusal.error, refusal.message)),
        GROUP if name.is_empty() => {
            Err((ErrorCode::InvalidRequest, "Default group resources are not allowed.".to_owned()))
        }
        GROUP => Ok(()),
        BROKER if name.is_empty() || is_node(core, name) => {
            Err((ErrorCode::InvalidRequest, "Settings of a node are its flags: it starts with them.".to_owned()))
        }
        BROKER => Err((ErrorCode::InvalidRequest, format!("There is no node {name} here."))),
        other => Err((ErrorCode::InvalidRequest, format!("Resources of type {other} have no settings here."))),
    }
}

/// The control task's results are here, or it did not answer in time.
pub(crate) fn answered(
    core: &mut ShardCore,
    now: Now,
    context: RequestContext,
    mut asked: Asked,
    answers: Option<Vec<TopicAnswer>>,
) {
    let groups = std::mem::take(&mut asked.groups);
    let mut answers = answers.map(Vec::into_iter);
    for outcome in asked.outcomes.iter_mut().filter(|outcome| outcome.decided.is_none()) {
        // Groups are asked for after topics.
        if outcome.resource_type == GROUP && !groups.is_empty() {
            continue;
        }
        outcome.decided = Some(match answers.as_mut().and_then(Iterator::next) {
            Some(answer) => (answer.error, answer.message.unwrap_or_default()),
            None => (ErrorCode::RequestTimedOut, String::new()),
        });
    }
    if groups.is_empty() {
        return reply(core, context, asked);
    }
    let validate_only = asked.validate_only;
    core.ask(now, Question::AlterConfigs(context, asked), LONGEST_PATIENCE, |token| ToControl::AlterGroups {
        token,
        alterations: groups,
        validate_only,
    });
}

fn reply(core: &mut ShardCore, context: RequestContext, asked: Asked) {
    let results = asked.outcomes.into_iter().map(|Outcome { resource_type, resource_name, decided }| {
        let (error_code, text) = decided.expect("all is decided when the response is made");
        let error_message = Some(text).filter(|text| !text.is_empty()).map(message);
        AlterConfigsResourceResponse { error_code, error_message, resource_type, resource_name }
    });
    match asked.form {
        Form::Whole => {
            let responses = results.collect();
            context.reply(core, &AlterConfigsResponse { throttle_time_ms: 0, responses });
        }
        Form::Incremental => {
            let responses = results.map(incremental).collect();
            context.reply(core, &IncrementalAlterConfigsResponse { throttle_time_ms: 0, responses });
        }
    }
}

/// The same in the words of the other API.
fn incremental(result: AlterConfigsResourceResponse) -> IncrementalResourceResponse {
    let AlterConfigsResourceResponse { error_code, error_message, resource_type, resource_name } = result;
    IncrementalResourceResponse { error_code, error_message, resource_type, resource_name }
}
