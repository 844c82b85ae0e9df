//! The stores that settings name, opened so that nothing of them changes.
//!
//! Invariants:
//! 1. A local directory is read only while its lock is held: nothing in it moves meanwhile.
//! 2. An object store is read whether or not a process serves from it. Its embedded metadata is read only while the lock
//!    of the data directory is held, as a copy, and only if the prefix belongs to it.

use super::OfflineError;
use crate::control::start::{CLUSTER_OBJECT, ClusterObject, StartError};
use crate::process::open::{DirectoryLock, LOCK_FILE, MetadataPlace, Places, open_etcd};
use crate::settings::Settings;
use millrace_storage::audit::AuditStores;
use millrace_storage::env::Env;
use millrace_storage::meta::MetaStore;
use millrace_storage::meta::embedded::{EmbeddedMeta, FILE_NAME};
use millrace_storage::meta::etcd::EtcdMeta;
use millrace_storage::object::local::LocalStore;
use millrace_storage::object::url::StoreUrl;
use millrace_storage::object::{OpenError, SharedObjects};
use millrace_storage::side::SideRuntime;
use millrace_storage::wal::WalStore;
use millrace_storage::wal::extents::ExtentWal;
use millrace_storage::wal::objects::ObjectWal;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

/// Opened stores. Their locks are held as long as this lives.
pub(super) struct ReadOnly {
    objects: SharedObjects,
    extents: Option<ExtentWal>,
    meta: Option<Meta>,
    /// Where it is.
    pub(super) url: StoreUrl,
    /// No process serves from the store.
    pub(super) stopped: bool,
    /// What is known of the metadata store, for people.
    pub(super) metadata: String,
    _locks: Vec<DirectoryLock>,
}

/// The metadata store that was opened.
enum Meta {
    Copy(EmbeddedMeta),
    Etcd(EtcdMeta),
}

impl Meta {
    fn handle(&self) -> Rc<dyn MetaStore> {
        match self {
            Meta::Copy(meta) => Rc::new(meta.clone()),
            Meta::Etcd(meta) => Rc::new(meta.clone()),
        }
    }
}

impl ReadOnly {
    pub(super) fn open(settings: &Settings, side: &SideRuntime) -> Result<ReadOnly, OfflineError> {
        let places = Places::existing(settings)?;
        let mut locks = Vec::new();
        let (objects, extents, stopped) = match &places.store {
            StoreUrl::Memory => {
                let problem = "a memory: store ends with its process";
                return Err(OpenError::new(problem, "name another with --object-store").into());
            }
            StoreUrl::Bucket { .. } => (SharedObjects::open(&places.store, side)?, None, false),
            StoreUrl::File(root) => {
                exists(root)?;
                locks.extend(lock(root, "--object-store")?);
                let objects = SharedObjects::Local(LocalStore::existing(root, side));
                let wal = root.join("wal");
                let extents = settings.store_model.is_none() && wal.is_dir();
                (objects, extents.then(|| ExtentWal::open_read_only(&wal)).transpose()?.map(|(wal, _)| wal), true)
            }
        };
        let held = lock(&settings.data_dir, "--data-dir");
        let (meta, metadata) = match (&places.metadata, held) {
            (_, Err(error)) if stopped => return Err(error.into()),
            // No lock says whether brokers change it meanwhile.
            (MetadataPlace::Etcd(_), _) if !stopped => {
                (None, "the store alone: brokers may be using the etcd".to_owned())
            }
            (MetadataPlace::Etcd(address), _) => {
                let etcd = open_etcd(address, settings, side, None)?;
                (Some(Meta::Etcd(etcd)), format!("the etcd at {}", address.endpoints.join(",")))
            }
            (_, Err(_)) => (None, format!("the store alone: a live process holds {}", settings.data_dir.display())),
            (MetadataPlace::Embedded(directory), Ok(lock)) if directory.join(FILE_NAME).is_file() => {
                locks.extend(lock);
                (Some(Meta::Copy(EmbeddedMeta::open_copy(directory)?)), directory.display().to_string())
            }
            (MetadataPlace::Embedded(_) | MetadataPlace::Memory, Ok(_)) => {
                (None, "the store alone: there is no metadata store".to_owned())
            }
        };
        Ok(ReadOnly { objects, extents, meta, url: places.store, stopped, metadata, _locks: locks })
    }

    /// The handles of the thread that `env` belongs to, once it is known that the metadata belong to the store.
    pub(super) async fn handles(&mut self, env: &Env) -> Result<AuditStores, OfflineError> {
        // Nobody reads what it counts.
        let objects = self.objects.handle(env, &Arc::default());
        let found = objects.get(CLUSTER_OBJECT).await?.ok_or_else(|| {
            let problem = format!("there is no cluster at {}: {CLUSTER_OBJECT} is missing", self.url);
            OpenError::new(problem, "name the store of a cluster with --object-store or --data-dir")
        })?;
        let cluster = ClusterObject::decode(&found.bytes).map_err(StartError::from)?;
        let meta = self.meta.as_ref().map(Meta::handle);
        if let Some(meta) = &meta {
            if meta.cluster_id().await?.to_string() == cluster.metadata {
                // The process that this lock belongs to is the one that would serve from the store.
                self.stopped = true;
            } else {
                self.metadata = format!("the store alone: {} is not of this store", self.metadata);
                self.meta = None;
            }
        }
        let wal: Rc<dyn WalStore> = match &self.extents {
            Some(extents) => Rc::new(extents.clone()),
            None => Rc::new(ObjectWal::new(objects.clone())),
        };
        let meta = meta.filter(|_| self.meta.is_some());
        Ok(AuditStores { wal, objects, meta })
    }

    /// Whether write-ahead objects share files.
    pub(super) fn whole_files(&self) -> bool {
        self.extents.is_some()
    }
}

fn exists(root: &Path) -> Result<(), OpenError> {
    if root.is_dir() {
        return Ok(());
    }
    Err(OpenError::new(format!("there is no directory {}", root.display()), "name the one of a cluster"))
}

/// Takes the lock of a directory that some process has used.
fn lock(directory: &Path, setting: &str) -> Result<Option<DirectoryLock>, OpenError> {
    let used = directory.join(LOCK_FILE).exists();
    used.then(|| DirectoryLock::take(directory, setting)).transpose()
}
