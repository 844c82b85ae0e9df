//! Small records of the whole cluster: client quotas, and settings of nodes that were changed while they ran.
//!
//! Invariants:
//! 1. A record changes only by a transaction that compares the value that the change was made from; what comes of a
//!    change is computed again from what is there whenever a transaction did not surely happen.
//! 2. A change is answered when it is durable, after the image that shows it. Changes are made in the order asked for,
//!    one transaction at a time.
//! 3. There are at most [`MOST_ENTITIES`] entities with quotas: the image holds them all.

use super::effects::{Owner, Sink, StoreAnswer, StoreCall};
use super::messages::{FromControl, NodeAlteration, NodeSettings, QuotaAlteration, SettingsChange, Token};
use super::node_settings;
use super::own_changes::OwnChanges;
use super::topic_rules::Refusal;
use crate::quotas::QuotaTable;
use bytes::Bytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_storage::ids::ShardIndex;
use millrace_storage::meta::records::{QuotaEntity, QuotaRecord, RECORD_VERSION, Record, SettingRecord};
use millrace_storage::meta::{Compare, Key, Op, Revision, Txn, TxnOutcome, keys};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Entities that may have quotas.
pub const MOST_ENTITIES: usize = 10_000;

/// Records changed by one transaction: with their comparisons they stay within its bound.
const CHANGED_AT_ONCE: usize = 50;

/// Failed tries after which those who wait are told so. What is under way may happen all the same.
const TRIES: u32 = 4;

/// A change of one record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Wish {
    Quota(QuotaAlteration),
    Node(NodeAlteration),
}

impl Wish {
    fn key(&self) -> Key {
        match self {
            Wish::Quota(wish) => keys::quota(&wish.entity),
            Wish::Node(wish) => keys::setting(wish.node),
        }
    }
}

/// One question.
struct Asked {
    shard: ShardIndex,
    token: Token,
    validate_only: bool,
    wishes: VecDeque<Wish>,
    results: Vec<Result<(), Refusal>>,
}

/// What the records hold.
#[derive(Clone, Default)]
struct State {
    quotas: QuotaTable,
    settings: NodeSettings,
}

impl State {
    /// The stored form of a record that there is.
    fn stored(&self, wish: &Wish) -> Option<Bytes> {
        match wish {
            Wish::Quota(wish) => self
                .quotas
                .0
                .get(&wish.entity)
                .map(|quotas| QuotaRecord { v: RECORD_VERSION, quotas: quotas.clone() }.encode()),
            Wish::Node(wish) => self
                .settings
                .own(wish.node)
                .map(|settings| SettingRecord { v: RECORD_VERSION, settings: settings.clone() }.encode()),
        }
    }

    fn apply(&mut self, wish: &Wish) -> Result<(), Refusal> {
        match wish {
            Wish::Quota(wish) => self.apply_quota(wish),
            Wish::Node(NodeAlteration { node, change }) => {
                let none = BTreeMap::new();
                let before = self.settings.own(*node).unwrap_or(&none);
                let after = node_settings::changed(before, change)?;
                self.settings.set(*node, after);
                Ok(())
            }
        }
    }

    fn apply_quota(&mut self, wish: &QuotaAlteration) -> Result<(), Refusal> {
        let mut quotas = self.quotas.0.get(&wish.entity).cloned().unwrap_or_default();
        for (name, rate) in &wish.changes {
            match rate {
                Some(rate) => _ = quotas.insert(name.clone(), *rate),
                None => _ = quotas.remove(name),
            }
        }
        if quotas.is_empty() {
            self.quotas.0.remove(&wish.entity);
        } else if self.quotas.0.len() >= MOST_ENTITIES && !self.quotas.0.contains_key(&wish.entity) {
            let message = format!("{MOST_ENTITIES} users and client ids have quotas; remove one first.");
            return Err(Refusal::new(ErrorCode::PolicyViolation, message));
        } else {
            self.quotas.0.insert(wish.entity.clone(), quotas);
        }
        Ok(())
    }

    /// Takes over what the store has under a key.
    fn learn(&mut self, wish: &Wish, found: Option<Bytes>) {
        const PROOF: &str = "only control tasks write it, and newer versions do not share a store";
        match wish {
            Wish::Quota(wish) => match found {
                Some(value) => {
                    let quotas = QuotaRecord::decode(&value).expect(PROOF).quotas;
                    self.quotas.0.insert(wish.entity.clone(), quotas);
                }
                None => _ = self.quotas.0.remove(&wish.entity),
            },
            Wish::Node(wish) => {
                let settings = found.map(|value| SettingRecord::decode(&value).expect(PROOF).settings);
                self.settings.set(wish.node, settings.unwrap_or_default());
            }
        }
    }
}

enum Step {
    Idle,
    /// The transaction under way makes this of the state, and decides so many wishes of the first question.
    Writing(State, Vec<Result<(), Refusal>>),
    /// Until the timer.
    Pausing,
    /// What is there is being read, of the wishes that the failed transaction had.
    Reading,
}

/// The part of the core that keeps them.
pub(super) struct ClusterRecords {
    state: State,
    queue: VecDeque<Asked>,
    step: Step,
    failures: u32,
    /// Wishes whose records are unknown since a transaction failed.
    unknown: Vec<Wish>,
    changed: bool,
    /// By key, among other processes.
    own: Option<OwnChanges>,
}

impl ClusterRecords {
    /// Begins with what was found in the store.
    pub(super) fn new(
        quotas: BTreeMap<QuotaEntity, BTreeMap<String, u64>>,
        settings: BTreeMap<Option<i32>, BTreeMap<String, String>>,
    ) -> ClusterRecords {
        let mut state = State { quotas: QuotaTable(quotas), settings: NodeSettings::default() };
        settings.into_iter().for_each(|(node, settings)| state.settings.set(node, settings));
        ClusterRecords {
            state,
            queue: VecDeque::new(),
            step: Step::Idle,
            failures: 0,
            unknown: Vec::new(),
            changed: true,
            own: None,
        }
    }

    /// Others change records too.
    pub(super) fn among_others(self) -> ClusterRecords {
        ClusterRecords { own: Some(OwnChanges::default()), ..self }
    }

    /// What the view says of a record, known through `through`.
    pub(super) fn learn(&mut self, key: &str, value: Option<&Bytes>, through: Revision) {
        if self.own.as_mut().is_some_and(|own| !own.are_shown(key, through)) {
            return;
        }
        let nothing = || SettingsChange::Each(BTreeMap::new());
        let of_quota = |entity| Wish::Quota(QuotaAlteration { entity, changes: Vec::new() });
        let of_node = |node| Wish::Node(NodeAlteration { node, change: nothing() });
        let wish = keys::parse_quota(key).map(of_quota).or_else(|| keys::parse_setting(key).map(of_node));
        let Some(wish) = wish.filter(|wish| self.state.stored(wish).as_ref() != value) else { return };
        let readable = value.is_none_or(|value| match &wish {
            Wish::Quota(_) => QuotaRecord::decode(value).is_ok(),
            Wish::Node(_) => SettingRecord::decode(value).is_ok(),
        });
        if !readable {
            tracing::error!(key, "a record of the metadata store can't be read and is ignored");
            return;
        }
        // What is being made of the state is made beside it: its transaction compares only what it changes.
        if let Step::Writing(after, _) = &mut self.step {
            after.learn(&wish, value.cloned());
        }
        self.state.learn(&wish, value.cloned());
        self.changed = true;
    }

    /// How many changes wait.
    pub(super) fn waiting(&self) -> usize {
        self.queue.iter().map(|asked| asked.wishes.len()).sum()
    }

    /// What is in force, if it changed since the last time this was asked.
    pub(super) fn take_changed(&mut self) -> Option<(Arc<QuotaTable>, Arc<NodeSettings>)> {
        let changed = std::mem::take(&mut self.changed);
        changed.then(|| (Arc::new(self.state.quotas.clone()), Arc::new(self.state.settings.clone())))
    }

    /// Changes records, or only checks the changes.
    pub(super) fn alter(
        &mut self,
        (shard, token): (ShardIndex, Token),
        wishes: impl Iterator<Item = Wish>,
        validate_only: bool,
        sink: &mut Sink,
    ) {
        let wishes = wishes.collect();
        self.queue.push_back(Asked { shard, token, validate_only, wishes, results: Vec::new() });
        self.go_on(sink);
    }

    fn go_on(&mut self, sink: &mut Sink) {
        if !matches!(self.step, Step::Idle) {
            return;
        }
        while let Some(asked) = self.queue.front_mut() {
            let at_once = if asked.validate_only { asked.wishes.len() } else { CHANGED_AT_ONCE };
            let mut after = self.state.clone();
            let now = asked.wishes.iter().take(at_once);
            let decided: Vec<Result<(), Refusal>> = now.clone().map(|wish| after.apply(wish)).collect();
            let (mut compares, mut ops) = (BTreeMap::new(), BTreeMap::new());
            for wish in now {
                let (key, was, is) = (wish.key(), self.state.stored(wish), after.stored(wish));
                if was == is {
                    continue;
                }
                let compare = match was {
                    Some(value) => Compare::Value(key.clone(), value),
                    None => Compare::Absent(key.clone()),
                };
                compares.insert(key.clone(), compare);
                ops.insert(key.clone(), is.map_or(Op::Delete(key.clone()), |value| Op::Put(key, value)));
            }
            if !ops.is_empty() && !asked.validate_only {
                let txn = Txn { compares: compares.into_values().collect(), ops: ops.into_values().collect() };
                sink.txn(Owner::ClusterRecords, txn);
                self.step = Step::Writing(after, decided);
                return;
            }
            self.decide(decided, sink);
        }
    }

    /// So many wishes of the first question are decided; it is answered once all are.
    fn decide(&mut self, decided: Vec<Result<(), Refusal>>, sink: &mut Sink) {
        let asked = self.queue.front_mut().expect("its wishes were decided");
        asked.wishes.drain(..decided.len());
        asked.results.extend(decided);
        if asked.wishes.is_empty() {
            let asked = self.queue.pop_front().expect("looked at just now");
            sink.answer(asked.shard, FromControl::Altered { token: asked.token, results: asked.results });
        }
    }

    /// The call that was under way ended.
    pub(super) fn on_store(&mut self, answer: StoreAnswer, sink: &mut Sink) {
        match (std::mem::replace(&mut self.step, Step::Idle), answer) {
            (Step::Writing(after, decided), StoreAnswer::Txn(Ok(TxnOutcome::Committed(revision)))) => {
                if let (Some(own), Some(asked)) = (&mut self.own, self.queue.front()) {
                    asked.wishes.iter().take(decided.len()).for_each(|wish| own.made(&wish.key(), revision));
                }
                (self.state, self.changed, self.failures) = (after, true, 0);
                self.decide(decided, sink);
                self.go_on(sink);
            }
            // Both may hide an earlier try that succeeded.
            (Step::Writing(_, decided), StoreAnswer::Txn(Ok(TxnOutcome::Conflict(_)) | Err(_))) => {
                let asked = self.queue.front().expect("a transaction belongs to the first question");
                self.unknown = asked.wishes.iter().take(decided.len()).cloned().collect();
                self.failed(sink);
            }
            (Step::Reading, StoreAnswer::Get(Ok(snapshot))) => {
                for (wish, found) in std::mem::take(&mut self.unknown).iter().zip(snapshot.values) {
                    self.state.learn(wish, found.map(|found| found.value));
                }
                self.changed = true;
                self.go_on(sink);
            }
            (Step::Reading, StoreAnswer::Get(Err(_))) => self.failed(sink),
            (_, other) => unreachable!("cluster records never asked for {other:?}"),
        }
    }

    fn failed(&mut self, sink: &mut Sink) {
        self.failures += 1;
        if self.failures >= TRIES {
            for asked in self.queue.drain(..) {
                let missing = || Refusal::new(ErrorCode::RequestTimedOut, "The metadata store does not answer.");
                let mut results = asked.results;
                results.extend(asked.wishes.iter().map(|_| Err(missing())));
                sink.answer(asked.shard, FromControl::Altered { token: asked.token, results });
            }
        }
        self.step = Step::Pausing;
        sink.retry(Owner::ClusterRecords, self.failures);
    }

    /// The pause is over.
    pub(super) fn on_timer(&mut self, sink: &mut Sink) {
        if matches!(self.step, Step::Pausing) {
            let keys = self.unknown.iter().map(Wish::key).collect();
            sink.call(Owner::ClusterRecords, StoreCall::Get(keys));
            self.step = Step::Reading;
        }
    }
}
