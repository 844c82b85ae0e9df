//! A watch that outlives its connections: a task on the side runtime reads etcd's stream, opens it again where it breaks,
//! and hands whole revisions to the watcher.
//!
//! Invariants:
//! 1. A revision is delivered whole, once, in order: what etcd sends in parts is kept until the next revision begins or
//!    the parts end, and a new stream goes on behind what was delivered.
//! 2. Bounded: [`WAITING`] revisions wait for the watcher, the one that is being put together beside them. Behind that
//!    nothing is read, and etcd keeps the rest.
//! 3. It ends with `Compacted` when etcd no longer has what follows the last revision delivered; without access; when the
//!    etcd is not the same any more; and when nobody listens. No outage ends it.

use super::client::{Client, WATCH};
use super::errors::{Failed, Remedy, of_status, silent};
use super::guard::Order;
use super::proto::{DELETE, Event, WatchCreate, WatchRequest, WatchResponse};
use super::{Namespace, Shared};
use crate::meta::{Change, Revision, WatchError, WatchStream};
use crate::side::{pause, within};
use crate::store_error::StoreError;
use futures::channel::{mpsc, oneshot};
use futures::future::select;
use futures::{SinkExt, StreamExt};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tonic::Streaming;

/// Revisions that wait for the watcher.
const WAITING: usize = 16;
/// Longest wait for etcd to take a new stream.
const OPEN_LIMIT: Duration = Duration::from_secs(3);
/// Pause before a broken stream is opened again, doubled with each failure in a row.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest of those pauses.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

type Item = Result<Vec<Change>, WatchError>;

/// Watches `prefix` for changes after `after`.
pub(super) fn watch(shared: &Arc<Shared>, prefix: &str, after: Revision) -> WatchStream {
    let (sender, receiver) = mpsc::channel(WAITING);
    let (listening, gone) = oneshot::channel::<()>();
    let (prefix, inner) = (prefix.to_owned(), shared.clone());
    drop(shared.side.run(async move {
        // The watcher's half goes with its stream: a pump that has nothing to hand over would not learn of it.
        select(pin!(pump(inner, prefix, after, sender)), gone).await;
    }));
    let heard = |(mut receiver, listening): (mpsc::Receiver<Item>, oneshot::Sender<()>)| async move {
        receiver.next().await.map(|item| (item, (receiver, listening)))
    };
    futures::stream::unfold((receiver, listening), heard).fuse().boxed_local()
}

async fn pump(shared: Arc<Shared>, prefix: String, after: Revision, mut sender: mpsc::Sender<Item>) {
    let client = &shared.client;
    let mut parts = Parts::new(shared.namespace.clone(), after);
    let mut wait = FIRST_PAUSE;
    loop {
        let broke = match open(client, &shared.namespace, &prefix, parts.delivered).await {
            Ok((number, answers)) => read(client, number, answers, &mut parts, &mut sender, &mut wait).await,
            Err(broke) => broke,
        };
        parts.forget_part();
        match broke {
            Broke::Again => {}
            Broke::NobodyListens => return,
            Broke::For(error) => {
                // If nobody listens any more, nobody need be told.
                let _ = sender.send(Err(error)).await;
                return;
            }
        }
        pause(wait).await;
        wait = (wait * 2).min(LONGEST_PAUSE);
    }
}

/// Why a stream is not read any more.
enum Broke {
    Again,
    NobodyListens,
    For(WatchError),
}

async fn open(
    client: &Client,
    namespace: &Namespace,
    prefix: &str,
    delivered: Revision,
) -> Result<(usize, Streaming<WatchResponse>), Broke> {
    let (number, channel) = client.endpoints.pick();
    let failed = |failed: Failed| {
        match failed.remedy {
            Remedy::OtherEndpoint => client.endpoints.failed(number),
            Remedy::NewToken => client.forget_token(),
            Remedy::AskForLess | Remedy::None => return Broke::For(failed.error.into()),
        }
        Broke::Again
    };
    client.guard.asking().map_err(|error| Broke::For(error.into()))?;
    client.have_token(&channel, client.endpoints.name(number)).await.map_err(failed)?;
    let (key, range_end) = namespace.range(prefix);
    // One revision more than is missing: etcd says whether it still has that one, so that a compaction up to the first
    // missing revision, which may leave out deletions, is not taken for one that left everything.
    let start_revision = delivered.0.max(1);
    let create = WatchCreate { key, range_end, start_revision, progress_notify: true, fragment: true };
    let requests = futures::stream::iter([WatchRequest { create: Some(create) }]).chain(futures::stream::pending());
    match within(OPEN_LIMIT, client.stream(channel, &WATCH, requests)).await {
        Some(Ok(answers)) => Ok((number, answers)),
        Some(Err(status)) => Err(failed(of_status(&status, client.endpoints.name(number)))),
        None => Err(failed(silent(client.endpoints.name(number), OPEN_LIMIT))),
    }
}

/// Reads answers until the stream breaks.
async fn read(
    client: &Client,
    number: usize,
    mut answers: Streaming<WatchResponse>,
    parts: &mut Parts,
    sender: &mut mpsc::Sender<Item>,
    wait: &mut Duration,
) -> Broke {
    loop {
        let answer = match answers.message().await {
            Ok(Some(answer)) => answer,
            // The endpoint is going away, or is gone.
            Ok(None) | Err(_) => {
                client.endpoints.failed(number);
                return Broke::Again;
            }
        };
        let same =
            client.guard.asking().and_then(|sent| client.guard.answered(answer.header.as_ref(), sent, Order::Any));
        if let Err(error) = same {
            return Broke::For(error.into());
        }
        if answer.canceled {
            return canceled(client, number, &answer);
        }
        *wait = FIRST_PAUSE;
        for changes in parts.take(answer) {
            if sender.send(Ok(changes)).await.is_err() {
                return Broke::NobodyListens;
            }
        }
    }
}

/// What to do about a watch that etcd ended.
fn canceled(client: &Client, number: usize, answer: &WatchResponse) -> Broke {
    if answer.compact_revision > 0 {
        return Broke::For(WatchError::Compacted(Revision(answer.compact_revision)));
    }
    let status = tonic::Status::permission_denied(answer.cancel_reason.clone());
    if answer.cancel_reason.contains("permission denied") {
        let StoreError { detail, kind, .. } = of_status(&status, client.endpoints.name(number)).error;
        return Broke::For(StoreError::not_done(kind, detail).into());
    }
    if of_status(&status, "").remedy == Remedy::NewToken {
        client.forget_token();
    } else {
        client.endpoints.failed(number);
    }
    Broke::Again
}

/// Puts revisions together from what etcd sends.
struct Parts {
    namespace: Namespace,
    delivered: Revision,
    /// Changes of one revision, perhaps not all.
    part: Vec<Change>,
}

impl Parts {
    fn new(namespace: Namespace, after: Revision) -> Parts {
        Parts { namespace, delivered: after, part: Vec::new() }
    }

    /// The revisions that are whole now.
    fn take(&mut self, answer: WatchResponse) -> Vec<Vec<Change>> {
        let mut whole = Vec::new();
        let is_progress = answer.events.is_empty() && !answer.created && self.part.is_empty();
        for event in answer.events {
            let Some(change) = self.change(event) else { continue };
            if self.part.first().is_some_and(|first| first.revision != change.revision) {
                whole.push(self.end_part());
            }
            self.part.push(change);
        }
        if !answer.fragment && !self.part.is_empty() {
            whole.push(self.end_part());
        }
        if is_progress && let Some(header) = answer.header {
            // Everything up to here was sent: a new stream need not begin with it.
            self.delivered = self.delivered.max(Revision(header.revision));
        }
        whole
    }

    fn end_part(&mut self) -> Vec<Change> {
        self.delivered = self.part[0].revision;
        std::mem::take(&mut self.part)
    }

    /// The stream broke within a revision: the next one sends it whole.
    fn forget_part(&mut self) {
        self.part.clear();
    }

    /// `None`: delivered before, or no key that this program writes.
    fn change(&self, event: Event) -> Option<Change> {
        let kv = event.kv?;
        let revision = Revision(kv.mod_revision);
        if revision <= self.delivered {
            return None;
        }
        let key = self.namespace.strip(&kv.key)?;
        let value = (event.kind != DELETE).then_some(kv.value);
        Some(Change { key, value, revision })
    }
}

#[cfg(test)]
mod tests {
    use super::super::proto::{Header, KeyValue};
    use super::*;
    use bytes::Bytes;

    fn event(key: &'static str, revision: i64, kind: i32) -> Event {
        let kv = KeyValue {
            key: Bytes::from_static(key.as_bytes()),
            mod_revision: revision,
            value: Bytes::from_static(b"v"),
            lease: 0,
        };
        Event { kind, kv: Some(kv) }
    }

    fn answer(events: Vec<Event>, fragment: bool) -> WatchResponse {
        WatchResponse { events, fragment, ..WatchResponse::default() }
    }

    fn parts(after: i64) -> Parts {
        Parts::new(Namespace("/ns".to_owned()), Revision(after))
    }

    fn names(whole: Vec<Vec<Change>>) -> Vec<(i64, Vec<String>)> {
        let name = |change: Change| if change.value.is_some() { change.key } else { format!("-{}", change.key) };
        whole.into_iter().map(|of| (of[0].revision.0, of.into_iter().map(name).collect())).collect()
    }

    #[test]
    fn a_revision_that_comes_in_parts_is_delivered_once_it_is_whole() {
        let mut parts = parts(4);
        let events = vec![event("/ns/old", 4, 0), event("/ns/a", 5, 0), event("/ns/b", 6, DELETE)];
        assert_eq!(names(parts.take(answer(events, true))), [(5, vec!["/a".to_owned()])]);
        assert_eq!(names(parts.take(answer(vec![event("/ns/c", 6, 0)], true))), []);
        assert_eq!(parts.delivered, Revision(5));
        let last = parts.take(answer(vec![event("/ns/d", 6, 0)], false));
        assert_eq!(names(last), [(6, ["-/b", "/c", "/d"].map(str::to_owned).to_vec())]);
        assert_eq!(parts.delivered, Revision(6));
    }

    #[test]
    fn a_stream_that_breaks_within_a_revision_leaves_none_of_it() {
        let mut parts = parts(4);
        assert_eq!(names(parts.take(answer(vec![event("/ns/a", 5, 0)], true))), []);
        parts.forget_part();
        let again = vec![event("/ns/a", 5, 0), event("/ns/b", 5, 0)];
        assert_eq!(names(parts.take(answer(again, false))), [(5, vec!["/a".to_owned(), "/b".to_owned()])]);
    }

    #[test]
    fn a_report_of_progress_moves_where_the_next_stream_begins_but_never_past_a_part() {
        let header = Some(Header { cluster_id: 1, member_id: 1, revision: 9 });
        let progress = WatchResponse { header, ..WatchResponse::default() };
        let created = WatchResponse { created: true, ..progress.clone() };
        let mut parts = parts(4);
        assert_eq!((names(parts.take(created)), parts.delivered), (vec![], Revision(4)));
        parts.take(answer(vec![event("/ns/a", 5, 0)], true));
        assert_eq!(
            (names(parts.take(WatchResponse { fragment: true, ..progress.clone() })), parts.delivered),
            (vec![], Revision(4))
        );
        parts.take(answer(vec![], false));
        parts.take(progress);
        assert_eq!(parts.delivered, Revision(9));
    }
}
