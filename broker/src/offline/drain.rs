//! `millrace drain`: the key that says that an operator wants a broker left, and what that broker still has.
//!
//! The key alone changes nothing: the controller of the brokers reads it, and moves things (decision 080).

use super::OfflineError;
use super::shared::Shared;
use crate::control::cluster::view::View;
use crate::settings::Settings;
use bytes::Bytes;
use millrace_storage::env::{Env, Mono};
use millrace_storage::ids::{ShardIndex, TopicId};
use millrace_storage::meta::{MetaStore, Op, Txn, TxnOutcome, keys};
use millrace_storage::object::OpenError;
use millrace_storage::side::block_on_local;
use millrace_storage::store_error::StoreError;
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

/// Between two looks at what is left, at least.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// A look may take a while where there is much: a tenth of the time at most is spent with it.
const PAUSES_PER_LOOK: u32 = 9;

/// What is wanted of a broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// It is to be left.
    Leave {
        /// Until nothing is there any more, at most for so long; none: nobody waits.
        wait: Option<Duration>,
    },
    /// It is not any more.
    Undo,
}

/// What a broker has that another one is to take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Left {
    /// Partitions of topics that are not deleted.
    pub partitions: usize,
    /// Coordinator slots.
    pub slots: usize,
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} partitions and {} coordinator slots", self.partitions, self.slots)
    }
}

/// Writes or removes the key of the broker `name`, and waits if that is wanted; `told` hears what is left, whenever it
/// has changed.
pub fn drain(settings: &Settings, name: &str, order: Order, told: impl FnMut(Left)) -> Result<(), OfflineError> {
    let shared = Shared::open(settings)?;
    block_on_local(async |env| {
        let meta = shared.meta();
        let key = keys::drain(name);
        match order {
            Order::Undo => write(&*meta, Op::Delete(key)).await?,
            Order::Leave { wait } => {
                is_known(&*meta, name).await?;
                write(&*meta, Op::Put(key, Bytes::new())).await?;
                if let Some(patience) = wait {
                    wait_until_left(&env, &shared, name, patience, told).await?;
                }
            }
        }
        Ok(())
    })?
}

/// Once more is as good as once.
async fn write(meta: &dyn MetaStore, op: Op) -> Result<(), StoreError> {
    let TxnOutcome::Committed(_) = meta.txn(Txn { compares: Vec::new(), ops: vec![op] }).await? else {
        unreachable!("nothing is compared")
    };
    Ok(())
}

/// A name that was mistyped would be left for ever.
async fn is_known(meta: &dyn MetaStore, name: &str) -> Result<(), OfflineError> {
    let mut snapshot = meta.get(vec![keys::node(name, ShardIndex(0))]).await?;
    if snapshot.values.pop().flatten().is_some() {
        return Ok(());
    }
    let fix = "give the name that `millrace status` or the start-up text of the process shows";
    Err(OpenError::new(format!("no process was ever called {name} here"), fix).into())
}

async fn wait_until_left(
    env: &Env,
    shared: &Shared,
    name: &str,
    patience: Duration,
    mut told: impl FnMut(Left),
) -> Result<(), OfflineError> {
    let until: Mono = env.now().plus(patience);
    let mut last = None;
    loop {
        let begun = env.now();
        let left = left_at(&shared.view().await?, name);
        if left.partitions + left.slots == 0 {
            return Ok(());
        }
        if last.replace(left) != Some(left) {
            told(left);
        }
        let now = env.now();
        if now >= until {
            let fix = "see with `millrace status` whether others live that can take it, or wait longer with --timeout";
            return Err(OpenError::new(format!("{name} still has {left}"), fix).into());
        }
        env.sleep(LOOK_AGAIN.max(now.since(begun) * PAUSES_PER_LOOK).min(until.since(now))).await;
    }
}

/// What a broker has by the records.
pub fn left_at(view: &View, name: &str) -> Left {
    let live: BTreeSet<TopicId> = view.live_topics().map(|(_, record)| record.id).collect();
    let partitions = view.named_by(name, None).filter(|partition| live.contains(&partition.topic)).count();
    Left { partitions, slots: view.slots_of(name, None).count() }
}
