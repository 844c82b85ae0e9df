//! How a new process, or a new owner, continues where another ended: SEAL, ACQUIRE and collection of what is left
//! (PROTOCOL.md section 4). At start-up on one node: [`seal_all_dead`], then the lanes are told what to lead.

pub(crate) mod acquire;
pub(crate) mod collect;
mod log_fold;
mod observe;
mod rebuild;
mod rebuild_segments;
mod seal;
mod seal_walk;

pub use acquire::look_up;
pub use collect::{Collected, Collector, committed_log_starts};
pub use log_fold::{Best, LogFold};
pub use observe::observe;
pub use rebuild::{
    NEW_AT_ONCE, RebuildError, Rebuilt, adopt, last_epochs, logs_with_checkpoints, put_new, put_object, rebuild,
};
pub use seal::{seal, seal_all_dead};
pub use seal_walk::{Look, SealWalk, Seen};

use crate::meta::MetaStore;
use crate::object::ObjectStore;
use crate::wal::WalStore;
use std::rc::Rc;

/// The three stores, as handles of one thread.
#[derive(Clone)]
pub struct Stores {
    /// Write-ahead objects.
    pub wal: Rc<dyn WalStore>,
    /// Plain objects.
    pub objects: Rc<dyn ObjectStore>,
    /// Metadata.
    pub meta: Rc<dyn MetaStore>,
}
