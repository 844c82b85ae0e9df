//! A member of a classic group that does nothing but stay in it: how promptly is it answered?

use crate::cluster;
use crate::connection::Connection;
use crate::trouble::Trouble;
use bytes::Bytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::join_group::JoinGroupRequestProtocol;
use millrace_protocol::messages::sync_group::SyncGroupRequestAssignment;
use millrace_protocol::messages::{FindCoordinatorRequest, HeartbeatRequest, JoinGroupRequest, SyncGroupRequest};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Shorter than any client's, to see pauses.
const HEARTBEAT_EVERY: Duration = Duration::from_millis(250);
/// The shortest that Kafka's defaults allow, in milliseconds.
const SESSION_TIMEOUT_MS: i32 = 6_000;
/// How long to wait for a coordinator.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Joins in a row: one to get a member id, one to join, one to spare.
const MAX_JOINS: u32 = 3;

const FIND_COORDINATOR_VERSION: i16 = 2;
const JOIN_VERSION: i16 = 5;
const SYNC_VERSION: i16 = 3;
const HEARTBEAT_VERSION: i16 = 3;

/// What became of the heartbeats.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Heartbeats {
    /// Answered without an error.
    pub(crate) answered: u64,
    /// The longest time between a heartbeat and its answer.
    pub(crate) slowest: Duration,
}

/// A member that heartbeats in a thread of its own.
pub(crate) struct Member {
    stopped: Arc<AtomicBool>,
    thread: JoinHandle<Result<Heartbeats, Trouble>>,
}

impl Member {
    /// Joins `group` alone and starts to heartbeat.
    pub(crate) fn start(bootstrap: SocketAddr, group: &str) -> Result<Self, Trouble> {
        let mut connection = cluster::retry(START_LIMIT, || coordinator(bootstrap, group))?;
        let membership = cluster::retry(START_LIMIT, || join(&mut connection, group))?;
        let stopped = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stopped);
        let thread = thread::Builder::new()
            .name("member".to_owned())
            .spawn(move || heartbeat(&mut connection, &membership, &until))?;
        Ok(Member { stopped, thread })
    }

    /// Ends the heartbeats and tells what became of them.
    pub(crate) fn stop(self) -> Result<Heartbeats, Trouble> {
        self.stopped.store(true, Ordering::Release);
        self.thread.join().map_err(|_| Trouble::proof("the member panicked"))?
    }
}

fn coordinator(bootstrap: SocketAddr, group: &str) -> Result<Connection, Trouble> {
    let request = FindCoordinatorRequest { key: group.into(), ..Default::default() };
    let answer = cluster::greet(bootstrap)?.call(&request, FIND_COORDINATOR_VERSION)?;
    if !answer.error_code.is_none() {
        return Err(Trouble::Code(answer.error_code));
    }
    let address = (answer.host.as_str(), answer.port as u16).to_socket_addrs()?.next();
    cluster::greet(address.ok_or_else(|| Trouble::proof("a coordinator without an address"))?)
}

fn join(connection: &mut Connection, group: &str) -> Result<HeartbeatRequest, Trouble> {
    let mut request = JoinGroupRequest {
        group_id: group.into(),
        session_timeout_ms: SESSION_TIMEOUT_MS,
        rebalance_timeout_ms: SESSION_TIMEOUT_MS,
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol { name: "range".into(), metadata: Bytes::new() }],
        ..Default::default()
    };
    for _ in 0..MAX_JOINS {
        let joined = connection.call(&request, JOIN_VERSION)?;
        request.member_id = joined.member_id.clone();
        match joined.error_code {
            ErrorCode::None => {
                let assignment = SyncGroupRequestAssignment { member_id: joined.member_id, assignment: Bytes::new() };
                let membership = HeartbeatRequest {
                    group_id: group.into(),
                    generation_id: joined.generation_id,
                    member_id: assignment.member_id.clone(),
                    group_instance_id: None,
                };
                return sync(connection, membership, assignment);
            }
            ErrorCode::MemberIdRequired => {}
            code => return Err(Trouble::Code(code)),
        }
    }
    Err(Trouble::proof("a member id was asked for again and again"))
}

fn sync(
    connection: &mut Connection,
    membership: HeartbeatRequest,
    assignment: SyncGroupRequestAssignment,
) -> Result<HeartbeatRequest, Trouble> {
    let request = SyncGroupRequest {
        group_id: membership.group_id.clone(),
        generation_id: membership.generation_id,
        member_id: membership.member_id.clone(),
        assignments: vec![assignment],
        ..Default::default()
    };
    let synced = connection.call(&request, SYNC_VERSION)?;
    if synced.error_code.is_none() { Ok(membership) } else { Err(Trouble::Code(synced.error_code)) }
}

fn heartbeat(
    connection: &mut Connection,
    membership: &HeartbeatRequest,
    stopped: &AtomicBool,
) -> Result<Heartbeats, Trouble> {
    let mut heartbeats = Heartbeats::default();
    while !stopped.load(Ordering::Acquire) {
        let began = Instant::now();
        let answer = connection.call(membership, HEARTBEAT_VERSION)?;
        if !answer.error_code.is_none() {
            let answered = heartbeats.answered;
            return Err(Trouble::proof(format!(
                "after {answered} heartbeats the group answers {:?}",
                answer.error_code
            )));
        }
        heartbeats.answered += 1;
        heartbeats.slowest = heartbeats.slowest.max(began.elapsed());
        thread::sleep(HEARTBEAT_EVERY.saturating_sub(began.elapsed()));
    }
    Ok(heartbeats)
}
