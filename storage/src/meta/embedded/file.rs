//! The redb file: its tables, how it is opened, and one group of requests as one write transaction.
//!
//! | table | key | value |
//! |---|---|---|
//! | `about` | `format`, `cluster`, `revision` | version of this layout (u32 LE), cluster id (16 B), revision (i64 LE) |
//! | `keys` | key | (revision of the last change, value) |
//! | `leased` | key | lease that holds it (i64); absent in files in which none ever did |
//!
//! The revision is written in the same transaction as the changes that it counts.
//!
//! The file has its name only once it is whole: redb can't open one whose making was cut off by a crash, so it is made
//! under another name and linked.

use crate::meta::apply::{self, KeyValues};
use crate::meta::{Key, LeaseId, Page, Revision, Snapshot, Versioned};
use crate::object::OpenError;
use crate::store_error::{Certainty, FailureKind, StoreError};
use bytes::Bytes;
use redb::backends::InMemoryBackend;
use redb::{
    Database, DatabaseError, Durability, ReadableTable, ReadableTableMetadata, StorageBackend, StorageError, Table,
    TableDefinition, WriteTransaction,
};
use std::fs;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};

const ABOUT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("about");
const KEYS: TableDefinition<'_, &str, (i64, &[u8])> = TableDefinition::new("keys");
const LEASED: TableDefinition<'_, &str, i64> = TableDefinition::new("leased");

/// Version of the layout above.
const FORMAT: u32 = 1;

/// redb's page cache. Its default of 1 GiB is not ours to take; the whole metadata is a few MiB.
const CACHE_BYTES: usize = 16 << 20;

/// Extension of a file that is being made.
const UNFINISHED: &str = "unfinished";

/// The open file.
pub(super) struct File(Database);

/// What the file says of itself.
pub(super) struct Opened {
    pub(super) cluster_id: uuid::Uuid,
    pub(super) revision: Revision,
}

impl File {
    /// Opens or makes the file at `path`; a new one gets `new_cluster_id`.
    pub(super) fn open(path: PathBuf, new_cluster_id: uuid::Uuid) -> Result<(File, Opened), OpenError> {
        let directory = path.parent().expect("the path ends in a file name");
        let io = |e: io::Error| unusable(&path, &e.to_string());
        fs::create_dir_all(directory).map_err(io)?;
        if !path.try_exists().map_err(io)? {
            remove_unfinished(directory).map_err(io)?;
            let unfinished = directory.join(format!("{new_cluster_id}.{UNFINISHED}"));
            drop(File::open_whole(&unfinished, new_cluster_id)?);
            match fs::hard_link(&unfinished, &path) {
                // Another process was faster; if it still runs, its lock on the file refuses us below.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                linked => linked.map_err(io)?,
            }
            fs::remove_file(&unfinished).map_err(io)?;
        }
        // The name of a new file survives a power loss only when its directory is synced.
        fs::File::open(directory).and_then(|d| d.sync_all()).map_err(io)?;
        File::open_whole(&path, new_cluster_id)
    }

    /// A copy in memory of the file at `path`, which no process uses. What a killed process left is repaired in the copy.
    pub(super) fn open_copy(path: &Path) -> Result<(File, Opened), OpenError> {
        let io = |e: io::Error| unusable(path, &e.to_string());
        let bytes = fs::read(path).map_err(io)?;
        let copy = InMemoryBackend::new();
        let filled = copy.set_len(bytes.len() as u64).and_then(|()| copy.write(0, &bytes));
        filled.map_err(|e| unusable(path, &e.to_string()))?;
        let builder = &mut Database::builder();
        let database = builder.set_cache_size(CACHE_BYTES).create_with_backend(copy).map_err(|e| refused(path, &e))?;
        File::about(database, path, uuid::Uuid::nil())
    }

    /// Opens a file that is whole, or makes one that nobody else looks for yet.
    fn open_whole(path: &Path, new_cluster_id: uuid::Uuid) -> Result<(File, Opened), OpenError> {
        let database = Database::builder().set_cache_size(CACHE_BYTES).create(path).map_err(|e| refused(path, &e))?;
        File::about(database, path, new_cluster_id)
    }

    fn about(database: Database, path: &Path, new_cluster_id: uuid::Uuid) -> Result<(File, Opened), OpenError> {
        let file = File(database);
        let opened = file.read_about(new_cluster_id).map_err(|e| unusable(path, &e.to_string()))?;
        let opened = opened
            .map_err(|found| unusable(path, &format!("its layout has version {found}, this program knows {FORMAT}")))?;
        Ok((file, opened))
    }

    /// Reads the table `about`, or fills it in a new file; `Err` is a layout version that we don't know.
    fn read_about(&self, new_cluster_id: uuid::Uuid) -> Result<Result<Opened, u32>, StoreError> {
        let group = self.begin()?;
        let is_new;
        let opened = {
            let mut about = group.0.open_table(ABOUT).map_err(failed)?;
            let format = fixed::<4>(&about, "format")?.map(u32::from_le_bytes);
            is_new = format.is_none();
            match format {
                None => {
                    for (name, value) in [
                        ("format", &FORMAT.to_le_bytes()[..]),
                        ("cluster", new_cluster_id.as_bytes()),
                        ("revision", &0i64.to_le_bytes()),
                    ] {
                        about.insert(name, value).map_err(failed)?;
                    }
                    group.0.open_table(KEYS).map_err(failed)?;
                    Opened { cluster_id: new_cluster_id, revision: Revision(0) }
                }
                Some(FORMAT) => Opened {
                    cluster_id: uuid::Uuid::from_bytes(fixed(&about, "cluster")?.ok_or_else(|| missing("cluster"))?),
                    revision: read_revision(&about)?,
                },
                Some(other) => return Ok(Err(other)),
            }
        };
        if is_new {
            group.commit()?
        } else {
            group.abort()?
        }
        Ok(Ok(opened))
    }

    /// Starts a group of requests.
    pub(super) fn begin(&self) -> Result<Group, StoreError> {
        let mut transaction = self.0.begin_write().map_err(failed)?;
        transaction.set_durability(Durability::Immediate).map_err(failed)?;
        Ok(Group(transaction))
    }
}

/// One write transaction of redb. Dropped without [`Group::commit`], nothing of it happened.
pub(super) struct Group(WriteTransaction);

impl Group {
    /// The keys as the group sees them.
    pub(super) fn keys(&mut self) -> Result<Keys<'_>, StoreError> {
        let about = self.0.open_table(ABOUT).map_err(failed)?;
        let revision = read_revision(&about)?;
        let table = self.0.open_table(KEYS).map_err(failed)?;
        let leased = self.0.open_table(LEASED).map_err(failed)?;
        Ok(Keys { table, leased, about, stored: revision, revision })
    }

    /// Makes the group durable.
    pub(super) fn commit(self) -> Result<(), StoreError> {
        self.0.commit().map_err(|e| StoreError { certainty: Certainty::Unknown, ..failed(e) })
    }

    /// Ends a group that changed nothing.
    pub(super) fn abort(self) -> Result<(), StoreError> {
        self.0.abort().map_err(failed)
    }
}

/// The tables of a group.
pub(super) struct Keys<'a> {
    table: Table<'a, &'static str, (i64, &'static [u8])>,
    leased: Table<'a, &'static str, i64>,
    about: Table<'a, &'static str, &'static [u8]>,
    /// The revision that the table `about` holds.
    stored: Revision,
    /// The revision of the newest transaction of the group that changed something.
    pub(super) revision: Revision,
}

impl Keys<'_> {
    /// Reads keys.
    pub(super) fn snapshot(&self, names: &[Key]) -> Result<Snapshot, StoreError> {
        let values = names.iter().map(|name| self.get(name)).collect::<Result<_, _>>()?;
        Ok(Snapshot { revision: self.revision, values })
    }

    /// Reads a part of a prefix.
    pub(super) fn page(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        let from = apply::list_from(prefix, after);
        let ascending = self.table.range::<&str>((from, Bound::Unbounded)).map_err(failed)?;
        let entries = ascending.map(|entry| {
            let (key, value) = entry.map_err(failed)?;
            Ok((key.value().to_owned(), versioned(value.value())))
        });
        apply::page(entries, prefix, limit, self.revision)
    }

    /// Lets a lease's hold on a key go. Almost no key is held: that is known without a search.
    fn let_go(&mut self, key: &str) -> Result<(), StoreError> {
        if !self.leased.is_empty().map_err(failed)? {
            self.leased.remove(key).map_err(failed)?;
        }
        Ok(())
    }

    /// Writes down the revision that the group came to. The last call before the commit.
    pub(super) fn store_revision(&mut self) -> Result<(), StoreError> {
        if self.revision != self.stored {
            self.about.insert("revision", &self.revision.0.to_le_bytes()[..]).map_err(failed)?;
            self.stored = self.revision;
        }
        Ok(())
    }
}

impl KeyValues for Keys<'_> {
    type Error = StoreError;

    fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        Ok(self.table.get(key).map_err(failed)?.map(|found| versioned(found.value())))
    }
    fn put(&mut self, key: &Key, value: &Bytes, revision: Revision, lease: Option<LeaseId>) -> Result<(), StoreError> {
        self.table.insert(key.as_str(), (revision.0, value.as_ref())).map_err(failed)?;
        match lease {
            Some(lease) => drop(self.leased.insert(key.as_str(), lease.0).map_err(failed)?),
            None => self.let_go(key)?,
        }
        Ok(())
    }
    fn delete(&mut self, key: &str) -> Result<bool, StoreError> {
        self.let_go(key)?;
        Ok(self.table.remove(key).map_err(failed)?.is_some())
    }
    fn leased(&self) -> Result<Vec<(Key, LeaseId)>, StoreError> {
        let all = self.leased.iter().map_err(failed)?;
        let pairs = all.map(|entry| entry.map(|(key, lease)| (key.value().to_owned(), LeaseId(lease.value()))));
        pairs.collect::<Result<_, _>>().map_err(failed)
    }
}

fn versioned((modified, value): (i64, &[u8])) -> Versioned {
    Versioned { value: Bytes::copy_from_slice(value), modified: Revision(modified) }
}

fn read_revision(about: &Table<'_, &'static str, &'static [u8]>) -> Result<Revision, StoreError> {
    let bytes = fixed(about, "revision")?.ok_or_else(|| missing("revision"))?;
    Ok(Revision(i64::from_le_bytes(bytes)))
}

fn fixed<const N: usize>(
    about: &Table<'_, &'static str, &'static [u8]>,
    name: &str,
) -> Result<Option<[u8; N]>, StoreError> {
    let Some(found) = about.get(name).map_err(failed)? else { return Ok(None) };
    found.value().try_into().map(Some).map_err(|_| missing(name))
}

fn missing(name: &str) -> StoreError {
    StoreError::not_done(FailureKind::Corrupt, format!("the metadata file has no valid {name}"))
}

/// An error before the commit: the group is rolled back.
fn failed(error: impl Into<redb::Error>) -> StoreError {
    let error = error.into();
    let kind = match &error {
        redb::Error::Io(io) if io.kind() == std::io::ErrorKind::StorageFull => FailureKind::Full,
        redb::Error::Io(io) if io.kind() == std::io::ErrorKind::QuotaExceeded => FailureKind::Full,
        redb::Error::Io(_) | redb::Error::PreviousIo => FailureKind::Unavailable,
        redb::Error::Corrupted(_) => FailureKind::Corrupt,
        _ => FailureKind::Other,
    };
    StoreError::not_done(kind, error.to_string())
}

/// Removes what processes left that were killed while they made the file. One that is still at it is refused when it
/// finds its work gone.
fn remove_unfinished(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == UNFINISHED) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn unusable(path: &Path, detail: &str) -> OpenError {
    OpenError {
        problem: format!("the metadata store {} can't be used: {detail}", path.display()),
        fix: "give the process read and write access to its directory and free space, or name another one with --metadata embedded:DIR".to_owned(),
        source_error: None,
    }
}

fn refused(path: &Path, error: &DatabaseError) -> OpenError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => OpenError {
            problem: format!("another process uses the metadata store {}", path.display()),
            fix: "stop it, or give this one a directory of its own".to_owned(),
            source_error: None,
        },
        DatabaseError::Storage(StorageError::Corrupted(detail)) => OpenError {
            problem: format!("the metadata store {} is damaged: {detail}", path.display()),
            fix: "restore the file from a backup".to_owned(),
            source_error: Some(StoreError::not_done(FailureKind::Corrupt, detail.clone())),
        },
        other => unusable(path, &other.to_string()),
    }
}
