//! Work on a store that no broker serves from meanwhile: `millrace audit`.

pub mod audit;
mod read_only;
mod topics;

use crate::control::start::StartError;
use millrace_storage::object::OpenError;
use millrace_storage::store_error::StoreError;

/// Why the work could not be done.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// Something could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A store did not answer, or not as it must.
    #[error("a store does not answer: {0}; check that it runs and can be reached")]
    Store(#[from] StoreError),
    /// A step that start-up has too.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The system gave no thread.
    #[error("a thread could not be started: {0}; raise the limit on processes")]
    Thread(#[from] std::io::Error),
}
