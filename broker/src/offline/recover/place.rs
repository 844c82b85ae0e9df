//! Where the new metadata store is made.
//!
//! Invariants:
//! 1. An embedded one is made under another name and gets its own when it is whole.
//! 2. A namespace of an etcd is used if it is empty or the cluster's own; never one of another cluster.
//! 3. It is emptied, then filled, and gets the new id with the last transaction. Every transaction of this compares the
//!    mark of this recovery: one that another recovery overtook changes nothing more, and its last step fails.

use super::OfflineError;
use crate::control::start::{ClusterObject, StartError, kafka_uuid};
use crate::process::open::{MetadataPlace, open_etcd_to_rebuild};
use crate::runtime;
use crate::settings::Settings;
use bytes::Bytes;
use millrace_storage::env::Env;
use millrace_storage::meta::embedded::{EmbeddedMeta, FILE_NAME};
use millrace_storage::meta::etcd::{EtcdAddress, EtcdMeta};
use millrace_storage::meta::pages::Pages;
use millrace_storage::meta::records::{ClusterRecord, Record};
use millrace_storage::meta::{
    Compare, KeptAlive, Key, Lease, LeaseId, MAX_PAGE, MetaStore, Op, Page, Revision, Snapshot, Txn, TxnOutcome,
    WatchStream, keys,
};
use millrace_storage::object::OpenError;
use millrace_storage::recovery::NEW_AT_ONCE;
use millrace_storage::side::SideRuntime;
use millrace_storage::wal::StoreFuture;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use uuid::Uuid;

/// What the new metadata directory is called until it is whole.
const UNFINISHED: &str = "recovering";
/// How long brokers of an etcd may take to be gone: longer than a lease that a backup brought back lives.
const BROKERS_GONE_WITHIN: Duration = Duration::from_secs(15);
/// Between two looks for them.
const LOOK: Duration = Duration::from_millis(500);

/// See the module.
pub(super) enum Place {
    /// A directory.
    Embedded { metadata: PathBuf, staged: PathBuf },
    /// A namespace of an etcd.
    Etcd {
        address: EtcdAddress,
        /// `None`: it is empty, and stays so.
        meta: Option<EtcdMeta>,
    },
}

impl Place {
    pub(super) fn of(place: &MetadataPlace) -> Result<Place, OpenError> {
        match place {
            MetadataPlace::Memory => {
                Err(OpenError::new("a memory: store ends with its process", "name another with --object-store"))
            }
            MetadataPlace::Embedded(metadata) => {
                if metadata.join(FILE_NAME).exists() {
                    let problem = format!("there is a metadata store in {}: nothing is lost", metadata.display());
                    let fix =
                        "start the broker; or, if that store is damaged or older than the log, move it away first";
                    return Err(OpenError::new(problem, fix));
                }
                let staged = metadata.with_added_extension(UNFINISHED);
                Ok(Place::Embedded { metadata: metadata.clone(), staged })
            }
            MetadataPlace::Etcd(address) => Ok(Place::Etcd { address: address.clone(), meta: None }),
        }
    }

    /// For people.
    pub(super) fn name(&self) -> String {
        match self {
            Place::Embedded { metadata, .. } => metadata.display().to_string(),
            Place::Etcd { address, .. } => {
                format!("the namespace {} of the etcd at {}", address.namespace, address.endpoints.join(","))
            }
        }
    }

    /// Opens the etcd. Blocks.
    pub(super) fn connect(&mut self, settings: &Settings, side: &SideRuntime, dry_run: bool) -> Result<(), OpenError> {
        let Place::Etcd { address, meta } = self else { return Ok(()) };
        let random = || (u128::from(runtime::random()) << 64) | u128::from(runtime::random());
        let draft = (!dry_run).then(|| kafka_uuid(random));
        *meta = open_etcd_to_rebuild(address, settings, side, draft)?;
        Ok(())
    }

    /// Refuses an etcd that is another cluster's; it comes out if it is the metadata store that the bucket belongs to.
    pub(super) async fn look(&self, cluster: &ClusterObject) -> Result<Option<Rc<dyn MetaStore>>, OfflineError> {
        let Place::Etcd { address, meta: Some(meta) } = self else { return Ok(None) };
        may_be_used(meta, address, cluster).await?;
        let is_own = meta.cluster_id().await?.to_string() == cluster.metadata;
        Ok(if is_own { Some(Rc::new(meta.clone())) } else { None })
    }

    /// Refuses an etcd in which brokers live.
    pub(super) async fn is_left(&self, env: &Env) -> Result<(), OfflineError> {
        let Place::Etcd { meta: Some(meta), .. } = self else { return Ok(()) };
        brokers_are_gone(env, meta).await
    }

    /// Gives the store to fill. `cluster`: the record that says whose it is.
    pub(super) async fn make(&mut self, new_id: Uuid, cluster: Bytes) -> Result<Rc<dyn MetaStore>, OfflineError> {
        match self {
            Place::Embedded { staged, .. } => {
                if staged.exists() {
                    fs::remove_dir_all(&*staged)?;
                }
                Ok(Rc::new(EmbeddedMeta::open(staged, new_id)?))
            }
            Place::Etcd { meta, .. } => {
                let etcd = meta.clone().expect("it was opened with an id");
                let mark = (keys::RECOVERING.to_owned(), Bytes::from(new_id.to_string()));
                // Whose it is stays known throughout.
                let ops = vec![Op::Put(mark.0.clone(), mark.1.clone()), Op::Put(keys::CLUSTER.to_owned(), cluster)];
                etcd.txn(Txn { compares: Vec::new(), ops }).await?;
                let marked = Marked { etcd, mark };
                empty(&marked).await?;
                Ok(Rc::new(marked))
            }
        }
    }

    /// It is whole: it gets its name. Nobody else has a handle.
    pub(super) async fn finish(&mut self, new_id: Uuid) -> Result<(), OfflineError> {
        match self {
            Place::Embedded { metadata, staged } => Ok(put_in_place(staged, metadata)?),
            Place::Etcd { meta, .. } => {
                let etcd = meta.clone().expect("it was filled");
                let mark = (keys::RECOVERING.to_owned(), Bytes::from(new_id.to_string()));
                let renamed = etcd.rename(new_id, mark).await;
                let is_renamed = match renamed {
                    Ok(TxnOutcome::Committed(_)) => true,
                    Ok(TxnOutcome::Conflict(_)) => false,
                    // Where the mark is gone it happened, or another recovery has begun, which puts its own.
                    Err(error) => {
                        let left = etcd.get(vec![keys::RECOVERING.to_owned()]).await?.values.remove(0);
                        if left.is_some() {
                            return Err(error.into());
                        }
                        true
                    }
                };
                if is_renamed {
                    return Ok(());
                }
                let problem = "another recovery of this etcd has begun meanwhile";
                Err(OpenError::new(problem, "run one recovery at a time, again").into())
            }
        }
    }
}

/// Refuses a namespace that holds something else.
async fn may_be_used(etcd: &EtcdMeta, address: &EtcdAddress, cluster: &ClusterObject) -> Result<(), OfflineError> {
    let found = etcd.get(vec![keys::CLUSTER.to_owned()]).await?.values.remove(0);
    let problem = match found {
        Some(found) => {
            let record = ClusterRecord::decode(&found.value).map_err(StartError::from)?;
            if record.cluster_id == cluster.cluster_id {
                return Ok(());
            }
            format!("the namespace {} of the etcd belongs to another cluster, {}", address.namespace, record.cluster_id)
        }
        None if etcd.list(keys::ALL, None, 1).await?.entries.is_empty() => return Ok(()),
        None => format!("the namespace {} of the etcd holds keys of something else", address.namespace),
    };
    Err(OpenError::new(problem, "name an empty one: --metadata etcd://HOST:PORT/NAMESPACE").into())
}

async fn brokers_are_gone(env: &Env, etcd: &EtcdMeta) -> Result<(), OfflineError> {
    let until = env.now().plus(BROKERS_GONE_WITHIN);
    loop {
        let page = etcd.list(keys::BROKERS, None, MAX_PAGE).await?;
        let Some((key, _)) = page.entries.first() else { return Ok(()) };
        if env.now() >= until {
            let name = keys::parse_broker(key).unwrap_or_else(|| key.clone());
            let problem = format!("the broker {name} lives, and perhaps {} others", page.entries.len() - 1);
            return Err(OpenError::new(problem, "stop every broker of the cluster first").into());
        }
        env.sleep(LOOK).await;
    }
}

/// Deletes every key but those that say whose it is and who empties it.
async fn empty(marked: &Marked) -> Result<(), OfflineError> {
    let mut pages = Pages::of(marked, keys::ALL);
    while let Some(page) = pages.next_page().await? {
        let old =
            page.entries.iter().map(|(key, _)| key).filter(|key| *key != keys::RECOVERING && *key != keys::CLUSTER);
        let old: Vec<Key> = old.cloned().collect();
        for some in old.chunks(2 * NEW_AT_ONCE) {
            let ops = some.iter().cloned().map(Op::Delete).collect();
            marked.txn(Txn { compares: Vec::new(), ops }).await?;
        }
    }
    Ok(())
}

/// An etcd whose transactions all compare a mark.
struct Marked {
    etcd: EtcdMeta,
    mark: (Key, Bytes),
}

impl MetaStore for Marked {
    fn cluster_id(&self) -> StoreFuture<Uuid> {
        self.etcd.cluster_id()
    }
    fn txn(&self, mut txn: Txn) -> StoreFuture<TxnOutcome> {
        let (key, value) = self.mark.clone();
        txn.compares.push(Compare::Value(key, value));
        self.etcd.txn(txn)
    }
    fn get(&self, keys: Vec<Key>) -> StoreFuture<Snapshot> {
        self.etcd.get(keys)
    }
    fn list(&self, prefix: &str, after: Option<Key>, limit: usize) -> StoreFuture<Page> {
        self.etcd.list(prefix, after, limit)
    }
    fn watch(&self, prefix: &str, after: Revision) -> WatchStream {
        self.etcd.watch(prefix, after)
    }
    fn grant(&self, ttl: Duration) -> StoreFuture<Lease> {
        self.etcd.grant(ttl)
    }
    fn keep_alive(&self, lease: LeaseId) -> StoreFuture<KeptAlive> {
        self.etcd.keep_alive(lease)
    }
    fn revoke(&self, lease: LeaseId) -> StoreFuture<()> {
        self.etcd.revoke(lease)
    }
}

/// Gives the finished directory its name.
fn put_in_place(staged: &Path, metadata: &Path) -> std::io::Result<()> {
    // An empty one may have been left where the lost store was; anything else in it stays, and is an error.
    if metadata.exists() {
        fs::remove_dir(metadata)?;
    }
    fs::rename(staged, metadata)?;
    let parent = metadata.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(parent)?.sync_all()
}
