//! The walk of an audit: reads everything that the stores hold, once, and tells a checker.
//!
//! Invariants:
//! 1. Records are read before checkpoints, checkpoints before objects, so that beside a live process nothing is looked for
//!    that was deleted before something older was read. What still looks wrong is looked at again by a second pass, and
//!    only what both find counts ([`Report::confirmed_by`]).
//! 2. Manifests and segments come last: what was rolled and let go meanwhile they hold.
//! 3. Bodies are read once, at most [`AT_ONCE`] objects at a time; of each only its footer is kept.
//! 4. Nothing is written.

use super::checker::{Checker, Metadata, Rules};
use super::findings::Report;
use super::logs::BrokenCheckpoint;
use super::object::{Bodies, SeenObject, examine};
use super::segments_walk::{Whole, segments};
use crate::format::checkpoint::checkpoint_key;
use crate::ids::{Seq, Wid};
use crate::meta::MetaStore;
use crate::object::ObjectStore;
use crate::recovery::acquire::{Failure, bare_checkpoint, checkpoint};
use crate::recovery::collect::{all_partitions, all_wals};
use crate::store_error::StoreError;
use crate::wal::{Listed, WalStore};
use futures::StreamExt;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Write-ahead objects in memory at once.
const AT_ONCE: usize = 4;
/// Folder of checkpoints.
const CHECKPOINTS: &str = "ckpt/";

/// The stores as an audit needs them.
#[derive(Clone)]
pub struct AuditStores {
    /// Write-ahead objects.
    pub wal: Rc<dyn WalStore>,
    /// Plain objects.
    pub objects: Rc<dyn ObjectStore>,
    /// The metadata store, or a copy of it, if it can be had.
    pub meta: Option<Rc<dyn MetaStore>>,
}

/// Objects that are known to be whole: they never change, so a later pass does not read them again.
#[derive(Default)]
pub struct Walk {
    known: BTreeMap<(Wid, Seq), Rc<SeenObject>>,
    known_segments: Whole,
}

impl Walk {
    /// Looks at everything.
    ///
    /// # Errors
    /// A store failed; nothing is known then.
    pub async fn pass(&mut self, stores: &AuditStores, rules: Rules) -> Result<Report, StoreError> {
        let mut damaged = Vec::new();
        let metadata = match &stores.meta {
            None => None,
            Some(meta) => {
                let partitions = all_partitions(&**meta).await?;
                let (wals, unreadable) = all_wals(&**meta).await?;
                damaged.extend(unreadable.into_iter().map(|(wid, detail)| (format!("record /wal/{wid}"), detail)));
                Some(Metadata { wals, partitions })
            }
        };
        let named: BTreeMap<Wid, u64> =
            metadata.iter().flat_map(|metadata| &metadata.wals).map(|(wid, record)| (*wid, record.ck)).collect();
        let mut checker = Checker::new(rules, metadata);
        damaged.into_iter().for_each(|(key, detail)| checker.damaged(key, detail));
        for name in stores.objects.list_directories(CHECKPOINTS).await? {
            if let Ok(wid) = name.parse() {
                checkpoints(stores, &mut checker, wid, named.get(&wid).copied()).await?;
            }
        }
        let mut seen = BTreeMap::new();
        for wid in stores.wal.list_wids().await? {
            self.log(stores, &mut checker, wid, &mut seen).await?;
        }
        self.known = seen;
        self.known_segments = segments(&*stores.objects, &mut checker, &self.known_segments).await?;
        Ok(checker.finish())
    }

    async fn log(
        &self,
        stores: &AuditStores,
        checker: &mut Checker,
        wid: Wid,
        seen: &mut BTreeMap<(Wid, Seq), Rc<SeenObject>>,
    ) -> Result<(), StoreError> {
        let listed = stores.wal.list(wid, Seq(0)).await?;
        let reads = listed.into_iter().map(async |one| (one, self.object(stores, wid, one).await));
        let mut reads = futures::stream::iter(reads).buffered(AT_ONCE);
        while let Some((Listed { seq, size }, read)) = reads.next().await {
            match read? {
                None => {}
                Some(Ok(object)) => {
                    seen.insert((wid, seq), object.clone());
                    checker.object(object);
                }
                Some(Err(detail)) => checker.damaged_object(wid, seq, size, detail),
            }
        }
        Ok(())
    }

    /// One object, or what is wrong with it; `None` if it has gone since it was listed.
    async fn object(
        &self,
        stores: &AuditStores,
        wid: Wid,
        Listed { seq, size }: Listed,
    ) -> Result<Option<Result<Rc<SeenObject>, String>>, StoreError> {
        if let Some(known) = self.known.get(&(wid, seq)).filter(|known| known.bytes == size) {
            return Ok(Some(Ok(known.clone())));
        }
        let bytes = stores.wal.read(wid, seq, 0..size).await?;
        Ok(bytes.map(|bytes| examine(wid, seq, &bytes, Bodies::Batches).map(Rc::new)))
    }
}

/// The newest checkpoint of a log, and the one that its record names.
async fn checkpoints(
    stores: &AuditStores,
    checker: &mut Checker,
    wid: Wid,
    named: Option<u64>,
) -> Result<(), StoreError> {
    let folder = checkpoint_key(wid, 0);
    let folder = &folder[..=folder.rfind('/').expect("the key has a folder")];
    let listed = stores.objects.list(folder).await?;
    let mut there = BTreeSet::new();
    for object in listed {
        there.extend(object.key.strip_prefix(folder).and_then(|name| name.parse::<u64>().ok()));
        checker.beside(wid, object.key, object.size, object.modified_ms);
    }
    let named = named.filter(|number| there.contains(number));
    let wanted: BTreeSet<u64> = there.last().copied().into_iter().chain(named).collect();
    for number in wanted {
        match checkpoint(&*stores.objects, wid, number).await {
            Ok(read) => checker.checkpoint(wid, number, Ok(read)),
            Err(Failure::Broken(detail)) => {
                let bare = match bare_checkpoint(&*stores.objects, wid, number).await {
                    Ok(bare) => Some(Box::new(bare)),
                    Err(Failure::Broken(_)) => None,
                    Err(Failure::Store(error)) => return Err(error),
                };
                checker.checkpoint(wid, number, Err(BrokenCheckpoint { bare, detail }));
            }
            Err(Failure::Store(error)) => return Err(error),
        }
    }
    Ok(())
}
