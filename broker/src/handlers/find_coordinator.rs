//! FindCoordinator: the shard that owns a group's slot.

use super::RequestContext;
use crate::control::{ClusterImage, Node};
use crate::groups::slot_of;
use crate::shard::core::ShardCore;
use crate::shard::events::Now;
use millrace_protocol::StrBytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::find_coordinator::Coordinator;
use millrace_protocol::messages::{FindCoordinatorRequest, FindCoordinatorResponse};

/// `key_type` of groups.
const GROUP: i8 = 0;
/// `key_type` of transactional ids.
const TRANSACTION: i8 = 1;

/// First version with several keys (KIP-699).
const MANY_KEYS: i16 = 4;

/// Answers for each key.
pub(crate) fn handle(core: &mut ShardCore, _: Now, context: RequestContext, request: FindCoordinatorRequest) {
    let mut keys = request.coordinator_keys;
    if context.version < MANY_KEYS {
        keys = vec![request.key];
    }
    let image = core.image.clone();
    let mut found: Vec<Coordinator> = keys.into_iter().map(|key| find(&image, request.key_type, key)).collect();
    let response = if context.version < MANY_KEYS {
        let only = found.pop().expect("one key was asked for");
        FindCoordinatorResponse {
            error_code: only.error_code,
            error_message: only.error_message,
            node_id: only.node_id,
            host: only.host,
            port: only.port,
            ..Default::default()
        }
    } else {
        FindCoordinatorResponse { coordinators: found, ..Default::default() }
    };
    context.reply(core, &response);
}

fn find(image: &ClusterImage, kind: i8, key: StrBytes) -> Coordinator {
    match node(image, kind, &key) {
        Ok(node) => Coordinator {
            key,
            node_id: node.id,
            host: node.host.as_str().into(),
            port: i32::from(node.port),
            error_code: ErrorCode::None,
            error_message: None,
        },
        Err((error_code, message)) => Coordinator {
            key,
            node_id: -1,
            host: StrBytes::new(),
            port: -1,
            error_code,
            error_message: Some(StrBytes::from_static(message)),
        },
    }
}

fn node<'a>(image: &'a ClusterImage, kind: i8, key: &str) -> Result<&'a Node, (ErrorCode, &'static str)> {
    match kind {
        GROUP => image
            .slots
            .get(usize::from(slot_of(key)))
            .copied()
            .flatten()
            .and_then(|id| image.nodes.get(&id))
            .ok_or((ErrorCode::CoordinatorNotAvailable, "the group's coordinator is not up yet")),
        // Retriable codes would make clients try for a minute; this one they report at once.
        TRANSACTION => Err((ErrorCode::TransactionalIdAuthorizationFailed, "transactions are not offered")),
        _ => Err((ErrorCode::InvalidRequest, "only groups have coordinators here")),
    }
}
