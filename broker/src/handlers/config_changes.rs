//! What AlterConfigs and IncrementalAlterConfigs have in common: resources are checked for form here, the control task
//! changes the settings of topics, groups and nodes, and the answers come in the order of the request.
//!
//! Topics are asked for first, then groups, then nodes: clients do not put several kinds into one request.

use super::create_topics::LONGEST_PATIENCE;
use super::describe_configs::{BROKER, GROUP, TOPIC, is_node};
use super::questions::Question;
use super::{RequestContext, message};
use crate::control::topic_rules;
use crate::control::{
    Alteration, GroupAlteration, NodeAlteration, SettingsChange, ToControl, TopicAlteration, TopicAnswer,
};
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

/// Who decides about a resource.
#[derive(Debug)]
enum Decision {
    Made(Option<Refusal>),
    /// The control task, with the topics.
    Topic,
    /// The control task, with the groups.
    Group,
    /// The control task, with the nodes.
    Node,
}

#[derive(Debug)]
struct Outcome {
    resource_type: i8,
    resource_name: StrBytes,
    decision: Decision,
}

/// The outcomes so far; those that are not decided are under way, in this order.
#[derive(Debug)]
pub(crate) struct Asked {
    form: Form,
    validate_only: bool,
    outcomes: Vec<Outcome>,
    /// What is still to be asked of groups.
    groups: Vec<GroupAlteration>,
    /// What is still to be asked of nodes.
    nodes: Vec<NodeAlteration>,
}

impl Asked {
    /// Fills in what the control task decided, where it did.
    fn decide(&mut self, is_of: impl Fn(&Decision) -> bool, mut results: impl FnMut() -> Option<Option<Refusal>>) {
        let late = || Some((ErrorCode::RequestTimedOut, "The request was not decided in time.".to_owned()));
        for outcome in self.outcomes.iter_mut().filter(|outcome| is_of(&outcome.decision)) {
            outcome.decision = Decision::Made(results().unwrap_or_else(late));
        }
    }
}

/// A change, and who makes it.
enum Place {
    Topic(TopicAlteration),
    Group(GroupAlteration),
    Node(NodeAlteration),
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
    let mut alterations = Vec::new();
    let outcomes = Vec::with_capacity(wishes.len());
    let mut asked = Asked { form, validate_only, outcomes, groups: Vec::new(), nodes: Vec::new() };
    for Wish { resource_type, resource_name, change } in wishes {
        // What is named more than once is refused, and answered once.
        let resource = (resource_type, resource_name.clone());
        let placed = if twice.contains(&resource) {
            if !seen.remove(&resource) {
                continue;
            }
            Err((ErrorCode::InvalidRequest, "Each resource must appear at most once.".to_owned()))
        } else {
            change.and_then(|change| place(core, resource_type, &resource_name, change))
        };
        let decision = match placed {
            Ok(Place::Topic(alteration)) => {
                alterations.push(alteration);
                Decision::Topic
            }
            Ok(Place::Group(alteration)) => {
                asked.groups.push(alteration);
                Decision::Group
            }
            Ok(Place::Node(alteration)) => {
                asked.nodes.push(alteration);
                Decision::Node
            }
            Err(refusal) => Decision::Made(Some(refusal)),
        };
        asked.outcomes.push(Outcome { resource_type, resource_name: resource_name.detached(), decision });
    }
    if alterations.is_empty() {
        return ask_of_groups(core, now, context, asked);
    }
    core.ask(now, Question::AlterConfigs(context, asked), LONGEST_PATIENCE, |token| ToControl::AlterTopics {
        token,
        alterations,
        validate_only,
    });
}

/// Which settings a resource has that a request can change.
fn place(core: &ShardCore, resource_type: i8, name: &str, change: SettingsChange) -> Result<Place, Refusal> {
    match resource_type {
        TOPIC if name.is_empty() => {
            Err((ErrorCode::InvalidRequest, "Default topic resources are not allowed.".to_owned()))
        }
        TOPIC => {
            topic_rules::check_name(name).map_err(|refusal| (refusal.error, refusal.message))?;
            Ok(Place::Topic(TopicAlteration { name: name.to_owned(), change: Alteration::Settings(change) }))
        }
        GROUP if name.is_empty() => {
            Err((ErrorCode::InvalidRequest, "Default group resources are not allowed.".to_owned()))
        }
        GROUP => Ok(Place::Group(GroupAlteration { group: name.to_owned(), change })),
        BROKER if name.is_empty() => Ok(Place::Node(NodeAlteration { node: None, change })),
        BROKER => match name.parse() {
            Ok(node) if is_node(core, name) => Ok(Place::Node(NodeAlteration { node: Some(node), change })),
            _ => Err((ErrorCode::InvalidRequest, format!("There is no node {name} here."))),
        },
        other => Err((ErrorCode::InvalidRequest, format!("Resources of type {other} have no settings here."))),
    }
}

fn ask_of_groups(core: &mut ShardCore, now: Now, context: RequestContext, mut asked: Asked) {
    let alterations = std::mem::take(&mut asked.groups);
    if alterations.is_empty() {
        return ask_of_nodes(core, now, context, asked);
    }
    let validate_only = asked.validate_only;
    core.ask(now, Question::AlterConfigs(context, asked), LONGEST_PATIENCE, |token| ToControl::AlterGroups {
        token,
        alterations,
        validate_only,
    });
}

fn ask_of_nodes(core: &mut ShardCore, now: Now, context: RequestContext, mut asked: Asked) {
    let alterations = std::mem::take(&mut asked.nodes);
    if alterations.is_empty() {
        return finish(core, context, asked);
    }
    let validate_only = asked.validate_only;
    core.ask(now, Question::AlterNodes(context, asked), LONGEST_PATIENCE, |token| ToControl::AlterNodes {
        token,
        alterations,
        validate_only,
    });
}

/// The control task's results for topics, or for groups once no topic is open, are here, or it did not answer in time.
pub(crate) fn topics_answered(
    core: &mut ShardCore,
    now: Now,
    context: RequestContext,
    mut asked: Asked,
    answers: Option<Vec<TopicAnswer>>,
) {
    let refusal = |TopicAnswer { error, message, .. }: TopicAnswer| match error {
        ErrorCode::None => None,
        error => Some((error, message.unwrap_or_default())),
    };
    let mut answers = answers.unwrap_or_default().into_iter().map(refusal);
    if asked.outcomes.iter().any(|outcome| matches!(outcome.decision, Decision::Topic)) {
        asked.decide(|decision| matches!(decision, Decision::Topic), || answers.next());
    } else {
        asked.decide(|decision| matches!(decision, Decision::Group), || answers.next());
    }
    ask_of_groups(core, now, context, asked);
}

/// The same for nodes.
pub(crate) fn nodes_answered(
    core: &mut ShardCore,
    context: RequestContext,
    mut asked: Asked,
    results: Option<Vec<Result<(), topic_rules::Refusal>>>,
) {
    let refusal = |result: Result<(), topic_rules::Refusal>| result.err().map(|no| (no.error, no.message));
    let mut results = results.unwrap_or_default().into_iter().map(refusal);
    asked.decide(|decision| matches!(decision, Decision::Node), || results.next());
    finish(core, context, asked);
}

fn finish(core: &mut ShardCore, context: RequestContext, asked: Asked) {
    let results = asked.outcomes.into_iter().map(|Outcome { resource_type, resource_name, decision }| {
        let Decision::Made(refused) = decision else { unreachable!("every resource was decided about before") };
        let (error_code, text) = refused.map_or((ErrorCode::None, None), |(error, text)| (error, Some(text)));
        let error_message = text.filter(|text| !text.is_empty()).map(message);
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
