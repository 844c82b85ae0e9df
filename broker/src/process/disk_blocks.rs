//! Where the shards keep blocks of segments on the local disk, if the settings say so.
//!
//! 1. The directory is this process's own as long as it runs: it is locked. Each shard has a file of its own in it.
//! 2. What an earlier life with more shards left is removed, so that the files together stay within the setting.
//! 3. What the tables of the files take is an eighth of the memory for segments at most; a file has fewer blocks rather.

use super::open::{DirectoryLock, Places};
use crate::cold::cache::OVERHEAD_BYTES;
use crate::cold::disk::DiskPlan;
use crate::cold::disk_file::Shape;
use crate::cold::reader::block_bytes;
use crate::net::budget::Pools;
use crate::settings::Settings;
use millrace_storage::ids::ShardIndex;
use millrace_storage::object::OpenError;
use millrace_storage::object::url::StoreUrl;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Blocks of all shards.
pub(super) struct DiskBlocksPlan {
    _lock: DirectoryLock,
    directory: PathBuf,
    shape: Shape,
    store: String,
}

impl DiskBlocksPlan {
    /// Those of one shard.
    pub(super) fn of(&self, shard: ShardIndex) -> DiskPlan {
        DiskPlan { path: self.directory.join(file_name(shard.0)), shape: self.shape, store: self.store.clone() }
    }
}

/// Makes the directory ready. `None`: blocks are kept in memory alone, as is always so where segments are on the local
/// disk anyway, or in memory.
pub(super) fn plan(
    settings: &Settings,
    places: &Places,
    pools: &Pools,
    shards: u16,
) -> Result<Option<DiskBlocksPlan>, OpenError> {
    let Some(directory) = &settings.cold_cache_dir else { return Ok(None) };
    if !matches!(places.store, StoreUrl::Bucket { .. }) && settings.store_model.is_none() {
        tracing::warn!("cold-cache-dir is without effect: segments are not in an object store");
        return Ok(None);
    }
    let lock = DirectoryLock::take(directory, "--cold-cache-dir")?;
    let each = (settings.cold_cache_mib << 20) / u64::from(shards);
    let mut shape = Shape::within(each, block_bytes(pools.cold));
    let affordable = u32::try_from(pools.cold / 8 / OVERHEAD_BYTES).unwrap_or(u32::MAX);
    if shape.slots > affordable {
        let mib = (u64::from(affordable) * shape.block_bytes * u64::from(shards)) >> 20;
        tracing::warn!(mib, "cold-cache-mib is more than memory-mib can keep account of: so much is used");
        shape.slots = affordable;
    }
    if shape.slots == 0 {
        return Err(OpenError::new(
            format!("{} MiB for blocks on disk are none for each of {shards} shards", settings.cold_cache_mib),
            "raise --cold-cache-mib, lower --shards, or leave --cold-cache-dir out",
        ));
    }
    remove_others(directory, shards).map_err(|error| {
        OpenError::new(
            format!("the directory {} can't be used: {error}", directory.display()),
            "give this process write access to it, or choose another with --cold-cache-dir",
        )
    })?;
    Ok(Some(DiskBlocksPlan { _lock: lock, directory: directory.clone(), shape, store: places.store.to_string() }))
}

fn file_name(shard: u16) -> String {
    format!("shard-{shard}.blocks")
}

/// Removes the files of shards that are no more. What else lies there is not ours.
fn remove_others(directory: &Path, shards: u16) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("shard-")?.strip_suffix(".blocks")?.parse().ok());
        if number.is_some_and(|number: u16| number >= shards && name.to_str() == Some(&file_name(number))) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Settings of a process with `store` and the flags `more`.
    fn settings(directory: &Path, store: &str, more: &[&str]) -> Settings {
        let cache = directory.join("cache");
        let flags = ["serve", "--data-dir", directory.to_str().unwrap(), "--object-store", store, "--cold-cache-dir"];
        let flags = [&flags[..], &[cache.to_str().unwrap()], more].concat();
        let matches = crate::settings::add_flags(clap::Command::new("serve")).get_matches_from(flags);
        crate::settings::Effective::load(&matches).unwrap().settings().unwrap()
    }

    fn planned(settings: &Settings, shards: u16) -> Result<Option<DiskBlocksPlan>, OpenError> {
        let pools = Pools::of_process((settings.memory_mib as usize) << 20, shards);
        plan(settings, &Places::of(settings).unwrap(), &pools, shards)
    }

    #[test]
    fn the_files_of_all_shards_stay_within_the_setting_and_those_of_others_go() {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(directory.path(), "s3://bucket", &["--cold-cache-mib", "100"]);
        let blocks = planned(&settings, 3).unwrap().unwrap();
        assert!(blocks.shape.file_bytes() * 3 <= 100 << 20 && blocks.shape.file_bytes() * 3 > 95 << 20);
        for shard in 0..3 {
            fs::write(blocks.of(ShardIndex(shard)).path, b"left").unwrap();
        }
        fs::write(directory.path().join("cache/strange"), b"not ours").unwrap();
        drop(blocks);
        let blocks = planned(&settings, 1).unwrap().unwrap();
        let mut left: Vec<_> =
            fs::read_dir(directory.path().join("cache")).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["lock", "shard-0.blocks", "strange"]);
        let error = planned(&settings, 1).err().expect("it is locked");
        assert!(error.problem.starts_with("another process uses"), "{error}");
        drop(blocks);
    }

    #[test]
    fn what_memory_can_not_keep_account_of_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let more = ["--cold-cache-mib", "1000000", "--memory-mib", "64"];
        let settings = settings(directory.path(), "s3://bucket", &more);
        let blocks = planned(&settings, 1).unwrap().unwrap();
        let pools = Pools::of_process(64 << 20, 1);
        assert!(crate::cold::disk::entries_bytes(blocks.shape.slots) <= pools.cold / 8);
    }

    #[test]
    fn it_is_off_where_segments_are_on_the_local_disk_and_refuses_to_be_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let local = format!("file://{}", directory.path().join("log").display());
        assert!(planned(&settings(directory.path(), &local, &[]), 1).unwrap().is_none());
        assert!(planned(&settings(directory.path(), "memory:", &[]), 1).unwrap().is_none());
        let small = settings(directory.path(), "az://container", &["--cold-cache-mib", "64", "--memory-mib", "102400"]);
        let error = planned(&small, 64).err().expect("blocks of a MiB");
        assert!(error.fix.contains("--cold-cache-mib"), "{error}");
    }
}
