//! One call to an etcd: which endpoint, how long, how often, with which token; every answer is checked before it counts.
//!
//! Invariants:
//! 1. Every call ends: each attempt within its limit, after at most [`attempts`] of them.
//! 2. A call that changes something is sent again only where the attempt before it was surely not done.
//! 3. No answer is given out that the [`Guard`] did not let pass.

use super::endpoints::Endpoints;
use super::errors::{Failed, Remedy, of_status, silent};
use super::guard::{Guard, Order};
use super::proto::{Answer, AuthenticateRequest, AuthenticateResponse};
use crate::side::{pause, within};
use crate::store_error::{Certainty, FailureKind, StoreError};
use http::uri::PathAndQuery;
use prost::Message;
use std::sync::Mutex;
use std::time::Duration;
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

/// Longest attempt of a call.
const CALL_LIMIT: Duration = Duration::from_secs(3);
/// Pause after every endpoint failed once.
const ROUND_PAUSE: Duration = Duration::from_millis(200);
/// Largest answer taken. A page of a listing that is larger is asked for in parts.
const ANSWER_BYTES: usize = 32 << 20;

/// A method of etcd's API.
pub(super) struct Method {
    path: &'static str,
    /// Whether a second one does no harm.
    repeatable: bool,
    /// Whether it is answered on a stream, of which the first answer counts.
    streamed: bool,
    order: Order,
}

const fn method(path: &'static str, repeatable: bool, order: Order) -> Method {
    Method { path, repeatable, streamed: false, order }
}

pub(super) const RANGE: Method = method("/etcdserverpb.KV/Range", true, Order::Linearizable);
pub(super) const PUT: Method = method("/etcdserverpb.KV/Put", true, Order::Linearizable);
pub(super) const TXN: Method = method("/etcdserverpb.KV/Txn", false, Order::Linearizable);
/// A transaction that only reads.
pub(super) const READ_TXN: Method = method("/etcdserverpb.KV/Txn", true, Order::Linearizable);
pub(super) const COMPACT: Method = method("/etcdserverpb.KV/Compact", true, Order::Any);
/// Grants that nobody heard of end by themselves.
pub(super) const LEASE_GRANT: Method = method("/etcdserverpb.Lease/LeaseGrant", true, Order::Any);
pub(super) const LEASE_REVOKE: Method = method("/etcdserverpb.Lease/LeaseRevoke", true, Order::Any);
pub(super) const LEASE_TIME_TO_LIVE: Method = method("/etcdserverpb.Lease/LeaseTimeToLive", true, Order::Any);
pub(super) const LEASE_KEEP_ALIVE: Method =
    Method { streamed: true, ..method("/etcdserverpb.Lease/LeaseKeepAlive", true, Order::Any) };
pub(super) const STATUS: Method = method("/etcdserverpb.Maintenance/Status", true, Order::Any);
pub(super) const WATCH: Method = method("/etcdserverpb.Watch/Watch", true, Order::Any);
const AUTHENTICATE: Method = method("/etcdserverpb.Auth/Authenticate", true, Order::Any);

/// Name and password of a user.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The name.
    pub user: String,
    /// The password.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// The client: what all handles of a process share.
pub(super) struct Client {
    pub(super) endpoints: Endpoints,
    pub(super) guard: Guard,
    credentials: Option<Credentials>,
    token: Mutex<Option<MetadataValue<Ascii>>>,
}

impl Client {
    pub(super) fn new(endpoints: Endpoints, guard: Guard, credentials: Option<Credentials>) -> Client {
        Client { endpoints, guard, credentials, token: Mutex::default() }
    }

    /// Sends `request` until it is answered, refused, or was tried often enough.
    pub(super) async fn call<Q, A>(&self, method: &Method, request: Q) -> Result<A, StoreError>
    where
        Q: Message + Clone + 'static,
        A: Answer,
    {
        let mut tokens = 1;
        let mut failures = 0;
        loop {
            let (number, channel) = self.endpoints.pick();
            let Failed { error, remedy } = match self.attempt(number, channel, method, request.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            let again = method.repeatable || error.certainty == Certainty::NotDone;
            match remedy {
                Remedy::NewToken if tokens > 0 && self.credentials.is_some() => {
                    tokens -= 1;
                    self.forget_token();
                }
                Remedy::OtherEndpoint => {
                    tracing::debug!(%error, "an endpoint of etcd failed");
                    self.endpoints.failed(number);
                    failures += 1;
                    if !again || failures >= attempts(self.endpoints.count()) {
                        return Err(error);
                    }
                    if failures % self.endpoints.count() == 0 {
                        pause(ROUND_PAUSE).await;
                    }
                }
                Remedy::NewToken | Remedy::AskForLess | Remedy::None => return Err(error),
            }
        }
    }

    async fn attempt<Q, A>(&self, number: usize, channel: Channel, method: &Method, request: Q) -> Result<A, Failed>
    where
        Q: Message + 'static,
        A: Answer,
    {
        let name = self.endpoints.name(number);
        let no_remedy = |error| Failed { error, remedy: Remedy::None };
        self.have_token(&channel, name).await?;
        let at_least = self.guard.asking().map_err(no_remedy)?;
        match within(CALL_LIMIT, self.once(channel, method, request)).await {
            None => Err(silent(name, CALL_LIMIT)),
            Some(Err(status)) => Err(of_status(&status, name)),
            Some(Ok(answer)) => {
                self.guard.answered(A::header(&answer), at_least, method.order).map_err(no_remedy)?;
                Ok(answer)
            }
        }
    }

    async fn once<Q, A>(&self, channel: Channel, method: &Method, request: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Answer,
    {
        if method.streamed {
            let requests = futures::stream::iter([request]);
            let mut answers: Streaming<A> = self.stream(channel, method, requests).await?;
            return answers.message().await?.ok_or_else(|| Status::unavailable("the stream ended without an answer"));
        }
        let mut grpc = grpc(channel);
        grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
        let path = PathAndQuery::from_static(method.path);
        let answer = grpc.unary(self.signed(Request::new(request)), path, ProstCodec::<Q, A>::default()).await?;
        Ok(answer.into_inner())
    }

    /// Opens a stream of answers to a stream of requests.
    pub(super) async fn stream<Q, A>(
        &self,
        channel: Channel,
        method: &Method,
        requests: impl futures::Stream<Item = Q> + Send + 'static,
    ) -> Result<Streaming<A>, Status>
    where
        Q: Message + 'static,
        A: Answer,
    {
        let mut grpc = grpc(channel);
        grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
        let mut request = self.signed(Request::new(requests));
        // A member that has lost its leader says so instead of staying silent.
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        let path = PathAndQuery::from_static(method.path);
        let answers = grpc.streaming(request, path, ProstCodec::<Q, A>::default()).await?;
        Ok(answers.into_inner())
    }

    fn signed<T>(&self, mut request: Request<T>) -> Request<T> {
        let token = self.token.lock().expect("nothing panics while it holds the token").clone();
        if let Some(token) = token {
            request.metadata_mut().insert("token", token);
        }
        request
    }

    /// Signs in where a user is set and has not yet.
    pub(super) async fn have_token(&self, channel: &Channel, name: &str) -> Result<(), Failed> {
        let missing =
            self.credentials.is_some() && self.token.lock().expect("nothing panics while it holds the token").is_none();
        if missing { self.sign_in(channel.clone(), name).await } else { Ok(()) }
    }

    /// The next call signs in again.
    pub(super) fn forget_token(&self) {
        *self.token.lock().expect("nothing panics while it holds the token") = None;
    }

    async fn sign_in(&self, channel: Channel, name: &str) -> Result<(), Failed> {
        let Some(Credentials { user, password }) = self.credentials.clone() else { return Ok(()) };
        let mut grpc = grpc(channel);
        let no_remedy = |error| Failed { error, remedy: Remedy::None };
        let at_least = self.guard.asking().map_err(no_remedy)?;
        let asked = async {
            grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
            let request = Request::new(AuthenticateRequest { name: user, password });
            let path = PathAndQuery::from_static(AUTHENTICATE.path);
            grpc.unary(request, path, ProstCodec::<_, AuthenticateResponse>::default()).await
        };
        // That it was not answered says nothing of the call that it was made for.
        let not_done = |failed: Failed| Failed {
            error: StoreError { certainty: Certainty::NotDone, ..failed.error },
            remedy: failed.remedy,
        };
        let answer = match within(CALL_LIMIT, asked).await {
            None => return Err(not_done(silent(name, CALL_LIMIT))),
            Some(Err(status)) => return Err(not_done(of_status(&status, name))),
            Some(Ok(answer)) => answer.into_inner(),
        };
        self.guard.answered(answer.header(), at_least, AUTHENTICATE.order).map_err(no_remedy)?;
        let token = MetadataValue::try_from(answer.token.as_str()).map_err(|_| {
            no_remedy(StoreError::not_done(FailureKind::Corrupt, "etcd gave a token that can't be sent back"))
        })?;
        *self.token.lock().expect("nothing panics while it holds the token") = Some(token);
        Ok(())
    }
}

/// Attempts of one call: every endpoint twice and one more.
fn attempts(endpoints: usize) -> usize {
    2 * endpoints + 1
}

fn grpc(channel: Channel) -> Grpc<Channel> {
    Grpc::new(channel).max_decoding_message_size(ANSWER_BYTES)
}
