//! Work on stores past the brokers: on one that none serves from meanwhile (`millrace audit`, `millrace gc`, `millrace
//! recover`, `millrace restore`, `millrace segment export` and `import`), and on the metadata that many share while they
//! run (`millrace drain`, `millrace status`).

pub mod audit;
mod batches;
pub mod drain;
pub mod export;
pub mod gc;
pub mod import;
mod kafscale;
mod new_topic;
mod read_only;
pub mod recover;
pub mod restore;
mod shared;
pub mod status;
mod topics;

pub use kafscale::TransferError;

use crate::control::start::StartError;
use millrace_storage::meta::records::RecordError;
use millrace_storage::object::OpenError;
use millrace_storage::recovery::RebuildError;
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
    /// A record was written by something else.
    #[error("{0}; was it written by another version?")]
    Record(RecordError),
    /// The store of the log is not whole enough to go on from.
    #[error(transparent)]
    Rebuild(#[from] RebuildError),
    /// Segments can't be copied.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// A step that start-up has too.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The system gave no thread, or no file.
    #[error("the system refused: {0}; check the limits on processes, the disk and the rights on its directories")]
    System(#[from] std::io::Error),
}
