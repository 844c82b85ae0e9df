//! `millrace gc --dry-run`: the segments, write-ahead objects and checkpoints that nothing needs any more, or not yet.

use super::OfflineError;
use super::read_only::ReadOnly;
use crate::process::housekeeping::deleted_topics;
use crate::settings::Settings;
use millrace_storage::audit::{LogLitter, log_litter};
use millrace_storage::compactor::collect::{self, Orphan};
use millrace_storage::object::url::StoreUrl;
use millrace_storage::recovery::{Stores, committed_log_starts};
use millrace_storage::side::{SideRuntime, block_on_local};
use std::collections::BTreeMap;

/// What was found, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Orphans {
    /// The store.
    pub url: StoreUrl,
    /// What it was compared with, for people.
    pub metadata: String,
    /// Segments, in the order of their keys.
    pub segments: Vec<Orphan>,
    /// Of logs.
    pub logs: LogLitter,
}

/// Looks at the store that `settings` name. Nothing is changed.
///
/// # Errors
/// See [`OfflineError`].
pub fn orphans(settings: &Settings) -> Result<Orphans, OfflineError> {
    let side = SideRuntime::start()?;
    let mut opened = ReadOnly::open(settings, &side)?;
    block_on_local(async |env| {
        let stores = opened.handles(&env).await?;
        let objects = &*stores.objects;
        let gone = deleted_topics(objects, &collect::topics(objects).await?).await?;
        // Without metadata nobody knows which checkpoint is the newest.
        let log_starts = match stores.meta.clone() {
            Some(meta) => {
                let stores = Stores { wal: stores.wal.clone(), objects: stores.objects.clone(), meta };
                committed_log_starts(&stores).await?
            }
            None => BTreeMap::new(),
        };
        let segments = collect::orphans(objects, &gone, &log_starts).await?;
        let logs = log_litter(&stores).await?;
        Ok(Orphans { url: opened.url.clone(), metadata: opened.metadata.clone(), segments, logs })
    })?
}
