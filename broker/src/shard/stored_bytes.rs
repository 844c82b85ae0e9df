//! DescribeLogDirs requests that wait for manifests: what the segments of a partition take is known only once its manifest
//! was read in this leadership (`covered`), by retention or for such a request.
//!
//! 1. A request leaves this table exactly when its reply is made: by the last manifest, at its deadline, or when its
//!    connection goes. At most [`WAITING`] wait; others are answered at once.
//! 2. A manifest that can't be read in time makes an answer too low, never late.
//! 3. Of one partition at most one manifest is read for these requests at a time.

use super::core::ShardCore;
use super::deadlines::{DeadlineId, Due};
use super::events::{ConnectionId, Effect, Now, Reply, ReplyTo, RequestNumber};
use crate::handlers::{RequestContext, describe_log_dirs};
use millrace_storage::format::manifest::Manifest;
use millrace_storage::ids::TopicPartition;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Requests that wait.
const WAITING: usize = 64;
/// How long one waits: less than clients wait for an answer by default.
const PATIENCE: Duration = Duration::from_secs(15);

/// Partitions that a request asks for; `None`: all.
pub(crate) type Wanted = Option<BTreeSet<TopicPartition>>;

struct Pending {
    context: RequestContext,
    wanted: Wanted,
    /// Partitions whose manifests are awaited.
    missing: BTreeSet<TopicPartition>,
    /// What was found of others.
    found: BTreeMap<TopicPartition, u64>,
    deadline: DeadlineId,
}

/// The requests of one shard.
#[derive(Default)]
pub(crate) struct StoredBytes {
    by_request: BTreeMap<ReplyTo, Pending>,
    /// Manifests on their way.
    reading: BTreeSet<TopicPartition>,
}

impl ShardCore {
    /// Answers once the manifests of these partitions are known.
    pub(crate) fn await_manifests(
        &mut self,
        now: Now,
        context: RequestContext,
        wanted: Wanted,
        missing: BTreeSet<TopicPartition>,
    ) {
        if missing.is_empty() || self.stored_bytes.by_request.len() == WAITING {
            return describe_log_dirs::answer(self, context, wanted.as_ref(), &BTreeMap::new());
        }
        let request = context.reply_to;
        let deadline = self.deadlines.set(now.mono.plus(PATIENCE), Due::StoredBytes(request));
        for &partition in &missing {
            if self.stored_bytes.reading.insert(partition) {
                let epoch = self.logs[&partition].epoch();
                self.effects.push(Effect::ReadManifest { partition, epoch });
            }
        }
        let pending = Pending { context, wanted, missing, found: BTreeMap::new(), deadline };
        self.stored_bytes.by_request.insert(request, pending);
    }

    /// A manifest was read, or can't be.
    pub(crate) fn manifest_came(&mut self, partition: TopicPartition, manifest: Option<&Manifest>) {
        if !self.stored_bytes.reading.remove(&partition) {
            return;
        }
        let bytes = manifest.zip(self.logs.get(&partition)).map(|(manifest, log)| log.stored_bytes(manifest));
        let mut done = Vec::new();
        for (request, pending) in &mut self.stored_bytes.by_request {
            if pending.missing.remove(&partition) {
                pending.found.extend(bytes.map(|bytes| (partition, bytes)));
                done.extend(pending.missing.is_empty().then_some(*request));
            }
        }
        done.into_iter().for_each(|request| self.end_stored_bytes(request));
    }

    /// The request is answered with what is known.
    pub(crate) fn end_stored_bytes(&mut self, request: ReplyTo) {
        let pending = self.stored_bytes.by_request.remove(&request).expect("who waits is in the table");
        self.deadlines.clear(pending.deadline);
        describe_log_dirs::answer(self, pending.context, pending.wanted.as_ref(), &pending.found);
    }

    /// The requests of a connection that is gone end, with replies that nobody sends.
    pub(crate) fn drop_stored_bytes_of(&mut self, connection: ConnectionId) {
        let of = |request| ReplyTo { connection, request: RequestNumber(request) };
        let requests: Vec<ReplyTo> =
            self.stored_bytes.by_request.range(of(0)..=of(u64::MAX)).map(|(request, _)| *request).collect();
        for request in requests {
            let pending = self.stored_bytes.by_request.remove(&request).expect("listed just now");
            self.deadlines.clear(pending.deadline);
            self.end(request, Reply::Silent);
        }
    }
}
