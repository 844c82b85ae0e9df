//! What a process opens before it starts: the lock, its name, the stores.
//!
//! ```text
//! data directory   lock   name   metadata/   log/ (without --object-store)
//! log/             wal/ (extents)   ckpt/ …   meta/
//! ```

use crate::control::start::kafka_uuid;
use crate::settings::Settings;
use millrace_storage::env::Env;
use millrace_storage::meta::MetaStore;
use millrace_storage::meta::embedded::EmbeddedMeta;
use millrace_storage::meta::etcd::{Credentials, EtcdAddress, EtcdMeta, EtcdSettings, OnOther, Upkeep};
use millrace_storage::meta::memory::MemoryMeta;
use millrace_storage::meter::{Counting, StoreMeter};
use millrace_storage::object::model::{Parameters, SharedModel};
use millrace_storage::object::url::StoreUrl;
use millrace_storage::object::{HEDGE_PERCENT, OpenError, SharedObjects};
use millrace_storage::recovery::Stores;
use millrace_storage::side::SideRuntime;
use millrace_storage::wal::WalStore;
use millrace_storage::wal::counted::CountedWal;
use millrace_storage::wal::extents::ExtentWal;
use millrace_storage::wal::memory::MemoryWal;
use millrace_storage::wal::objects::ObjectWal;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Longest name of a process, bytes.
const LONGEST_NAME: usize = 128;
/// File in a directory whose lock proves that one process uses it.
pub const LOCK_FILE: &str = "lock";
/// Folder of what is served by a store with a model.
const MODELLED: &str = "modelled";
/// What the memory store may hold beyond the ring that the lane keeps it to.
const RING_MARGIN: u64 = 256 << 20;

/// Proves that no other process uses a directory, for as long as it is held (and no longer, however the process ends).
#[derive(Debug)]
pub struct DirectoryLock(#[expect(dead_code, reason = "held open for its lock")] File);

impl DirectoryLock {
    /// Locks `directory`, which is made if it is missing. `setting`: the flag that names it, for the error.
    pub fn take(directory: &Path, setting: &str) -> Result<DirectoryLock, OpenError> {
        let failed = |error: io::Error| {
            let fix = format!("give this process write access to it, or choose another with {setting}");
            OpenError::new(format!("the directory {} can't be used: {error}", directory.display()), fix)
        };
        fs::create_dir_all(directory).map_err(failed)?;
        let file = File::options().create(true).truncate(false).write(true).open(directory.join(LOCK_FILE));
        let file = file.map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(DirectoryLock(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::new(
                format!("another process uses {}", directory.display()),
                format!("stop it, or give this one a directory of its own with {setting}"),
            )),
            Err(error) => Err(failed(error.into())),
        }
    }
}

fn unusable(directory: &Path, error: &io::Error) -> OpenError {
    OpenError::new(
        format!("the directory {} can't be used: {error}", directory.display()),
        "give this process write access to it, or choose another with --data-dir",
    )
}

/// The name of the process: what the settings say, else the one kept in the data directory, made at the first start.
pub fn name(settings: &Settings, random: u64) -> Result<String, OpenError> {
    if let Some(name) = &settings.name {
        return Ok(name.clone());
    }
    let directory = &settings.data_dir;
    let path = directory.join("name");
    match fs::read_to_string(&path) {
        Ok(name) if !name.trim().is_empty() && name.len() <= LONGEST_NAME => Ok(name.trim().to_owned()),
        Ok(_) => Err(OpenError::new(
            format!("{} holds no name", path.display()),
            "write the name that this process had into it, or give --name",
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let name = format!("{random:016x}");
            keep(directory, &path, &name).map_err(|error| unusable(directory, &error))?;
            Ok(name)
        }
        Err(error) => Err(unusable(directory, &error)),
    }
}

/// Writes a small file so that after a crash it is there whole or not at all.
fn keep(directory: &Path, path: &Path, text: &str) -> io::Result<()> {
    let staged = path.with_extension("new");
    let mut file = File::create(&staged)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    fs::rename(&staged, path)?;
    File::open(directory)?.sync_all()
}

/// Where the log of record is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreKind {
    /// Files of this machine.
    Local,
    /// An object store.
    Remote,
    /// Memory.
    Memory,
}

/// The opened stores as they cross threads.
#[derive(Clone)]
pub struct SharedStores {
    wal: SharedWal,
    objects: SharedObjects,
    meta: SharedMeta,
    /// What kind the store of the log is.
    pub kind: StoreKind,
    /// Whether it has the manners of an object store, as one or by a model.
    pub remote: bool,
    /// What is asked of the store.
    pub meter: Arc<StoreMeter>,
    /// Of a hundred requests at most so many are sent a second time.
    pub hedge_percent: u32,
}

#[derive(Clone)]
enum SharedWal {
    Extents(ExtentWal),
    Objects,
    Memory(MemoryWal),
}

#[derive(Clone)]
enum SharedMeta {
    Embedded(EmbeddedMeta),
    Etcd(EtcdMeta),
    Memory(MemoryMeta),
}

/// Where the metadata are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MetadataPlace {
    /// In memory, like the log.
    Memory,
    /// The directory of an embedded store.
    Embedded(PathBuf),
    /// An etcd.
    Etcd(EtcdAddress),
}

/// Where the settings put things.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Places {
    /// The log of record.
    pub store: StoreUrl,
    /// The metadata store.
    pub metadata: MetadataPlace,
}

impl Places {
    /// Reads them from the settings; the data directory exists.
    pub fn of(settings: &Settings) -> Result<Places, OpenError> {
        let data = fs::canonicalize(&settings.data_dir).map_err(|error| unusable(&settings.data_dir, &error))?;
        Places::under(&data, settings)
    }

    /// The same without a data directory that must be there, if the log of record is elsewhere.
    pub fn existing(settings: &Settings) -> Result<Places, OpenError> {
        match fs::canonicalize(&settings.data_dir) {
            Err(_) if settings.object_store.is_some() => Places::under(&settings.data_dir, settings),
            _ => Places::of(settings),
        }
    }

    /// Where the metadata are, whether or not there is a data directory.
    pub fn existing_metadata(settings: &Settings) -> Result<MetadataPlace, OpenError> {
        match settings.metadata.as_deref().filter(|text| EtcdAddress::is_one(text)) {
            Some(text) => Ok(MetadataPlace::Etcd(EtcdAddress::parse(text)?)),
            None => Ok(Places::existing(settings)?.metadata),
        }
    }

    fn under(data: &Path, settings: &Settings) -> Result<Places, OpenError> {
        let store = match &settings.object_store {
            Some(url) => StoreUrl::from_str(url)?,
            None => StoreUrl::File(data.join("log")),
        };
        // A modelled directory holds plain objects instead of extents: neither start may take the other's for a gap.
        let apart = |place: PathBuf| if settings.store_model.is_some() { place.join(MODELLED) } else { place };
        let store = match store {
            StoreUrl::File(root) => StoreUrl::File(apart(root)),
            other @ (StoreUrl::Bucket { .. } | StoreUrl::Memory) => other,
        };
        let metadata = match (&settings.metadata, &store) {
            (_, StoreUrl::Memory) => MetadataPlace::Memory,
            (None, _) => MetadataPlace::Embedded(apart(data.join("metadata"))),
            (Some(text), _) if EtcdAddress::is_one(text) => MetadataPlace::Etcd(EtcdAddress::parse(text)?),
            (Some(text), _) => {
                MetadataPlace::Embedded(apart(PathBuf::from(text.strip_prefix("embedded:").unwrap_or(text))))
            }
        };
        Ok(Places { store, metadata })
    }

    /// Directories besides the data directory that must be this process's own.
    pub fn to_lock(&self) -> Option<&Path> {
        match &self.store {
            StoreUrl::File(root) => Some(root),
            StoreUrl::Bucket { .. } | StoreUrl::Memory => None,
        }
    }
}

impl SharedStores {
    /// Opens the stores. `random` gives the metadata store its id when it is made.
    pub fn open(
        places: &Places,
        settings: &Settings,
        side: &SideRuntime,
        random: impl FnMut() -> u128,
    ) -> Result<SharedStores, OpenError> {
        let model = settings.store_model.as_deref().map(open_model).transpose()?;
        let (kind, wal) = match &places.store {
            StoreUrl::Bucket { .. } => (StoreKind::Remote, SharedWal::Objects),
            StoreUrl::File(_) if model.is_some() => (StoreKind::Local, SharedWal::Objects),
            StoreUrl::Memory if model.is_some() => (StoreKind::Memory, SharedWal::Objects),
            StoreUrl::File(root) => (StoreKind::Local, open_extents(&root.join("wal"), settings.fsync, side)?),
            StoreUrl::Memory => {
                let ring = settings.memory_mib << 20;
                (StoreKind::Memory, SharedWal::Memory(MemoryWal::new(ring + RING_MARGIN)))
            }
        };
        let new_id = kafka_uuid(random);
        let meta = match &places.metadata {
            MetadataPlace::Embedded(directory) => SharedMeta::Embedded(EmbeddedMeta::open(directory, new_id)?),
            MetadataPlace::Etcd(address) => SharedMeta::Etcd(open_etcd(address, settings, side, Some(new_id))?),
            MetadataPlace::Memory => SharedMeta::Memory(MemoryMeta::new(new_id)),
        };
        let objects = SharedObjects::open(&places.store, side)?;
        let remote = kind == StoreKind::Remote || model.is_some();
        let objects = match model {
            Some(model) => SharedObjects::Modelled(Box::new(objects), model),
            None => objects,
        };
        let hedge_percent = settings.hedge_percent.unwrap_or(if remote { HEDGE_PERCENT } else { 0 });
        let meter = match &meta {
            SharedMeta::Embedded(meta) => StoreMeter::with_metadata(meta.counts()),
            SharedMeta::Etcd(meta) => StoreMeter::with_etcd(meta.keep_up(upkeep(settings))),
            SharedMeta::Memory(_) => StoreMeter::default(),
        };
        Ok(SharedStores { wal, objects, meta, kind, remote, meter: Arc::new(meter), hedge_percent })
    }

    /// The same stores, for those who read what consumers ask for: their reads of files give way to all other threads.
    #[must_use]
    pub fn giving_way(&self) -> SharedStores {
        let wal = match &self.wal {
            SharedWal::Extents(wal) => SharedWal::Extents(wal.giving_way()),
            wal @ (SharedWal::Objects | SharedWal::Memory(_)) => wal.clone(),
        };
        SharedStores { wal, objects: self.objects.giving_way(), ..self.clone() }
    }

    /// Whether other processes may use the same metadata store, and with it the same log.
    pub fn is_shared(&self) -> bool {
        match self.meta {
            SharedMeta::Embedded(_) | SharedMeta::Memory(_) => false,
            // What is no object store is this process's alone.
            SharedMeta::Etcd(_) => self.kind == StoreKind::Remote,
        }
    }

    /// The handles of the thread that `env` belongs to.
    pub fn handles(&self, env: &Env) -> Stores {
        let objects = self.objects.handle_hedging(env, &self.meter, self.hedge_percent);
        let counted = |wal| CountedWal::new(wal, Counting::new(self.meter.clone(), env.clone()));
        let wal: Rc<dyn WalStore> = match &self.wal {
            SharedWal::Extents(wal) => Rc::new(counted(Rc::new(wal.clone()))),
            SharedWal::Objects => Rc::new(ObjectWal::new(objects.clone())),
            SharedWal::Memory(wal) => Rc::new(counted(Rc::new(wal.clone()))),
        };
        let meta: Rc<dyn MetaStore> = match &self.meta {
            SharedMeta::Embedded(meta) => Rc::new(meta.clone()),
            SharedMeta::Etcd(meta) => Rc::new(meta.clone()),
            SharedMeta::Memory(meta) => Rc::new(meta.timed(env)),
        };
        Stores { wal, objects, meta }
    }
}

/// Opens an etcd as the settings say. Once another one answers in its place the process ends: what it might acknowledge
/// then could contradict what others own.
pub fn open_etcd(
    address: &EtcdAddress,
    settings: &Settings,
    side: &SideRuntime,
    new_id: Option<Uuid>,
) -> Result<EtcdMeta, OpenError> {
    EtcdMeta::open(address, &etcd_settings(settings)?, side, new_id, ends_process())
}

/// Opens an etcd to rebuild what it holds: [`EtcdMeta::open_to_rebuild`].
pub fn open_etcd_to_rebuild(
    address: &EtcdAddress,
    settings: &Settings,
    side: &SideRuntime,
    new_id: Option<Uuid>,
) -> Result<Option<EtcdMeta>, OpenError> {
    EtcdMeta::open_to_rebuild(address, &etcd_settings(settings)?, side, new_id, ends_process())
}

fn etcd_settings(settings: &Settings) -> Result<EtcdSettings, OpenError> {
    let credentials = settings.etcd_user.clone().zip(settings.etcd_password_file.as_deref());
    let credentials =
        credentials.map(|(user, file)| Ok(Credentials { user, password: password(file)? })).transpose()?;
    Ok(EtcdSettings {
        credentials,
        ca: settings.etcd_ca.clone(),
        cert: settings.etcd_cert.clone(),
        key: settings.etcd_key.clone(),
    })
}

fn ends_process() -> OnOther {
    Arc::new(|error| {
        tracing::error!(%error, "the process ends; rebuild the metadata (millrace recover) or bring back the etcd it used");
        std::process::exit(1);
    })
}

fn password(file: &Path) -> Result<String, OpenError> {
    let text = fs::read_to_string(file).map_err(|error| {
        let fix = "name a file that this process may read with --etcd-password-file";
        OpenError::new(format!("the password in {} can't be read: {error}", file.display()), fix)
    })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn upkeep(settings: &Settings) -> Upkeep {
    let minutes = settings.etcd_history_minutes;
    Upkeep {
        history: (minutes > 0).then(|| Duration::from_secs(60 * minutes)),
        quota: settings.etcd_quota_mib.map(|mib| mib << 20),
    }
}

fn open_model(path: &Path) -> Result<SharedModel, OpenError> {
    let fix = "give --store-model a file like those in perf/models";
    let parameters = Parameters::load(path).map_err(|error| OpenError::new(error.to_string(), fix))?;
    tracing::warn!(file = %path.display(), "the store is slowed down to what this model says");
    Ok(SharedModel::new(parameters))
}

fn open_extents(root: &Path, fsync: bool, side: &SideRuntime) -> Result<SharedWal, OpenError> {
    let (wal, dropped) = ExtentWal::open(root, fsync, side)?;
    for cut in &dropped {
        tracing::warn!(
            extent = ?cut.name, position = cut.position, bytes = cut.bytes,
            "cut off a write that had not ended when the process or the power did"
        );
    }
    Ok(SharedWal::Extents(wal))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(data_dir: &Path) -> Settings {
        let command = crate::settings::add_flags(clap::Command::new("serve"));
        let matches = command.get_matches_from(["serve", "--data-dir", data_dir.to_str().unwrap()]);
        crate::settings::Effective::load(&matches).unwrap().settings().unwrap()
    }

    #[test]
    fn a_directory_is_locked_by_one_until_it_is_released() {
        let directory = tempfile::tempdir().unwrap();
        let lock = DirectoryLock::take(directory.path(), "--data-dir").unwrap();
        let error = DirectoryLock::take(directory.path(), "--data-dir").unwrap_err();
        assert!(error.problem.starts_with("another process uses"), "{error}");
        drop(lock);
        DirectoryLock::take(directory.path(), "--data-dir").unwrap();
    }

    #[test]
    fn a_name_is_made_once_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(directory.path());
        assert_eq!(name(&settings, 0xabc).unwrap(), "0000000000000abc");
        assert_eq!(name(&settings, 1).unwrap(), "0000000000000abc");
        let named = Settings { name: Some("west".to_owned()), ..settings };
        assert_eq!(name(&named, 2).unwrap(), "west");
    }

    #[test]
    fn everything_is_under_the_data_directory_by_default() {
        let directory = tempfile::tempdir().unwrap();
        let places = Places::of(&settings(directory.path())).unwrap();
        let data = fs::canonicalize(directory.path()).unwrap();
        assert_eq!(places.store, StoreUrl::File(data.join("log")));
        assert_eq!(places.metadata, MetadataPlace::Embedded(data.join("metadata")));
    }

    #[test]
    fn an_etcd_is_named_by_its_scheme() {
        let directory = tempfile::tempdir().unwrap();
        let named = |text: &str| Settings { metadata: Some(text.to_owned()), ..settings(directory.path()) };
        let places = Places::of(&named("etcd://a:1,b/x")).unwrap();
        assert_eq!(places.metadata, MetadataPlace::Etcd(EtcdAddress::parse("etcd://a:1,b:2379/x").unwrap()));
        assert!(Places::of(&named("etcd://")).is_err());
        assert_eq!(Places::of(&named("embedded:/m")).unwrap().metadata, MetadataPlace::Embedded("/m".into()));
    }
}
