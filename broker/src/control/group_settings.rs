//! Settings of single groups (Kafka's resource type GROUP): which there are, what values they take, and where they are
//! kept: `/group-settings/{group}`, a record each. A group need not exist to have settings.
//!
//! Invariants:
//! 1. A change is answered when it is durable, and the image that shows it has left before the answer.
//! 2. One transaction is under way at a time; it compares what the record was, so that nobody's change is lost.

use super::effects::{Owner, Sink, StoreAnswer};
use super::messages::{FromControl, GroupAlteration, SettingChange, SettingsChange, Token, TopicAnswer};
use super::own_changes::OwnChanges;
use super::topic_rules::Refusal;
use bytes::Bytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_storage::ids::ShardIndex;
use millrace_storage::meta::records::{GroupSettingsRecord, RECORD_VERSION, Record};
use millrace_storage::meta::{Compare, Op, Revision, Txn, TxnOutcome, keys};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Settings that differ from the defaults, by Kafka's names.
pub type Settings = BTreeMap<String, String>;

/// `consumer.session.timeout.ms`.
pub const SESSION: &str = "consumer.session.timeout.ms";
/// `consumer.heartbeat.interval.ms`.
pub const INTERVAL: &str = "consumer.heartbeat.interval.ms";

/// A setting that groups can have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupSetting {
    /// Kafka's name.
    pub name: &'static str,
    /// Kafka's name of the setting of brokers that groups without their own take it from.
    pub of_broker: &'static str,
    /// What it may be, as Kafka's brokers bound it (`group.consumer.min.…` and `group.consumer.max.…`).
    pub bounds: (u64, u64),
    /// What it does here, for people.
    pub about: &'static str,
}

/// All of them, by name.
pub const GROUP_SETTINGS: &[GroupSetting] = &[
    GroupSetting {
        name: INTERVAL,
        of_broker: "group.consumer.heartbeat.interval.ms",
        bounds: (5_000, 15_000),
        about: "Milliseconds between two heartbeats of a member of the consumer protocol.",
    },
    GroupSetting {
        name: SESSION,
        of_broker: "group.consumer.session.timeout.ms",
        bounds: (45_000, 60_000),
        about: "Milliseconds of silence after which a member of the consumer protocol is out.",
    },
];

/// Groups that may have settings of their own,
const MOST_GROUPS: usize = 10_000;
/// bytes that the name of such a group may have,
const LONGEST_NAME: usize = 1_024;
/// and a value: numbers are shorter, but for the spaces that Kafka lets stand around them.
const LONGEST_VALUE: usize = 64;

/// Settings after a change, checked.
fn changed(before: &Settings, change: &SettingsChange) -> Result<Settings, Refusal> {
    let invalid = |message: String| Refusal::new(ErrorCode::InvalidConfig, message);
    let after = match change {
        SettingsChange::Replace(all) => all.clone(),
        SettingsChange::Each(changes) => {
            let mut after = before.clone();
            for (name, change) in changes {
                match change {
                    SettingChange::Set(value) => _ = after.insert(name.clone(), value.clone()),
                    SettingChange::Delete => _ = after.remove(name),
                    SettingChange::Append(_) | SettingChange::Subtract(_) => {
                        return Err(invalid(format!("{name} is not a list: nothing can be appended or subtracted.")));
                    }
                }
            }
            after
        }
    };
    for (name, value) in &after {
        let Some(setting) = GROUP_SETTINGS.iter().find(|setting| setting.name == name) else {
            return Err(invalid(format!("Unknown group config name: {name}")));
        };
        let (least, most) = setting.bounds;
        let is_in_bounds =
            |value: &str| value.trim().parse::<u64>().is_ok_and(|number| (least..=most).contains(&number));
        if value.len() > LONGEST_VALUE || !is_in_bounds(value) {
            let shown = &value[..value.floor_char_boundary(LONGEST_VALUE)];
            return Err(invalid(format!("{name} must be a number from {least} to {most}, and is {shown}")));
        }
    }
    Ok(after)
}

struct Question {
    shard: ShardIndex,
    token: Token,
    /// The answers, and how many are not there yet.
    answers: Vec<TopicAnswer>,
    left: usize,
}

struct Wish {
    question: u64,
    place: usize,
    group: String,
    change: SettingsChange,
}

enum Step {
    Idle,
    /// The record that the transaction under way makes; `None` deletes it.
    Writing(Wish, Option<Bytes>),
    /// The record is read, since somebody else changed it or nobody knows.
    Reading(Wish),
    Pausing(Wish),
}

/// The part of the core that keeps them.
pub(super) struct GroupSettings {
    /// The records as they are stored.
    stored: BTreeMap<String, Bytes>,
    shown: Arc<BTreeMap<String, Settings>>,
    changed: bool,
    questions: BTreeMap<u64, Question>,
    next_question: u64,
    wishes: VecDeque<Wish>,
    step: Step,
    failures: u32,
    /// By group, among other processes.
    own: Option<OwnChanges>,
}

impl GroupSettings {
    /// Starts from what is stored; each was decoded once.
    pub(super) fn new(stored: BTreeMap<String, Bytes>) -> GroupSettings {
        let settings = |value: &Bytes| GroupSettingsRecord::decode(value).expect("checked when it was read").settings;
        let shown = stored.iter().map(|(group, value)| (group.clone(), settings(value))).collect();
        GroupSettings {
            stored,
            shown: Arc::new(shown),
            changed: true,
            questions: BTreeMap::new(),
            next_question: 0,
            wishes: VecDeque::new(),
            step: Step::Idle,
            failures: 0,
            own: None,
        }
    }

    /// Others change records too.
    pub(super) fn among_others(self) -> GroupSettings {
        GroupSettings { own: Some(OwnChanges::default()), ..self }
    }

    /// What the view says of a group's record, known through `through`.
    pub(super) fn learn(&mut self, group: &str, value: Option<&Bytes>, through: Revision) {
        let shown = self.own.as_mut().is_none_or(|own| own.are_shown(group, through));
        if !shown || self.stored.get(group) == value {
            return;
        }
        match value.map(|value| GroupSettingsRecord::decode(value)) {
            Some(Err(error)) => tracing::error!(group, %error, "the settings of a group can't be read"),
            Some(Ok(_)) | None => self.store(group, value.cloned()),
        }
    }

    /// How many questions wait.
    pub(super) fn waiting(&self) -> usize {
        self.questions.len()
    }

    /// The settings of all groups, if they changed since this was asked last.
    pub(super) fn take_changed(&mut self) -> Option<Arc<BTreeMap<String, Settings>>> {
        std::mem::take(&mut self.changed).then(|| self.shown.clone())
    }

    /// Changes settings, or only checks the changes.
    pub(super) fn alter(
        &mut self,
        (shard, token): (ShardIndex, Token),
        alterations: Vec<GroupAlteration>,
        validate_only: bool,
        sink: &mut Sink,
    ) {
        let number = self.next_question;
        self.next_question += 1;
        let blank = |alteration: &GroupAlteration| answer(alteration.group.clone(), Ok(()));
        let answers: Vec<TopicAnswer> = alterations.iter().map(blank).collect();
        let left = answers.len();
        assert!(left > 0, "a question asks something");
        self.questions.insert(number, Question { shard, token, answers, left });
        for (place, GroupAlteration { group, change }) in alterations.into_iter().enumerate() {
            let wish = Wish { question: number, place, group, change };
            if validate_only {
                let checked = changed(&self.settings(&wish.group), &wish.change).map(|_| ());
                self.answer(&wish, checked, sink);
            } else {
                self.wishes.push_back(wish);
            }
        }
        self.go_on(sink);
    }

    fn settings(&self, group: &str) -> Settings {
        self.shown.get(group).cloned().unwrap_or_default()
    }

    /// Begins the next change, if none is under way.
    fn go_on(&mut self, sink: &mut Sink) {
        while matches!(self.step, Step::Idle)
            && let Some(wish) = self.wishes.pop_front()
        {
            self.begin(wish, sink);
        }
    }

    fn begin(&mut self, wish: Wish, sink: &mut Sink) {
        let before = self.settings(&wish.group);
        let after = match changed(&before, &wish.change) {
            Ok(after) => after,
            Err(refusal) => return self.answer(&wish, Err(refusal), sink),
        };
        if after == before {
            return self.answer(&wish, Ok(()), sink);
        }
        if wish.group.len() > LONGEST_NAME {
            let message = format!("A group whose name has more than {LONGEST_NAME} bytes has no settings of its own.");
            return self.answer(&wish, Err(Refusal::new(ErrorCode::PolicyViolation, message)), sink);
        }
        if before.is_empty() && self.stored.len() >= MOST_GROUPS {
            let message = format!("{MOST_GROUPS} groups have settings of their own: delete some first.");
            return self.answer(&wish, Err(Refusal::new(ErrorCode::PolicyViolation, message)), sink);
        }
        let key = keys::group_settings(&wish.group);
        let compare = match self.stored.get(&wish.group) {
            Some(value) => Compare::Value(key.clone(), value.clone()),
            None => Compare::Absent(key.clone()),
        };
        let record = (!after.is_empty()).then(|| GroupSettingsRecord { v: RECORD_VERSION, settings: after }.encode());
        let op = match &record {
            Some(value) => Op::Put(key, value.clone()),
            None => Op::Delete(key),
        };
        sink.txn(Owner::GroupSettings, Txn { compares: vec![compare], ops: vec![op] });
        self.step = Step::Writing(wish, record);
    }

    /// The call that was under way ended.
    pub(super) fn on_store(&mut self, ended: StoreAnswer, sink: &mut Sink) {
        match (std::mem::replace(&mut self.step, Step::Idle), ended) {
            (Step::Writing(wish, record), StoreAnswer::Txn(Ok(TxnOutcome::Committed(revision)))) => {
                self.failures = 0;
                if let Some(own) = &mut self.own {
                    own.made(&wish.group, revision);
                }
                self.store(&wish.group, record);
                self.answer(&wish, Ok(()), sink);
            }
            (Step::Writing(wish, _), StoreAnswer::Txn(Ok(TxnOutcome::Conflict(_)))) => self.read(wish, sink),
            (Step::Reading(wish), StoreAnswer::Get(Ok(mut snapshot))) => {
                let found = snapshot.values.remove(0).map(|found| found.value);
                match found.as_ref().map(|value| GroupSettingsRecord::decode(value)) {
                    Some(Err(error)) => {
                        tracing::error!(group = wish.group, %error, "the settings of a group can't be read");
                        let refusal = Refusal::new(ErrorCode::UnknownServerError, "The stored settings can't be read.");
                        self.answer(&wish, Err(refusal), sink);
                    }
                    Some(Ok(_)) | None => {
                        self.store(&wish.group, found);
                        self.begin(wish, sink);
                    }
                }
            }
            (Step::Writing(wish, _) | Step::Reading(wish), StoreAnswer::Txn(Err(_)) | StoreAnswer::Get(Err(_))) => {
                self.failed(wish, sink);
            }
            (_, other) => unreachable!("settings of groups never asked for {other:?}"),
        }
        self.go_on(sink);
    }

    fn store(&mut self, group: &str, record: Option<Bytes>) {
        let mut shown = (*self.shown).clone();
        match record {
            Some(value) => {
                let settings = GroupSettingsRecord::decode(&value).expect("written or checked by the caller").settings;
                shown.insert(group.to_owned(), settings);
                self.stored.insert(group.to_owned(), value);
            }
            None => {
                shown.remove(group);
                self.stored.remove(group);
            }
        }
        self.shown = Arc::new(shown);
        self.changed = true;
    }

    fn read(&mut self, wish: Wish, sink: &mut Sink) {
        let key = keys::group_settings(&wish.group);
        sink.call(Owner::GroupSettings, super::effects::StoreCall::Get(vec![key]));
        self.step = Step::Reading(wish);
    }

    /// What happened is found out, however long that takes: who asked is answered by the shard when it takes too long.
    fn failed(&mut self, wish: Wish, sink: &mut Sink) {
        self.failures += 1;
        self.step = Step::Pausing(wish);
        sink.retry(Owner::GroupSettings, self.failures);
    }

    /// The pause is over: what happened is read first.
    pub(super) fn on_timer(&mut self, sink: &mut Sink) {
        match std::mem::replace(&mut self.step, Step::Idle) {
            Step::Pausing(wish) => self.read(wish, sink),
            other => self.step = other,
        }
    }

    fn answer(&mut self, wish: &Wish, result: Result<(), Refusal>, sink: &mut Sink) {
        let question = self.questions.get_mut(&wish.question).expect("a question stays until all is answered");
        question.answers[wish.place] = answer(wish.group.clone(), result);
        question.left -= 1;
        if question.left == 0 {
            let question = self.questions.remove(&wish.question).expect("just looked at");
            sink.answer(question.shard, FromControl::Topics { token: question.token, topics: question.answers });
        }
    }
}

fn answer(name: String, result: Result<(), Refusal>) -> TopicAnswer {
    let (error, message) = match result {
        Ok(()) => (ErrorCode::None, None),
        Err(refusal) => (refusal.error, Some(refusal.message)),
    };
    TopicAnswer { name, id: None, partitions: 0, error, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[(&str, &str)]) -> SettingsChange {
        let set = |(name, value): &(&str, &str)| ((*name).to_owned(), SettingChange::Set((*value).to_owned()));
        SettingsChange::Each(pairs.iter().map(set).collect())
    }

    #[test]
    fn values_are_bounded_as_kafka_bounds_them_and_other_names_refused() {
        for good in [("45000", "5000"), ("60000", "15000")] {
            assert!(changed(&Settings::new(), &set(&[(SESSION, good.0), (INTERVAL, good.1)])).is_ok());
        }
        for (name, value) in [
            (SESSION, "44999"),
            (SESSION, "60001"),
            (INTERVAL, "4999"),
            (INTERVAL, "15001"),
            (INTERVAL, "-1"),
            (INTERVAL, "x"),
            (INTERVAL, format!("5000{}", " ".repeat(LONGEST_VALUE)).as_str()),
            ("retention.ms", "1"),
        ] {
            let refused = changed(&Settings::new(), &set(&[(name, value)])).expect_err(value);
            assert_eq!(refused.error, ErrorCode::InvalidConfig);
        }
        let both = changed(&Settings::new(), &set(&[(SESSION, "50000"), (INTERVAL, "6000")])).expect("good");
        let gone = SettingsChange::Each(BTreeMap::from([(SESSION.to_owned(), SettingChange::Delete)]));
        assert_eq!(changed(&both, &gone).expect("good"), Settings::from([(INTERVAL.to_owned(), "6000".to_owned())]));
        let appended =
            SettingsChange::Each(BTreeMap::from([(SESSION.to_owned(), SettingChange::Append("1".to_owned()))]));
        assert!(changed(&both, &appended).is_err());
    }
}
