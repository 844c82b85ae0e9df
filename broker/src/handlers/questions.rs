//! Requests that wait for the control task: what was asked, and how to go on when the answer comes.
//!
//! 1. A question is answered once: by the control task or by its deadline; an answer that comes later is dropped.

use super::{
    RequestContext, alter_client_quotas, config_changes, create_partitions, create_topics, delete_topics,
    init_producer_id, metadata,
};
use crate::control::topic_rules::Refusal;
use crate::control::{ToControl, Token, TopicAnswer};
use crate::shard::core::ShardCore;
use crate::shard::deadlines::{DeadlineId, Due};
use crate::shard::events::{Effect, Now};
use std::collections::BTreeMap;
use std::time::Duration;

/// A request that goes on when the control task has answered.
#[derive(Debug)]
pub(crate) enum Question {
    /// Metadata that creates topics.
    AutoCreate(RequestContext, metadata::Asked),
    /// CreateTopics.
    CreateTopics(RequestContext, create_topics::Asked),
    /// CreatePartitions.
    CreatePartitions(RequestContext, create_partitions::Asked),
    /// AlterConfigs and IncrementalAlterConfigs.
    AlterConfigs(RequestContext, config_changes::Asked),
    /// The settings of nodes of AlterConfigs and IncrementalAlterConfigs.
    AlterNodes(RequestContext, config_changes::Asked),
    /// AlterClientQuotas.
    AlterQuotas(RequestContext, alter_client_quotas::Asked),
    /// DeleteTopics.
    DeleteTopics(RequestContext, delete_topics::Asked),
    /// The producer id block that waiting requests draw from.
    ProducerIds,
}

/// The questions of one shard that are open.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    open: BTreeMap<Token, (Question, DeadlineId)>,
    next: u64,
}

impl Questions {
    /// A token that no question of this shard had before.
    pub(crate) fn token(&mut self) -> Token {
        self.next += 1;
        Token(self.next)
    }
}

impl ShardCore {
    /// Asks the control task; `ask` makes the message of its token. Without an answer within `patience` the request goes
    /// on as if nothing had been done.
    pub(crate) fn ask(
        &mut self,
        now: Now,
        question: Question,
        patience: Duration,
        ask: impl FnOnce(Token) -> ToControl,
    ) {
        let token = self.questions.token();
        let deadline = self.deadlines.set(now.mono.plus(patience), Due::Question(token));
        self.questions.open.insert(token, (question, deadline));
        self.effects.push(Effect::ToControl(ask(token)));
    }

    /// Takes an open question; `None` if its time was over before.
    pub(crate) fn take_question(&mut self, token: Token) -> Option<Question> {
        let (question, deadline) = self.questions.open.remove(&token)?;
        self.deadlines.clear(deadline);
        Some(question)
    }

    /// Results for quotas or nodes came, in the order asked.
    pub(crate) fn altered(&mut self, token: Token, results: Vec<Result<(), Refusal>>) {
        match self.take_question(token) {
            Some(Question::AlterQuotas(context, asked)) => {
                alter_client_quotas::answered(self, context, asked, Some(results));
            }
            Some(Question::AlterNodes(context, asked)) => {
                config_changes::nodes_answered(self, context, asked, Some(results));
            }
            Some(other) => unreachable!("the control task answers what it was asked: {other:?}"),
            None => {}
        }
    }

    /// Results for topics came, in the order asked; none if the control task did not answer in time, whatever was asked.
    pub(crate) fn topics_answered(&mut self, now: Now, token: Token, topics: Option<Vec<TopicAnswer>>) {
        match self.take_question(token) {
            None => {}
            Some(Question::AutoCreate(context, asked)) => metadata::created(self, context, asked, topics),
            Some(Question::CreateTopics(context, asked)) => create_topics::answered(self, context, asked, topics),
            Some(Question::CreatePartitions(context, asked)) => {
                create_partitions::answered(self, context, asked, topics);
            }
            Some(Question::AlterConfigs(context, asked)) => {
                config_changes::topics_answered(self, now, context, asked, topics);
            }
            Some(Question::AlterNodes(context, asked)) => config_changes::nodes_answered(self, context, asked, None),
            Some(Question::AlterQuotas(context, asked)) => alter_client_quotas::answered(self, context, asked, None),
            Some(Question::DeleteTopics(context, asked)) => delete_topics::answered(self, context, asked, topics),
            Some(Question::ProducerIds) => init_producer_id::unanswered(self),
        }
    }
}
